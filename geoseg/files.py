"""Files that appear whole or not at all, and what is checked of their places before any work.

A file is made in a hidden folder beside its place, so on the same disk, and moved at the end. The
folder is locked: the system lets go when its process ends, however it does, and then the next
writer of the same file removes what was left. A disk that knows no locks is written to all the
same, and what killed writers leave stays there. Imports nothing but errors.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from geoseg.errors import ConfigError, GeosegError, OutputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

HIDDEN: Final = ".geoseg-"
"""What the names of hidden folders begin with."""


@contextmanager
def replacing(path: Path, *errors: type[Exception], sync: bool = True) -> Iterator[Path]:
    """Lend a hidden place for a file; at a clean exit the file is moved to `path`.

    Args:
        path: A link is followed, and stays one.
        errors: See `output_errors`: a failure inside is one of writing.
        sync: Whether the file survives a loss of power; too slow for thousands of small ones.

    Raises:
        OutputError: It cannot be written; what was there before still is.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as new:
        ...         _ = new.write_text("whole")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    with output_errors(path, *errors), staged(path, sync=sync) as new:
        yield new


@contextmanager
def staged(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Do as `replacing` where more is done inside than writing: other errors are what they are.

    Several in one `with` appear together or not at all.
    """
    with hidden_folder(path) as folder:
        new = folder / path.name
        yield new
        with output_errors(path):
            move(new, path, sync=sync)


@contextmanager
def hidden_folder(path: Path) -> Iterator[Path]:
    """Lend a folder on the disk of `path`, for parts of what will be there; remove it at the end.

    An OutputError that names what lies in it leaves with the name that this will have.

    Raises:
        OutputError: The folder cannot be made.
    """
    target = _followed(path)
    with output_errors(path):
        folder, lock = _claim(target)
    try:
        yield folder
    except OutputError as error:
        raise OutputError(str(error).replace(str(folder), str(target.parent))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep(folder: Path) -> None:
    """Remove a hidden folder, if there is one that no living process of this host has."""
    with suppress(OSError):
        lock = _lock(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def move(new: Path, path: Path, *, sync: bool = True) -> None:
    """Move a finished file to `path`, or where that links to, when its contents are on the disk."""
    if sync:
        sync_file(new)
    new.replace(_followed(path))


def sync_file(path: Path) -> None:
    """Wait until a file's contents are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def output_errors(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn what the system says about a failed write into one line of ours.

    Args:
        path: What is being written.
        errors: What libraries raise where writing fails, besides OSError.

    Raises:
        OutputError: Writing failed.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except GeosegError:
        raise
    except kinds as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        reason = " ".join(words.split())[:160].rstrip(". ")
        raise OutputError(
            f"{path}: cannot be written ({reason}); check the folder and the free space"
        ) from error


def check_output(path: str | Path, suffixes: Collection[str]) -> Path:
    """Return the path of an output, or say before any work why no file can be written there.

    Args:
        path: The file to write; one that is there will be replaced.
        suffixes: The extensions allowed, lower case, with their dot.

    Raises:
        OutputError: Another extension, no such folder, one that cannot be written to, or what is
            there is no file or read-only.
    """
    path = Path(path)
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; give a file name")
        if path.suffix.lower() not in suffixes:
            known = " ".join(suffixes)
            raise OutputError(f"{path}: the extension must be one of {known}, got {path.suffix!r}")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: must be a regular file to be replaced; choose another name")
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputError(f"{path}: is read-only; make it writable or choose another name")
        check_parent(path)
    return path


def check_parent(path: Path) -> None:
    """Raise OutputError if nothing can be made in the folder that `path` will lie in.

    A file is made there and removed, as permission bits do not tell of read-only disks.
    """
    parent = _followed(path).parent
    if not parent.is_dir():
        raise OutputError(f"{path}: the folder {parent} does not exist; make it first")
    with output_errors(path), tempfile.TemporaryFile(dir=parent):
        pass


def check_apart(outputs: Iterable[Path], inputs: Iterable[str | Path | None]) -> None:
    """Refuse to write over what is read; thousands of files take no time.

    Raises:
        ConfigError: An output is one of the inputs, by whatever name.
    """
    present = {key: path for path in outputs if (key := _file_key(path)) is not None}
    if present:  # where nothing is replaced, no input is looked for
        for path in inputs:
            key = None if path is None else _file_key(Path(path))
            if key in present:
                raise ConfigError(
                    f"{present[key]}: is an input of this run too; write to another name"
                )


def _file_key(path: Path) -> tuple[int, int] | None:
    """Return what one file has under all its names; None where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return found.st_dev, found.st_ino


def _followed(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _claim(target: Path) -> tuple[Path, int | None]:
    """Return a new folder beside `target` and its lock, removing what nobody holds.

    Where the disk knows no locks, nothing is removed and None stands for the lock.
    """
    # With the host's name, as a lock on a shared disk may hold for one host alone.
    tag = zlib.crc32(os.fsencode(f"{platform.node()}/{target.name}"))
    number = 0
    while True:
        folder = target.with_name(f"{HIDDEN}{tag:08x}-{number}")
        number += 1
        sweep(folder)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        try:
            return folder, _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # removed before it was locked
            continue
        except OSError:
            return folder, None


def _lock(folder: Path) -> int:
    """Hold a folder until the descriptor is closed or the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
