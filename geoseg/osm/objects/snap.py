"""Snap: adjoining buildings come to share their corners and walls.

Detected outlines of a terrace leave slits and slivers of centimetres between neighbours. Within the
tolerance, corners move onto neighbours' corners and walls, and what meets a wall becomes a node of
it. Overlaps that are still there, and no deeper than the tolerance, are cut off. What is farther
from its neighbours does not move. Where the result would be invalid or overlap more than before,
the footprints concerned stay as they were.

Frame: WGS84, whole 1e-7 degrees; the tolerance in metres. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

from geoseg.components import components
from geoseg.errors import ConfigError
from geoseg.grid import METRES_PER_DEGREE
from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.objects.join import join
from geoseg.osm.objects.outlines import (
    Outlines,
    rings_of,
    take_polygons,
    with_rings,
    without_repeats,
)
from geoseg.osm.objects.sanitize import MIN_RING_NODES
from geoseg.osm.objects.slivers import cut_slivers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAX_SNAP_M: Final = 5.0
"""Beyond it, streets would close."""

MIN_SNAP_M: Final = 0.02
"""Rounding to OSM's grid moves corners by a centimetre: what touched must be put together again."""

BATCH: Final = 20_000
"""Polygons looked at together: some tens of megabytes."""

ROUNDS: Final = 4
"""How often neighbours are snapped without those that came out wrong, before all stay as is."""

CUTS: Final = 8
"""How often thin overlaps are cut without those that came out wrong: one house of a dense town must
not keep the others from it."""

SLACK_E14: Final = 100.0
"""By how much an overlap may grow that was there before: 0.01 m2 in square units."""

INTERIORS_MEET: Final = "T********"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapped:
    """Outlines after snapping: the same polygons and rings, with other vertices."""

    outlines: Outlines
    overlapping: NDArray[np.int64]
    """Footprints that overlap another one, deeper than the tolerance mends; ascending."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """Polygons that may come near each other and near no others."""

    polygons: NDArray[np.int64]
    """(P,) positions, ascending."""
    rows: NDArray[np.int64]
    """(P,) the footprint of each."""
    pairs: NDArray[np.int64]
    """(K, 2) those so near that snapping could bring them together, as positions in `polygons`."""
    still: NDArray[np.bool_]
    """(P,) those that must not move."""


def snap(outlines: Outlines, *, tolerance_m: float) -> Snapped:
    """Let adjoining footprints share nodes.

    Args:
        outlines: Valid polygons.
        tolerance_m: How far corners move, and how deep overlaps are cut, at most, metres; 0 joins
            only what touches.

    Raises:
        ConfigError: The tolerance is negative, or could close a street.

    Example:
        >>> from geoseg.osm.objects.outlines import outlines_of
        >>> pair = np.array([shapely.box(0, 0, 900, 900), shapely.box(910, 0, 1800, 900)])
        >>> found = snap(outlines_of(pair, np.arange(2)), tolerance_m=0.2)
        >>> [polygon.bounds[::2] for polygon in found.outlines.polygons()]
        [(0.0, 900.0), (900.0, 1800.0)]
    """
    if not 0 <= tolerance_m <= MAX_SNAP_M:
        raise ConfigError(f"the snap distance must be in [0, {MAX_SNAP_M:g}] m, got {tolerance_m}")
    tolerance_m = max(tolerance_m, MIN_SNAP_M)
    waiting = list(_groups(outlines, _near(outlines, 2 * tolerance_m)))
    done: list[tuple[NDArray[np.int64], Outlines]] = []
    overlapping: list[NDArray[np.int64]] = []
    for attempt in range(ROUNDS + 1):
        again: list[_Group] = []
        for group in waiting:
            before = take_polygons(outlines, group.polygons)
            still = group.still | (attempt == ROUNDS)
            after = join(before, tolerance_m=tolerance_m, still=still)
            spoiled = _judge(before, after, group.pairs, still).spoiled
            redo = _connected(group, spoiled)
            if redo.any():
                again.append(_part(group, redo, still | spoiled))
            settled = _part(group, ~redo, still)
            after = take_polygons(after, np.flatnonzero(~redo))
            after, meeting = _without_slivers(after, settled, tolerance_m)
            done.append((settled.polygons, after))
            overlapping.append(settled.rows[meeting])
        waiting = again
    assert not waiting, "polygons that stay as they were are no worse than they were"
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *overlapping]))
    return Snapped(outlines=_replaced(outlines, done), overlapping=rows)


def _near(outlines: Outlines, distance_m: float) -> NDArray[np.int64]:
    """Return (K, 2) polygons, the smaller position first, that may be within a distance."""
    polygons = outlines.polygons()
    if not len(polygons):
        return np.zeros((0, 2), np.int64)
    _, south, _, north = shapely.bounds(polygons).T
    scale = np.cos(np.radians(np.maximum(np.abs(south), np.abs(north)) / DEGREE_E7))
    reach = distance_m / METRES_PER_DEGREE * DEGREE_E7 / scale
    tree = shapely.STRtree(polygons)
    one, other = tree.query(polygons, predicate="dwithin", distance=reach)
    # From both sides: the reach of one may be a little longer.
    pairs = np.sort(np.column_stack([one, other])[one != other], axis=1)
    return np.unique(pairs, axis=0)


def _labels(count: int, pairs: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group of each polygon: joined by pairs, or parts of one footprint."""
    same = np.flatnonzero(rows[1:] == rows[:-1])
    links = np.concatenate([pairs, np.column_stack([same, same + 1])])
    return components(count, *links.T)


def _groups(outlines: Outlines, pairs: NDArray[np.int64]) -> Iterator[_Group]:
    """Yield the polygons that have neighbours, some thousands at a time."""
    count = len(outlines.polygon_row)
    label = _labels(count, pairs, outlines.polygon_row)
    sizes = np.bincount(label, minlength=1)
    lonely = np.ones(len(sizes), np.bool_)
    lonely[label[pairs[:, 0]]] = False
    sizes[lonely] = 0
    batch = ((np.cumsum(sizes) - sizes) // BATCH)[label]
    members = np.flatnonzero(~lonely[label])
    members = members[np.argsort(batch[members], kind="stable")]
    pairs = pairs[np.argsort(batch[pairs[:, 0]], kind="stable")]
    local = np.full(count, -1)
    for number in np.unique(batch[members]).tolist():
        low, high = np.searchsorted(batch[members], [number, number + 1])
        first, last = np.searchsorted(batch[pairs[:, 0]], [number, number + 1])
        polygons = members[low:high]
        local[polygons] = np.arange(len(polygons))
        yield _Group(
            polygons=polygons,
            rows=outlines.polygon_row[polygons],
            pairs=local[pairs[first:last]],
            still=np.zeros(len(polygons), np.bool_),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Verdict:
    """What became of polygons."""

    spoiled: NDArray[np.bool_]
    """(P,) those that are invalid or overlap others more than before."""
    meeting: NDArray[np.int64]
    """(K, 2) valid ones that overlap each other."""


def _judge(
    before: Outlines, after: Outlines, pairs: NDArray[np.int64], still: NDArray[np.bool_]
) -> _Verdict:
    """Compare polygons with what they were; of two that overlap more, the later one is spoiled."""
    old, new = before.polygons(), after.polygons()
    short = without_repeats(after).ring_sizes < MIN_RING_NODES
    spoiled = ~shapely.is_valid(new)
    spoiled[after.ring_polygon[short]] = True
    pairs = pairs[~spoiled[pairs].any(axis=1)]
    pairs = pairs[shapely.relate_pattern(*new[pairs].T, INTERIORS_MEET)]
    was = shapely.area(shapely.intersection(*old[pairs].T))
    now = shapely.area(shapely.intersection(*new[pairs].T))
    met = shapely.relate_pattern(*old[pairs].T, INTERIORS_MEET)
    worse = pairs[~met | (now > was + SLACK_E14)]
    spoiled[np.where(still[worse[:, 1]], worse[:, 0], worse[:, 1])] = True
    return _Verdict(spoiled=spoiled, meeting=pairs)


def _without_slivers(
    outlines: Outlines, group: _Group, depth_m: float
) -> tuple[Outlines, NDArray[np.bool_]]:
    """Cut thin overlaps off where that leaves all in order; also return what overlaps still."""
    free = np.zeros(len(group.polygons), np.bool_)
    still = free.copy()
    meeting = _judge(outlines, outlines, group.pairs, free).meeting
    for _ in range(CUTS):
        pairs = meeting[~still[meeting].any(axis=1)]
        if not len(pairs):
            break
        cut = cut_slivers(outlines, pairs, depth_m=depth_m)
        # The cuts' ends become nodes of the walls that they lie on.
        cut = join(cut, tolerance_m=MIN_SNAP_M, still=still)
        spoiled = _judge(outlines, cut, group.pairs, still).spoiled
        kept = np.flatnonzero(~_connected(group, spoiled))
        outlines = _replaced(outlines, [(kept, take_polygons(cut, kept))])
        meeting = _judge(outlines, outlines, group.pairs, free).meeting
        if not spoiled.any():
            break
        still |= spoiled
    overlaps = free.copy()
    overlaps[meeting] = True
    return outlines, overlaps


def _connected(group: _Group, spoiled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (P,) what hangs together with a spoiled polygon."""
    if not spoiled.any():
        return spoiled
    label = _labels(len(spoiled), group.pairs, group.rows)
    return np.isin(label, label[spoiled])


def _part(group: _Group, chosen: NDArray[np.bool_], still: NDArray[np.bool_]) -> _Group:
    number = np.cumsum(chosen) - 1
    return _Group(
        polygons=group.polygons[chosen],
        pairs=number[group.pairs[chosen[group.pairs[:, 0]]]],
        rows=group.rows[chosen],
        still=still[chosen],
    )


def _replaced(outlines: Outlines, done: list[tuple[NDArray[np.int64], Outlines]]) -> Outlines:
    """Put snapped polygons back among those that had no neighbours."""
    rings = [rings_of(outlines, polygons) for polygons, _ in done]
    parts = [part for _, part in done]
    none = np.zeros(0, np.int64)
    changed = with_rings(
        outlines,
        np.concatenate([none, *rings]),
        np.concatenate([none, *(part.ring_sizes for part in parts)]),
        np.concatenate([np.zeros((0, 2), np.int64), *(part.lonlat_e7 for part in parts)]),
    )
    return without_repeats(changed)
