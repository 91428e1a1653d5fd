"""Polygons of straight walls in given directions, fitted to sampled outlines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.regularize.labels import label_steps
from geoseg.regularize.runs import runs_of, split_at_jogs
from geoseg.regularize.walls import corners, find_walls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.regularize.samples import Samples
    from geoseg.regularize.walls import Walls

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Shapes = NDArray[np.object_]

MOST_TURN_DEG = 8.0
"""A direction is turned by at most this much to fit its walls."""
JOG_APART = 2.0
"""Jogs lie at least so many times their depth from corners and from each other."""
TRIES = (1.0, 2.0, 4.0)
"""Prices of a corner that are tried until walls meet in the order they run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What walls are; lengths in metres."""

    turns: int
    """Directions of a full turn: 4 for right angles, 8 for angles of 45 degrees."""
    corner_m: float
    """Outline that a corner must save."""
    trim_m: float
    """How far from a corner outlines are rounded."""
    jog_m: float
    """A step aside of this much in the middle of a wall is a wall; infinite for none."""


def fit_polygons(samples: Sequence[Samples], directions_deg: Floats, *, terms: Terms) -> Shapes:
    """Fit polygons whose walls run in given directions.

    Args:
        samples: The rings of P polygons, of some or all.
        directions_deg: (P, D) directions each may have, degrees.
        terms: What walls are.

    Returns:
        (P,) polygons; None where there is none of this kind, or no ring was given.
    """
    fitted = np.full(len(directions_deg), None, object)
    left = np.zeros(len(directions_deg), bool)
    left[np.concatenate([part.owner for part in samples] or [np.zeros(0, int)])] = True
    for price in TRIES:
        chosen = [part.take(left) for part in samples if left[part.owner].any()]
        if not chosen:
            break
        dearer = replace(terms, corner_m=terms.corner_m * price)
        found = _fit_once(chosen, directions_deg, dearer)
        done = found != None  # noqa: E711 - elementwise
        fitted[done] = found[done]
        left &= ~done
    return fitted


def _fit_once(samples: Sequence[Samples], directions_deg: Floats, terms: Terms) -> Shapes:
    angles = [_wall_angles(directions_deg[part.owner], terms.turns) for part in samples]
    walls = [_walls(part, angle, terms) for part, angle in zip(samples, angles, strict=True)]
    turn = _turns(samples, walls, directions_deg.shape, terms.turns)
    begins, rings, good = [], [], []
    for part, wall, angle in zip(samples, walls, angles, strict=True):
        begin, forward = corners(wall, angle + np.repeat(turn[part.owner], terms.turns, axis=1))
        begins.append(begin)
        rings.append(part.ring[wall.ring])
        good.append(_all_forward(wall, forward, len(angle)))
    owner = np.concatenate([part.owner for part in samples])
    ring = np.concatenate([part.ring for part in samples])
    fine = np.ones(len(directions_deg), bool)
    fine[owner[~np.concatenate(good)]] = False
    return _assembled(np.concatenate(begins), np.concatenate(rings), ring, owner, fine)


def _walls(samples: Samples, angles: Floats, terms: Terms) -> Walls:
    labels = label_steps(samples, angles, np.full(len(angles), terms.corner_m))
    runs = runs_of(samples, labels)
    if np.isfinite(terms.jog_m):
        runs = split_at_jogs(
            runs, angles, samples.spacing, jog_m=terms.jog_m, least_m=JOG_APART * terms.jog_m
        )
    return find_walls(runs, angles, samples.spacing, turns=terms.turns, trim_m=terms.trim_m)


def _wall_angles(directions_deg: Floats, turns: int) -> Floats:
    """Return the angles (R, D * turns) in which walls may run, radians, direction by direction."""
    each = np.radians(directions_deg)[..., None] + np.arange(turns) * (2 * np.pi / turns)
    return np.asarray(each.reshape(len(directions_deg), -1))


def _turns(
    samples: Sequence[Samples], walls: Sequence[Walls], shape: tuple[int, ...], turns: int
) -> Floats:
    """Return by how much each direction turns (P, D), radians, so that its walls fit best.

    All walls of a direction turn together: their scatter along and across is summed, and the
    axis of the sum is the least-squares answer.
    """
    lean = np.zeros((*shape, 2))
    for part, wall in zip(samples, walls, strict=True):
        np.add.at(lean, (part.owner[wall.ring], wall.label // turns), wall.lean)
    turn = np.arctan2(lean[..., 0], lean[..., 1]) / 2
    most = np.radians(MOST_TURN_DEG)
    return np.asarray(np.clip(turn, -most, most))


def _all_forward(walls: Walls, forward: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Tell which rings have at least three walls, each running its own way."""
    backward = np.bincount(walls.ring, weights=~forward, minlength=count)
    return np.asarray((backward == 0) & (np.bincount(walls.ring, minlength=count) > 2))


def _assembled(
    begin: Floats, begin_ring: Ints, ring: Ints, owner: Ints, fine: NDArray[np.bool_]
) -> Shapes:
    """Return (P,) polygons of the corners of their rings, None where not fine."""
    shapes = np.full(len(fine), None, object)
    keep = fine[_by_ring(ring, owner)[begin_ring]]
    begin, begin_ring = begin[keep], begin_ring[keep]
    order = np.argsort(begin_ring, kind="stable")
    begin, begin_ring = begin[order], begin_ring[order]
    if len(begin) == 0:
        return shapes
    first = np.flatnonzero(np.r_[True, begin_ring[1:] != begin_ring[:-1]])
    ends = np.append(first, len(begin))
    xy = np.insert(begin, ends[1:], begin[first], axis=0)
    ring_ends = ends + np.arange(len(ends))
    owners = _by_ring(ring, owner)[begin_ring[first]]
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    polygon_ends = np.append(starts, len(owners))
    shapes[owners[starts]] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, xy, (ring_ends, polygon_ends)
    )
    return shapes


def _by_ring(ring: Ints, owner: Ints) -> Ints:
    table = np.full(int(ring.max(initial=-1)) + 1, -1, np.int64)
    table[ring] = owner
    return table
