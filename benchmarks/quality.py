"""What each step of post-processing is worth, alone and together, on ground nobody trained on.

`python -m benchmarks.quality [FOLDER]` prints the table of docs/quality.md; a folder keeps what the
network found for another time.
"""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import geopandas as gpd
import numpy as np

from benchmarks.rows import Row, at_least
from benchmarks.scenes import NOT_HERE, real_scene
from geoseg.config import load_config
from geoseg.evaluate import evaluate_footprints
from geoseg.evaluate.shapes import measure_shapes
from geoseg.models import find_model
from geoseg.raster import Scene as Raster
from geoseg.stages.base import Silence, Tally
from geoseg.stages.footprints import footprints
from geoseg.stages.infer import detect, load_predictor, open_work
from geoseg.stages.maps import centred_in, part_of
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.scores import least_raw, settled
from geoseg.stages.store import DetectionWriter
from geoseg.tta import TtaOptions, ViewsPredictor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import shapely

    from benchmarks.scenes import Scene
    from geoseg.chips import Chip, ChipBatch
    from geoseg.config import Config
    from geoseg.detections import Detections
    from geoseg.tta import ChipPredictor

Options = dict[str, Any]

PARTS: Final = {
    "banepa_outskirts_c0": (0.0, 0.0, 1.0, 1.0),
    "banepa_outskirts_c1": (0.0, 0.0, 1.0, 1.0),
    "banepa_town": (0.0, 0.8, 1.0, 1.0),
    "zanzibar_c1": (0.7, 0.0, 1.0, 1.0),
}
"""Scenes, and the part of each (left, top, right, bottom) that the bundled network never saw."""
LOW: Final = 0.05
"""The network's own score down to which finds count for AP50."""
PLAIN: Final[Options] = {
    "model.calibrate": False,
    "model.score": 0.5,
    "morphology.duplicate_ios": 0.0,
    "regularize.enabled": False,
    "topology.overlaps": "keep",
}
"""Nothing but stitching and tracing."""
STEPS: Final[dict[str, Options]] = {
    "tta d4": {"tta.views": "d4"},
    "duplicates": {"morphology.duplicate_ios": 0.6},
    "erode, dilate 1px": {"morphology.erode": "1px", "morphology.dilate": "1px"},
    "close 2px": {"morphology.close": "2px"},
    "dilate 1px": {"morphology.dilate": "1px"},
    "claims": {"morphology.claims": "score"},
    "fragments joined": {"morphology.join": 0.8},
    "terraces split": {"morphology.split": 0.5},
    "topology": {"topology.overlaps": "settle"},
    "regularize": {"regularize.enabled": True},
    "regularize 45": {"regularize.enabled": True, "regularize.angles": 45},
    "calibration": {"model.calibrate": True, "model.score": None},
}
"""What each step sets; None leaves it to the default."""
TOGETHER: Final = ("tta d4", "duplicates", "topology", "regularize", "calibration")
"""The steps of the last row: those that earned their place alone."""
DEFAULTS: Final = "defaults"
EVERYTHING: Final = "all together"
OUTLINES: Final = "regularize"
BUT_OUTLINES: Final = f"all but {OUTLINES}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """Means over the parts; seconds are of all of them."""

    ap50: float
    """Of all finds that score `LOW` or more."""
    f1: float
    """F1@.5 of a map at its least score, as are the figures below."""
    boundary_iou: float
    vertex_ratio: float
    max_tangent_angle_error_deg: float
    n: float
    """Footprints over buildings."""
    seconds: float
    """Inference of all finds down to `LOW`, and footprints; without loading the model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A piece of a scene to measure on."""

    scene: Scene
    area: gpd.GeoSeries
    """One polygon."""
    aoi: Path
    """The same in a file: only these chips are looked at."""


def quality(folder: Path, *, steps: Mapping[str, Options] = STEPS) -> list[Row]:
    """Measure what each step of post-processing is worth on ground the network never saw.

    Banepa's outskirts, the southern fifth of its town and the eastern 30% of a village in
    Zanzibar; every figure is the mean of the four. A step is what it sets in the config, over
    nothing but stitching and tracing at score 0.5 of the network's own; "defaults" is a run
    without options, and "all together" every step at once. AP50 counts all finds down to
    0.05, the others a map as it is made.
    """
    table = ablation(folder, steps=steps)
    if not table:
        return [Row(benchmark="quality", name="steps", value=None, note=NOT_HERE)]
    rows = [
        Row(benchmark="quality", name=f"F1@.5, {name}", value=round(worth.f1, 4), note=_note(worth))
        for name, worth in table.items()
    ]
    gain = table[DEFAULTS].f1 - table["none"].f1
    judged = Row(
        benchmark="quality",
        name="F1@.5 of defaults over none",
        value=round(gain, 4),
        **at_least(0.0),
    )
    return [*rows, judged]


def ablation(folder: Path, *, steps: Mapping[str, Options] = STEPS) -> dict[str, Worth]:
    """Return the worth of no step, of each alone, of the defaults and of all together.

    Args:
        folder: For what is found on the way, which serves several steps.
        steps: What each sets.

    Returns:
        By name, in the order measured; empty where the scenes are not at hand.
    """
    parts = [part for name, sides in PARTS.items() if (part := open_part(name, sides, folder))]
    if len(parts) < len(PARTS):
        return {}
    every = _union(steps, [name for name in TOGETHER if name in steps] or list(steps))
    traced = _union(steps, [name for name in TOGETHER if name in steps and name != OUTLINES])
    runs = {"none": PLAIN}
    runs |= {name: PLAIN | options for name, options in steps.items()}
    runs |= {DEFAULTS: {}, EVERYTHING: PLAIN | every, BUT_OUTLINES: PLAIN | traced}
    found = _Found(folder=folder)
    return {name: _worth(parts, options, found) for name, options in runs.items()}


def _union(steps: Mapping[str, Options], names: Iterable[str]) -> Options:
    """Return what several steps set."""
    return {key: value for name in names for key, value in steps[name].items()}


def open_part(name: str, sides: tuple[float, float, float, float], folder: Path) -> Part | None:
    """Return a part of a real scene, or None where that is not here."""
    scene = real_scene(name)
    if scene is None:
        return None
    with Raster.open(str(scene.path), gsd="native") as raster:
        area = gpd.GeoSeries([part_of(raster.grid, sides)], crs=raster.grid.crs)
    aoi = folder / f"{name}.aoi.gpkg"
    area.to_frame("geometry").to_file(aoi)
    return Part(scene=scene, area=area, aoi=aoi)


class _Found:
    """Detections by scene, views and least score; each view is looked at once, at the low score.

    They are kept in the folder: the same weights and scores need no second look.
    """

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder
        self._memories: dict[str, _Memory] = {}

    def get(self, part: Part, config: Config, *, least: float) -> tuple[Path, float]:
        """Return detections, and the seconds of inference at the low score.

        Those of a single view hold those of every higher score; of several views they do not.
        """
        if config.tta.views == "none":
            least = LOW
        spec = find_model(config.model.name).spec
        stem = f"{part.scene.name}-{str(spec.sha256)[:8]}-{config.tta.views}-{least:.6f}"
        path, clock = (self._folder / f"{stem}{suffix}" for suffix in (".parquet", ".seconds"))
        if not clock.exists():
            seconds = self._find(part, config.tta, least, path)
            clock.write_text(f"{seconds:.3f}", encoding="ascii")
        return path, float(clock.read_text(encoding="ascii"))

    def _find(self, part: Part, tta: TtaOptions, least: float, path: Path) -> float:
        options = {"scene.aoi": str(part.aoi), "model.score": LOW, "model.calibrate": False}
        config = replace(load_config(options=options | {"model.device": "cpu"}), tta=tta)
        with ExitStack() as stack:
            work = open_work(str(part.scene.path), config, stack)
            plain = replace(config, tta=TtaOptions())
            memory = self._memories.setdefault(
                part.scene.name, _Memory(load_predictor(plain, size_px=work.size_px))
            )
            memory.least, memory.seconds = least, 0.0
            predictor: ChipPredictor = memory
            if tta.views != "none":
                predictor = ViewsPredictor(memory, tta, score_threshold=least)
            tally = Tally()
            with (
                DetectionWriter(path, work.origin) as writer,
                closing(detect(work, predictor, config, tally, Silence())) as found,
            ):
                for chip, detections in found:
                    writer.write(chip, detections)
        return tally.seconds["infer"] + memory.seconds


class _Memory:
    """A predictor that looks at the same pixels once, and knows how long that took."""

    def __init__(self, predictor: ChipPredictor) -> None:
        self._predictor = predictor
        self._known: dict[bytes, tuple[Detections, float]] = {}
        self.least = LOW
        """Least score of what comes out."""
        self.seconds = 0.0
        """Of the network, for what was known already."""

    @property
    def batch_size(self) -> int:
        """Chips of a batch."""
        return self._predictor.batch_size

    def stream(self, batches: Iterable[ChipBatch]) -> Iterator[tuple[Chip, Detections]]:
        """Yield each chip with what was found in it, in the order the chips come."""
        for batch in batches:
            keys = [
                hashlib.blake2b(image.tobytes() + repr(chip).encode()).digest()
                for image, chip in zip(batch.images, batch.chips, strict=True)
            ]
            if all(key in self._known for key in keys):
                self.seconds += sum(self._known[key][1] for key in keys)
            else:
                start = time.perf_counter()
                found = [detections for _, detections in self._predictor.stream([batch])]
                took = (time.perf_counter() - start) / len(keys)
                self._known |= {k: (f, took) for k, f in zip(keys, found, strict=True)}
            for key, chip in zip(keys, batch.chips, strict=True):
                found_, _ = self._known[key]
                yield chip, found_.take(found_.scores >= self.least)


def _worth(parts: list[Part], options: Options, found: _Found) -> Worth:
    given = {key: value for key, value in options.items() if value is not None}
    config = load_config(options=given)
    config = settled(config, find_model(config.model.name).spec)
    each = [_measured(part, config, found) for part in parts]
    means = {f.name: float(np.mean([getattr(one, f.name) for one in each])) for f in fields(Worth)}
    return Worth(**means | {"seconds": sum(one.seconds for one in each)})


def _measured(part: Part, config: Config, found: _Found) -> Worth:
    every = replace(config, model=replace(config.model, calibrate=False, score=LOW))
    low, _ = _mapped(part, every, found)
    pred, seconds = _mapped(part, config, found)
    truth = _inside(part, part.scene.truth.to_crs(pred.crs))
    result, shapes = evaluate_footprints(pred, truth), measure_shapes(pred, truth)
    return Worth(
        ap50=evaluate_footprints(low, truth).ap50,
        f1=result.at(0.5).f1,
        boundary_iou=shapes.boundary_iou,
        vertex_ratio=shapes.vertex_ratio,
        max_tangent_angle_error_deg=shapes.max_tangent_angle_error_deg,
        n=len(pred) / len(truth),
        seconds=seconds,
    )


def _mapped(part: Part, config: Config, found: _Found) -> tuple[gpd.GeoDataFrame, float]:
    """Return the footprints of a part, and the seconds that inference and they took."""
    spec = find_model(config.model.name).spec
    least = least_raw(config.model, spec.calibration)
    detections, seconds = found.get(part, config, least=least)
    output = detections.with_suffix(".map.parquet")
    start = time.perf_counter()
    footprints(detections, OutputPlan(vector=output), config)
    seconds += time.perf_counter() - start
    return _inside(part, gpd.read_parquet(output)), seconds


def _inside(part: Part, frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    area: shapely.Geometry = part.area.to_crs(frame.crs).iloc[0]
    return centred_in(area, frame)


def _note(worth: Worth) -> str:
    return (
        f"AP50 {worth.ap50:.3f}, boundary IoU {worth.boundary_iou:.3f}, "
        f"N ratio {worth.vertex_ratio:.2f}, tangent {worth.max_tangent_angle_error_deg:.1f} deg, "
        f"{worth.n:.2f} footprints a building, {worth.seconds:.1f} s"
    )


def as_markdown(table: Mapping[str, Worth]) -> str:
    """Return the table of docs/quality.md."""
    head = "step|AP50|F1@.5|boundary IoU|N ratio|max tangent angle error|per building|seconds"
    columns = head.split("|")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [
        f"| {name} | {w.ap50:.3f} | {w.f1:.3f} | {w.boundary_iou:.3f} | {w.vertex_ratio:.2f} "
        f"| {w.max_tangent_angle_error_deg:.1f}° | {w.n:.2f} | {w.seconds:.1f} |"
        for name, w in table.items()
    ]
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Print the table, keeping detections in a folder where one is named."""
    with TemporaryDirectory(prefix="geoseg-quality-") as work:
        folder = Path(words[0] if words else work)
        folder.mkdir(parents=True, exist_ok=True)
        table = ablation(folder)
    print(as_markdown(table) if table else NOT_HERE)


if __name__ == "__main__":
    main(sys.argv[1:])
