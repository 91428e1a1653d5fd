"""Peers: the whole run against torchvision's own forward, with the same weights."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from benchmarks.clock import interleave
from benchmarks.network import chips_in_memory, forward_seconds, plain_module, run_seconds
from benchmarks.rows import Row, at_most
from benchmarks.scenes import NOT_HERE, densest_part, real_scene, town_picture
from geoseg.config import Config, ModelOptions, SceneOptions
from geoseg.errors import ResolutionWarning

if TYPE_CHECKING:
    from pathlib import Path

TARGET = 0.65
SCORE = 0.3
TORCHVISION_SCORE = 0.05  # its default threshold: every peer computes masks down to it


def peers(folder: Path, *, size_px: int = 1500, rounds: int = 5) -> list[Row]:
    """Measure seconds of the whole run over those of torchvision's plain forward on its chips.

    The forward is complete: score threshold .05 (torchvision's default), masks pasted into the
    chip, nothing folded; the run's threshold is .3. Both take four chips a batch, at the file's
    own resolution. Where the real scene is not here the synthetic town stands in, without a
    target: it has other densities.
    """
    banepa = real_scene("banepa_town")
    if banepa is None:
        scene = town_picture(folder, size_px=size_px)
    else:
        scene = densest_part(banepa, folder, size_px=size_px)
    config = Config(model=ModelOptions(score=SCORE), scene=SceneOptions(gsd="native"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResolutionWarning)  # "native" is meant here
        batches = chips_in_memory(scene.path, config)
        plain = plain_module(config, score=TORCHVISION_SCORE)
        times = interleave(
            {
                "run": run_seconds(scene.path, folder / "out.geojson", config),
                "torchvision": forward_seconds(plain, batches, paste=True),
            },
            rounds=rounds,
        )
    note = f"{sum(map(len, batches))} chips; " + times.about("run", "torchvision")
    return [
        Row(
            benchmark="peers",
            name=f"run / torchvision's forward, {scene.name}",
            value=round(times.ratio("run", "torchvision"), 3),
            **({} if banepa is None else at_most(TARGET)),
            note=note if banepa is not None else f"{note}; stand-in: {NOT_HERE}",
        )
    ]
