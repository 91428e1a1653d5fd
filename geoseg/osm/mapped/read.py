"""What is mapped near footprints, from whatever file holds it.

Frame: WGS84 degrees. The file's name says which reader: osmium's for OSM data, our own for
Overpass JSON, GDAL's for everything else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from geoseg.errors import FormatError, InputNotFoundError
from geoseg.osm.mapped.assemble import areas_only
from geoseg.osm.mapped.extract import read_extract
from geoseg.osm.mapped.layers import KINDS, Kind, Mapped, kind_of
from geoseg.osm.mapped.overpass import read_overpass
from geoseg.vector import read_vector

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from geoseg.osm.mapped.near import Near

BUILDINGS: Final[tuple[Kind, ...]] = ("building",)
_OSM: Final = (".osm", ".pbf", ".o5m", ".opl")
_CHANGES: Final = (".osc", ".osh", ".o5c")
_PACKED: Final = (".gz", ".bz2")
_ID_COLUMNS: Final = ("@id", "osm_id", "osm_way_id", "id", "fid")
_LONLAT: Final = "OGC:CRS84"


def read_mapped(
    path: str | os.PathLike[str],
    near: Near,
    *,
    kinds: Collection[Kind] = BUILDINGS,
    scratch: Path | None = None,
) -> Mapped:
    """Read what is mapped near footprints.

    Args:
        path: .osm, .osm.gz, .osm.bz2 or .osm.pbf; Overpass JSON (.json); or any vector file, whose
            polygons are buildings unless its columns `building`, `natural` and so on say otherwise.
        near: Where the footprints are.
        kinds: What is read: `building`, `road`, `rail`, `water`.
        scratch: Folder for the places of a large file's nodes; by default the system's.

    Returns:
        What is near, maybe nothing; shapes in WGS84 longitude and latitude.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is torn, or holds changes or history.
        VectorError: A vector file is unreadable or empty.
    """
    source = Path(path)
    suffixes = [suffix.lower() for suffix in source.suffixes]
    extension = ([suffix for suffix in suffixes if suffix not in _PACKED] or [""])[-1]
    remote = "://" in str(path) or str(path).startswith("/vsi")
    if remote and extension in {*_OSM, ".json"}:
        raise InputNotFoundError(f"{path} must lie on this machine: download it first")
    if not remote and source.is_dir():
        raise InputNotFoundError(f"{source} is a folder: give a file in it")
    if not remote and not source.is_file():
        raise InputNotFoundError(f"{source} does not exist: check the path")
    if {*suffixes[-3:]} & {*_CHANGES}:
        raise FormatError(
            f"{source} holds changes or history: give the data itself, such as region.osm.pbf"
        )
    if extension in _OSM:
        return read_extract(source, near, kinds=kinds, scratch=scratch)
    if extension == ".json" and b'"FeatureCollection"' not in source.read_bytes()[:2000]:
        return read_overpass(source, near, kinds=kinds)
    return frame_to_mapped(read_vector(path), near, kinds=kinds)


def frame_to_mapped(
    frame: GeoDataFrame, near: Near, *, kinds: Collection[Kind] = BUILDINGS
) -> Mapped:
    """Return the rows of a frame that are near.

    Args:
        frame: Any CRS. Columns named as OSM's keys are tags; a frame without the column `building`
            holds buildings.
        near: What is read for.
        kinds: What is taken.

    Returns:
        Shapes in WGS84; ids are those of a column such as `@id` or `osm_id`, else `row/1`, `row/2`.
    """
    codes = _codes(frame, kinds)
    shapes = np.asarray(frame.geometry.to_crs(_LONLAT).to_numpy(), object)
    flat = (codes != KINDS.index("building")) & (shapely.get_dimensions(shapes) == 1)
    shapes[~flat] = areas_only(shapes[~flat])
    kept = (codes >= 0) & ~shapely.is_missing(shapes) & near.touches(shapely.bounds(shapes))
    return Mapped.of_columns(_ids(frame)[kept].tolist(), codes[kept], shapes[kept])


def _codes(frame: GeoDataFrame, kinds: Collection[Kind]) -> NDArray[np.int8]:
    """Return each row's position in `KINDS`, -1 where it is of no kind wanted."""
    if "building" not in frame.columns and "building" in kinds:
        return np.full(len(frame), KINDS.index("building"), np.int8)
    rows = frame.drop(columns=frame.geometry.name).to_dict("records")
    found = [kind_of(_tags(row).get, kinds) for row in rows]
    return np.array([-1 if kind is None else KINDS.index(kind) for kind in found], np.int8)


def _tags(row: dict[Any, Any]) -> dict[str, str]:
    return {key: value for key, value in row.items() if isinstance(value, str) and value}


def _ids(frame: GeoDataFrame) -> NDArray[Any]:
    for name in _ID_COLUMNS:
        if name in frame.columns and frame[name].notna().all():
            return np.asarray(frame[name].astype(str).to_numpy(), object)
    return np.array([f"row/{i}" for i in range(1, len(frame) + 1)], object)
