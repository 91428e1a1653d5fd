"""COCO's figures, and those of the crowdAI mapping challenge.

Frame: masks and boxes in pixels of their own chip. pycocotools computes them, or faster-coco-eval
where it is installed, which says the same sooner. Must not import torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.data.annotations import Annotations

IOU_LEVELS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0, 1, 101)
MOST_DETECTIONS = (1, 10, 100)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CocoFigures:
    """COCO's twelve figures, the challenge's two and the curves behind them; NaN where undefined.

    Areas are COCO's: small is below 32 x 32 px, large above 96 x 96.
    """

    ap: float
    """Average precision over IoU .50 to .95."""
    ap50: float
    """At IoU .50 with 100 detections a chip: also the challenge's AP."""
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    """Average recall over IoU .50 to .95 with 1 detection a chip."""
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    challenge_ar50: float
    """Recall at IoU .50 with 100 detections a chip: the challenge's AR."""
    precision: NDArray[np.float64]
    """(10, 101) at each IoU and recall level, mean over the classes."""
    n_images: int
    n_truth: int
    n_results: int

    @property
    def challenge_ap50(self) -> float:
        """The challenge's AP: COCO's at IoU .50."""
        return self.ap50

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name, for tables and JSON."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "precision"}
        return numbers | {"challenge_ap50": self.challenge_ap50}


def coco_figures(
    truth: Annotations,
    results: Annotations,
    *,
    kind: Literal["segm", "bbox"] = "segm",
    backend: Literal["auto", "pycocotools", "faster-coco-eval"] = "auto",
) -> CocoFigures:
    """Compare results with the truth as COCO does.

    Args:
        truth: What is there; crowds neither count nor hurt.
        results: What was found, with scores; chips are matched by their ids.
        kind: Whether masks or boxes are compared.
        backend: Who computes; "auto" takes the faster one that is installed.

    Returns:
        The figures.

    Raises:
        ConfigError: The results have no scores, or chips that the truth does not have.
    """
    if results.scores is None and len(results):
        raise ConfigError("results must have scores")
    rows = _rows(truth.images.ids, results.images.ids)
    evaluation = _evaluation(
        _truth_dicts(truth), _result_dicts(results, rows), truth, kind, backend
    )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [_nan(value) for value in list(evaluation.stats)[:12]]
    names = [f.name for f in fields(CocoFigures)][:12]
    recall = np.asarray(evaluation.eval["recall"]).reshape(10, -1, 4, 3)[0, :, 0, 2]
    precision = np.asarray(evaluation.eval["precision"]).reshape(10, 101, -1, 4, 3)[..., 0, 2]
    return CocoFigures(
        **dict(zip(names, stats, strict=True)),
        challenge_ar50=_mean(recall),
        precision=_class_mean(precision),
        n_images=len(truth.images),
        n_truth=int((~truth.crowd).sum()),
        n_results=len(results),
    )


def _evaluation(
    truths: list[dict[str, Any]],
    results: list[dict[str, Any]],
    truth: Annotations,
    kind: str,
    backend: str,
) -> Any:
    index_kind, evaluation_kind = _backend(backend)
    images = [
        {"id": i, "height": int(h), "width": int(w)}
        for i, (h, w) in enumerate(truth.images.sizes_hw, 1)
    ]
    categories = [{"id": c.label, "name": c.name} for c in truth.categories]
    sides = []
    for records in (truths, results):
        side = index_kind()
        side.dataset = {"images": images, "categories": categories, "annotations": records}
        with contextlib.redirect_stdout(io.StringIO()):
            side.createIndex()
        sides.append(side)
    evaluation = evaluation_kind(*sides, kind)
    evaluation.params.maxDets = list(MOST_DETECTIONS)
    return evaluation


def _backend(name: str) -> tuple[Any, Any]:
    installed = importlib.util.find_spec("faster_coco_eval") is not None
    if name == "faster-coco-eval" or (name == "auto" and installed):
        from faster_coco_eval import COCO as FasterCOCO  # noqa: PLC0415, N811 - optional; their name
        from faster_coco_eval import COCOeval_faster  # noqa: PLC0415 - optional

        return FasterCOCO, COCOeval_faster
    return COCO, COCOeval


def _truth_dicts(truth: Annotations) -> list[dict[str, Any]]:
    return [
        _common(truth, i)
        | {"iscrowd": int(truth.crowd[i]), "image_id": int(truth.image_index[i]) + 1}
        for i in range(len(truth))
    ]


def _result_dicts(results: Annotations, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    return [
        _common(results, i)
        | {
            "iscrowd": 0,
            "image_id": int(rows[results.image_index[i]]) + 1,
            "score": float(results.scores[i]) if results.scores is not None else 0.0,
        }
        for i in range(len(results))
    ]


def _common(side: Annotations, i: int) -> dict[str, Any]:
    height, width = side.images.sizes_hw[side.image_index[i]]
    return {
        "id": i + 1,
        "category_id": int(side.labels[i]),
        "area": float(side.areas_px2[i]),
        "bbox": side.boxes_xywh[i].tolist(),
        "segmentation": side.rle(i, int(height), int(width)),
    }


def _rows(truth_ids: NDArray[np.int64], result_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row in the truth of each chip of the results."""
    order = np.argsort(truth_ids)
    at = np.searchsorted(truth_ids, result_ids, sorter=order)
    rows = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(at), np.int64)
    strange = len(order) == 0 or truth_ids[rows] != result_ids
    if len(result_ids) and np.any(strange):
        first = result_ids[np.flatnonzero(np.broadcast_to(strange, len(result_ids)))[0]]
        raise ConfigError(f"results must be of the truth's chips, got image id {first}")
    return rows


def _nan(value: float) -> float:
    return math.nan if value == -1 else float(value)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if len(known) else math.nan


def _class_mean(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is defined, NaN where nothing is."""
    known = precision > -1
    total = np.where(known, precision, 0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / known.sum(axis=-1), np.float64)
