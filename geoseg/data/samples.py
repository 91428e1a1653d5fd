"""What a network trains on: one chip with the masks of its objects, drawn from some source.

Frame: pixels of the chip. A sample is decided by its number alone: `draw(number, seed)` gives the
same pixels in every process, so a run can be cut anywhere and goes on as if it had not been.
Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST_OBJECT_PX = 12  # fewer pixels of an object in a chip are noise, not a target


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A chip and the objects in it."""

    image: NDArray[np.uint8]
    """(3, H, W)."""
    masks: NDArray[np.bool_]
    """(N, H, W), none empty."""
    labels: NDArray[np.int64]
    """(N,) from 1; 0 is background."""
    gsd_m: float | None = None
    """Ground metres per pixel, where known."""

    def __post_init__(self) -> None:
        assert self.image.ndim == 3 and len(self.image) == 3, "an image has three bands first"  # noqa: PT018 - one truth
        assert self.masks.shape[1:] == self.image.shape[1:], "masks have the shape of the image"
        assert len(self.masks) == len(self.labels), "one label a mask"

    def __len__(self) -> int:
        return len(self.labels)


class SampleSource(Protocol):
    """Where samples come from."""

    def __len__(self) -> int:
        """Return how many samples make an epoch."""
        ...

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return sample `index` of the epoch; whatever chance decides comes from `rng`."""
        ...


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the boxes (N, 4), xyxy pixel edges, of masks (N, H, W) of which none is empty.

    Example:
        >>> mask = np.zeros((1, 5, 6), bool)
        >>> mask[0, 1:3, 2:6] = True
        >>> boxes_of(mask).tolist()
        [[2.0, 1.0, 6.0, 3.0]]
    """
    rows, cols = np.any(masks, axis=2), np.any(masks, axis=1)
    assert rows.any(axis=1).all(), "no mask is empty"
    edges = [
        cols.argmax(axis=1),
        rows.argmax(axis=1),
        cols.shape[1] - cols[:, ::-1].argmax(axis=1),
        rows.shape[1] - rows[:, ::-1].argmax(axis=1),
    ]
    return np.stack(edges, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """Several sources as one: each sample comes from one of them, by weight."""

    sources: Sequence[SampleSource]
    weights: Sequence[float]
    """Shares, in any unit; all above 0."""

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.weights):
            raise ConfigError(
                f"weights must be one per source ({len(self.sources)}), got {len(self.weights)}"
            )
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ConfigError(f"weights must be above 0, got {list(self.weights)}")

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return a sample of a source chosen by weight; `index` counts within a single source."""
        if len(self.sources) == 1:
            return self.sources[0].sample(index, rng)
        shares = np.asarray(self.weights, float) / sum(self.weights)
        source = self.sources[int(rng.choice(len(shares), p=shares))]
        return source.sample(int(rng.integers(len(source))), rng)


def draw(source: SampleSource, number: int, *, seed: int) -> Sample:
    """Return the sample with this number in the endless sequence that a seed begins.

    Epochs follow one another, each a new order of the whole source.

    Args:
        source: Where it comes from.
        number: From 0.
        seed: Of the sequence.
    """
    epoch, place = divmod(number, len(source))
    order = np.random.default_rng([seed, 1, epoch])
    index = place if len(source) == 1 else int(_nth_of_shuffle(place, len(source), order))
    return source.sample(index, np.random.default_rng([seed, 0, number]))


def _nth_of_shuffle(place: int, count: int, rng: np.random.Generator) -> int:
    """Return item `place` of a random order of `count` items, without making the order.

    A Feistel network over the next even power of two is a permutation; walking its cycle until
    the value is below `count` makes it one of `count` items.
    """
    half_bits = max(1, (count - 1).bit_length() + 1 >> 1)
    keys = rng.integers(1, 2**31, size=4).tolist()
    value = place
    while True:
        value = _feistel(value, half_bits, keys)
        if value < count:
            return value


def _feistel(value: int, half_bits: int, keys: Sequence[int]) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for key in keys:
        mixed = (right + key) * 0x9E3779B1 & 0xFFFFFFFF
        mixed = (mixed ^ mixed >> 15) * 0x85EBCA77 & 0xFFFFFFFF
        left, right = right, left ^ ((mixed ^ mixed >> 13) & mask)
    return left << half_bits | right
