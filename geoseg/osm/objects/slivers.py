"""Slivers: thin overlaps of neighbours are cut off the later one.

Frame: WGS84, whole 1e-7 degrees; the depth in metres. Must not import osmium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoseg.grid import METRES_PER_DEGREE
from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.objects.outlines import Outlines, outlines_of, rings_of, with_rings

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cut_slivers(outlines: Outlines, pairs: NDArray[np.int64], *, depth_m: float) -> Outlines:
    """Cut overlaps that are nowhere deeper than `depth_m` off the later polygon of each pair.

    An overlap stays where cutting would take the polygon apart or change its holes.

    Args:
        outlines: Valid polygons.
        pairs: (K, 2) positions of polygons that overlap.
        depth_m: Deepest overlap to be cut, metres.

    Returns:
        The same polygons and rings, with other vertices.

    Example:
        >>> pair = np.array([shapely.box(0, 0, 900, 900), shapely.box(890, 0, 1800, 900)])
        >>> cut = cut_slivers(outlines_of(pair, np.arange(2)), np.array([[0, 1]]), depth_m=0.2)
        >>> [polygon.bounds[::2] for polygon in cut.polygons()]
        [(0.0, 900.0), (900.0, 1800.0)]
    """
    polygons = outlines.polygons()
    changed: set[int] = set()
    for one, other in pairs.tolist():
        rest = _rest(polygons[other], polygons[one], depth_m)
        if rest is not None:
            polygons[other] = rest
            changed.add(other)
    return _with_polygons(outlines, polygons, np.array(sorted(changed), np.int64))


def _rest(polygon: Any, other: Any, depth_m: float) -> Any:
    """Return a polygon without what another one covers, on the grid; None where it stays whole."""
    overlap = shapely.intersection(polygon, other)
    north = np.cos(np.radians(polygon.bounds[1] / DEGREE_E7))
    on_ground = shapely.transform(overlap, lambda xy: xy * (north, 1.0))
    if not shapely.buffer(on_ground, -depth_m / 2 / METRES_PER_DEGREE * DEGREE_E7).is_empty:
        return None
    rest = shapely.set_precision(shapely.difference(polygon, other), 1.0)
    if rest.geom_type != "Polygon" or len(rest.interiors) != len(polygon.interiors):
        return None
    return rest


def _with_polygons(
    outlines: Outlines, polygons: NDArray[Any], changed: NDArray[np.int64]
) -> Outlines:
    """Return outlines in which some polygons are others with as many rings."""
    if not len(changed):
        return outlines
    new = outlines_of(shapely.orient_polygons(polygons[changed]), outlines.polygon_row[changed])
    return with_rings(outlines, rings_of(outlines, changed), new.ring_sizes, new.lonlat_e7)
