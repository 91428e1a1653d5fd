"""From a sensor's numbers to the 0-255 the network sees.

The same line per band for the whole scene, so that neighbouring chips match. Numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOW_PERCENTILE, HIGH_PERCENTILE = 2.0, 98.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """One line per band: `low` becomes 0 and `high` becomes 255; beyond them is clipped."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        for low, high in zip(self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError(f"rescale must be MIN,MAX with MIN < MAX, got {low:g},{high:g}")

    @classmethod
    def from_pixels(cls, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> Self:
        """Return the line from the 2nd to the 98th percentile of each band's valid pixels.

        A band that is (almost) constant keeps its whole range, and one without valid pixels maps
        0-1, so that nothing is divided by zero.

        Args:
            pixels: (C, H, W), any real dtype.
            valid: (H, W).

        Example:
            >>> Rescale.from_pixels(np.arange(101.0).reshape(1, 1, -1), np.ones((1, 101), bool))
            Rescale(low=(2.0,), high=(98.0,))
        """
        ranges = [_range_of(band[valid & np.isfinite(band)]) for band in pixels]
        return cls(low=tuple(r[0] for r in ranges), high=tuple(r[1] for r in ranges))

    def apply(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return float32 in [0, 255], not yet rounded; pixels must be finite.

        Args:
            pixels: (C, H, W), one band per line.
        """
        low = np.array(self.low)[:, None, None]
        span = np.array(self.high)[:, None, None] - low
        small = pixels.dtype.itemsize <= 2 and pixels.dtype.kind in "iu"
        work = np.float32 if small else np.float64  # a float64 or uint32 would lose its low bits
        scaled = (pixels.astype(work) - low.astype(work)) * (255.0 / span).astype(work)
        return np.asarray(np.clip(scaled, 0, 255), np.float32)


def to_uint8(scaled: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round values in [0, 255] to the nearest integer."""
    return np.rint(scaled).astype(np.uint8)


def _range_of(values: NDArray[np.generic]) -> tuple[float, float]:
    if values.size == 0:
        return 0.0, 1.0
    doubles = values.astype(np.float64)
    low, high = (float(v) for v in np.percentile(doubles, [LOW_PERCENTILE, HIGH_PERCENTILE]))
    if not low < high:
        low, high = float(doubles.min()), float(doubles.max())
    if not low < high:
        high = max(low + 1.0, float(np.nextafter(low, np.inf)))
    return low, high
