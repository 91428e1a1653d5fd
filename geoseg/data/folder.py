"""Chips on disk with their annotations as a source of samples. Must not import torch.

Frame: pixels of the chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from geoseg.data.samples import Sample
from geoseg.errors import FormatError
from geoseg.raster import read_chip_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.data.annotations import Annotations


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnotatedChips:
    """The chips of a document, one sample each; crowds are no targets."""

    annotations: Annotations
    folder: Path
    """Where the file names of the document begin."""
    size_px: int
    """Side of the samples: larger chips are reduced, smaller ones padded at right and bottom."""

    def __len__(self) -> int:
        return len(self.annotations.images)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return chip `index` with the masks of its objects.

        Raises:
            InputNotFoundError: The image is not there.
            ReadError: It cannot be read.
            FormatError: It is not of the size its document says.
        """
        images = self.annotations.images
        path = self.folder / images.file_names[index]
        pixels, _ = read_chip_image(path)
        if pixels.shape[1:] != tuple(images.sizes_hw[index]):
            raise FormatError(
                f"{path}: must be {'x'.join(map(str, images.sizes_hw[index]))} px as its document "
                f"says, got {pixels.shape[1]}x{pixels.shape[2]}: run geoseg data check"
            )
        masks, labels = self._objects(index)
        return _fitted(pixels, masks, labels, self.size_px)

    def _objects(self, index: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        rows = self.annotations.of_image(index)
        kept = [i for i in range(rows.start, rows.stop) if not self.annotations.crowd[i]]
        masks = [self.annotations.object_mask(i) for i in kept]
        kept = [i for i, mask in zip(kept, masks, strict=True) if mask.any()]
        height, width = self.annotations.images.sizes_hw[index]
        stacked = np.zeros((len(kept), height, width), bool)
        for at, mask in enumerate(m for m in masks if m.any()):
            stacked[at] = mask
        return stacked, self.annotations.labels[kept].astype(np.int64)


def _fitted(
    pixels: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    labels: NDArray[np.int64],
    size_px: int,
) -> Sample:
    """Return a sample of `size_px` a side."""
    _, height, width = pixels.shape
    factor = min(1.0, size_px / max(height, width))
    if factor < 1:
        shape = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = cv2.resize(pixels.transpose(1, 2, 0), shape, interpolation=cv2.INTER_AREA)
        pixels = np.asarray(image, np.uint8).transpose(2, 0, 1)
        reduced = [
            cv2.resize(m.view(np.uint8), shape, interpolation=cv2.INTER_NEAREST) for m in masks
        ]
        masks = np.array(reduced, bool).reshape(len(masks), shape[1], shape[0])
    room = ((0, 0), (0, size_px - pixels.shape[1]), (0, size_px - pixels.shape[2]))
    masks = np.pad(masks, room)
    kept = masks.any(axis=(1, 2))
    return Sample(image=np.pad(pixels, room), masks=masks[kept], labels=labels[kept])
