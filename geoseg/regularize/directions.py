"""The directions in which a building's walls run.

A *direction* is an angle in [0, 90) degrees that stands for itself and its three right angles:
what a rectangle has one of, and a bent building several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.regularize.samples import Samples

    Floats = NDArray[np.float64]

BINS = 90
BLUR_DEG = 4.0
"""Directions of a rounded, noisy outline scatter by about as much."""
BLUR_BINS = 12
"""Three times as far the blur reaches."""
APART_DEG = 15.0
"""Directions nearer than this are one."""
CHORD = 3
"""Steps that a direction is measured over."""


def histogram(samples: Sequence[Samples], count: int) -> Floats:
    """Return metres of outline per degree of direction, (P, 90), blurred.

    Args:
        samples: Rings of the polygons.
        count: How many polygons there are, P.
    """
    found = np.zeros((count, BINS))
    for part in samples:
        chord = np.zeros_like(part.step)
        for k in range(-(CHORD // 2), CHORD // 2 + 1):
            chord += np.roll(part.step, k, axis=1)
        angle = np.degrees(np.arctan2(chord[..., 1], chord[..., 0])) % 90
        place = part.owner[:, None] * BINS + np.minimum(angle.astype(np.int64), BINS - 1)
        weights = np.hypot(chord[..., 0], chord[..., 1]) / CHORD
        found += np.bincount(place.ravel(), weights.ravel(), count * BINS).reshape(count, BINS)
    return _blurred(found)


def peaks(metres: Floats, most: int) -> tuple[Floats, Floats]:
    """Return the directions that hold most of the outline.

    Args:
        metres: (P, 90), see `histogram`.
        most: How many directions are looked for, D.

    Returns:
        (P, D) directions in degrees, the strongest first; and (P, D) the share of the outline
        within half of `APART_DEG` of each.
    """
    rest = metres.copy()
    total = np.maximum(metres.sum(axis=1), 1e-12)
    angles, shares = np.zeros((len(metres), most)), np.zeros((len(metres), most))
    bins = np.arange(BINS)
    for k in range(most):
        top = rest.argmax(axis=1)
        apart = (bins - top[:, None] + BINS // 2) % BINS - BINS // 2
        near = np.where(np.abs(apart) <= APART_DEG / 2, rest, 0)
        held = near.sum(axis=1)
        angles[:, k] = (top + 0.5 + (near * apart).sum(axis=1) / np.maximum(held, 1e-12)) % 90
        shares[:, k] = held / total
        rest = np.where(np.abs(apart) <= APART_DEG, 0, rest)
    return angles, shares


def _blurred(metres: Floats) -> Floats:
    """Blur around the circle: a rectangle along the axes scatters about 0 and 90."""
    apart = np.arange(-BLUR_BINS, BLUR_BINS + 1)
    kernel = np.exp(-((apart / BLUR_DEG) ** 2) / 2)
    around = np.concatenate([metres[:, -BLUR_BINS:], metres, metres[:, :BLUR_BINS]], axis=1)
    blurred = np.zeros_like(metres)
    for k, weight in enumerate(kernel / kernel.sum()):
        blurred += weight * around[:, k : k + BINS]
    return blurred
