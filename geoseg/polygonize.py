"""Soft masks to polygons: sub-pixel contours at probability 0.5, in metres, simplified.

Frame: masks lie in pixels of the scene's grid; contours run through the points where the
probability, taken as known at pixel centres, crosses 0.5, so a painted edge comes back where it was
painted. Lengths and areas users give are metres. No rasterio: `rasterio.features.shapes` is the
tests' oracle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import shapely
from contourpy import FillType, contour_generator

from geoseg.errors import ConfigError
from geoseg.grid import apply_transform

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from geoseg.grid import Grid

Geometries = np.ndarray
"""1-d object array of shapely geometries."""

LEVEL = 127.5
"""Probability 0.5 of a uint8 soft mask."""

CORNER_RUN_PX = 1.5
"""A clipped pixel corner is restored where straight runs of this length meet at it."""

ROUNDING_SHARE = 1e-6
"""Parts of an outline below this share of its area are rounding, not ground."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonizeOptions:
    """What outlines must look like, in metres on the ground."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    tolerance_m: float = 0.1
    """Outlines are simplified within this distance (Douglas-Peucker; at the point where a ring
    starts it can be up to half more); 0 keeps every vertex."""
    min_area_m2: float = 5.0
    """Smaller parts are dropped; an instance without a part of this size is no footprint."""
    min_area_px: float = 0.0
    """The same in pixels of the scene's grid; above 0, it takes the place of `min_area_m2`."""
    min_hole_m2: float = 1.0
    """Smaller holes are filled."""

    def __post_init__(self) -> None:
        for name in ("tolerance_m", "min_area_m2", "min_area_px", "min_hole_m2"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be 0 or more, got {value}")

    def least_area_m2(self, gsd_m: float) -> float:
        """Return the least area in square metres where a pixel is `gsd_m` wide."""
        return self.min_area_px * gsd_m**2 if self.min_area_px > 0 else self.min_area_m2


def contour(
    masks: Sequence[NDArray[np.uint8]],
    origins_xy: Iterable[tuple[int, int]],
    *,
    shape_hw: tuple[int, int] | None = None,
) -> Geometries:
    """Trace soft masks at probability 0.5.

    Args:
        masks: (h, w) soft masks.
        origins_xy: (col, row) of each mask's top-left pixel in the scene.
        shape_hw: Shape of the scene, px: where a mask ends at its border, the scene cuts the
            building, and the outline runs along the border whatever the probability there.

    Returns:
        (N,) valid MultiPolygons in scene pixels (x = col, y = row, pixel edges), with holes;
        empty where no pixel reaches 0.5.
    """
    points, rings, polygons, counts = [], [], [], []
    for mask, (x, y) in zip(masks, origins_xy, strict=True):
        sides = _border_sides(mask, x, y, shape_hw) if shape_hw else ()
        traced, mask_rings, mask_polygons = _trace(mask, sides)
        points.append(traced + np.array((x - 0.5, y - 0.5)))
        rings.append(np.diff(mask_rings))
        polygons.append(np.diff(mask_polygons))
        counts.append(len(mask_polygons) - 1)
    if not points:
        return np.zeros(0, object)
    xy, ring_ends = _restore_corners(np.concatenate(points), _ends(np.concatenate(rings)))
    offsets = (ring_ends, _ends(np.concatenate(polygons)), _ends(np.array(counts)))
    shapes = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, xy, offsets)
    return _polygonal(shapes)


def to_ground(
    shapes: Geometries, grid: Grid, *, options: PolygonizeOptions
) -> tuple[Geometries, NDArray[np.float64]]:
    """Bring outlines from scene pixels to the scene's CRS, simplified and sized in metres.

    Args:
        shapes: (N,) polygonal geometries in pixels of `grid`.
        grid: The scene's working grid.
        options: Tolerance and least area.

    Returns:
        (N,) valid geometries in the grid's CRS (Polygon, or MultiPolygon of several parts),
        exteriors counter-clockwise, empty where nothing of the least area is left; and their
        (N,) areas on the ground in square metres.
    """
    scale_x, scale_y = grid.pixel_size_m
    metric = shapely.transform(shapes, lambda xy: xy * (scale_x, scale_y))
    if options.tolerance_m > 0:
        metric = _simplified(metric, options.tolerance_m)
    parts, owner = shapely.get_parts(metric, return_index=True)
    parts = _filled(parts, options.min_hole_m2)
    centres = shapely.get_coordinates(shapely.centroid(parts)) / (scale_x, scale_y)
    areas_px = shapely.area(parts) / (scale_x * scale_y)
    areas = areas_px * grid.pixel_area_m2(centres[:, 1], centres[:, 0])
    least_m2 = 0.0 if options.min_area_px > 0 else options.min_area_m2
    keep = (areas >= max(least_m2, np.finfo(float).tiny)) & (areas_px >= options.min_area_px)
    parts, owner, areas = parts[keep], owner[keep], areas[keep]
    placed = shapely.transform(
        parts, lambda xy: apply_transform(grid.transform, xy / (scale_x, scale_y))
    )
    ground = mend_rounding(_collect(shapely.orient_polygons(placed), owner, len(shapes)))
    totals = np.zeros(len(shapes))
    np.add.at(totals, owner, areas)
    return ground, totals


def _filled(parts: Geometries, min_hole_m2: float) -> Geometries:
    """Fill the holes below an area."""
    holed = np.flatnonzero(shapely.get_num_interior_rings(parts) > 0)
    if min_hole_m2 == 0 or not len(holed):
        return parts
    filled = parts.copy()
    for i in holed.tolist():
        holes = [ring for ring in parts[i].interiors if shapely.Polygon(ring).area >= min_hole_m2]
        filled[i] = shapely.Polygon(parts[i].exterior, holes)
    return filled


def _simplified(shapes: Geometries, tolerance: float) -> Geometries:
    """Simplify; with regard to topology, twenty times slower, only where it would be hurt."""
    quick = shapely.simplify(shapes, tolerance, preserve_topology=False)
    hurt = ~shapely.is_valid(quick) | (_ring_counts(quick) != _ring_counts(shapes))
    quick[hurt] = shapely.simplify(shapes[hurt], tolerance)
    return _polygonal(quick)


def _ring_counts(shapes: Geometries) -> NDArray[np.int64]:
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings = 1 + shapely.get_num_interior_rings(parts)
    return np.bincount(owner, weights=rings, minlength=len(shapes)).astype(np.int64)


def _trace(
    mask: NDArray[np.uint8], sides: Sequence[tuple[int, int]] = ()
) -> tuple[NDArray[np.float64], NDArray[np.uint32], NDArray[np.uint32]]:
    """Return points (of the mask padded by one pixel), ring ends and polygon ends."""
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2))
    padded[1:-1, 1:-1] = mask
    for axis, at in sides:
        np.moveaxis(padded, axis, 0)[at] = np.moveaxis(padded, axis, 0)[at + 1 if at == 0 else -2]
    lines = contour_generator(z=padded, fill_type=FillType.ChunkCombinedOffsetOffset)
    # contourpy types the union of all its fill types; one chunk, so each list has one item.
    traced: Any = lines.filled(LEVEL, np.inf)
    points, rings, polygons = (chunks[0] for chunks in traced)
    if points is None:
        return np.zeros((0, 2)), np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    for axis, at in sides:  # contours cross a copied line at right angles: clamping is clipping
        along = points[:, 1 - axis]
        border = 0.5 if at == 0 else mask.shape[axis] + 0.5
        (np.maximum if at == 0 else np.minimum)(along, border, out=along)
    return points, rings, polygons


def _border_sides(
    mask: NDArray[np.uint8], x: int, y: int, shape_hw: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the (axis, 0 or -1) sides on which a mask ends at the scene's border."""
    height, width = shape_hw
    ends = [
        (0, 0, y == 0),
        (0, -1, y + mask.shape[0] == height),
        (1, 0, x == 0),
        (1, -1, x + mask.shape[1] == width),
    ]
    return [(axis, at) for axis, at, is_border in ends if is_border]


def _ends(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _restore_corners(
    xy: NDArray[np.float64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Put back the right angles of painted masks, which contours clip by half a pixel.

    A hard mask's corner shows as an exact (0.5, 0.5) px diagonal between two straight axis-parallel
    runs. Network masks have none of these and pass unchanged but for collinear points.
    """
    xy, ends = _drop_collinear(xy, ends)
    xy = _start_at_corners(xy, ends)
    following, preceding = _ring_neighbours(ends)
    step = xy[following] - xy
    length = np.abs(step).max(axis=1)
    flat, upright = step[:, 1] == 0, step[:, 0] == 0
    run = length >= CORNER_RUN_PX
    before, after = preceding, following
    diagonal = (np.abs(step) == 0.5).all(axis=1) & run[before] & run[after]
    turns_down = diagonal & flat[before] & upright[after]
    turns_flat = diagonal & upright[before] & flat[after]
    xy = xy.copy()
    xy[turns_down, 0] = xy[following[turns_down], 0]
    xy[turns_flat, 1] = xy[following[turns_flat], 1]
    drop = np.zeros(len(xy), bool)
    drop[following[turns_down | turns_flat]] = True
    return _close_rings(xy, ends, ~drop)


def _drop_collinear(
    xy: NDArray[np.float64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Open the rings (no repeated last point) and drop points on straight runs."""
    last = np.zeros(len(xy), bool)
    last[ends[1:] - 1] = True
    xy = xy[~last]
    ends = ends - np.arange(len(ends))
    following, preceding = _ring_neighbours(ends)
    a, b = xy - xy[preceding], xy[following] - xy
    keep = a[:, 0] * b[:, 1] != a[:, 1] * b[:, 0]
    return xy[keep], _ends(np.add.reduceat(keep, ends[:-1])) if len(xy) else ends


def _start_at_corners(xy: NDArray[np.float64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Roll each open ring to start at its point farthest from its middle.

    GEOS simplifies away a ring's first point too, and may leave the tolerance there.
    """
    if len(xy) == 0:
        return xy
    starts, lengths = ends[:-1], np.diff(ends)
    ring = np.repeat(np.arange(len(lengths)), lengths)
    middle = np.add.reduceat(xy, starts) / lengths[:, None]
    distance2 = ((xy - middle[ring]) ** 2).sum(axis=1)
    farthest = np.lexsort((distance2, ring))[ends[1:] - 1] - starts
    within = np.arange(len(xy)) - starts[ring]
    rolled = starts[ring] + (within + farthest[ring]) % lengths[ring]
    return np.asarray(xy[rolled], np.float64)


def _ring_neighbours(ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    following = np.arange(1, ends[-1] + 1)
    preceding = np.arange(-1, ends[-1] - 1)
    following[ends[1:] - 1] = ends[:-1]
    preceding[ends[:-1]] = ends[1:] - 1
    return following, preceding


def _close_rings(
    xy: NDArray[np.float64], ends: NDArray[np.int64], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    lengths = np.add.reduceat(keep, ends[:-1]) if len(xy) else np.zeros(0, int)
    kept = _ends(lengths)
    order = np.insert(np.flatnonzero(keep), kept[1:], np.flatnonzero(keep)[kept[:-1]])
    return xy[order], _ends(lengths + 1)


def _polygonal(shapes: Geometries) -> Geometries:
    """Mend invalid shapes and keep their areal parts."""
    bad = ~shapely.is_valid(shapes)
    if bad.any():
        shapes = shapes.copy()
        shapes[bad] = [_areal(shape) for shape in shapely.make_valid(shapes[bad])]
    return shapes


def _areal(shape: shapely.Geometry) -> shapely.Geometry:
    parts = shapely.get_parts(shapely.get_parts(shape))
    return shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


def mend_rounding(ground: Geometries) -> Geometries:
    """Mend, in place, outlines that rounding at a CRS's large coordinates made touch themselves.

    Args:
        ground: (N,) polygonal geometries in a CRS.

    Returns:
        The same array; its geometries are valid, exteriors counter-clockwise where mended.
    """
    for i in np.flatnonzero(~shapely.is_valid(ground)).tolist():
        parts = shapely.get_parts(_areal(shapely.make_valid(ground[i])))
        area = shapely.area(parts)
        parts = shapely.orient_polygons(parts[area > ROUNDING_SHARE * area.sum()])
        ground[i] = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts.tolist())
    return ground


def _collect(parts: Geometries, owner: NDArray[np.int64], count: int) -> Geometries:
    """Return one geometry per owner: its only part, a MultiPolygon of several, or empty."""
    collected = np.full(count, shapely.Polygon(), object)
    several = np.bincount(owner, minlength=count) > 1
    collected[owner] = parts
    if several.any():
        many = several[owner]
        rank = np.cumsum(several) - 1
        collected[several] = shapely.multipolygons(parts[many], indices=rank[owner[many]])
    return collected
