"""Walls: straight lines fitted to runs of steps, and the corners in which they meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.regularize.runs import Runs

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

TRIM_SHARE = 0.1
"""Of a wall's ends at most this much each is left out of its fit."""
ALONG = 0.75
"""Cosine below which a step runs across its wall, as chamfers of 45 degrees do ..."""
ALONG_LEAST = 0.3
"""... and does not count, where at least this share of the wall's steps is left."""
ROUGH_SHARE = 0.5
"""Of the width of rounded corners: what lies more widely about a wall says little of its way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Walls:
    """W walls of R rings, in the rings' order and around each."""

    ring: Ints
    """(W,) ring of each, 0 to R - 1."""
    label: Ints
    """(W,) number of its direction."""
    middle: Floats
    """(W, 2) mean of the outline along it."""
    lean: Floats
    """(W, 2): sums of 2ab and aa - bb of points a along and b across the wall, from its middle."""

    def ends(self, count: int) -> Ints:
        """Return where each ring's walls begin and end, (R + 1,)."""
        return np.searchsorted(self.ring, np.arange(count + 1))


def find_walls(runs: Runs, angles: Floats, spacing: Floats, *, turns: int, trim_m: float) -> Walls:
    """Fit a wall to each run, and one across where a jog leads from run to run.

    Args:
        runs: Of R rings.
        angles: (R, K) the directions, radians.
        spacing: (R,) length of a step.
        turns: Directions that a full turn goes through, of each family.
        trim_m: How far from a corner an outline is rounded.
    """
    run = runs.run
    angle = angles[runs.ring, runs.label]
    weight = _weights(runs, angle, trim_m / spacing[runs.ring])
    total = np.add.reduceat(weight, runs.starts)
    centre = np.add.reduceat(runs.middle * weight[:, None], runs.starts) / total[:, None]
    away = runs.middle - centre[run]
    cos, sin = np.cos(angle)[run], np.sin(angle)[run]
    a, b = away[:, 0] * cos + away[:, 1] * sin, away[:, 1] * cos - away[:, 0] * sin
    moments = np.stack([2 * a * b, a * a - b * b, a * a + b * b], axis=1)
    sums = np.add.reduceat(moments * weight[:, None], runs.starts)
    lean = sums[:, :2] * _straightness(sums, total, ROUGH_SHARE * trim_m)[:, None]
    walls = Walls(ring=runs.ring, label=runs.label, middle=centre, lean=lean)
    return _with_jogs(walls, runs, angle, turns)


def _with_jogs(walls: Walls, runs: Runs, angle: Floats, turns: int) -> Walls:
    """Put a wall across before each run that a jog leads to."""
    to = np.flatnonzero(runs.aside)
    if not len(to):
        return walls
    moved = walls.middle[to] - walls.middle[to - 1]
    left = moved[:, 1] * np.cos(angle[to]) > moved[:, 0] * np.sin(angle[to])
    family, turn = np.divmod(walls.label[to], turns)
    across = family * turns + (turn + np.where(left, 1, 3) * (turns // 4)) % turns
    joint = (runs.middle[runs.starts[to] - 1] + runs.middle[runs.starts[to]]) / 2
    return Walls(
        ring=np.insert(walls.ring, to, walls.ring[to]),
        label=np.insert(walls.label, to, across),
        middle=np.insert(walls.middle, to, joint, axis=0),
        lean=np.insert(walls.lean, to, 0.0, axis=0),
    )


def corners(walls: Walls, angles: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return where each wall begins, (W, 2), and whether it runs its own way from there, (W,).

    Args:
        walls: Walls of R rings.
        angles: (R, K) the directions, radians.
    """
    ends = walls.ends(len(angles))
    following, preceding = ring_neighbours(ends)
    angle = angles[walls.ring, walls.label]
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    before = way[preceding]
    apart = walls.middle - walls.middle[preceding]
    with np.errstate(divide="ignore", invalid="ignore"):
        along = _cross(apart, way) / _cross(before, way)
        begin = walls.middle[preceding] + before * along[:, None]
    forward = ((begin[following] - begin) * way).sum(axis=1) > 0
    return begin, forward


def ring_neighbours(ends: Ints) -> tuple[Ints, Ints]:
    """Return the place after and before each in rings that lie one after another.

    Args:
        ends: (R + 1,) where each ring begins and ends.
    """
    following = np.arange(1, ends[-1] + 1)
    preceding = np.arange(-1, ends[-1] - 1)
    some = ends[1:] > ends[:-1]
    following[ends[1:][some] - 1] = ends[:-1][some]
    preceding[ends[:-1][some]] = ends[1:][some] - 1
    return following, preceding


def _weights(runs: Runs, angle: Floats, trim_steps: Floats) -> Floats:
    """Return what each step counts for its wall, (S,): its length, or nothing.

    Steps near the wall's ends do not count, nor those that run across it if others are left.

    Args:
        runs: W runs.
        angle: (W,) their directions, radians.
        trim_steps: (W,) steps that are too near to an end.
    """
    run, count = runs.run, runs.count
    middle = np.arange(len(run)) - runs.starts[run] + 0.5
    trim = np.minimum(trim_steps, TRIM_SHARE * count)[run]
    length = np.hypot(runs.step[:, 0], runs.step[:, 1])
    weight = length * ((middle >= trim) & (middle <= count[run] - trim))
    forward = runs.step[:, 0] * np.cos(angle)[run] + runs.step[:, 1] * np.sin(angle)[run]
    along = weight * (forward >= ALONG * length)
    sums = [np.add.reduceat(w, runs.starts) for w in (along, weight)]
    return np.asarray(np.where((sums[0] >= ALONG_LEAST * sums[1])[run], along, weight))


def _straightness(sums: Floats, weight: Floats, rough_m: float) -> Floats:
    """Return the say that walls have in their building's direction, (W,), 0 to 1.

    A wall that runs on past a jog leans, and what lies about it does so more widely.
    """
    least = np.maximum(sums[:, 2] - np.hypot(sums[:, 0], sums[:, 1]), 0) / 2 / weight
    return np.asarray(rough_m**2 / (least + rough_m**2))


def _cross(one: Floats, other: Floats) -> Floats:
    return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0])
