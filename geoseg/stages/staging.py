"""Checks of output paths before any work, and files that appear together or not at all."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from geoseg.errors import OutputError
from geoseg.raster.atomic import refuse_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType


class Staging:
    """Hands out hidden names; at a clean exit what lies there takes its place.

    A context manager. On failure the folders are as they were.
    """

    def __init__(self) -> None:
        self._folders = ExitStack()
        self._moves: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._folders:
            if kind is None:
                for new, target in self._moves:
                    with output_errors(target):
                        new.replace(target)

    def place(self, path: Path) -> Path:
        """Return where to write the file that will be `path`: on the same disk, hidden.

        Raises:
            OutputError: The folder cannot be written to.
        """
        target = path.resolve()
        with output_errors(path):
            work = tempfile.TemporaryDirectory(prefix=".geoseg-", dir=target.parent)
        new = Path(self._folders.enter_context(work), target.name)
        self._moves.append((new, target))
        return new

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Let errors of output name the files that the user knows instead of the hidden ones."""
        try:
            yield
        except OutputError as error:
            text = str(error)
            for new, target in self._moves:
                text = text.replace(str(new), str(target))
            raise OutputError(text) from error


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about a failed write into one line of ours.

    Raises:
        OutputError: Writing failed.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:160]
        raise OutputError(
            f"{path}: cannot be written ({reason}); check the folder and the free space"
        ) from error


def check_new_file(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise OutputError, before any work, if a file cannot be written at `path`.

    A file is made in the folder and removed, as permission bits do not tell of read-only disks.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: must end in {' or '.join(suffixes)}, got {path.suffix!r}")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: must be a regular file to be replaced; choose another name")
    check_parent(path)


def check_parent(path: Path) -> None:
    """Raise OutputError if nothing can be made in the folder that `path` will lie in."""
    parent = path.resolve().parent
    if not parent.is_dir():
        raise OutputError(f"{path}: the folder {parent} does not exist; make it first")
    with output_errors(path), tempfile.TemporaryFile(dir=parent):
        pass


def check_apart(outputs: Iterable[Path], inputs: Iterable[str | Path | None]) -> None:
    """Refuse to write over what is read.

    Raises:
        ConfigError: An output is one of the inputs, by whatever name.
    """
    refuse_inputs(outputs, [Path(path) for path in inputs if path is not None])
