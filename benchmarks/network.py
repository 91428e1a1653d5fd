"""The network without the pipeline: what `geoseg run` is compared with.

Chips are held in memory as the float tensors the network takes, so nothing but its forward counts.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torchvision.models.detection import MaskRCNN

from benchmarks.clock import timed
from geoseg.models import build_architecture, find_model, load_model, load_weights
from geoseg.predict import CPU_BATCH
from geoseg.raster import read_batches
from geoseg.stages.infer import open_work
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from geoseg.config import Config

Batches = list[list[torch.Tensor]]
"""Batches of (3, S, S) float32 images in [0, 1]."""


def chips_in_memory(scene: Path, config: Config) -> Batches:
    """Return exactly the batches that a run gives to its network."""
    with ExitStack() as stack:
        work = open_work(str(scene), config, stack)
        batches = read_batches(work.source, work.chips, batch_size=CPU_BATCH, size_px=work.size_px)
        return [list(torch.from_numpy(batch.images).float().div(255).unbind()) for batch in batches]


def loaded_module(config: Config) -> MaskRCNN:
    """Return the very network that a run of this config uses: folded, channels-last."""
    module = load_model(config.model.name, device="cpu", score_threshold=config.model.score).module
    assert isinstance(module, MaskRCNN), "benchmarks compare torchvision networks"
    return module


def plain_module(config: Config, *, score: float) -> MaskRCNN:
    """Return the same weights as torchvision would run them: nothing folded or laid out anew."""
    source = find_model(config.model.name)
    spec = source.spec
    module = build_architecture(
        spec.architecture, num_classes=spec.num_classes, chip_size_px=spec.chip_size_px
    )
    assert isinstance(module, MaskRCNN), "benchmarks compare torchvision networks"
    assert source.weights is not None, "benchmarks compare trained networks"
    load_weights(module, source.weights, sha256=spec.sha256)
    module.transform.image_mean, module.transform.image_std = list(spec.mean), list(spec.std)
    module.roi_heads.score_thresh = score
    return module.eval()


def forward_seconds(module: MaskRCNN, batches: Batches, *, paste: bool) -> Callable[[], float]:
    """Return a measure of torchvision's own forward, with or without pasting the masks."""

    def work() -> None:
        with torch.inference_mode():
            for batch in batches:
                module(batch)

    def measure() -> float:
        if paste:
            return timed(work)
        with _unpasted(module):
            return timed(work)

    return measure


def run_seconds(scene: Path, output: Path, config: Config) -> Callable[[], float]:
    """Return a measure of a whole run less the seconds its model took to load."""

    def measure() -> float:
        start = time.perf_counter()
        tally = run(str(scene), OutputPlan(vector=output), config)
        return time.perf_counter() - start - tally.seconds["load"]

    return measure


@contextmanager
def _unpasted(module: MaskRCNN) -> Iterator[None]:
    """Let torchvision's forward end at the mask head's 28x28 output."""

    def as_it_is(result: Any, *_: Any) -> Any:
        return result

    module.transform.postprocess = as_it_is
    try:
        yield
    finally:
        del module.transform.postprocess
