"""Outlines of instances made regular: straight walls at right angles, circles, holes and all.

Frame: pixels of the scene in and out, metres on the ground inside. Each outline is taken by
itself, so the answer does not depend on what it comes with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.regularize.choice import best_fits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.regularize.choice import Fits
    from geoseg.regularize.options import RegularizeOptions

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Shapes = NDArray[np.object_]

HAUSDORFF_SHARE = 0.05
"""Of a building's diagonal; more than `hausdorff_m` only in large ones. A mask of 28 cells a side
rounds their corners by as much."""

AT_ONCE = 2048
"""Outlines worked on together: enough for speed, in about 100 MB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regularized:
    """Outlines in the order they came."""

    shapes: NDArray[np.object_]
    """(N,) valid geometries in the frame they came in; raw where not regularized."""
    regularized: NDArray[np.bool_]
    """(N,) whether any part was made regular."""
    iou_raw: NDArray[np.float64]
    """(N,) IoU with the raw outline; 1 where that was kept."""


def regularize(
    shapes: NDArray[np.object_],
    *,
    scale_xy: tuple[float, float],
    options: RegularizeOptions,
    shape_hw: tuple[int, int] | None = None,
) -> Regularized:
    """Make outlines regular.

    Args:
        shapes: (N,) polygonal geometries in pixels, traced densely, as `contour` does.
        scale_xy: Metres on the ground per pixel, along x and y.
        options: What is regular, and how far from the raw outline.
        shape_hw: Shape of the scene, px: nothing reaches beyond its border.

    Returns:
        Outlines, which of them were changed, and how like the raw ones they are.

    Example:
        >>> from geoseg.regularize.options import RegularizeOptions
        >>> house = shapely.Polygon([(1, 0), (39, 0.4), (40, 19), (20, 20.4), (0.3, 19.6), (0, 1)])
        >>> found = regularize(np.array([house]), scale_xy=(0.3, 0.3), options=RegularizeOptions())
        >>> shapely.get_num_coordinates(found.shapes).tolist(), found.regularized.tolist()
        ([5], [True])
    """
    scale = np.array(scale_xy, float)
    some = [
        _regularized(shapes[at : at + AT_ONCE], scale, options, shape_hw)
        for at in range(0, max(len(shapes), 1), AT_ONCE)
    ]
    return Regularized(
        shapes=np.concatenate([part.shapes for part in some]),
        regularized=np.concatenate([part.regularized for part in some]),
        iou_raw=np.concatenate([part.iou_raw for part in some]),
    )


def _regularized(
    shapes: Shapes, scale: Floats, options: RegularizeOptions, shape_hw: tuple[int, int] | None
) -> Regularized:
    parts, row = shapely.get_parts(shapes, return_index=True)
    if not len(parts):
        return _replaced(shapes, np.zeros(len(shapes), bool), parts, np.zeros(0))
    raw = _without_specks(shapely.transform(parts, lambda xy: xy * scale), options)
    fits = best_fits(raw, pixel_m=float(scale.max()), options=options)
    taken = _near(fits, raw, options)
    parts = parts.copy()
    parts[taken] = shapely.transform(fits.shapes[taken], lambda xy: xy / scale)
    changed = _any_of(taken, row, len(shapes))
    made = _gathered(parts, row, changed)
    fine = shapely.is_valid(made)  # parts may have got into each other
    changed[changed], made = fine, made[fine]
    iou = _ious(fits, taken, row, len(shapes))[changed]
    if shape_hw is not None:
        made, cut = _within(made, shape_hw)
        iou[cut] = _exact_ious(made[cut], shapes[changed][cut])
    return _replaced(shapes, changed, made, iou)


def _without_specks(shapes: Shapes, options: RegularizeOptions) -> Shapes:
    """Fill holes that a square of the least wall would cover."""
    several = np.flatnonzero(shapely.get_num_interior_rings(shapes) > 0)
    rings, owner = shapely.get_rings(shapes[several], return_index=True)
    outer = np.r_[True, owner[1:] != owner[:-1]] if len(owner) else np.zeros(0, bool)
    keep = outer | (shapely.area(shapely.polygons(rings)) >= options.least_wall_m**2)
    xy, ring = shapely.get_coordinates(rings[keep], return_index=True)
    ends = np.searchsorted(ring, np.arange(keep.sum() + 1))
    starts = np.append(np.flatnonzero(outer[keep]), keep.sum())
    shapes = shapes.copy()
    if len(several):
        shapes[several] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, xy, (ends, starts)
        )
    return shapes


def _near(fits: Fits, raw: Shapes, options: RegularizeOptions) -> NDArray[np.bool_]:
    """Tell which fits keep within the bounds."""
    near = shapely.is_valid(fits.shapes) & (fits.iou >= options.least_iou)
    some = np.flatnonzero(near)
    box = shapely.bounds(raw[some]).reshape(-1, 4)
    diagonal = np.hypot(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
    most = np.maximum(options.hausdorff_m, HAUSDORFF_SHARE * diagonal)
    near[some] = shapely.hausdorff_distance(fits.shapes[some], raw[some]) <= most
    return np.asarray(near)


def _any_of(taken: NDArray[np.bool_], row: Ints, count: int) -> NDArray[np.bool_]:
    found = np.zeros(count, bool)
    found[row[taken]] = True
    return found


def _gathered(parts: Shapes, row: Ints, changed: NDArray[np.bool_]) -> Shapes:
    """Return multipolygons of the parts of changed rows."""
    of = changed[row]
    rank = np.cumsum(changed) - 1
    return np.asarray(shapely.multipolygons(parts[of], indices=rank[row[of]]))


def _ious(fits: Fits, taken: NDArray[np.bool_], row: Ints, count: int) -> Floats:
    """Return IoU of rows (N,) with their raw outlines, parts that stay included."""
    raw = shapely.area(fits.raw)
    shared = np.where(taken, fits.shared, raw)
    union = np.where(taken, raw + np.nan_to_num(shapely.area(fits.shapes)) - shared, raw)
    total = [np.bincount(row, areas, count) for areas in (shared, union)]
    return np.asarray(np.minimum(total[0] / np.maximum(total[1], np.finfo(float).tiny), 1))


def _exact_ious(one: Shapes, other: Shapes) -> Floats:
    shared = shapely.area(shapely.intersection(one, other))
    return np.asarray(shared / (shapely.area(one) + shapely.area(other) - shared))


def _within(shapes: Shapes, shape_hw: tuple[int, int]) -> tuple[Shapes, NDArray[np.bool_]]:
    """Cut off what reaches beyond the scene's border; tell where there was something."""
    height, width = shape_hw
    box = shapely.bounds(shapes).reshape(-1, 4)
    out = (box[:, :2] < 0).any(axis=1) | (box[:, 2] > width) | (box[:, 3] > height)
    shapes = shapes.copy()
    inside = shapely.intersection(shapes[out], shapely.box(0, 0, width, height))
    parts, owner = shapely.get_parts(inside, return_index=True)
    areal = shapely.get_dimensions(parts) == 2
    shapes[out] = shapely.multipolygons(parts[areal], indices=owner[areal])
    return shapes, out


def _replaced(
    shapes: Shapes, changed: NDArray[np.bool_], made: Shapes, made_iou: Floats
) -> Regularized:
    found, iou = np.array(shapes, object), np.ones(len(shapes))
    found[changed] = made
    iou[changed] = made_iou
    return Regularized(shapes=found, regularized=changed, iou_raw=iou)
