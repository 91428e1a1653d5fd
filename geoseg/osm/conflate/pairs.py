"""Which footprint overlaps which building, and which is which.

Frame: any in metres, the same for both sides. Pairs are columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.intp]
    Floats = NDArray[np.float64]
    Shapes = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Pairs that share ground."""

    footprint: Ints
    """(P,) positions among the footprints, ascending."""
    mapped: Ints
    """(P,) positions among what is mapped."""
    shared_m2: Floats
    iou: Floats
    """Intersection over union."""
    overlap: Floats
    """Intersection over the smaller of the two."""
    thickness_m: Floats
    """The shorter side of a rectangle with the intersection's area and outline."""

    def __len__(self) -> int:
        return len(self.footprint)

    def take(self, chosen: NDArray[Any]) -> Pairs:
        """Return the pairs at positions or where a mask is true."""
        return Pairs(**{name: getattr(self, name)[chosen] for name in self.__slots__})

    @classmethod
    def apart(cls, footprint: Ints, mapped: Ints, *, overlap: Floats | None = None) -> Pairs:
        """Return pairs of which no shared area is known, or only its share of the footprint."""
        nothing = np.zeros(len(footprint))
        shares = nothing if overlap is None else overlap
        return cls(
            footprint=footprint,
            mapped=mapped,
            shared_m2=nothing,
            iou=nothing,
            overlap=shares,
            thickness_m=nothing,
        )

    @classmethod
    def concat(cls, parts: Sequence[Pairs]) -> Pairs:
        """Put pairs together, sorted by footprint; of one footprint the best first."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__
        }
        together = cls(**columns)
        keys = (together.mapped, -together.overlap, -together.iou, together.footprint)
        return together.take(np.lexsort(keys))


def overlapping_pairs(footprints: Shapes, buildings: Shapes) -> Pairs:
    """Return every pair that shares an area.

    Args:
        footprints: (N,) valid polygons in metres.
        buildings: (M,) valid polygons in the same frame.

    Example:
        >>> box = shapely.box
        >>> found = overlapping_pairs(np.array([box(0, 0, 4, 1)]), np.array([box(3, 0, 5, 1)]))
        >>> found.iou.tolist(), found.overlap.tolist()
        ([0.2], [0.5])
    """
    # The tree over the buildings, asked in the footprints' order: neighbours stay in cache.
    i, j = shapely.STRtree(buildings).query(footprints, predicate="intersects")
    both = shapely.intersection(footprints[i], buildings[j])
    shared = shapely.area(both)
    own, theirs = shapely.area(footprints)[i], shapely.area(buildings)[j]
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = Pairs(
            footprint=i,
            mapped=j,
            shared_m2=shared,
            iou=np.minimum(shared / (own + theirs - shared), 1),  # rounding goes beyond
            overlap=np.minimum(shared / np.minimum(own, theirs), 1),
            thickness_m=thickness_m(both),
        )
    return pairs.take(shared > 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Centres:
    """Where some polygons are and how large, without their outlines."""

    points: Shapes
    """(N,) centroids."""
    xy: Floats
    """(N, 2) the same as metres."""
    areas_m2: Floats
    tree: shapely.STRtree

    @classmethod
    def of(cls, shapes: Shapes) -> Centres:
        """Describe (N,) polygons in metres; empty ones are nowhere."""
        points = np.asarray(shapely.centroid(shapes), object)
        xy = np.full((len(points), 2), np.nan)
        xy[~shapely.is_empty(points)] = shapely.get_coordinates(points)
        return cls(
            points=points,
            xy=xy,
            areas_m2=shapely.area(shapes),
            tree=shapely.STRtree(points),
        )


def near_pairs(
    footprints: Centres, buildings: Centres, *, within_m: float, max_ratio: float
) -> tuple[Ints, Ints, Floats]:
    """Return pairs of like size whose centres lie close together, and the way between these.

    Args:
        footprints: N of them.
        buildings: M in the same frame.
        within_m: Most distance of the centres.
        max_ratio: The larger area is at most this many times the smaller.

    Returns:
        (P,) positions among the footprints, ascending; among the buildings; (P, 2) metres from
        footprint to building.
    """
    i, j = buildings.tree.query(footprints.points, predicate="dwithin", distance=within_m)
    own, other = footprints.areas_m2[i], buildings.areas_m2[j]
    alike = np.maximum(own, other) <= max_ratio * np.minimum(own, other)
    i, j = i[alike], j[alike]
    return i, j, buildings.xy[j] - footprints.xy[i]


def match_one_to_one(footprint: Ints, building: Ints, worth: Floats, *, n_footprints: int) -> Ints:
    """Give each footprint at most one building and the other way round, the best pairs first.

    Args:
        footprint: (P,) positions of pairs.
        building: (P,) positions of pairs.
        worth: (P,) what is matched first; ties go to lower positions.
        n_footprints: How many footprints there are.

    Returns:
        (N,) the building of each footprint, -1 where it has none.

    Example:
        >>> one = np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.5, 0.8])
        >>> match_one_to_one(*one, n_footprints=2)
        array([ 0, -1])
    """
    order = np.lexsort((building, footprint, -worth))
    matched = [-1] * n_footprints
    taken = set[int]()
    for i, j in zip(footprint[order].tolist(), building[order].tolist(), strict=True):
        if matched[i] < 0 and j not in taken:
            matched[i] = j
            taken.add(j)
    return np.array(matched, np.intp)


def thickness_m(shapes: Shapes) -> Floats:
    """Return the shorter side of the rectangle with a shape's area and outline; (N,) metres.

    Example:
        >>> thickness_m(np.array([shapely.box(0, 0, 30, 2)]))
        array([2.])
    """
    area, outline = shapely.area(shapes), shapely.length(shapes)
    return np.asarray((outline - np.sqrt(np.maximum(outline**2 - 16 * area, 0))) / 4)
