"""Footprints as neighbours: which of them meet, and whose the ground is that several claim.

Networks outline each building for itself, so outlines of neighbours may overlap. On a map no two
buildings share ground. Frame: a metric plane, the same for all outlines of a call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np
import shapely

from geoseg.components import components
from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Geometries = np.ndarray
"""1-d object array of shapely geometries."""

TOUCH_M2: Final = 1e-9
"""Outlines that share less are neighbours that touch."""
TREE_ROWS: Final = 8_192
"""Boxes in one search tree: bounds the memory."""
_ALONE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyOptions:
    """What neighbours may do to each other."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    overlaps: Literal["settle", "keep"] = "settle"
    """settle: ground that several footprints claim goes to the one of the best score; keep: each
    outline stays as it was traced."""
    most_claimed: float = 0.5
    """Share of its ground that a footprint may lose to better ones; one that loses more goes."""
    sliver_m: float = 0.3
    """Parts that a cut leaves narrower than this, on average, go too."""

    def __post_init__(self) -> None:
        if not 0 <= self.most_claimed <= 1:
            raise ConfigError(f"most_claimed must be in [0, 1], got {self.most_claimed}")
        if not (math.isfinite(self.sliver_m) and self.sliver_m >= 0):
            raise ConfigError(f"sliver_m must be 0 or more, got {self.sliver_m}")


def neighbour_groups(bounds: Floats, *, within_m: float = 0.0) -> Ints:
    """Number the groups of boxes that are connected by being near each other.

    Args:
        bounds: (N, 4) min x, min y, max x, max y, in metres.
        within_m: Boxes nearer than this are neighbours; 0 asks that they touch.

    Returns:
        (N,) number of each box's group, from 0, or -1 for a box without neighbours.

    Example:
        >>> boxes = np.array([[0, 0, 2, 2], [9, 9, 10, 10], [1, 1, 3, 3]], float)
        >>> neighbour_groups(boxes).tolist()
        [0, -1, 0]
    """
    left, right = _near_pairs(bounds, within_m)
    groups = np.full(len(bounds), _ALONE, np.int64)
    if not len(left):
        return groups
    members, at = np.unique(np.concatenate([left, right]), return_inverse=True)
    groups[members] = components(len(members), at[: len(left)], at[len(left) :])
    return groups


def settle_overlaps(
    shapes: Geometries,
    scores: Floats,
    *,
    options: TopologyOptions | None = None,
    min_area_m2: float = 0.0,
) -> Geometries:
    """Give ground that several outlines claim to the best of them.

    The best one keeps all it claims, the next what is left, and so on: of two that are one
    building, the weaker loses more than `most_claimed` and goes. Better is the higher score, then
    the larger area, then the earlier row.

    Args:
        shapes: (N,) valid polygonal outlines, in metres.
        scores: (N,).
        options: See `TopologyOptions`; `overlaps` is taken to be settle.
        min_area_m2: Smaller parts that a cut leaves go.

    Returns:
        (N,) outlines that share no ground, empty where one went; those that no better one
        overlaps are the same objects.

    Example:
        >>> houses = np.array([shapely.box(0, 0, 4, 4), shapely.box(3, 0, 7, 4)])
        >>> [shape.area for shape in settle_overlaps(houses, np.array([0.6, 0.9]))]
        [12.0, 16.0]
    """
    options = options or TopologyOptions()
    area = shapely.area(shapes)
    rank = np.empty(len(shapes), np.int64)
    rank[np.lexsort((np.arange(len(shapes)), -area, -scores))] = np.arange(len(shapes))
    weaker, stronger = _overlapping_pairs(shapes, rank)
    settled = shapes.copy()
    waits_for = np.bincount(weaker, minlength=len(shapes))
    decided = np.flatnonzero(waits_for == 0)
    while len(decided):
        told = np.isin(stronger, decided)
        np.subtract.at(waits_for, weaker[told], 1)
        decided = np.unique(weaker[told])
        decided = decided[waits_for[decided] == 0]
        mine = np.isin(weaker, decided)
        claims = _united(settled[stronger[mine]], weaker[mine], decided)
        settled[decided] = _cut(shapes[decided], claims, options=options, min_area_m2=min_area_m2)
    return settled


def _near_pairs(bounds: Floats, within_m: float) -> tuple[Ints, Ints]:
    """Return the pairs (i, j), i < j, of boxes that are near each other.

    Boxes are taken from the top down, so that a tree holds a part of them and those still open.
    """
    grown = bounds + np.array([-1, -1, 1, 1]) * (within_m / 2)
    order = np.argsort(grown[:, 1], kind="stable")
    lefts, rights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    still_open = np.zeros(0, np.int64)
    for start in range(0, len(order), TREE_ROWS):
        part = order[start : start + TREE_ROWS]
        still_open = still_open[grown[still_open, 3] >= grown[part[0], 1]]
        rows = np.concatenate([still_open, part])
        tree = shapely.STRtree(shapely.box(*grown[rows].T))
        mine, other = tree.query(shapely.box(*grown[part].T))
        a, b = part[mine], rows[other]
        new = (a != b) & ((other < len(still_open)) | (a < b))
        lefts.append(np.minimum(a, b)[new])
        rights.append(np.maximum(a, b)[new])
        still_open = rows
    return np.concatenate(lefts), np.concatenate(rights)


def _overlapping_pairs(shapes: Geometries, rank: Ints) -> tuple[Ints, Ints]:
    """Return (weaker, stronger) of every pair that shares ground."""
    a, b = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    below = rank[a] > rank[b]
    weaker, stronger = a[below], b[below]
    shared = shapely.area(shapely.intersection(shapes[weaker], shapes[stronger]))
    real = shared > TOUCH_M2
    return weaker[real], stronger[real]


def _united(shapes: Geometries, owner: Ints, owners: Ints) -> Geometries:
    """Return the union of the shapes of each owner, in the order of `owners` (ascending)."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], owners)
    ends = np.searchsorted(owner[order], owners, side="right")
    united = shapes[order[starts]]
    for i in np.flatnonzero(ends - starts > 1).tolist():
        united[i] = shapely.union_all(shapes[order[starts[i] : ends[i]]])
    return united


def _cut(
    shapes: Geometries, claims: Geometries, *, options: TopologyOptions, min_area_m2: float
) -> Geometries:
    """Return what claims leave of shapes, without slivers; empty where that is too little."""
    parts, owner = shapely.get_parts(shapely.difference(shapes, claims), return_index=True)
    area = shapely.area(parts)
    width = 2 * area / np.maximum(shapely.length(parts), TOUCH_M2)
    keep = (area > 0) & (area >= min_area_m2) & (width >= options.sliver_m)
    parts, owner, area = parts[keep], owner[keep], area[keep]
    left = np.bincount(owner, weights=area, minlength=len(shapes))
    stays = left >= (1 - options.most_claimed) * shapely.area(shapes)
    ends = np.searchsorted(owner, np.arange(len(shapes) + 1))
    result = np.full(len(shapes), shapely.Polygon(), object)
    for i in np.flatnonzero(stays & (left > 0)).tolist():
        own = parts[ends[i] : ends[i + 1]]
        result[i] = own[0] if len(own) == 1 else shapely.MultiPolygon(own.tolist())
    unclaimed = shapely.is_empty(claims)
    result[unclaimed] = shapes[unclaimed]
    return result
