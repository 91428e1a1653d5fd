"""Copy-paste: objects of one sample laid onto another (Ghiasi et al. 2021, arXiv 2012.07177).

Frame: pixels of the chip. Must not import torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from geoseg.data.samples import LEAST_OBJECT_PX
from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.data.samples import Sample, SampleSource

FEATHER_PX = 0.8  # sigma of the seam, so that edges are as soft as a camera's
MOST_PASTED = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CopyPaste:
    """A source whose samples carry, with a given chance, objects of another of its samples."""

    source: SampleSource
    chance: float
    """Share of samples that get something pasted, in [0, 1]."""

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise ConfigError(f"copy_paste must be in [0, 1], got {self.chance}")

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the source's sample, perhaps with objects of another pasted onto it."""
        sample = self.source.sample(index, rng)
        if rng.random() >= self.chance:
            return sample
        other = self.source.sample(int(rng.integers(len(self.source))), rng)
        if other.image.shape != sample.image.shape or not len(other):
            return sample
        most = min(len(other), MOST_PASTED)
        return paste(sample, other, rng.permutation(len(other))[: int(rng.integers(1, most + 1))])


def paste(onto: Sample, other: Sample, objects: NDArray[np.int64]) -> Sample:
    """Return a sample with some objects of another laid over it.

    What they cover is taken from the objects below; those of which little is left are dropped.

    Args:
        onto: The sample below.
        other: Where the objects come from, of the same shape.
        objects: Rows of `other`.
    """
    masks = other.masks[objects]
    covered: NDArray[np.bool_] = np.any(masks, axis=0)
    weight = cv2.GaussianBlur(np.asarray(covered, np.float32), (0, 0), FEATHER_PX)
    image = onto.image + weight * (other.image.astype(np.float32) - onto.image)
    below = onto.masks & ~covered
    left_px = below.sum(axis=(1, 2))
    kept = left_px >= np.maximum(LEAST_OBJECT_PX, 0.2 * onto.masks.sum(axis=(1, 2)))
    return dataclasses.replace(
        onto,
        image=np.clip(np.rint(image), 0, 255).astype(np.uint8),
        masks=np.concatenate([below[kept], masks]),
        labels=np.concatenate([onto.labels[kept], other.labels[objects]]),
    )
