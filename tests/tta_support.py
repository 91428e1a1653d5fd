"""A network that finds bright squares, batches of them, and masks in their windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from builders import make_chip, make_detections, make_window

from geoseg.chips import ChipBatch
from geoseg.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bright:
    """Finds each bright square of a chip; blind in some of its calls."""

    def __init__(self, *, blind: set[int] = frozenset(), batch_size: int = 4) -> None:  # type: ignore[assignment]
        self.batch_size = batch_size
        self.calls = 0
        self.blind = blind

    def stream(self, batches: Any) -> Iterator[tuple[Any, Detections]]:
        for batch in batches:
            for chip, image in zip(batch.chips, batch.images, strict=True):
                on = image[0] > 127
                if not on.any() or self.calls in self.blind:
                    yield chip, Detections.empty(chip.scene_id, chip.window)
                    continue
                ys, xs = np.flatnonzero(on.any(axis=1)), np.flatnonzero(on.any(axis=0))
                box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
                yield chip, make_detections(boxes=[box], scores=[0.8], window=chip.window)
            self.calls += 1


def batch_of(*squares: tuple[int, int, int, int], side: int = 64) -> ChipBatch:
    """Build a batch with a chip for each bright xyxy square."""
    images = np.zeros((len(squares), 3, side, side), np.uint8)
    for image, (x0, y0, x1, y1) in zip(images, squares, strict=True):
        image[:, y0:y1, x0:x1] = 255
    chips = tuple(
        make_chip(col=i, window=make_window(col=side * i, height=side, width=side))
        for i in range(len(squares))
    )
    return ChipBatch(chips=chips, images=images, valid=np.ones((len(squares), side, side), bool))


def painted(found: Detections) -> list[np.ndarray]:
    """Return each mask in its window."""
    full = []
    for mask, (x0, y0, x1, y1) in zip(found.masks(), found.mask_boxes.tolist(), strict=True):
        canvas = np.zeros((found.window.height, found.window.width), np.uint8)
        canvas[y0:y1, x0:x1] = mask
        full.append(canvas)
    return full
