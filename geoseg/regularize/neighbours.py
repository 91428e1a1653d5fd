"""Neighbours meet in one wall: terraces without gaps and without overlaps.

Frame: metric, points (x, y). Walls of neighbours that face each other across less than a gap move
to one line between them, flush fronts too; then corners are where a building's walls meet again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.components import components
from geoseg.regularize.facing import Edges, edges_of, facing_pairs, flush_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.regularize.options import RegularizeOptions

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    Shapes = NDArray[np.object_]

MOST_TURN_DEG = 4.0
"""A row of buildings turns into one direction where none has to turn by more."""
STRAIGHT = 0.6
"""Of a building's walls, so much runs in its main direction; one of less is not turned."""
LEAST_IOU = 0.7
"""A building that would change by more keeps its walls."""
SHALLOW = 0.2
"""Sine of the angle below which two walls have no corner that can be computed."""


def share_walls(shapes: NDArray[np.object_], *, options: RegularizeOptions) -> NDArray[np.object_]:
    """Let neighbours share the walls that lie between them.

    Args:
        shapes: (N,) valid polygons in metres, in any order: all of a scene, or a group of them.
        options: `gap_m` is the widest gap that is closed, and the deepest overlap.

    Returns:
        (N,) valid polygons, in the same order; the same objects where no wall moved. They do not
        depend on the order.

    Example:
        >>> from geoseg.regularize.options import RegularizeOptions
        >>> left, right = shapely.box(0, 0, 10, 8), shapely.box(10.4, 0.1, 20, 8)
        >>> found = share_walls(np.array([left, right]), options=RegularizeOptions(gap_m=0.5))
        >>> float(shapely.distance(*found)), float(shapely.area(shapely.intersection(*found)))
        (0.0, 0.0)
    """
    if options.gap_m == 0 or len(shapes) < 2:
        return np.array(shapes, object)
    order = _fixed_order(shapes)
    oriented = shapely.orient_polygons(np.asarray(shapes, object)[order])
    turned = _turned_together(oriented, options.gap_m)
    moved = _on_common_lines(turned, options.gap_m)
    changed = _much_alike(moved, oriented)
    result = np.array(shapes, object)
    result[order[changed]] = moved[changed]
    return result


def _fixed_order(shapes: Shapes) -> Ints:
    """Return an order that rows do not make, so that sums come out the same to the bit."""
    keys = np.column_stack([shapely.bounds(shapes).reshape(-1, 4), shapely.area(shapes)])
    return np.lexsort(keys.T)


def _turned_together(shapes: Shapes, gap_m: float) -> Shapes:
    """Turn the buildings of a row into their mean direction, each about its centre."""
    edges = edges_of(shapes)
    one, other = facing_pairs(edges, gap_m)
    row = components(len(shapes), edges.owner[one], edges.owner[other])
    direction = _sums(_directions(edges, 4), edges.owner, len(shapes))
    whole = np.bincount(edges.owner, edges.length, len(shapes))
    direction[np.hypot(*direction.T) < STRAIGHT * whole] = 0
    mean = _sums(direction, row, int(row.max()) + 1)
    turn = np.arctan2(_cross(direction, mean[row]), (direction * mean[row]).sum(axis=1)) / 4
    most = np.zeros(len(mean))
    np.maximum.at(most, row, np.abs(turn))
    turn[most[row] > np.radians(MOST_TURN_DEG)] = 0
    return _rotated(shapes, turn)


def _rotated(shapes: Shapes, turn: Floats) -> Shapes:
    some = np.flatnonzero(turn)
    xy, index = shapely.get_coordinates(shapes[some], return_index=True)
    centre = shapely.get_coordinates(shapely.centroid(shapes[some]))[index]
    cos, sin = np.cos(turn[some])[index], np.sin(turn[some])[index]
    x, y = (xy - centre).T
    turned = shapes.copy()
    turned[some] = shapely.set_coordinates(
        shapes[some].copy(), centre + np.column_stack([cos * x - sin * y, sin * x + cos * y])
    )
    return turned


def _on_common_lines(shapes: Shapes, gap_m: float) -> Shapes:
    """Move walls that are one to a common line, and let corners follow."""
    edges = edges_of(shapes)
    facing = facing_pairs(edges, gap_m)
    flush = flush_pairs(edges, facing, gap_m)
    pairs = tuple(np.concatenate(both) for both in zip(facing, flush, strict=True))
    paired = np.zeros(len(edges.owner), bool)
    paired[np.concatenate(pairs)] = True
    group = components(len(paired), *pairs)
    point, along = _common_lines(edges, group)
    reach = np.maximum(
        np.abs(_cross(along, edges.begin - point)), np.abs(_cross(along, edges.end - point))
    )
    moving = paired & (reach <= gap_m)
    point = np.where(moving[:, None], point, edges.middle)
    along = np.where(moving[:, None], along, edges.along)
    line = np.where(moving, group, group.max(initial=0) + 1 + np.arange(len(group)))
    return _with_corners(shapes, edges, _corners(edges, point, along, moving, line))


def _common_lines(edges: Edges, group: Ints) -> tuple[Floats, Floats]:
    """Return a point and the unit vector (E, 2) of the line that each wall's group lies on."""
    count = int(group.max(initial=-1)) + 1
    twofold = _sums(_directions(edges, 2), group, count)
    angle = np.arctan2(twofold[:, 1], twofold[:, 0]) / 2
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    weight = np.maximum(np.bincount(group, edges.length, count), np.finfo(float).tiny)
    point = _sums(edges.middle * edges.length[:, None], group, count) / weight[:, None]
    return point[group], along[group]


def _corners(edges: Edges, point: Floats, along: Floats, moving: Flags, line: Ints) -> Floats:
    """Return where each wall begins, (E, 2): old corners stay where neither wall moved.

    Where two buildings have the same two lines they get the same corner to the bit: both ask in
    the order of the lines' numbers. Corners that differ by rounding are what overlays break on.
    """
    before = np.empty_like(edges.following)
    before[edges.following] = np.arange(len(before))
    swap = line[before] > line
    one = np.where(swap, np.arange(len(line)), before)
    other = np.where(swap, before, np.arange(len(line)))
    sine = _cross(along[one], along[other])
    steep = np.abs(sine) >= SHALLOW
    reach = _cross(point[other] - point[one], along[other]) / np.where(steep, sine, 1)
    meeting = point[one] + along[one] * reach[:, None]
    on = np.where(moving, np.arange(len(moving)), before)  # shallow: straight to a moved wall
    onto = point[on] + along[on] * (
        ((edges.begin - point[on]) * along[on]).sum(axis=1, keepdims=True)
    )
    corner = np.where(steep[:, None], meeting, onto)
    return np.where((moving | moving[before])[:, None], corner, edges.begin)


def _with_corners(shapes: Shapes, edges: Edges, corners: Floats) -> Shapes:
    """Return polygons with other corners; rings are closed again."""
    xy = shapely.get_coordinates(shapes)
    parts = shapely.get_parts(shapes)
    ring = shapely.get_coordinates(shapely.get_rings(parts), return_index=True)[1]
    last = np.append(ring[1:] != ring[:-1], True)[: len(ring)]
    first = np.append(True, last[:-1])[: len(ring)]
    xy[~last] = corners
    xy[last] = xy[first]
    return np.asarray(shapely.set_coordinates(shapes.copy(), xy), object)


def _much_alike(moved: Shapes, shapes: Shapes) -> Flags:
    """Tell which polygons changed, are valid still and much like before."""
    changed = shapely.is_valid(moved) & ~shapely.equals_exact(moved, shapes)
    some = np.flatnonzero(changed)
    shared = shapely.area(shapely.intersection(moved[some], shapes[some]))
    union = shapely.area(moved[some]) + shapely.area(shapes[some]) - shared
    changed[some] = shared >= LEAST_IOU * union
    return np.asarray(changed)


def _directions(edges: Edges, fold: int) -> Floats:
    """Return walls as vectors (E, 2) of their length that parts of a turn leave as they are."""
    angle = fold * np.arctan2(edges.along[:, 1], edges.along[:, 0])
    return np.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1) * edges.length[:, None])


def _sums(vectors: Floats, index: Ints, count: int) -> Floats:
    return np.stack([np.bincount(index, vectors[:, axis], count) for axis in (0, 1)], axis=1)


def _cross(one: Floats, other: Floats) -> Floats:
    return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0])
