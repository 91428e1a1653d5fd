"""Check a network while it trains: COCO's figures on chips it does not learn from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import cv2
import numpy as np

from geoseg.chips import Chip, ChipBatch
from geoseg.data.collect import Collector
from geoseg.evaluate import coco_figures
from geoseg.grid import Window
from geoseg.models import LoadedModel
from geoseg.predict import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torchvision.models.detection import MaskRCNN

    from geoseg.data.annotations import Annotations
    from geoseg.data.samples import Sample
    from geoseg.detections import Detections
    from geoseg.models import ModelSpec
    from geoseg.train.sources import Check

log = logging.getLogger(__name__)

SCORE = 0.05
DRAWN = 6  # chips in the picture
DRAWN_SCORE = 0.5
BLUE, ORANGE = (60, 130, 230), (240, 130, 30)
BATCH_SIZE = 8


class Validator:
    """Measures a network on the same chips each time.

    Args:
        checks: The chips; cut anew each time, as their masks would fill memory.
        spec: Of the network.
    """

    def __init__(self, checks: Sequence[Check], *, spec: ModelSpec) -> None:
        self._checks = checks
        self._spec = spec
        self._drawn: list[NDArray[np.uint8]] = []

    def __call__(self, module: MaskRCNN) -> dict[str, float]:
        """Return `ap`, `ap50` and `ar` of all chips, and `ap50 GROUP` of each group."""
        truth, found = self._run(module)
        figures = coco_figures(truth, found)
        groups = {check.group for check in self._checks}
        values = {"ap": figures.ap, "ap50": figures.ap50, "ar": figures.ar100}
        if len(groups) > 1:
            for group in sorted(groups):
                names = [_name(i) for i, c in enumerate(self._checks) if c.group == group]
                part = coco_figures(truth.keep(names), found.keep(names))
                values |= {f"ap {group}": part.ap, f"ap50 {group}": part.ap50}
        return values

    def picture(self) -> NDArray[np.uint8]:
        """Return the first chips of the last validation, objects blue and detections orange."""
        assert self._drawn, "a network was measured"
        return np.concatenate(self._drawn, axis=1)

    def _run(self, module: MaskRCNN) -> tuple[Annotations, Annotations]:
        device = next(module.parameters()).device
        model = LoadedModel(module=module, spec=self._spec, device=device)
        predictor = Predictor(model, score_threshold=SCORE, batch_size=BATCH_SIZE)
        truth, found = (Collector(self._spec.categories) for _ in range(2))
        before = module.roi_heads.score_thresh
        module.roi_heads.score_thresh = SCORE
        try:
            for first in range(0, len(self._checks), BATCH_SIZE):
                part = self._checks[first : first + BATCH_SIZE]
                samples = [check.cut() for check in part]
                for at, (sample, detections) in enumerate(
                    zip(samples, predictor.predict(sample_batch(samples)), strict=True)
                ):
                    name = _name(first + at)
                    if first + at < DRAWN:
                        self._drawn[first + at :] = [_overlay(sample, detections)]
                    truth.add_sample(name, sample)
                    found.add_detections(name, detections)
        finally:
            module.roi_heads.score_thresh = before
        return truth.finish(), found.finish()


def _overlay(sample: Sample, detections: Detections) -> NDArray[np.uint8]:
    """Return a chip (H, W, 3) with outlines of its objects and of what was found."""
    image = np.ascontiguousarray(sample.image.transpose(1, 2, 0))
    for mask in sample.masks:
        _draw(image, mask, BLUE)
    for i in np.flatnonzero(detections.scores >= DRAWN_SCORE).tolist():
        _draw(image, detections.window_mask(i), ORANGE)
    return image


def _draw(image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, colour, 1)


def _name(number: int) -> str:
    return f"{number:06d}"


def sample_batch(samples: Sequence[Sample]) -> ChipBatch:
    """Return samples of one size as a batch of chips without a place."""
    images = np.stack([s.image for s in samples])
    _, _, height, width = images.shape
    window = Window(row_off=0, col_off=0, height=height, width=width)
    chips = [
        Chip(scene_id="validation", row=0, col=i, window=window, core=window)
        for i in range(len(samples))
    ]
    return ChipBatch(
        chips=tuple(chips), images=images, valid=np.ones((len(samples), height, width), bool)
    )
