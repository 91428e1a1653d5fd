"""Footprints and the outlines they are held against, as shapes in one metric frame.

The frame is the prediction's own CRS where a unit of it is a metre on the ground, else one around
its middle. What is no area counts on neither side.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import shapely
from affine import Affine

from geoseg.errors import SceneError, VectorError
from geoseg.frames import ground_frame
from geoseg.grid import Grid

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray
    from pyproj import CRS

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Shapes = NDArray[np.object_]

log = logging.getLogger(__name__)

METRE_TOLERANCE: Final = 0.003
"""Share of a metre that a unit of a metric CRS may be off: UTM is, 500 km from a zone's middle."""
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
    crs = metric_crs(pred, truth)
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


def metric_crs(*frames: gpd.GeoDataFrame) -> CRS:
    """Return a CRS whose unit is a metre on the ground, whatever the direction.

    That of the first frame with a place on the ground, or one around the middle of it where its own
    has other units (degrees, feet) or another scale there, as Web Mercator has.

    Args:
        frames: With a CRS each; at least one.

    Raises:
        VectorError: What the frame holds lies nowhere on the Earth.

    Example:
        >>> import geopandas as gpd
        >>> shape = shapely.box(500_000, 6_000_000, 500_010, 6_000_010)
        >>> house = gpd.GeoDataFrame(geometry=[shape], crs="EPSG:32633")
        >>> metric_crs(house) == house.crs, metric_crs(house.to_crs(3857)).name
        (True, 'unknown')
    """
    crs: CRS = frames[0].crs
    for frame in frames:
        bounds = frame.bounds.to_numpy()
        bounds = bounds[np.isfinite(bounds).all(axis=1)]
        if len(bounds):
            crs = frame.crs
            middle_xy = np.median(bounds[:, :2] + bounds[:, 2:], axis=0) / 2  # strays do not count
            return crs if crs.is_projected and _is_metric(crs, *middle_xy) else _around(frame)
    return crs  # nothing to measure


def _is_metric(crs: CRS, x: float, y: float) -> bool:
    """Say whether a unit is a metre at a place, along the axes and between them."""
    turned = (Affine.translation(x, y) @ Affine.rotation(turn_deg) for turn_deg in (0, 45))
    grids = [Grid(crs=crs, transform=t, height=1, width=1) for t in turned]
    try:
        units_m = np.array([grid.pixel_size_m for grid in grids])
    except SceneError:  # no place on the Earth, as the middle of data around a pole may be
        return False
    return bool(np.abs(units_m - 1).max() < METRE_TOLERANCE)


def _around(frame: gpd.GeoDataFrame) -> CRS:
    lonlat = frame.geometry.to_crs("EPSG:4326").to_numpy()
    placed = lonlat[np.isfinite(shapely.bounds(lonlat)).all(axis=1)]
    if not len(placed):
        raise VectorError(f"outlines in {frame.crs.name!r} lie nowhere on the Earth: check the CRS")
    return ground_frame(placed)


def _valid_shapes(frame: gpd.GeoDataFrame, crs: CRS) -> Shapes:
    """Return valid shapes; what has no place in the CRS is None."""
    shapes = frame.geometry.to_crs(crs).to_numpy().copy()
    shapes[~np.isfinite(shapely.bounds(shapes)).all(axis=1) & ~shapely.is_empty(shapes)] = None
    return _mended(shapes)


def _mended(shapes: Shapes) -> Shapes:
    return np.asarray(shapely.make_valid(shapes, method="structure", keep_collapsed=False), object)


def scores_of(frame: gpd.GeoDataFrame) -> Floats | None:
    """Return the scores (N,), NaN of rows that have none; None where there is no such column.

    Raises:
        VectorError: A score is no number.
    """
    if "score" not in frame.columns:
        return None
    given = frame["score"]
    scores = pd.to_numeric(given, errors="coerce")
    wrong = given[scores.isna() & given.notna()]
    if len(wrong):
        raise VectorError(f"score must be a number, got {str(wrong.iloc[0])[:40]!r}")
    return np.asarray(scores.to_numpy(np.float64, na_value=np.nan))


def _check_crs(pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> None:
    for name, frame in (("footprints", pred), ("truth", truth)):
        if frame.crs is None:
            raise VectorError(f"the {name} must have a CRS, got none: set it with .set_crs(...)")


def sides(
    pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame, *, within: shapely.Geometry | None
) -> tuple[Side, Side]:
    """Return what counts of both sides; `within` is an area in the CRS of `pred`.

    Raises:
        VectorError: A side has no CRS, or a score of the footprints is no number.
    """
    _check_crs(pred, truth)
    crs = metric_crs(pred, truth)
    ours, theirs = (_side(frame, crs, within, within_crs=pred.crs) for frame in (pred, truth))
    scores = scores_of(pred)
    return replace(ours, scores=None if scores is None else scores[ours.rows]), theirs


def _side(
    frame: gpd.GeoDataFrame, crs: CRS, within: shapely.Geometry | None, *, within_crs: CRS
) -> Side:
    shapes = _valid_shapes(frame, crs)
    counts = are_areas(shapes)
    if within is not None:  # in its own CRS: long edges bend on the way to another
        counts &= are_areas(frame.geometry.to_crs(within_crs).to_numpy(), within=within)
    return Side(rows=np.flatnonzero(counts), shapes=shapes[counts], scores=None)
