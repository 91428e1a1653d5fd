"""Footprints and the outlines they are held against, as shapes in one metric frame.

The frame is the prediction's own CRS where it is projected, else its UTM zone. What is no area
counts on neither side.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely

from geoseg.errors import VectorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Shapes = NDArray[np.object_]

log = logging.getLogger(__name__)

_POLYGONAL = (3, 6)  # shapely type ids of Polygon and MultiPolygon


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """The polygons of one side that count, in the metric frame."""

    rows: Ints
    """Their row positions in what the caller gave."""
    shapes: Shapes
    scores: Floats | None


def metric_shapes(pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> tuple[Shapes, Shapes]:
    """Return the polygons of both sides, row by row, valid and in one metric frame.

    Raises:
        VectorError: A side has no CRS.
    """
    _check_crs(pred, truth)
    crs = _metric_crs(pred, truth)
    return _valid_shapes(pred, crs), _valid_shapes(truth, crs)


def are_areas(shapes: Shapes, *, within: shapely.Geometry | None = None) -> NDArray[np.bool_]:
    """Say which shapes count (N,): areas, with the centroid inside `within` where that is given.

    Points and lines, as extracts of OpenStreetMap hold them, and polygons that are nothing once
    they are mended cannot be matched, so they are neither buildings nor footprints.

    Args:
        shapes: (N,), valid or not.
        within: An area in their frame.

    Example:
        >>> are_areas(np.array([shapely.box(0, 0, 9, 9), shapely.Point(5, 5)])).tolist()
        [True, False]
    """
    mended, broken = shapes.copy(), ~shapely.is_valid(shapes)
    mended[broken] = _mended(shapes[broken])
    counts = np.isin(shapely.get_type_id(mended), _POLYGONAL) & ~shapely.is_empty(mended)
    if not counts.all():
        log.info("%d geometries without an area are ignored", int((~counts).sum()))
    if within is not None:
        shapely.prepare(within)
        counts &= shapely.intersects(within, shapely.centroid(mended))
    return np.asarray(counts, np.bool_)


def _valid_shapes(frame: gpd.GeoDataFrame, crs: Any) -> Shapes:
    return _mended(frame.geometry.to_crs(crs).to_numpy())


def _mended(shapes: Shapes) -> Shapes:
    return np.asarray(shapely.make_valid(shapes, method="structure", keep_collapsed=False), object)


def _check_crs(pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> None:
    for name, frame in (("footprints", pred), ("truth", truth)):
        if frame.crs is None:
            raise VectorError(f"the {name} must have a CRS, got none: set it with .set_crs(...)")


def sides(
    pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame, *, within: shapely.Geometry | None
) -> tuple[Side, Side]:
    """Return what counts of both sides; `within` is an area in the CRS of `pred`.

    Raises:
        VectorError: A side has no CRS.
    """
    _check_crs(pred, truth)
    crs = _metric_crs(pred, truth)
    area = None if within is None else gpd.GeoSeries([within], crs=pred.crs).to_crs(crs).iloc[0]
    return _side(pred, crs, area), _side(truth, crs, area)


def _metric_crs(pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> Any:
    if pred.crs.is_projected:
        return pred.crs
    for frame in (pred, truth):
        if len(frame) and np.isfinite(frame.total_bounds).all():
            return frame.estimate_utm_crs()
    return pred.crs  # nothing to measure


def _side(frame: gpd.GeoDataFrame, crs: Any, area: shapely.Geometry | None) -> Side:
    shapes = _valid_shapes(frame, crs)
    counts = are_areas(shapes, within=area)
    scores = frame["score"].to_numpy(np.float64)[counts] if "score" in frame.columns else None
    return Side(rows=np.flatnonzero(counts), shapes=shapes[counts], scores=scores)
