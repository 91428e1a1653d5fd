"""The unit of inference: a block's chips in, one shard of detections out.

Whoever runs it opens scene and model once per process and keeps them. A block whose shard is whole
and made from the same things is left alone. Chips that cannot be read are tried again and then
written down; the rest of the block is done.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from geoseg.stages.base import Silence, Tally
from geoseg.stages.blocks.detections import done_block, write_block
from geoseg.stages.blocks.outcome import Outcome
from geoseg.stages.blocks.sources import SOURCES
from geoseg.stages.infer import Work, detect, load_predictor

if TYPE_CHECKING:
    from geoseg.chips import Chip
    from geoseg.detections import Detections
    from geoseg.stages.blocks.plan import Region, SceneJob
    from geoseg.stages.blocks.sources import Pixels
    from geoseg.tta import ChipPredictor

TRIES: Final = 2
PAUSE_S: Final = 0.5
"""Before what failed is read again: a network drive may come back."""

log = logging.getLogger(__name__)


def detect_block(region: Region, pixels: Pixels | None = None) -> Outcome:
    """Run the model over a block and write its shard, unless that is there.

    Args:
        region: A region of level 0.
        pixels: What `read_block` read, where another process did.

    Raises:
        GeosegError: The model does not serve or the shard cannot be written.
    """
    if (done := done_block(region)) is not None:
        return done
    start = time.perf_counter()
    for attempt in range(1, TRIES + 1):
        tally, found = _detect(region, pixels)
        if not tally.failed or attempt == TRIES:
            break
        log.info("%s: %d chips could not be read; once more", region.name, len(tally.failed))
        time.sleep(PAUSE_S)
        SOURCES.drop(region.scene)
        pixels = None
    tally.seconds["block"] = time.perf_counter() - start
    outcome = Outcome.of(tally)
    write_block(region, found, outcome)
    return outcome


class _Predictors:
    """The model that this process has loaded: one, as a run has one."""

    def __init__(self) -> None:
        self._key: Any = None
        self._predictor: ChipPredictor | None = None
        self._lock = threading.Lock()
        self.device: str | None = None
        """Where this process runs models, whatever the config says; set by who started it."""

    def get(self, scene: SceneJob) -> ChipPredictor:
        """Return the predictor of a scene, loading it unless it is the one at hand."""
        config = scene.config
        if self.device is not None:
            config = replace(config, model=replace(config.model, device=self.device))
        least = scene.least_raw
        key = (config.model, config.tta, scene.origin.network_id, scene.size_px, least)
        with self._lock:
            if self._predictor is None or self._key != key:
                self._predictor = None
                self._predictor = load_predictor(config, size_px=scene.size_px, least=least)
                self._key = key
            return self._predictor

    def close(self) -> None:
        """Forget the model."""
        with self._lock:
            self._key, self._predictor = None, None


PREDICTORS: Final = _Predictors()


def _detect(region: Region, pixels: Pixels | None) -> tuple[Tally, list[tuple[Chip, Detections]]]:
    scene = region.scene
    tally = Tally()
    source, chips = SOURCES.open(region) if pixels is None else (pixels, list(pixels.chips))
    work = Work(
        source=source,
        chips=chips,
        origin=scene.origin,
        size_px=scene.size_px,
    )
    with tally.timed("load"):
        predictor = PREDICTORS.get(scene)
    with closing(detect(work, predictor, scene.config, tally, Silence())) as found:
        return tally, list(found)
