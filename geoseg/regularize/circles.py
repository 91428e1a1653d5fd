"""Round buildings: the circle of an outline's area about its centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Shapes = NDArray[np.object_]

CORNERS = ((0.0, 16), (4.0, 24), (8.0, 32))
"""Corners of a circle from a radius in metres on: each stands out by 0.1 m or more, so that
simplifying leaves all or none."""
OUT_OF_ROUND = 0.04
"""Deviation of the radius, as a share of it, that an outline may have to be taken for round."""


def are_round(shapes: Shapes) -> NDArray[np.bool_]:
    """Tell which polygons (N,) have no hole and much the same radius all around.

    A square's radius deviates by 0.11 of its mean, a blurred one's by 0.045.
    """
    whole = shapely.get_num_interior_rings(shapes) == 0
    box = shapely.bounds(shapes).reshape(-1, 4)
    sides = box[:, 2:] - box[:, :2]
    maybe = np.flatnonzero(whole & (sides.min(axis=1) > 0.7 * sides.max(axis=1)))
    found = np.zeros(len(shapes), bool)
    xy, owner = shapely.get_coordinates(shapes[maybe], return_index=True)
    centre = shapely.get_coordinates(shapely.centroid(shapes[maybe]))
    radius = np.hypot(*(xy - centre[owner]).T)
    count = np.maximum(np.bincount(owner, minlength=len(maybe)), 1)
    mean = np.bincount(owner, radius, len(maybe)) / count
    spread = np.sqrt(np.bincount(owner, (radius - mean[owner]) ** 2, len(maybe)) / count)
    found[maybe] = spread < OUT_OF_ROUND * mean
    return found


def circles(shapes: Shapes) -> Shapes:
    """Return for each polygon (N,) a regular one of many corners, of its area and centre."""
    centre = shapely.get_coordinates(shapely.centroid(shapes))
    area = shapely.area(shapes)
    radius = np.sqrt(area / np.pi)
    found = np.full(len(shapes), None, object)
    least = np.array([r for r, _ in CORNERS])
    kind = np.searchsorted(least, radius, side="right") - 1
    for k, (_, n) in enumerate(CORNERS):
        of = np.flatnonzero(kind == k)
        turn = 2 * np.pi / n
        angle = turn * np.arange(n)
        reach = np.sqrt(2 * area[of] / (n * np.sin(turn)))  # of a polygon of n corners
        around = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        found[of] = shapely.polygons(centre[of, None] + reach[:, None, None] * around)
    return found
