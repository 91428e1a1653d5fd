"""Which wall each step of an outline belongs to: the cheapest sequence of directions around it.

A step costs what it is longer than its way along the wall's direction, and each corner costs the
same. So a chamfer, a rounded corner or a jog shorter than two corners' price has no wall of its
own, and where walls begin is decided for the whole ring at once (Viterbi's algorithm, all rings
of one length in step).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.regularize.samples import Samples

    Floats = NDArray[np.float64]
    Labels = NDArray[np.int8]

SHARPEST_DEG = 140.0
"""Two walls may not turn by more at a corner: to turn back, a third wall lies between them."""
SURE_SHARE = 8
"""The walls are found from the surest eighth of the ring on."""


def label_steps(samples: Samples, angles: Floats, corner_m: Floats) -> Labels:
    """Give each step of rings the wall direction it belongs to.

    Args:
        samples: R rings of n steps.
        angles: (R, K) directions of walls that the rings may have, radians.
        corner_m: (R,) price of a corner, metres.

    Returns:
        (R, n) the number of each step's direction.
    """
    way = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    x, y = (samples.step[:, None, :, i] * way[:, :, None, i] for i in (0, 1))
    costs = samples.length[:, None] - (x + y)
    start, label = _surest(costs)
    n = costs.shape[2]
    order = (np.arange(n) + start[:, None]) % n
    costs = np.take_along_axis(costs, order[:, None], axis=2)
    price = _corner_prices(way) * corner_m[:, None, None]
    found = _cheapest(np.ascontiguousarray(costs.transpose(2, 1, 0)), price, label)
    labels = np.empty_like(found)
    np.put_along_axis(labels, order, found, axis=1)
    return labels


def _surest(costs: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the step and the direction (R,) around which a ring is straightest."""
    n = costs.shape[2]
    half = max(n // SURE_SHARE // 2, 1)
    sums = np.cumsum(np.concatenate([costs[..., -half:], costs, costs[..., :half]], axis=2), axis=2)
    around = sums[..., 2 * half :] - sums[..., : -2 * half]
    place = around.reshape(len(costs), -1).argmin(axis=1)
    label, start = np.divmod(place, around.shape[2])
    return (start + 1) % n, label


def _corner_prices(way: Floats) -> Floats:
    """Return what it costs to go from one direction to another, (R, K, K), in corners."""
    cosine = (way[:, :, None] * way[:, None]).sum(axis=-1)
    turn = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    price = np.where(turn > SHARPEST_DEG, np.inf, 1.0)
    price[:, np.arange(way.shape[1]), np.arange(way.shape[1])] = 0
    return price


def _cheapest(costs: Floats, price: Floats, label: NDArray[np.int64]) -> Labels:
    """Return the cheapest labels (R, n) of closed rings that begin and end with `label`.

    Args:
        costs: (n, K, R) of each step in each direction.
        price: (R, K, K) of going from one direction to another.
        label: (R,) direction of the first step.
    """
    n, k, rings = costs.shape
    price = np.ascontiguousarray(price.transpose(1, 2, 0))  # from, to, ring
    every = np.arange(rings)
    totals = np.full((n, k, rings), np.inf)
    totals[0, label, every] = costs[0, label, every]
    through = np.empty_like(price)
    for before, here, cost in zip(totals[:-1], totals[1:], costs[1:], strict=True):
        np.add(before[:, None], price, out=through)
        np.minimum.reduce(through, axis=0, out=here)
        np.add(here, cost, out=here)
    labels = np.empty((rings, n), np.int8)
    last = label
    for i in range(n - 1, -1, -1):  # where from is asked again, for one direction instead of all
        last = (totals[i] + price[:, last, every]).argmin(axis=0)
        labels[:, i] = last
    return labels
