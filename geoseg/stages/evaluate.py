"""Score a model on annotated chips, results that lie on disk, or a finished map."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoseg.chips import plan_chips
from geoseg.data.cocofile import read_coco
from geoseg.data.collect import Collector
from geoseg.data.manifest import read_manifest
from geoseg.errors import GeosegError
from geoseg.evaluate import coco_figures, evaluate_footprints, match_footprints
from geoseg.evaluate.calibration import calibration
from geoseg.evaluate.classes import in_classes_of
from geoseg.evaluate.coco_figures import RECALL_LEVELS
from geoseg.evaluate.mistakes import find_mistakes
from geoseg.evaluate.report import (
    Section,
    bars,
    calibration_plot,
    chip_picture,
    curve_plot,
    histogram,
    overlap_plot,
    write_report,
)
from geoseg.evaluate.seams import seam_gap
from geoseg.evaluate.shapes import measure_shapes
from geoseg.evaluate.sides import metric_shapes
from geoseg.raster import read_chip_image
from geoseg.stages.maps import EVERYWHERE, centred_in, read_area, read_map
from geoseg.stages.pictures import document_pictures
from geoseg.stages.predict_dir import load_for_pictures, predict_pictures
from geoseg.vector import read_vector

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd

    from geoseg.config import ModelOptions
    from geoseg.data.annotations import Annotations
    from geoseg.evaluate import CocoFigures, EvalResult
    from geoseg.evaluate.mistakes import ChipMistakes, Mistakes
    from geoseg.evaluate.seams import SeamGap
    from geoseg.evaluate.shapes import ShapeMeasures
    from geoseg.morphology import MorphologyOptions
    from geoseg.stages.base import Progress, Tally
    from geoseg.stages.origin import Origin
    from geoseg.tta import TtaOptions

PICTURES = 6
SIZES_M = (0, 5, 8, 12, 18, 30, math.inf)  # square root of the area: sheds to blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChipEvaluation:
    """What a model or its results are worth on annotated chips."""

    truth: Annotations
    results: Annotations
    figures: CocoFigures
    boxes: CocoFigures
    mistakes: Mistakes
    """At the score threshold asked for."""
    every: Mistakes
    """With every detection, whatever its score."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, for tables and JSON."""
        return {
            "masks": self.figures.as_dict(),
            "boxes": self.boxes.as_dict(),
            f"mistakes at score {self.mistakes.score:g}": self.mistakes.totals(),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapEvaluation:
    """What a finished map is worth."""

    pred: gpd.GeoDataFrame
    truth: gpd.GeoDataFrame
    result: EvalResult
    shapes: ShapeMeasures
    seams: SeamGap | None
    """None where the file does not say how its scene was cut."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, for tables and JSON."""
        values: dict[str, Any] = {"match": self.result.as_dict(), "shape": self.shapes.as_dict()}
        if self.seams is not None:
            values["seams"] = {
                "n_crossing": self.seams.n_crossing,
                "n_inside": self.seams.n_inside,
                "f1_crossing": self.seams.f1_crossing,
                "f1_inside": self.seams.f1_inside,
                "gap": self.seams.gap,
            }
        return values


def read_truth(document: Path, *, manifest: Path | None, split: str) -> Annotations:
    """Read a COCO document, or what a manifest keeps of it.

    Raises:
        GeosegError: A file is not there or not what it should be.
    """
    truth = read_coco(document)
    return truth if manifest is None else truth.keep(read_manifest(manifest).kept(split))


def evaluate_model(
    truth: Annotations,
    images: Path,
    options: ModelOptions,
    tally: Tally,
    *,
    tta: TtaOptions | None = None,
    morphology: MorphologyOptions | None = None,
    progress: Progress | None = None,
) -> Annotations:
    """Return what a model finds in the chips of a document, seen and refined as is asked for.

    Raises:
        GeosegError: The model does not serve, or no chip can be read.
    """
    predictor = load_for_pictures(options)
    pictures = document_pictures(truth, images)
    collector = Collector(predictor.model.spec.categories)
    seen = predict_pictures(
        pictures,
        predictor,
        tta=tta,
        calibrate=options.calibrate,
        morphology=morphology,
        tally=tally,
        progress=progress,
    )
    for picture, found in seen:
        collector.add_detections(picture.name, found, image_id=picture.image_id)
    tally.check()
    return in_classes_of(truth, collector.finish())


def evaluate_chips(
    truth: Annotations, results: Annotations, *, score: float = 0.5
) -> ChipEvaluation:
    """Compare results with the truth.

    Args:
        truth: What is there.
        results: What was found.
        score: Least score of the detections whose mistakes are counted.

    Raises:
        ConfigError: They do not go together.
    """
    every = find_mistakes(truth, results, score=0.0)
    return ChipEvaluation(
        truth=truth,
        results=results,
        figures=coco_figures(truth, results),
        boxes=coco_figures(truth, results, kind="bbox"),
        mistakes=every.above(score),
        every=every,
    )


def evaluate_map(footprints: Path, truth: Path, *, within: str = EVERYWHERE) -> MapEvaluation:
    """Compare a file of footprints with outlines.

    Args:
        footprints: A file of ours, or any vector file.
        truth: Outlines in any CRS; points and lines in it are no buildings.
        within: Area, see `read_area`: what has its centroid inside counts.

    Raises:
        GeosegError: A file is not there or not what it should be.
    """
    pred, origin = read_map(footprints, may_be_empty=True)
    outlines = read_vector(truth)
    area = read_area(within, crs=pred.crs, origin=origin)
    pred, outlines = (centred_in(area, frame.to_crs(pred.crs)) for frame in (pred, outlines))
    chips_of = _cut(origin)
    return MapEvaluation(
        pred=pred,
        truth=outlines,
        result=evaluate_footprints(pred, outlines),
        shapes=measure_shapes(pred, outlines),
        seams=None if chips_of is None else seam_gap(pred, outlines, **chips_of),
    )


def report_chips(path: Path, found: ChipEvaluation, *, images: Path | None) -> None:
    """Write a page about chips.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: The page cannot be written.
    """
    mistakes, worst = found.mistakes, found.mistakes.worst(PICTURES)
    every = found.every.chips
    right = np.concatenate([c.right for c in every] or [np.zeros(0, bool)])
    scores = np.concatenate([c.scores for c in every] or [np.zeros(0, np.float32)])
    meaning = calibration(scores, right)
    sections = [
        Section(title="Masks and boxes", note="COCO's figures; the challenge's are at IoU .50.",
                table={k: {"masks": v, "boxes": found.boxes.as_dict()[k]}
                       for k, v in found.figures.as_dict().items()}),
        Section(title="Precision and recall",
                pictures=[("Masks", curve_plot(found.figures.precision, RECALL_LEVELS))]),
        Section(title="Mistakes", note=f"Detections of score {mistakes.score:g} or more.",
                table={f"{side}: {kind}": n for side, kinds in mistakes.totals().items()
                       for kind, n in kinds.items()}),
        Section(title="Scores", note=f"Expected calibration error {meaning.error:.3f}. "
                f"F1 is highest with detections of score {found.every.best_score():.3f} or more.",
                pictures=[("Score and share that is right", calibration_plot(meaning)),
                          ("Scores", histogram(scores, "score"))]),
    ]  # fmt: skip
    if worst:
        overlap = [(f"IoU in {worst[0].name}", overlap_plot(worst[0]))]
        sections.append(Section(title="The chip with most mistakes", pictures=overlap))
    if images is not None:
        for title, chips in (("Worst", worst), ("Best", mistakes.best(PICTURES))):
            pictures = [p for p in (_picture(found, c, images) for c in chips) if p is not None]
            note = "Objects blue, detections orange."
            sections.append(Section(title=f"{title} chips", note=note, pictures=pictures))
    write_report(path, "Annotated chips", sections)


def report_map(path: Path, found: MapEvaluation) -> None:
    """Write a page about a map.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: The page cannot be written.
    """
    matches = match_footprints(found.pred, found.truth)
    _, outlines = metric_shapes(found.pred, found.truth)
    sides = np.sqrt(shapely.area(outlines))
    hit = np.zeros(len(outlines), bool)
    hit[matches.truth] = True
    recall = {}
    for low, high in itertools.pairwise(SIZES_M):
        here = (sides >= low) & (sides < high)
        name = f"{low}-{high} m" if math.isfinite(high) else f"{low} m and more"
        recall[name] = float(hit[here].mean()) if here.any() else math.nan
    sections = [
        Section(title=name.capitalize(), table=values) for name, values in found.as_dict().items()
    ]
    sections.append(Section(title="Overlap of matches",
                            pictures=[("IoU", histogram(matches.iou, "IoU"))]))  # fmt: skip
    sections.append(Section(title="Recall by size", note="Side: square root of the area.",
                            table=recall,
                            pictures=[("Recall at IoU .5", bars(recall, "recall"))]))  # fmt: skip
    write_report(path, "Footprints", sections)


def _picture(found: ChipEvaluation, chip: ChipMistakes, images: Path) -> tuple[str, bytes] | None:
    try:
        pixels, _ = read_chip_image(images / chip.name)
    except GeosegError:
        return None
    truth, results = found.truth.keep([chip.name]), found.results
    ident = truth.images.ids[0]
    row = (
        int(np.flatnonzero(results.images.ids == ident)[0]) if ident in results.images.ids else None
    )
    shown = [] if row is None else _confident(results, row, found.mistakes.score)
    masks = [truth.object_mask(i) for i in range(len(truth))]
    return f"{chip.name}: F1 {chip.f1:.2f}", chip_picture(pixels, masks, shown)


def _confident(results: Annotations, row: int, score: float) -> list[Any]:
    rows = results.of_image(row)
    assert results.scores is not None, "results have scores"
    return [
        results.object_mask(i) for i in range(rows.start, rows.stop) if results.scores[i] >= score
    ]


def _cut(origin: Origin | None) -> dict[str, Any] | None:
    """Return how a map's scene was cut into chips; None where that is not known."""
    if origin is None or origin.cut is None:
        return None
    return {
        "chips": plan_chips(origin.scene_id, origin.grid, **origin.cut),
        "grid": origin.grid,
    }
