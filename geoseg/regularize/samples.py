"""Rings of all lengths as dense arrays: each is sampled at equal steps along its length.

Frame: any metric one, points (x, y). Rings run counter-clockwise, holes too, so that a wall always
has its inside to the left. Sums along rings are of whole numbers: no bit of a ring's samples
depends on the rings beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Shapes = NDArray[np.object_]

UNIT_M = 2.0**-30
"""About a nanometre."""
SAMPLES = (48, 96, 192, 384)
"""Steps that a ring may be cut into: rings of one number share an array."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """R rings of n steps each."""

    ring: Ints
    """(R,) which ring each is."""
    owner: Ints
    """(R,) the polygon each belongs to."""
    middle: Floats
    """(R, n, 2) middle of each step."""
    step: Floats
    """(R, n, 2) vector of each step, the last one back to the first point."""
    spacing: Floats
    """(R,) length along the ring from one point to the next."""

    def take(self, chosen: NDArray[np.bool_]) -> Samples:
        """Return the rings of chosen polygons, (P,) by owner."""
        keep = chosen[self.owner]
        return Samples(
            ring=self.ring[keep],
            owner=self.owner[keep],
            middle=self.middle[keep],
            step=self.step[keep],
            spacing=self.spacing[keep],
        )

    @property
    def length(self) -> Floats:
        """(R, n) length of each step."""
        return np.asarray(np.hypot(self.step[..., 0], self.step[..., 1]))


def sample_rings(rings: Shapes, owner: Ints, *, step_m: float) -> list[Samples]:
    """Cut rings into steps of about a given length.

    Args:
        rings: (R,) closed linear rings of more than no length.
        owner: (R,) the polygon each belongs to.
        step_m: Longest step wanted; rings too long for it get the most steps there are.

    Returns:
        The rings, those of one number of steps together.
    """
    xy, index = shapely.get_coordinates(rings, return_index=True)
    along = _along(xy, index)
    starts = np.searchsorted(index, np.arange(len(rings)))
    ends = np.append(starts[1:], len(index)) - 1
    whole = along[ends] - along[starts]
    sizes = np.array(SAMPLES)
    rank = np.searchsorted(sizes[:-1], whole * UNIT_M / step_m)
    backward = ~shapely.is_ccw(rings)
    found = []
    for k in np.unique(rank).tolist():
        chosen = np.flatnonzero(rank == k)
        at = (np.arange(sizes[k]) + 0.5) / sizes[k]  # never at the joint of two rings
        share = np.where(backward[chosen, None], 1 - at, at)
        points = _points(xy, along, starts[chosen], whole[chosen, None] * share)
        step = np.roll(points, -1, axis=1) - points
        spacing = whole[chosen] * UNIT_M / sizes[k]
        found.append(
            Samples(
                ring=chosen,
                owner=owner[chosen],
                middle=points + step / 2,
                step=step,
                spacing=spacing,
            )
        )
    return found


def _along(xy: Floats, index: Ints) -> Ints:
    """Return how far along all rings each point lies, in whole units: no sum is ever rounded."""
    hop = np.hypot(*np.diff(xy, axis=0, prepend=xy[:1]).T)
    hop[np.r_[True, index[1:] != index[:-1]]] = 0
    return np.cumsum(np.ceil(hop / UNIT_M).astype(np.int64))


def _points(xy: Floats, along: Ints, starts: Ints, places: Floats) -> Floats:
    """Return the points (R, n, 2) at places (R, n) along rings, in units from each one's start."""
    begin = along[starts][:, None]
    after = np.searchsorted(along, begin + np.floor(places).astype(np.int64), side="right")
    from_ = (along[after - 1] - begin).astype(float)
    share = (places - from_) / (along[after] - along[after - 1])
    before = xy[after - 1]
    return np.asarray(before + (xy[after] - before) * share[..., None])
