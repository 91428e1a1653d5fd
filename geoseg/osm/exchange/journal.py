"""A journal on disk: JSON lines that are only ever added, each safe before the next thing happens.

One process at a time holds it. A last line that was cut by a crash is dropped, as what it would
have said was not acted upon yet. Knows nothing of OSM. Must not import osmium.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import IO, TYPE_CHECKING, Any, Final, Self

from geoseg.errors import BusyError, FormatError, InputNotFoundError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

Record = dict[str, Any]

_START: Final = b'{"event":'
"""How each line begins: a file without a whole line is ours only if it does."""


class Journal:
    """Records of a run, those of earlier runs first; a context manager that holds the file.

    A file that is new and still empty at the end is removed.

    Args:
        path: The file; made unless it is there.

    Raises:
        BusyError: Another process holds it.
        FormatError: It is damaged beyond a cut last line.
        OutputError: It cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.jsonl")
        ...     with Journal(path) as journal:
        ...         journal.append({"event": "begun"})
        ...     read_journal(path)
        [{'event': 'begun'}]
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: list[Record] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            with _errors(self._path):
                if self._path.exists() and not self._path.is_file():
                    raise OutputError(f"{self._path}: must be a regular file")
                self._file: IO[bytes] = stack.enter_context(self._path.open("ab+"))
                _lock(self._file, self._path)
                self._file.seek(0)
                content = self._file.read()
            self.records, whole = _parse(content, self._path)
            with _errors(self._path):
                self._file.truncate(whole)
                os.fsync(self._file.fileno())
                _sync_folder(self._path)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if not self.records:
                self._path.unlink(missing_ok=True)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record and return when the disk has it.

        Raises:
            OutputError: The disk is full or gone; the file is as it was.
        """
        assert next(iter(record)) == "event", "lines are told by how they begin"
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        with _errors(self._path):
            size = os.fstat(self._file.fileno()).st_size
            try:
                self._file.write(line)
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), size)
                raise
        self.records.append(dict(record))


def read_journal(path: Path) -> list[Record]:
    """Return the records of a journal without holding or changing it.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is damaged beyond a cut last line.
    """
    if not path.is_file():
        raise InputNotFoundError(f"no file {path}: check the path")
    try:
        return _parse(path.read_bytes(), path)[0]
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(content: bytes, path: Path) -> tuple[list[Record], int]:
    """Return the records and how many bytes hold whole lines."""
    whole = content.rfind(b"\n") + 1
    records: list[Record] = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("event"), str):
            raise FormatError(
                f"{path}: line {number} is not a record of a journal; "
                "it must not be changed, nor another file be given"
            )
        records.append(record)
    if not records and not (content.startswith(_START) or _START.startswith(content)):
        raise FormatError(f"{path}: is not a journal; give another file")
    return records, whole


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_same = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):  # held, or removed by the one who held it
        is_same = False
    if not is_same:
        raise BusyError(f"{path}: in use by another process; wait for it, or end it")


def _sync_folder(path: Path) -> None:
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OutputError, BusyError):
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); check the folder and the free space"
        ) from error
