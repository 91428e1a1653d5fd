"""Join: one pass in which corners move onto neighbours' corners and walls.

Every place gets a leader among the corners that come together there, so what is shared is the same
node and not two that are equal. A footprint has a place once at most: its own corners never merge.
Distances are taken in a conformal plane, where a metre is as long in all directions.

Frame: WGS84, whole 1e-7 degrees; the plane is Mercator's in the same unit. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.grid import METRES_PER_DEGREE
from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.objects.outlines import Outlines, following

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """The corners of outlines in the plane, and what each belongs to."""

    xy: NDArray[np.float64]
    """(V, 2) in the conformal plane."""
    reach: NDArray[np.float64]
    """(V,) the tolerance there."""
    row: NDArray[np.int64]
    """(V,) footprints, numbered from 0."""
    after: NDArray[np.int64]
    """(V,) the next corner; wall `i` leads from corner `i` to it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Meetings:
    """Places that lie on walls."""

    lead: NDArray[np.int64]
    wall: NDArray[np.int64]
    along: NDArray[np.float64]
    """Where on the wall, from 0 to 1."""
    distance: NDArray[np.float64]


def join(outlines: Outlines, *, tolerance_m: float, still: NDArray[np.bool_]) -> Outlines:
    """Bring corners together and let walls run through the corners that meet them.

    Args:
        outlines: Valid polygons.
        tolerance_m: No vertex moves farther than this, metres.
        still: (P,) polygons that take no part.

    Returns:
        The same polygons and rings, with moved and more vertices; a vertex may repeat another.
    """
    plan = _plan(outlines, tolerance_m)
    corner, wall = _candidates(plan, still[outlines.ring_polygon][outlines.vertex_ring])
    if not len(corner):
        return outlines
    lead = _leaders(plan, corner, wall)
    meetings = _meetings(plan, lead, corner, wall)
    places = np.rint(_places(plan, lead, meetings, outlines.lonlat_e7)).astype(np.int64)
    count = len(lead)
    wall_of = np.concatenate([np.arange(count), meetings.wall])
    along = np.concatenate([np.zeros(count), meetings.along])
    of = np.concatenate([lead, meetings.lead])
    order = np.lexsort((of, along, wall_of))
    rings = outlines.vertex_ring[wall_of[order]]
    sizes = np.bincount(rings, minlength=len(outlines.ring_polygon))
    return Outlines(
        lonlat_e7=places[of[order]],
        ring_offsets=np.concatenate([[0], np.cumsum(sizes)]),
        ring_polygon=outlines.ring_polygon,
        polygon_row=outlines.polygon_row,
    )


def _plan(outlines: Outlines, tolerance_m: float) -> _Plan:
    lon, lat = outlines.lonlat_e7.T.astype(np.float64)
    angle = np.radians(lat / DEGREE_E7)
    north = np.degrees(np.arcsinh(np.tan(angle))) * DEGREE_E7
    _, row = np.unique(outlines.vertex_row, return_inverse=True)
    return _Plan(
        xy=np.column_stack([lon, north]),
        reach=tolerance_m / METRES_PER_DEGREE * DEGREE_E7 / np.cos(angle),
        row=row,
        after=following(outlines.ring_offsets),
    )


def _candidates(
    plan: _Plan, still: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return corners and walls of other footprints within reach of each other."""
    tree = shapely.STRtree(shapely.linestrings(np.stack([plan.xy, plan.xy[plan.after]], axis=1)))
    corners = np.flatnonzero(~still)
    found, wall = tree.query(
        shapely.points(plan.xy[corners]), predicate="dwithin", distance=plan.reach[corners]
    )
    corner = corners[found]
    others = (plan.row[corner] != plan.row[wall]) & ~still[wall]
    return corner[others], wall[others]


def _leaders(plan: _Plan, corner: NDArray[np.int64], wall: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (V,) the corner at whose place each corner goes, itself where it stays.

    The nearest pairs come first. All that gather at a place are within reach of it, and of each
    footprint one corner at most.
    """
    ends = np.concatenate([wall, plan.after[wall]])
    pairs = np.sort(np.column_stack([np.concatenate([corner, corner]), ends]), axis=1)
    pairs = np.unique(pairs, axis=0)
    apart = np.hypot(*(plan.xy[pairs[:, 0]] - plan.xy[pairs[:, 1]]).T)
    near = apart <= plan.reach[pairs[:, 0]]
    pairs, apart = pairs[near], apart[near]
    pairs = pairs[np.argsort(apart, kind="stable")]
    leads = _gathered(plan, pairs)
    lead = np.arange(len(plan.xy))
    lead[list(leads)] = list(leads.values())
    return lead


def _gathered(plan: _Plan, pairs: NDArray[np.int64]) -> dict[int, int]:
    """Return the leader of every corner that has another one."""
    corners = np.unique(pairs).tolist()
    places = plan.xy[corners].tolist()
    at = dict(zip(corners, places, strict=True))
    reach2 = dict(zip(corners, (plan.reach[corners] ** 2).tolist(), strict=True))
    row = dict(zip(corners, plan.row[corners].tolist(), strict=True))
    gathering = {i: [i] for i in corners}
    for one, other in pairs.tolist():
        here, there = gathering[one], gathering[other]
        if here is there:
            continue
        if here[0] > there[0]:
            here, there = there, here
        x, y = at[here[0]]
        if any((at[i][0] - x) ** 2 + (at[i][1] - y) ** 2 > reach2[i] for i in there):
            continue
        rows = {row[i] for i in here}
        if any(row[i] in rows for i in there):
            continue
        here += there
        for i in there:
            gathering[i] = here
    return {i: group[0] for i, group in gathering.items() if group[0] != i}


def _meetings(
    plan: _Plan, lead: NDArray[np.int64], corner: NDArray[np.int64], wall: NDArray[np.int64]
) -> _Meetings:
    """Return which places become nodes of which walls: of a footprint, the nearest wall only."""
    place, start = plan.xy[lead[corner]], plan.xy[lead[wall]]
    run = plan.xy[lead[plan.after[wall]]] - start
    square = (run**2).sum(axis=1)
    along = ((place - start) * run).sum(axis=1) / np.where(square > 0, square, np.inf)
    distance = np.hypot(*(start + along[:, None] * run - place).T)
    n_rows = int(plan.row.max()) + 1
    target = lead[corner] * n_rows + plan.row[wall]
    near = (distance <= plan.reach[corner]) & (along > 0) & (along < 1)
    chosen = np.flatnonzero(near & ~np.isin(target, lead * n_rows + plan.row))
    chosen = chosen[np.lexsort((wall[chosen], distance[chosen], target[chosen]))]
    _, first = np.unique(target[chosen], return_index=True)
    chosen = chosen[first]
    return _Meetings(
        lead=lead[corner[chosen]],
        wall=wall[chosen],
        along=along[chosen],
        distance=distance[chosen],
    )


def _places(
    plan: _Plan, lead: NDArray[np.int64], meetings: _Meetings, lonlat_e7: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return (V, 2) where each leader goes, in 1e-7 degrees.

    A place moves onto the wall nearest to it, so that the wall stays straight; where that would
    take a corner out of its reach, the place stays and the wall bends.
    """
    order = np.lexsort((meetings.wall, meetings.distance, meetings.lead))
    leads, first = np.unique(meetings.lead[order], return_index=True)
    nearest = order[first]
    start = lead[meetings.wall[nearest]]
    end = lead[plan.after[meetings.wall[nearest]]]
    along = meetings.along[nearest][:, None]
    moved = plan.xy.copy()
    moved[leads] = plan.xy[start] + along * (plan.xy[end] - plan.xy[start])
    away = np.hypot(*(moved[lead] - plan.xy).T) > plan.reach
    stays = np.isin(leads, lead[away])
    places = lonlat_e7.astype(np.float64)
    onto = places[start] + along * (places[end] - places[start])
    places[leads[~stays]] = onto[~stays]
    return places
