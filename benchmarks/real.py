"""Real scenes: footprints of the bundled model against people's outlines."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import geopandas as gpd

from benchmarks.rows import Row, at_least
from benchmarks.scenes import NOT_HERE, densest_part, real_scene
from geoseg.config import Config, ModelOptions, SceneOptions
from geoseg.errors import ResolutionWarning
from geoseg.evaluate import EvalResult, evaluate_footprints
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.scenes import Scene

SCORES = (0.3, 0.5)
SKETCH: dict[tuple[str, float, str], float] = {
    ("banepa_town", 0.5, "F1@.5"): 0.57,
    ("zanzibar_c1", 0.5, "F1@.5"): 0.66,
    ("zanzibar_c1", 0.3, "best F1"): 0.79,
}
"""What a sketch of strip agreement with hard masks reached with the first bundled weights."""


def real(folder: Path, *, scores: tuple[float, ...] = SCORES) -> list[Row]:
    """Measure F1 and AP at IoU .5 on ground that the model was trained on.

    So this judges merging and polygons, not how well the network generalises. The densest 1500 px
    of one town and the whole of another; at the ground resolution a run chooses by itself (with
    the sketch's figures as targets) and at the file's own (without).
    """
    rows = []
    for name in ("banepa_town", "zanzibar_c1"):
        scene = real_scene(name)
        if scene is None:
            rows.append(Row(benchmark="real", name=name, value=None, note=NOT_HERE))
            continue
        part = densest_part(scene, folder) if name == "banepa_town" else scene
        for score in scores:
            for gsd in ("auto", "native"):
                result = _evaluate(part, folder / "out.parquet", score, gsd)
                targets = _targets(name, score) if gsd == "auto" else {}
                rows += _rows(f"{part.name}, score {score:g}, {gsd} GSD", result, targets)
    return rows


def _evaluate(
    scene: Scene, output: Path, score: float, gsd: Literal["auto", "native"]
) -> EvalResult:
    config = Config(model=ModelOptions(score=score, calibrate=False), scene=SceneOptions(gsd=gsd))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResolutionWarning)  # "native" is meant here
        run(str(scene.path), OutputPlan(vector=output), config)
    return evaluate_footprints(gpd.read_parquet(output), scene.truth)


def _targets(scene: str, score: float) -> dict[str, dict[str, Any]]:
    return {
        figure: at_least(value)
        for (name, at, figure), value in SKETCH.items()
        if name == scene and at == score
    }


def _rows(name: str, result: EvalResult, targets: dict[str, dict[str, Any]]) -> list[Row]:
    figures = {"F1@.5": result.at(0.5).f1, "AP50": result.ap50, "best F1": result.best_f1}
    note = f"{result.n_pred} footprints, {result.n_truth} outlines"
    return [
        Row(
            benchmark="real",
            name=f"{figure}, {name}",
            value=round(value, 3),
            **targets.get(figure, {}),
            note=f"{note}; best at score {result.best_f1_score:.2f}"
            if figure == "best F1"
            else note,
        )
        for figure, value in figures.items()
    ]
