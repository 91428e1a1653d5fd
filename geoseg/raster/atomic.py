"""Files that appear whole or not at all: written under a temporary name, then renamed.

Knows nothing of pixels.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rasterio._err import CPLE_BaseError  # what rasterio lets through of GDAL's own
from rasterio.errors import RasterioError

from geoseg.errors import ConfigError, OutputError
from geoseg.raster.gdal import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def check_output(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    """Return an output path, or say why nothing can be written there.

    Args:
        path: The file to write.
        suffixes: The extensions allowed, lower case, with their dot.

    Raises:
        OutputError: Unknown extension, a folder of that name, no folder to write to, or one that
            cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: the extension must be one of {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} must exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} is not writable; choose another")
    return path


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read; thousands of files take no time.

    Raises:
        ConfigError: An output is one of the inputs, by whatever name.
    """
    present = {key: path for path in outputs if (key := _file_key(path)) is not None}
    if present:  # where nothing is replaced, no input is looked for
        for path in inputs:
            key = _file_key(path)
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


def temporary_name(path: Path, tag: str) -> Path:
    """Return a hidden name beside `path`, with its extension, that no other process uses."""
    return path.with_name(f".{path.stem}.{tag}-{os.getpid()}{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a temporary name beside `path`; move it there at the end, or remove it on failure.

    Raises:
        OutputError: Writing failed: disk full, folder gone.
    """
    temporary = temporary_name(path, "new")
    try:
        with output_errors(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what GDAL and the system say about a failed write into one line of ours.

    Raises:
        OutputError: Writing failed.
    """
    try:
        yield
    except OutputError:
        raise
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise OutputError(
            f"{path}: cannot be written ({reason(error)}); check the folder and the free space"
        ) from error
