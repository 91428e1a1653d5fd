"""Which walls of neighbouring buildings are one: those that face each other, and flush fronts.

Frame: metric, points (x, y); polygons run counter-clockwise, so outside is to the right of a wall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.regularize.walls import ring_neighbours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    Shapes = NDArray[np.object_]

PARALLEL_DEG = 7.0
"""Walls at a larger angle are two."""
SHARED_PART = 0.25
"""Of the shorter of two walls that face each other, so much lies opposite the other at least."""
FLUSH_PART = 0.5
"""Fronts of neighbours are flush when they step by less than this part of the gap."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edges:
    """All E walls of N polygons, ring by ring."""

    owner: Ints
    """(E,) polygon of each."""
    begin: Floats
    """(E, 2)."""
    along: Floats
    """(E, 2) unit vector."""
    length: Floats
    """(E,)."""
    following: Ints
    """(E,) next wall of the ring."""

    @property
    def end(self) -> Floats:
        """(E, 2)."""
        return self.begin + self.along * self.length[:, None]

    @property
    def middle(self) -> Floats:
        """(E, 2)."""
        return self.begin + self.along * self.length[:, None] / 2


def edges_of(shapes: Shapes) -> Edges:
    """Return the walls of polygons (N,), in the order of their coordinates."""
    parts, row = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    last = np.append(ring[1:] != ring[:-1], True)[: len(ring)]
    begin, ring = xy[~last], ring[~last]
    step = np.diff(xy, axis=0)[~last[:-1]]
    length = np.hypot(step[:, 0], step[:, 1])
    following, _ = ring_neighbours(np.searchsorted(ring, np.arange(len(rings) + 1)))
    return Edges(
        owner=row[part[ring]],
        begin=begin,
        along=step / np.maximum(length, np.finfo(float).tiny)[:, None],
        length=length,
        following=following,
    )


def facing_pairs(edges: Edges, gap_m: float) -> tuple[Ints, Ints]:
    """Return pairs of walls of different polygons that face each other across a gap.

    Args:
        edges: Walls.
        gap_m: Widest gap, or deepest overlap.
    """
    one, other = _near(edges, gap_m)
    keep = _cosine(edges, one, other) < -np.cos(np.radians(PARALLEL_DEG))
    one, other = one[keep], other[keep]
    shared, across = _opposite(edges, one, other)
    shorter = np.minimum(edges.length[one], edges.length[other])
    keep = (shared > SHARED_PART * shorter) & (np.abs(across) <= gap_m)
    return one[keep], other[keep]


def flush_pairs(edges: Edges, neighbours: tuple[Ints, Ints], gap_m: float) -> tuple[Ints, Ints]:
    """Return pairs of walls that continue each other, of polygons that share a wall.

    Args:
        edges: Walls.
        neighbours: Pairs of walls that face each other.
        gap_m: Widest gap between the two walls' ends.
    """
    count = int(edges.owner.max(initial=-1)) + 1
    known = np.unique(edges.owner[neighbours[0]] * count + edges.owner[neighbours[1]])
    one, other = _near(edges, gap_m)
    keep = _cosine(edges, one, other) > np.cos(np.radians(PARALLEL_DEG))
    keep &= np.isin(edges.owner[one] * count + edges.owner[other], known)
    one, other = one[keep], other[keep]
    shared, across = _opposite(edges, one, other)
    keep = (shared <= gap_m) & (np.abs(across) <= FLUSH_PART * gap_m)
    return one[keep], other[keep]


def _near(edges: Edges, gap_m: float) -> tuple[Ints, Ints]:
    lines = shapely.linestrings(np.stack([edges.begin, edges.end], axis=1))
    one, other = shapely.STRtree(lines).query(lines, predicate="dwithin", distance=gap_m)
    keep = edges.owner[one] != edges.owner[other]
    return one[keep], other[keep]


def _cosine(edges: Edges, one: Ints, other: Ints) -> Floats:
    return np.asarray((edges.along[one] * edges.along[other]).sum(axis=1))


def _opposite(edges: Edges, one: Ints, other: Ints) -> tuple[Floats, Floats]:
    """Return the length of one wall that lies opposite another, and how far off that is there.

    Where nothing does, the length is less than 0 and the distance is that of the nearest ends.
    """
    along = edges.along[one]
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1)
    ends = np.stack([edges.begin[other], edges.end[other]]) - edges.begin[one]
    at, off = (ends * along).sum(axis=2), (ends * outward).sum(axis=2)
    low = np.maximum(at.min(axis=0), 0)
    high = np.minimum(at.max(axis=0), edges.length[one])
    place = np.clip((low + high) / 2, at.min(axis=0), at.max(axis=0))
    share = (place - at[0]) / np.where(at[1] == at[0], 1, at[1] - at[0])
    return high - low, off[0] + share * (off[1] - off[0])
