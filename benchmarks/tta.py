"""Eight views of each chip against one: what they cost, and are worth on unseen ground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd

from benchmarks.clock import interleave
from benchmarks.rows import Row, at_least, at_most
from benchmarks.scenes import NOT_HERE, real_scene
from geoseg.config import Config, ModelOptions
from geoseg.evaluate import EvalResult, evaluate_footprints
from geoseg.models import DEFAULT_MODEL
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.testing import make_town, write_town
from geoseg.tta import TtaOptions

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.scenes import Scene
    from geoseg.tta import ViewSet

COST = 8.2
VIEW_SETS: tuple[ViewSet, ...] = ("none", "hflip", "d4", "d4+scale")
UNSEEN = ("banepa_outskirts_c0", "banepa_outskirts_c1")
SCORE = 0.2
"""The network's own: low enough for AP."""


def tta(
    folder: Path, *, size_px: int = 1200, rounds: int = 3, model: str = DEFAULT_MODEL
) -> list[Row]:
    """Measure seconds of inference on the synthetic town, and AP50 and F1 of footprints.

    Seconds are those of the inference stage, network and merging, in rounds run in turn. Quality
    is on two scenes that the bundled weights never saw, all footprints of score 0.2 or more: the
    mean of both scenes' AP50, and of their F1@.5 at the best score.
    """
    town = write_town(make_town(size_px=size_px), folder)
    path = town.ids if "oracle" in model else town.image
    times = interleave(
        {
            views: lambda views=views: _seconds(path, folder, model, views)
            for views in ("none", "d4")
        },
        rounds=rounds,
    )
    rows = [
        Row(
            benchmark="tta",
            name="seconds of 8 views over 1",
            value=round(times.ratio("d4", "none"), 3),
            **at_most(COST),
            note=times.about("d4", "none"),
        )
    ]
    scenes = [real_scene(name) for name in UNSEEN]
    if any(scene is None for scene in scenes):
        return [*rows, Row(benchmark="tta", name="AP50 of d4 over none", value=None, note=NOT_HERE)]
    ap50 = {}
    for views in VIEW_SETS:
        results = [_result(scene, folder, views) for scene in scenes if scene is not None]
        ap50[views] = sum(result.ap50 for result in results) / len(results)
        best = sum(result.best_f1 for result in results) / len(results)
        rows.append(Row(benchmark="tta", name=f"AP50, {views}", value=round(ap50[views], 4)))
        rows.append(Row(benchmark="tta", name=f"best F1@.5, {views}", value=round(best, 4)))
    gain = round(ap50["d4"] - ap50["none"], 4)
    rows.append(Row(benchmark="tta", name="AP50 of d4 over none", value=gain, **at_least(0.001)))
    return rows


def _seconds(path: Path, folder: Path, model: str, views: ViewSet) -> float:
    config = Config(model=ModelOptions(name=model, device="cpu"), tta=TtaOptions(views=views))
    return run(str(path), OutputPlan(vector=folder / "out.parquet"), config).seconds["infer"]


def _result(scene: Scene, folder: Path, views: ViewSet) -> EvalResult:
    config = Config(model=ModelOptions(score=SCORE, calibrate=False), tta=TtaOptions(views=views))
    output = folder / "out.parquet"
    run(str(scene.path), OutputPlan(vector=output), config)
    return evaluate_footprints(gpd.read_parquet(output), scene.truth)
