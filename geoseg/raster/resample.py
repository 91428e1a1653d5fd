"""Separable resampling that knows no seams: a working pixel's value depends on its place alone.

GDAL's own resampling works window by window, and its last bits depend on the window. Here the
taps of every output pixel come from its index in the whole grid, and are summed in the same order
whatever is read with it, so overlapping windows agree bit for bit. The kernel is a triangle as wide
as the coarser of the two pixels: bilinear when enlarging, anti-aliased when reducing. Frames: pixel
edges of the native and the working grid, which cover the same ground. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


HALF = np.float32(0.5 - 1e-5)  # half of a pixel, less what float32 sums may lose


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taps:
    """For each output pixel of a span: which source pixels it is made of, and how much of each."""

    start: int
    """First source pixel of the span."""
    length: int
    """Source pixels of the span."""
    index: NDArray[np.intp]
    """(K, n): offsets from `start`."""
    weight: NDArray[np.float32]
    """(K, n): sums to 1 over K; 0 for taps beyond the scene."""


def axis_taps(offset: int, n: int, *, n_source: int, n_out: int) -> Taps:
    """Return the taps of output pixels [offset, offset + n) of one axis.

    Args:
        offset: First output pixel.
        n: Number of output pixels.
        n_source: Length of the whole axis in source pixels.
        n_out: Length of the whole axis in output pixels; both cover the same ground.

    Returns:
        The taps; those beyond the scene's border weigh nothing, the rest make up for them.

    Example:
        >>> taps = axis_taps(1, 1, n_source=8, n_out=4)
        >>> (taps.index + taps.start).ravel().tolist(), taps.weight.ravel().tolist()
        ([1, 2, 3, 4], [0.125, 0.375, 0.375, 0.125])
    """
    ratio = n_source / n_out
    radius = max(ratio, 1.0)
    centre = (np.arange(offset, offset + n) + 0.5) * ratio
    n_taps = int(np.ceil(2 * radius))
    first = np.floor(centre - radius + 0.5).astype(np.intp)
    index = first + np.arange(n_taps)[:, None]
    weight = np.clip(1 - np.abs(index + 0.5 - centre) / radius, 0, None)
    weight[(index < 0) | (index >= n_source)] = 0
    weight /= weight.sum(axis=0)
    index = np.clip(index, 0, n_source - 1)
    start, stop = int(index.min()), int(index.max()) + 1
    return Taps(
        start=start,
        length=stop - start,
        index=index - start,
        weight=weight.astype(np.float32),
    )


def resample(
    image: NDArray[np.float32], valid: NDArray[np.bool_], rows: Taps, cols: Taps
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Resample an image over its valid pixels.

    Args:
        image: (C, H, W), finite, 0 where not valid; H and W are the taps' source lengths.
        valid: (H, W).
        rows: Taps of the output rows.
        cols: Taps of the output columns.

    Returns:
        The means (C, h, w) over the valid part of each output pixel, 0 where it is not valid; and
        (h, w), True where at least half of the pixel's weight is.
    """
    # One path for all: a shortcut for fully valid windows would round differently at its border.
    layers = np.concatenate([image, valid[None].astype(np.float32)])
    by_rows = _weighted_rows(layers, rows)
    # Transposed, so that both passes gather whole runs of memory.
    sums = _weighted_rows(np.ascontiguousarray(by_rows.transpose(0, 2, 1)), cols)
    sums = sums.transpose(0, 2, 1)
    out_valid = np.asarray(sums[-1] >= HALF, np.bool_)
    mean = sums[:-1] / np.where(out_valid, sums[-1], np.float32(1))
    mean *= out_valid
    return mean.astype(np.float32, copy=False), out_valid


def _weighted_rows(layers: NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    total: NDArray[np.float32] = layers[:, taps.index[0]] * taps.weight[0][:, None]
    term = np.empty_like(total)
    for index, weight in zip(taps.index[1:], taps.weight[1:], strict=True):
        np.take(layers, index, axis=1, out=term, mode="clip")  # "raise" would copy `out`
        term *= weight[:, None]
        total += term
    return total
