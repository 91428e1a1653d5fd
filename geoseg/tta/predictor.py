"""A predictor that looks at every chip from several sides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from geoseg.chips import Chip, ChipBatch
from geoseg.detections import Detections
from geoseg.tta.merge import merge_views
from geoseg.tta.views import make_views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from geoseg.grid import Window
    from geoseg.tta.options import TtaOptions
    from geoseg.tta.views import View


class ChipPredictor(Protocol):
    """Anything that finds something in batches of chips."""

    @property
    def batch_size(self) -> int:
        """Chips of a batch."""
        ...

    def stream(self, batches: Iterable[ChipBatch]) -> Iterator[tuple[Chip, Detections]]:
        """Yield each chip with what was found in it, in the order the chips come."""
        ...


class ViewsPredictor:
    """A predictor that looks at every chip from several sides; a `ChipPredictor` itself.

    Pixels are read once; the network runs once for each view.

    Args:
        predictor: Finds things in one view.
        options: Views and merging.
        score_threshold: Least score of the predictor's detections, and of what comes out.
    """

    def __init__(
        self, predictor: ChipPredictor, options: TtaOptions, *, score_threshold: float
    ) -> None:
        self._predictor = predictor
        self._options = options
        self._views = make_views(options.views)
        self._least = score_threshold

    @property
    def batch_size(self) -> int:
        """Chips of a batch; the predictor halves it when memory runs out."""
        return self._predictor.batch_size

    def stream(self, batches: Iterable[ChipBatch]) -> Iterator[tuple[Chip, Detections]]:
        """Yield each chip with what was found in it, in the order the chips come."""
        for batch in batches:
            found = [list(self._seen(view, batch)) for view in self._views]
            for i, chip in enumerate(batch.chips):
                seen = [of_view[i] for of_view in found]
                merged = merge_views(seen, self._options, score_threshold=self._least)
                yield chip, _clipped(merged, chip.window)

    def _seen(self, view: View, batch: ChipBatch) -> Iterator[Detections]:
        """Yield what a view finds in each chip, in the frame of the batch."""
        images = view.apply(batch.images)
        count, _, height, width = images.shape
        framed = tuple(
            replace(chip, window=replace(chip.window, height=height, width=width))
            for chip in batch.chips
        )
        valid = np.ones((count, height, width), np.bool_)
        shown = ChipBatch(chips=framed, images=images, valid=valid)
        for _, found in self._predictor.stream([shown]):
            yield view.undo(found)


def _clipped(found: Detections, window: Window) -> Detections:
    """Return detections of a batch's frame in the chip's window, which may be smaller."""
    if (found.window.height, found.window.width) == (window.height, window.width):
        return found
    limit = np.array([window.width, window.height, window.width, window.height])
    boxes = np.minimum(found.mask_boxes, limit)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    kept = np.flatnonzero(inside).tolist()
    shapes = (boxes[:, 3:1:-1] - boxes[:, 1::-1]).tolist()
    return Detections.from_masks(
        found.scene_id,
        window,
        boxes=np.minimum(found.boxes[kept], limit.astype(np.float32)),
        scores=found.scores[kept],
        labels=found.labels[kept],
        mask_boxes=boxes[kept],
        masks=[found.mask(i)[: shapes[i][0], : shapes[i][1]] for i in kept],
    )
