"""The tables of the bundled model's card: ground it was not trained on, by part and resolution.

`python -m benchmarks.card [MODEL] [--tta d4]` prints them; it needs the real scenes. Chips are cut
as a training's validation cuts them. Whole scenes are mapped down to a score of 0.05 of the
network's own, and judged by what lies in the same parts, then by all that is in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import geopandas as gpd

from benchmarks.quality import LOW, PARTS, open_part
from benchmarks.scenes import NOT_HERE, real_scene
from geoseg.config import load_config
from geoseg.data.collect import Collector
from geoseg.evaluate import coco_figures, evaluate_footprints
from geoseg.models import BUILDING, DEFAULT_MODEL, load_model
from geoseg.predict import Predictor
from geoseg.stages.maps import centred_in
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.train.options import DataOptions, SceneData
from geoseg.train.sources import validation_set
from geoseg.train.validate import sample_batch
from geoseg.tta import TtaOptions, ViewsPredictor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from geoseg.data.samples import Sample
    from geoseg.detections import Detections
    from geoseg.evaluate import CocoFigures, EvalResult
    from geoseg.tta import ChipPredictor

CHIPS_M: Final = (0.15, 0.2, 0.3)
SCENES_M: Final = (0.2, 0.25, 0.3)
WHOLE: Final = (0.0, 0.0, 1.0, 1.0)


def look(name: str, predictor: ChipPredictor, *, gsd_m: float) -> list[tuple[Sample, Detections]]:
    """Return the chips of a scene's part, with what is true of them, and what was found there."""
    scene = real_scene(name)
    assert scene is not None, "the scenes are here"
    labelled = SceneData(
        raster=str(scene.path), labels=str(scene.path.with_suffix(".geojson")), part=PARTS[name]
    )
    checks = validation_set(DataOptions(val_scenes=(labelled,), val_gsd_m=(gsd_m,)), (BUILDING,))
    samples = [check.cut() for check in checks]
    found = predictor.stream(sample_batch([sample]) for sample in samples)
    return [(sample, detections) for sample, (_, detections) in zip(samples, found, strict=True)]


def chip_figures(seen: Iterable[tuple[Sample, Detections]]) -> CocoFigures:
    """Return COCO's figures of the masks of chips."""
    truth, found = Collector((BUILDING,)), Collector((BUILDING,))
    for number, (sample, detections) in enumerate(seen):
        truth.add_sample(str(number), sample)
        found.add_detections(str(number), detections)
    return coco_figures(truth.finish(), found.finish())


def chip_table(predictor: ChipPredictor, gsds_m: Sequence[float]) -> str:
    """Return AP and AP50 by resolution, of all parts together, the two outskirts, and each part."""
    lines = ["| chips | GSD, m | AP | AP50 |", "|---|---|---|---|"]
    for gsd_m in gsds_m:
        seen = {name: look(name, predictor, gsd_m=gsd_m) for name in PARTS}
        outskirts = [name for name in PARTS if "outskirts" in name]
        groups = {"all": list(PARTS)} | ({"outskirts": outskirts} if outskirts else {})
        groups |= {name: [name] for name in PARTS}
        for group, names in groups.items():
            figures = chip_figures(one for name in names for one in seen[name])
            lines.append(f"| {group} | {gsd_m:.2f} | {figures.ap:.3f} | {figures.ap50:.3f} |")
    return "\n".join(lines)


def scene_table(folder: Path, model: str, tta: TtaOptions, gsds_m: Sequence[float]) -> str:
    """Return the best F1 of any threshold and AP50 by resolution, of parts and of whole scenes."""
    lines = ["| scene | GSD, m | F1 | AP50 | buildings |", "|---|---|---|---|---|"]
    for gsd_m in gsds_m:
        results = {}
        for name, sides in PARTS.items():
            mapped = _mapped(folder, name, model, tta, gsd_m)
            results[f"{name}, part"] = _judged(folder, name, sides, mapped)
            if sides != WHOLE:
                results[f"{name}, whole"] = _judged(folder, name, WHOLE, mapped)
        for name, r in results.items():
            lines.append(f"| {name} | {gsd_m:g} | {r.best_f1:.3f} | {r.ap50:.3f} | {r.n_truth} |")
        unseen = [r for name, r in results.items() if name.endswith("part")]
        f1, ap50 = (
            sum(getattr(r, key) for r in unseen) / len(unseen) for key in ("best_f1", "ap50")
        )
        lines.append(f"| mean of the parts | {gsd_m:g} | {f1:.3f} | {ap50:.3f} | |")
    return "\n".join(lines)


def _mapped(folder: Path, name: str, model: str, tta: TtaOptions, gsd_m: float) -> gpd.GeoDataFrame:
    scene = real_scene(name)
    assert scene is not None, "the scenes are here"
    options = {"model.name": model, "model.device": "cpu", "model.score": LOW}
    options |= {"model.calibrate": False, "scene.gsd": gsd_m}
    options |= {"tta.views": tta.views, "tta.merge": tta.merge}
    output = folder / "map.parquet"
    run(str(scene.path), OutputPlan(vector=output), load_config(options=options))
    return gpd.read_parquet(output)


def _judged(
    folder: Path, name: str, sides: tuple[float, float, float, float], mapped: gpd.GeoDataFrame
) -> EvalResult:
    """Compare what lies in a part of a scene with its outlines."""
    part = open_part(name, sides, folder)
    assert part is not None, "the scenes are here"
    area = part.area.to_crs(mapped.crs).iloc[0]
    truth = part.scene.truth.to_crs(mapped.crs)
    return evaluate_footprints(centred_in(area, mapped), centred_in(area, truth))


def main(words: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--tta", default="none", choices=["none", "hflip", "d4", "d4+scale"])
    given = parser.parse_args(words)
    if any(real_scene(name) is None for name in PARTS):
        print(NOT_HERE)
        return
    tta = TtaOptions(views=given.tta)
    plain = Predictor(
        load_model(given.model, device="cpu", score_threshold=LOW), score_threshold=LOW
    )
    several = ViewsPredictor(plain, tta, score_threshold=LOW)
    print(chip_table(plain if tta.views == "none" else several, CHIPS_M), flush=True)
    with TemporaryDirectory(prefix="geoseg-card-") as folder:
        print("\n" + scene_table(Path(folder), given.model, tta, SCENES_M))


if __name__ == "__main__":
    main()
