"""The OSM files we write, by extension, and their names where there are several.

Must not import osmium: the command line asks here before anything of weight is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import os

SUFFIXES: Final = (".osm.pbf", ".osc.gz", ".osm", ".osc")
"""JOSM's file is `.osm`; `.osm.pbf` is for other programs; `.osc` are changes, for an upload."""


def osm_suffix(path: str | os.PathLike[str]) -> str | None:
    """Return which of `SUFFIXES` a file name ends in; None where it is no OSM file of ours.

    Example:
        >>> osm_suffix("town.OSC.gz"), osm_suffix("town.geojson")
        ('.osc.gz', None)
    """
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def numbered(path: Path, number: int) -> Path:
    """Return the name of one of several files.

    Example:
        >>> numbered(Path("out/town.osc.gz"), 7).as_posix()
        'out/town-007.osc.gz'
    """
    suffix = osm_suffix(path) or ""
    stem = path.name[: len(path.name) - len(suffix)]
    return path.with_name(f"{stem}-{number:03d}{path.name[len(stem) :]}")
