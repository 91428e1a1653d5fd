"""The vector formats we write, by file extension, and the check of an output path before any work.

Imports pyogrio for the list of drivers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyogrio

from geoseg.errors import OutputError
from geoseg.files import check_output

if TYPE_CHECKING:
    import os


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


def check_footprints_output(path: str | os.PathLike[str]) -> None:
    """Raise OutputError, before any work, if footprints cannot be written to `path`."""
    format_of(check_output(Path(path), FORMATS))
