"""The vector formats we write, by file extension, and the check of an output path before any work.

Imports pyogrio for the list of drivers only.
"""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyogrio

from geoseg.errors import OutputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One output format: its GDAL driver, or None where we write it ourselves."""

    name: str
    driver: str | None = None
    warning: str | None = None
    """What the format loses; shown once per file."""


FORMATS: Final[dict[str, Format]] = {
    ".geojson": Format(name="GeoJSON"),
    ".geojsonl": Format(name="GeoJSON lines"),
    ".gpkg": Format(name="GeoPackage", driver="GPKG"),
    ".fgb": Format(name="FlatGeobuf", driver="FlatGeobuf"),
    ".parquet": Format(name="GeoParquet"),
    ".shp": Format(
        name="Shapefile",
        driver="ESRI Shapefile",
        warning="a Shapefile cuts names to 10 characters (touches_edge becomes touch_edge), texts "
        "to 254 bytes and files to 2 GB, and is five files: prefer .gpkg or .fgb",
    ),
    ".pmtiles": Format(
        name="PMTiles",
        driver="PMTiles",
        warning="PMTiles are for viewing: outlines are rounded to the tile's grid and cut at its "
        "borders: keep a .gpkg or .parquet for analysis",
    ),
}


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format that a path's extension names, in any case.

    Raises:
        OutputError: The extension is not one we write, or this GDAL lacks its driver.

    Example:
        >>> format_of("town.FGB").name
        'FlatGeobuf'
    """
    extension = Path(path).suffix.lower()
    found = FORMATS.get(extension)
    if found is None:
        known = " ".join(FORMATS)
        raise OutputError(f"{path}: the extension must be one of {known}, got {extension!r}")
    if found.driver and "w" not in pyogrio.list_drivers(write=True).get(found.driver, ""):
        raise OutputError(
            f"{path}: this GDAL cannot write {found.name}: choose another extension, such as .gpkg"
        )
    return found


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise now if a vector file could not be written to `path` later.

    Run it before any long work. A file is made in the folder and removed again, because permission
    bits do not tell about read-only mounts.

    Args:
        path: Where the file would go; an existing file may be replaced.

    Raises:
        OutputError: An unknown extension, no such folder, a folder or special file in the way, or
            no permission to write.
    """
    try:
        _check_output(Path(path))
    except OutputError:
        raise
    except OSError as err:
        reason = os.strerror(err.errno or errno.EIO)
        raise OutputError(f"cannot write {path}: {reason}: choose another folder or name") from err


def _check_output(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    format_of(path)
    target = resolve_output(path)
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist: create it first")
    if target.exists() and not target.is_file():
        raise OutputError(f"{path} must be a regular file to be replaced: choose another name")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path} is read-only: make it writable or choose another name")
    with tempfile.TemporaryFile(dir=target.parent):
        pass


def resolve_output(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path that writing to `path` replaces, links followed."""
    return Path(os.path.realpath(path))
