"""Runs of steps in one direction, and where a wall in fact steps aside in the middle of one.

A jog of a blurred mask is a gentle wave, which no step of an outline runs across. It shows in where
the outline lies instead: two level stretches side by side follow it far better than one slope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.regularize.samples import Samples

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

ROUNDS = 2
"""Each halves the stretches between jogs: up to three in a run."""
BETTER_THAN_SLOPE = 0.8
"""Share of a slope's squared distance that two level stretches may leave."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runs:
    """W runs of the steps of R rings, n each, one after another: S = R * n steps."""

    n: int
    label: Ints
    """(W,) number of each run's direction."""
    starts: Ints
    """(W,) first step of each."""
    aside: Flags
    """(W,) whether a jog leads to it from the run before, which has the same direction."""
    middle: Floats
    """(S, 2) middle of each step."""
    step: Floats
    """(S, 2) vector of each."""

    @property
    def ring(self) -> Ints:
        """(W,) ring of each run, 0 to R - 1."""
        return np.asarray(self.starts // self.n)

    @property
    def count(self) -> Ints:
        """(W,) steps of each run."""
        return np.diff(self.starts, append=len(self.middle))

    @property
    def run(self) -> Ints:
        """(S,) run of each step."""
        return np.repeat(np.arange(len(self.starts)), self.count)


def runs_of(samples: Samples, labels: NDArray[np.int8]) -> Runs:
    """Return the runs of equal labels (R, n); each ring's first step begins one."""
    n = labels.shape[1]
    turn = labels != np.roll(labels, 1, axis=1)
    order = (np.arange(n) + turn.argmax(axis=1)[:, None]) % n
    turn = np.take_along_axis(turn, order, axis=1)
    turn[:, 0] = True
    starts = np.flatnonzero(turn)
    return Runs(
        n=n,
        label=np.take_along_axis(labels, order, axis=1).ravel()[starts].astype(np.int64),
        starts=starts,
        aside=np.zeros(len(starts), bool),
        middle=np.take_along_axis(samples.middle, order[..., None], axis=1).reshape(-1, 2),
        step=np.take_along_axis(samples.step, order[..., None], axis=1).reshape(-1, 2),
    )


def split_at_jogs(
    runs: Runs, angles: Floats, spacing: Floats, *, jog_m: float, least_m: float
) -> Runs:
    """Split runs where the outline steps aside.

    Args:
        runs: Of R rings.
        angles: (R, K) the directions, radians.
        spacing: (R,) length of a step.
        jog_m: Least step aside.
        least_m: Least length of what lies before and after it.
    """
    for _ in range(ROUNDS):
        place = _jogs(runs, angles, spacing, jog_m, least_m)
        starts = np.concatenate([runs.starts, place])
        order = np.argsort(starts, kind="stable")
        label = np.concatenate([runs.label, runs.label[runs.run[place]]])
        aside = np.concatenate([runs.aside, np.ones(len(place), bool)])
        runs = replace(runs, starts=starts[order], label=label[order], aside=aside[order])
    return runs


def _jogs(runs: Runs, angles: Floats, spacing: Floats, jog_m: float, least_m: float) -> Ints:
    """Return the steps that runs are to be split before, at most one in each."""
    run, count = runs.run, runs.count
    across = _across(runs, angles, run)
    sums = np.cumsum(across.reshape(-1, runs.n), axis=1).ravel()  # ring by ring, for the last bits
    total = np.add.reduceat(across, runs.starts)
    base = sums[runs.starts] - across[runs.starts]
    before = np.arange(len(run)) - runs.starts[run]
    after = count[run] - before
    first = (sums - across - base[run]) / np.maximum(before, 1)
    aside = (total[run] - (sums - across - base[run])) / after - first
    saved = before * after / count[run] * aside**2
    least = (least_m / spacing[runs.ring])[run]
    saved[(before < least) | (after < least) | (np.abs(aside) < jog_m)] = 0
    best = np.maximum.reduceat(saved, runs.starts)
    left = np.add.reduceat(across**2, runs.starts) - total**2 / count
    slope = (np.arange(len(run)) - (runs.starts + (count - 1) / 2)[run]) * across
    sloped = np.add.reduceat(slope, runs.starts) ** 2 * 12 / np.maximum(count**3 - count, 1)
    split = (best > 0) & (left - best < BETTER_THAN_SLOPE * (left - sloped))
    chosen = np.flatnonzero(split[run] & (saved == best[run]))
    return np.asarray(chosen[np.unique(run[chosen], return_index=True)[1]])


def _across(runs: Runs, angles: Floats, run: Ints) -> Floats:
    """Return how far to the left of its run's first step each step lies, (S,)."""
    angle = angles[runs.ring, runs.label]
    away = runs.middle - runs.middle[runs.starts][run]
    return np.asarray(away[:, 1] * np.cos(angle)[run] - away[:, 0] * np.sin(angle)[run])
