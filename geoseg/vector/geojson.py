"""GeoJSON as RFC 7946 has it: WGS 84, 7 decimals, counterclockwise exteriors, split at 180 degrees.

We write the text ourselves: every write error surfaces as an OSError, and geometries stay valid
after rounding. GDAL's writer leaves empty parts in polygons that cross longitude 360.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from geoseg.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.vector.spool import Spool

WGS84: Final = "OGC:CRS84"
DECIMALS: Final = 7  # about 1 cm on the ground; RFC 7946, section 11.2, asks for no more than 6
POLE_DEGREES: Final = 90.0 + 1e-9


def write_geojson(
    spool: Spool, path: Path, *, layer: str, metadata: dict[str, str] | None = None
) -> None:
    """Write one FeatureCollection; `metadata` becomes its foreign member `geoseg`.

    Raises:
        OSError: The disk is full or the file cannot be written.
        OutputError: The footprints do not lie on the Earth in their CRS.
    """
    head: dict[str, Any] = {"type": "FeatureCollection", "name": layer}
    if metadata:
        head["geoseg"] = metadata
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(_dump(head)[:-1] + ', "features": [')
        separator = "\n"
        for feature in _features(spool):
            file.write(separator + feature)
            separator = ",\n"
        file.write("\n]}\n")


def write_geojsonl(
    spool: Spool, path: Path, *, layer: str, metadata: dict[str, str] | None = None
) -> None:
    """Write one feature per line; such a file has no place for a layer name or metadata.

    Without features its one line is an empty FeatureCollection: readers refuse a file of no bytes.

    Raises:
        OSError: The disk is full or the file cannot be written.
        OutputError: The footprints do not lie on the Earth in their CRS.
    """
    del layer, metadata
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for feature in _features(spool):
            file.write(feature + "\n")
        if not spool.count:
            file.write(_dump({"type": "FeatureCollection", "features": []}) + "\n")


def to_lonlat(geometries: NDArray[Any], crs: CRS) -> NDArray[Any]:
    """Bring polygons to WGS 84 longitude and latitude in [-180, 180], cut at the antimeridian.

    Args:
        geometries: (N,) polygons in `crs`, each narrower than half the Earth.
        crs: Their CRS; longitudes beyond 180 are understood.

    Returns:
        (N,) polygons or multipolygons, not rounded.

    Raises:
        OutputError: A coordinate has no longitude and latitude.

    Example:
        >>> to_lonlat(np.array([shapely.box(190, 0, 191, 1)]), CRS("EPSG:4326"))[0].bounds
        (-170.0, 0.0, -169.0, 1.0)
    """
    lonlat = _project(geometries, crs)
    west, _, east, _ = shapely.bounds(lonlat).T
    straddles = east - west > 180
    lonlat[straddles] = shapely.transform(
        lonlat[straddles],
        lambda xy: np.c_[np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]],
    )
    west, _, east, _ = shapely.bounds(lonlat).T
    turns = np.floor((west + 180) / 360)
    for i in np.flatnonzero(turns != 0):
        lonlat[i] = _shift(lonlat[i], -360 * turns[i])
    for i in np.flatnonzero(east - 360 * turns > 180):
        lonlat[i] = _cut(lonlat[i])
    return lonlat


def rounded(geometries: NDArray[Any]) -> NDArray[Any]:
    """Round to `DECIMALS`, stay valid and counterclockwise; None where nothing is left."""
    result = shapely.transform(geometries, _round)
    broken = np.flatnonzero(~shapely.is_valid(result))
    if len(broken):
        snapped = shapely.set_precision(shapely.make_valid(geometries[broken]), 10.0**-DECIMALS)
        result[broken] = [_polygons(g) for g in shapely.transform(snapped, _round)]
    return np.asarray(shapely.orient_polygons(result), object)


def _features(spool: Spool) -> Iterator[str]:
    for batch in spool.batches():
        geometries = shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
        texts = shapely.to_geojson(rounded(to_lonlat(geometries, spool.crs)))
        for row, text in zip(batch.drop_columns("geometry").to_pylist(), texts, strict=True):
            named = {} if row["id"] is None else {"id": row["id"]}
            head = _dump({"type": "Feature", **named, "properties": row})
            yield f'{head[:-1]}, "geometry": {text or "null"}}}'


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _project(geometries: NDArray[Any], crs: CRS) -> NDArray[Any]:
    if crs.equals(CRS(WGS84), ignore_axis_order=True):
        return _on_earth(geometries.copy(), crs)
    try:
        transformer = Transformer.from_crs(crs, WGS84, always_xy=True)
        lonlat = shapely.transform(
            geometries, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
        )
    except ProjError as err:
        raise OutputError(f"no way from {crs.name!r} to longitude and latitude: {err}") from err
    return _on_earth(np.asarray(lonlat, object), crs)


def _on_earth(lonlat: NDArray[Any], crs: CRS) -> NDArray[Any]:
    """Return the geometries; metres that are said to be degrees lie beyond the poles."""
    bounds = shapely.bounds(lonlat[~shapely.is_empty(lonlat) & ~shapely.is_missing(lonlat)])
    if not np.isfinite(bounds).all() or (abs(bounds[:, 1::2]) > POLE_DEGREES).any():
        raise OutputError(f"footprints do not lie on the Earth in {crs.name!r}: check the CRS")
    return lonlat


def _shift(geometry: Any, degrees: float) -> Any:
    return shapely.transform(geometry, lambda xy: xy + np.array([degrees, 0.0]))


def _cut(geometry: Any) -> Any:
    geometry = shapely.make_valid(geometry)
    near = shapely.intersection(geometry, shapely.box(-180, -90, 180, 90))
    far = shapely.intersection(geometry, shapely.box(180, -90, 540, 90))
    return _polygons(shapely.GeometryCollection([near, _shift(far, -360)]))


def _polygons(geometry: Any) -> Any:
    parts = shapely.get_parts(shapely.get_parts(shapely.get_parts(geometry)))
    parts = [p for p in parts if p.geom_type == "Polygon" and not p.is_empty]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _round(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    # Python's round gives the double nearest to the decimal, numpy's only one beside it.
    values = [round(value, DECIMALS) for value in xy.ravel().tolist()]
    return np.array(values).reshape(xy.shape) + 0.0  # no minus zero
