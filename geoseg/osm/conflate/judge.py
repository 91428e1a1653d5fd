"""What each footprint is to the map, by what it overlaps, is near to, crosses or lies in.

Frame: any in metres, the same for both sides. Where it is in doubt whether a building is mapped
already, its footprint is not new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from geoseg.osm.conflate.pairs import (
    Centres,
    Pairs,
    match_one_to_one,
    near_pairs,
    overlapping_pairs,
)
from geoseg.osm.conflate.rules import Status
from geoseg.osm.mapped.layers import KINDS, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.osm.conflate.rules import ConflateOptions
    from geoseg.osm.mapped.layers import Mapped

    Shapes = NDArray[Any]
    Bools = NDArray[np.bool_]

_LIKE_SIZE: Final = 2.0
"""Areas of a footprint and a building that it may be differ at most so many times."""
_CHECKS: Final[tuple[tuple[Kind, bool, Status], ...]] = (
    ("road", False, Status.CROSSES_ROAD),
    ("rail", False, Status.CROSSES_RAIL),
    ("water", False, Status.CROSSES_WATER),
    ("water", True, Status.IN_WATER),
)
"""Kind, whether areas or lines are meant, and what a footprint that meets them is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """What each footprint is to the map, and why."""

    status: NDArray[Any]
    """(N,) of `Status`."""
    reasons: Pairs
    """Why footprints are not new: the buildings that they overlap or are near to, else what they
    cross or lie in. Sorted by footprint, the strongest reason of each first."""


def judge(footprints: Shapes, mapped: Mapped, options: ConflateOptions) -> Verdicts:
    """Say what each footprint is to the map.

    Footprints and buildings are first matched one to one, the best IoU first. A thin overlap with a
    building that another footprint matches is a wall between neighbours, drawn a little apart, and
    no reason against a footprint. Every other overlap is one.

    Args:
        footprints: (N,) valid polygons in metres.
        mapped: What is mapped, in the same frame.
        options: Thresholds.
    """
    status = np.full(len(footprints), Status.NEW, object)
    overlaps, near = _meetings(footprints, mapped, options)
    status[near.footprint] = Status.NEAR
    status[overlaps.footprint] = Status.OVERLAPS
    status[_is_mapped(footprints, mapped, overlaps, options)] = Status.DUPLICATE
    reasons = [overlaps, near.take(status[near.footprint] == Status.NEAR)]
    for kind, areal, found in _CHECKS:
        rows = np.flatnonzero((mapped.kinds == KINDS.index(kind)) & (_areal(mapped) == areal))
        clear = np.flatnonzero(status == Status.NEW)
        met = _met(footprints[clear], mapped.shapes[rows], options, areal=areal)
        met = replace(met, footprint=clear[met.footprint], mapped=rows[met.mapped])
        status[met.footprint] = found
        reasons.append(met)
    return Verdicts(status=status, reasons=Pairs.concat(reasons))


def _meetings(footprints: Shapes, mapped: Mapped, options: ConflateOptions) -> tuple[Pairs, Pairs]:
    """Return the overlaps that count, and pairs that may be one building drawn elsewhere."""
    rows = np.flatnonzero(mapped.kinds == KINDS.index("building"))
    buildings = mapped.shapes[rows]
    pairs = overlapping_pairs(footprints, buildings)
    pairs = pairs.take(_is_real(pairs, options))
    ours, theirs = Centres.of(footprints), Centres.of(buildings)
    i, j, way = near_pairs(ours, theirs, within_m=options.near_m, max_ratio=_LIKE_SIZE)
    matched = match_one_to_one(  # every overlap comes before the nearest neighbour
        np.r_[pairs.footprint, i],
        np.r_[pairs.mapped, j],
        np.r_[pairs.iou, -1 - np.hypot(way[:, 0], way[:, 1])],
        n_footprints=len(footprints),
    )
    overlaps = pairs.take(~_is_wall(pairs, matched, len(buildings), options))
    near = Pairs.apart(i, j).take(matched[i] == j)
    return (
        replace(overlaps, mapped=rows[overlaps.mapped]),
        replace(near, mapped=rows[near.mapped]),
    )


def _is_real(pairs: Pairs, options: ConflateOptions) -> Bools:
    """Return which overlaps are more than neighbours drawn into each other."""
    thick = (pairs.thickness_m > options.touch_m) | (pairs.iou >= options.duplicate_iou)
    return np.asarray(thick & (pairs.overlap >= options.min_overlap))


def _is_wall(
    pairs: Pairs, matched: NDArray[np.intp], n_buildings: int, options: ConflateOptions
) -> Bools:
    """Return which overlaps are thin ones with a building that another footprint matches."""
    owned = np.zeros(n_buildings, np.bool_)
    owned[matched[matched >= 0]] = True
    foreign = owned[pairs.mapped] & (matched[pairs.footprint] != pairs.mapped)
    return np.asarray(foreign & (pairs.thickness_m <= options.strip_m))


def _is_mapped(
    footprints: Shapes, mapped: Mapped, overlaps: Pairs, options: ConflateOptions
) -> NDArray[np.intp]:
    """Return the footprints that are one building, or lie under several."""
    alike = overlaps.footprint[overlaps.iou >= options.duplicate_iou]
    area = shapely.area(footprints)
    n = len(footprints)
    most = np.bincount(overlaps.footprint, overlaps.shared_m2, n) >= options.duplicate_cover * area
    single = overlaps.shared_m2 >= options.duplicate_cover * area[overlaps.footprint]
    covered = np.zeros(n, np.bool_)
    covered[overlaps.footprint[single]] = True
    doubtful = np.flatnonzero(most & ~covered)  # buildings under it may lie over each other
    starts = np.searchsorted(overlaps.footprint, doubtful)
    ends = np.searchsorted(overlaps.footprint, doubtful + 1)
    for i, start, end in zip(doubtful, starts, ends, strict=True):
        shared = shapely.intersection(mapped.shapes[overlaps.mapped[start:end]], footprints[i])
        covered[i] = shapely.union_all(shared).area >= options.duplicate_cover * area[i]
    return np.concatenate([alike, np.flatnonzero(covered)])


def _met(footprints: Shapes, others: Shapes, options: ConflateOptions, *, areal: bool) -> Pairs:
    """Return which footprints lie in areas, or are crossed by lines, for more than is allowed.

    All areas count together, and all lines: maps cut lakes and roads in pieces.
    """
    i, j = shapely.STRtree(others).query(footprints, predicate="intersects")
    shared = shapely.intersection(footprints[i], others[j])
    if areal:
        inside, limit = shapely.area(shared) / shapely.area(footprints[i]), options.water_share
    else:
        inside, limit = shapely.length(shared), options.crossing_m
    total = np.bincount(i, inside, len(footprints))
    met = (total[i] > limit) & (inside > 0)
    return Pairs.apart(i[met], j[met], overlap=inside[met] if areal else None)


def _areal(mapped: Mapped) -> Bools:
    is_water = mapped.kinds == KINDS.index("water")
    return np.asarray(is_water & (shapely.get_dimensions(mapped.shapes) == 2))
