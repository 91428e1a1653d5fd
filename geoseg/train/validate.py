"""Check a network while it trains: COCO's figures on chips it does not learn from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from geoseg.chips import Chip, ChipBatch
from geoseg.data.collect import Collector
from geoseg.evaluate import coco_figures
from geoseg.grid import Window
from geoseg.models import LoadedModel
from geoseg.predict import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchvision.models.detection import MaskRCNN

    from geoseg.data.annotations import Annotations
    from geoseg.data.samples import Sample
    from geoseg.models import ModelSpec
    from geoseg.train.sources import Check

log = logging.getLogger(__name__)

SCORE = 0.05
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
                    zip(samples, predictor.predict(_batch(samples)), strict=True)
                ):
                    name = _name(first + at)
                    truth.add_sample(name, sample)
                    found.add_detections(name, sample.image.shape[1:], detections)
        finally:
            module.roi_heads.score_thresh = before
        return truth.finish(), found.finish()


def _name(number: int) -> str:
    return f"{number:06d}"


def _batch(samples: Sequence[Sample]) -> ChipBatch:
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
