"""Outlines: the rings of many polygons as flat arrays, on OSM's grid.

Frame: WGS84, whole 1e-7 degrees. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outlines:
    """Polygons of footprints, ring by ring; a ring does not repeat its first vertex."""

    lonlat_e7: NDArray[np.int64]
    """(V, 2) longitude and latitude in 1e-7 degrees."""
    ring_offsets: NDArray[np.int64]
    """(R + 1,) where each ring's vertices begin."""
    ring_polygon: NDArray[np.int64]
    """(R,) the polygon of each ring, ascending; a polygon's first ring is its outer one."""
    polygon_row: NDArray[np.int64]
    """(P,) the footprint of each polygon, ascending."""

    @property
    def ring_sizes(self) -> NDArray[np.int64]:
        """(R,) vertices of each ring."""
        return np.diff(self.ring_offsets)

    @property
    def is_outer(self) -> NDArray[np.bool_]:
        """(R,) whether a ring is the outer one of its polygon."""
        return np.concatenate([[True], np.diff(self.ring_polygon) > 0])[: len(self.ring_polygon)]

    @property
    def vertex_ring(self) -> NDArray[np.int64]:
        """(V,) the ring of each vertex."""
        return np.repeat(np.arange(len(self.ring_polygon)), self.ring_sizes)

    @property
    def vertex_row(self) -> NDArray[np.int64]:
        """(V,) the footprint of each vertex."""
        return np.repeat(self.polygon_row[self.ring_polygon], self.ring_sizes)

    def polygons(self) -> NDArray[Any]:
        """Return (P,) polygons whose coordinates are whole 1e-7 degrees."""
        closed = _closed(self.lonlat_e7, self.ring_offsets)
        rings = self.ring_offsets + np.arange(len(self.ring_offsets))
        ends = np.searchsorted(self.ring_polygon, np.arange(len(self.polygon_row) + 1))
        made = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, closed.astype(np.float64), (rings, ends)
        )
        return np.asarray(made, object)


def outlines_of(polygons: NDArray[Any], rows: NDArray[np.int64]) -> Outlines:
    """Take polygons apart.

    Args:
        polygons: (P,) polygons, none empty, whose coordinates are whole 1e-7 degrees.
        rows: (P,) the footprint of each, ascending.

    Returns:
        Their rings, without vertices that repeat the one before.

    Example:
        >>> square = shapely.box(0, 0, 10, 10)
        >>> outlines_of(np.array([square]), np.array([7])).lonlat_e7.tolist()
        [[10, 0], [10, 10], [0, 10], [0, 0]]
    """
    if not len(polygons):
        return NO_OUTLINES
    _, xy, (rings, ends) = shapely.to_ragged_array(polygons, include_z=False)
    sizes = np.diff(rings)
    last = np.zeros(len(xy), np.bool_)
    last[rings[1:] - 1] = True
    whole = Outlines(
        lonlat_e7=np.rint(xy[~last]).astype(np.int64),
        ring_offsets=_offsets(sizes - 1),
        ring_polygon=np.repeat(np.arange(len(polygons)), np.diff(ends)),
        polygon_row=np.asarray(rows, np.int64),
    )
    return without_repeats(whole)


def without_repeats(outlines: Outlines) -> Outlines:
    """Drop vertices at the place of the one before them in their ring, which may leave it empty."""
    before = previous(outlines.ring_offsets)
    same = (outlines.lonlat_e7 == outlines.lonlat_e7[before]).all(axis=1)
    if not same.any():
        return outlines
    kept = np.bincount(outlines.vertex_ring[~same], minlength=len(outlines.ring_polygon))
    return Outlines(
        lonlat_e7=outlines.lonlat_e7[~same],
        ring_offsets=_offsets(kept),
        ring_polygon=outlines.ring_polygon,
        polygon_row=outlines.polygon_row,
    )


def take_rings(outlines: Outlines, keep: NDArray[np.bool_]) -> Outlines:
    """Return outlines with some of their rings; a polygon goes with its outer ring."""
    of = outlines.ring_polygon
    alive = np.zeros(len(outlines.polygon_row), np.bool_)
    alive[of[outlines.is_outer & keep]] = True
    keep = keep & alive[of]
    if keep.all():
        return outlines
    return Outlines(
        lonlat_e7=outlines.lonlat_e7[np.repeat(keep, outlines.ring_sizes)],
        ring_offsets=_offsets(outlines.ring_sizes[keep]),
        ring_polygon=(np.cumsum(alive) - 1)[of[keep]],
        polygon_row=outlines.polygon_row[alive],
    )


def without_twins(outlines: Outlines) -> Outlines:
    """Drop footprints that another one before them equals, vertex by vertex."""
    rows, ends = np.unique(outlines.vertex_row, return_index=True)
    ends = np.append(ends, len(outlines.lonlat_e7)) * outlines.lonlat_e7.dtype.itemsize * 2
    data = outlines.lonlat_e7.tobytes()
    seen: set[bytes] = set()
    single = np.ones(len(rows), np.bool_)
    for i, (start, end) in enumerate(pairwise(ends.tolist())):
        text = data[start:end]
        single[i] = text not in seen
        seen.add(text)
    if single.all():
        return outlines
    return take_polygons(outlines, np.flatnonzero(np.isin(outlines.polygon_row, rows[single])))


def take_polygons(outlines: Outlines, polygons: NDArray[np.int64]) -> Outlines:
    """Return outlines of the polygons at some positions, ascending."""
    rings = rings_of(outlines, polygons)
    sizes = outlines.ring_sizes[rings]
    starts = outlines.ring_offsets[rings]
    _, counts = np.unique(outlines.ring_polygon[rings], return_counts=True)
    return Outlines(
        lonlat_e7=outlines.lonlat_e7[ranges(starts, sizes)],
        ring_offsets=_offsets(sizes),
        ring_polygon=np.repeat(np.arange(len(polygons)), counts),
        polygon_row=outlines.polygon_row[polygons],
    )


def rings_of(outlines: Outlines, polygons: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the rings of polygons, one polygon after the other."""
    first = np.searchsorted(outlines.ring_polygon, polygons)
    return ranges(first, np.searchsorted(outlines.ring_polygon, polygons, side="right") - first)


def with_rings(
    outlines: Outlines, rings: NDArray[np.int64], sizes: NDArray[np.int64], xy: NDArray[np.int64]
) -> Outlines:
    """Return outlines with other vertices in some of their rings.

    Args:
        outlines: What to change.
        rings: Positions of rings, in any order, none twice.
        sizes: Their new vertices' numbers.
        xy: Their new vertices, one ring after the other, 1e-7 degrees.
    """
    all_sizes = outlines.ring_sizes.copy()
    starts = outlines.ring_offsets[:-1].copy()
    all_sizes[rings] = sizes
    starts[rings] = len(outlines.lonlat_e7) + np.cumsum(sizes) - sizes
    vertices = np.concatenate([outlines.lonlat_e7, xy])
    return Outlines(
        lonlat_e7=vertices[ranges(starts, all_sizes)],
        ring_offsets=_offsets(all_sizes),
        ring_polygon=outlines.ring_polygon,
        polygon_row=outlines.polygon_row,
    )


def concatenate(parts: Sequence[Outlines], counts: Sequence[int]) -> Outlines:
    """Put outlines one after the other.

    Args:
        parts: Outlines of consecutive footprints.
        counts: How many footprints each is of, those that left no outline included.
    """
    rows = np.cumsum([0, *counts])
    polygons = np.cumsum([0, *(len(part.polygon_row) for part in parts)])
    if not parts:
        return NO_OUTLINES
    return Outlines(
        lonlat_e7=np.concatenate([part.lonlat_e7 for part in parts]),
        ring_offsets=_offsets(np.concatenate([part.ring_sizes for part in parts])),
        ring_polygon=np.concatenate(
            [part.ring_polygon + start for part, start in zip(parts, polygons, strict=False)]
        ),
        polygon_row=np.concatenate(
            [part.polygon_row + start for part, start in zip(parts, rows, strict=False)]
        ),
    )


def ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the whole numbers of ranges, one range after the other.

    Example:
        >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(sizes)
    return np.asarray(np.arange(int(sizes.sum())) + np.repeat(starts + sizes - ends, sizes))


def previous(ring_offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (V,) the vertex before each one in its ring."""
    before = np.arange(ring_offsets[-1]) - 1
    filled = np.diff(ring_offsets) > 0
    before[ring_offsets[:-1][filled]] = ring_offsets[1:][filled] - 1
    return before


def following(ring_offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (V,) the vertex after each one in its ring."""
    after = np.arange(ring_offsets[-1]) + 1
    filled = np.diff(ring_offsets) > 0
    after[ring_offsets[1:][filled] - 1] = ring_offsets[:-1][filled]
    return after


def _closed(xy: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return vertices with each ring's first one repeated at its end."""
    return np.insert(xy, offsets[1:], xy[offsets[:-1]], axis=0)


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


NO_OUTLINES = Outlines(
    lonlat_e7=np.zeros((0, 2), np.int64),
    ring_offsets=np.zeros(1, np.int64),
    ring_polygon=np.zeros(0, np.int64),
    polygon_row=np.zeros(0, np.int64),
)
