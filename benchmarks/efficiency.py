"""Efficiency: how much of a run's time is the network itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.clock import interleave
from benchmarks.network import (
    chips_in_memory,
    forward_seconds,
    loaded_module,
    plain_module,
    run_seconds,
)
from benchmarks.rows import Row, at_least
from benchmarks.scenes import NOT_HERE, densest_part, real_scene, town_picture
from geoseg.config import Config, ModelOptions

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.scenes import Scene

TARGET = 0.90
SCORE = 0.5
"""Least score, the network's own: figures stay comparable when it is calibrated anew."""


def efficiency(folder: Path, *, size_px: int = 2100, rounds: int = 5) -> list[Row]:
    """Measure seconds of the bare network over seconds of the whole run after the model is loaded.

    The bare network is the very module that the run uses, by torchvision's forward up to the 28x28
    masks, over the same chips as float tensors in memory: same batches, threads and score
    threshold. The run reads, infers, stitches, polygonizes and writes GeoJSON. The row without a
    target takes the weights as plain torchvision runs them, before folding and channels-last.
    """
    rows = _measure(town_picture(folder, size_px=size_px), folder, rounds=rounds)
    banepa = real_scene("banepa_town")
    if banepa is None:
        return [*rows, Row(benchmark="efficiency", name="real scene", value=None, note=NOT_HERE)]
    return rows + _measure(densest_part(banepa, folder), folder, rounds=rounds)


def _measure(scene: Scene, folder: Path, *, rounds: int) -> list[Row]:
    config = Config(model=ModelOptions(score=SCORE, calibrate=False))
    batches = chips_in_memory(scene.path, config)
    plain = plain_module(config, score=SCORE)
    times = interleave(
        {
            "network": forward_seconds(loaded_module(config), batches, paste=False),
            "run": run_seconds(scene.path, folder / "out.geojson", config),
            "plain network": forward_seconds(plain, batches, paste=False),
        },
        rounds=rounds,
    )
    chips = f"{sum(map(len, batches))} chips; "
    return [
        Row(
            benchmark="efficiency",
            name=f"network / run, {scene.name}",
            value=round(times.ratio("network", "run"), 3),
            **at_least(TARGET),
            note=chips + times.about("network", "run"),
        ),
        Row(
            benchmark="efficiency",
            name=f"network as plain torchvision / run, {scene.name}",
            value=round(times.ratio("plain network", "run"), 3),
            note=chips + times.about("plain network", "run"),
        ),
    ]
