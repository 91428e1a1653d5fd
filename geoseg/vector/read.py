"""Read any vector file: through pyogrio, or geopandas for GeoParquet.

Errors are one line; GDAL's warnings go to the log.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import geopandas
import numpy as np
import pyogrio
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from geoseg.errors import InputNotFoundError, VectorError
from geoseg.grid import METRES_PER_DEGREE
from geoseg.vector.gdal import GDAL_ERRORS, one_line, plain_path, quiet_gdal

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

# An edge that is straight in one CRS bends in another: 2 km bends by less than 0.2 m.
MAX_EDGE_M: Final = 2000.0
MOST_EDGES: Final = 20_000  # along the side of the layer's bounds, however large
_LOG = logging.getLogger(__name__)


def read_vector(path: str | os.PathLike[str], *, crs: CRS | None = None) -> GeoDataFrame:
    """Read the one layer of a vector file.

    Args:
        path: A file or URL that GDAL opens, or `.parquet` (GeoParquet).
        crs: Bring the geometries to this CRS, long edges cut first so that they bend with the
            ground; rows that have no place in it are left out and logged.

    Returns:
        At least one row; rows without a geometry are dropped.

    Raises:
        InputNotFoundError: There is no such file.
        VectorError: It is unreadable, has no geometry, several layers, no rows or no CRS, or
            cannot be brought to `crs`.
    """
    source = os.fspath(path)
    remote = source.startswith("/vsi") or "://" in source
    if not remote and not Path(source).exists():
        raise InputNotFoundError(f"{source} does not exist: check the path")
    try:
        frame = _read(source, remote=remote)
    except VectorError:
        raise
    except GDAL_ERRORS as err:
        raise VectorError(f"{source} cannot be read as a vector file: {one_line(err)}") from err
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)].reset_index(drop=True)
    if frame.empty:
        raise VectorError(f"{source} must hold at least one geometry, it is empty")
    if frame.crs is None:
        raise VectorError(f"{source} has no CRS: assign one, for instance with ogr2ogr -a_srs")
    return frame if crs is None else _reproject(frame, crs, source)


def reprojected(geometries: NDArray[Any], source: CRS, target: CRS) -> NDArray[Any]:
    """Bring (N,) geometries from one CRS to another, long edges cut into short ones first.

    Returns:
        (N,) geometries; coordinates without a place in `target` are infinite.

    Raises:
        VectorError: PROJ knows no way from one CRS to the other.
    """
    if target.equals(source, ignore_axis_order=True):
        return geometries
    try:
        transformer = Transformer.from_crs(source, target, always_xy=True)
    except ProjError as err:
        raise VectorError(f"no way from {source.name!r} to {target.name!r}: {err}") from err
    cut = shapely.segmentize(geometries, _max_edge(geometries, source))
    moved = shapely.transform(
        cut, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
    )
    return np.asarray(moved, object)


def _read(source: str, *, remote: bool) -> GeoDataFrame:
    if source.lower().endswith(".parquet"):
        return geopandas.read_parquet(source)
    if remote:
        return _read_layer(source)
    with plain_path(Path(source)) as plain:
        return _read_layer(plain)


def _read_layer(source: str | Path) -> GeoDataFrame:
    with quiet_gdal():
        layers = [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]
        if len(layers) != 1:
            names = ", ".join(layers[:5]) or "none"
            raise VectorError(
                f"{source} must hold one layer with geometries, got {names}: save the one you mean"
            )
        return pyogrio.read_dataframe(source, layer=layers[0])


def _reproject(frame: GeoDataFrame, crs: CRS, source: str) -> GeoDataFrame:
    moved = reprojected(frame.geometry.to_numpy(), frame.crs, crs)
    inside = np.isfinite(shapely.bounds(moved)).all(axis=1)
    if not inside.any():
        raise VectorError(f"no geometry of {source} has a place in {crs.name!r}: check its CRS")
    if not inside.all():
        _LOG.warning("%s: left out %d rows outside %r", source, (~inside).sum(), crs.name)
    return frame.set_geometry(geopandas.GeoSeries(moved, crs=crs))[inside].reset_index(drop=True)


def _max_edge(geometries: NDArray[Any], crs: CRS) -> float:
    unit_m = METRES_PER_DEGREE
    if not crs.is_geographic:
        unit_m = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    west, south, east, north = shapely.total_bounds(geometries)
    return max(MAX_EDGE_M / unit_m, float(max(east - west, north - south)) / MOST_EDGES)
