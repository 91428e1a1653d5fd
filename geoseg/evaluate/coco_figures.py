"""COCO's figures, and those of the crowdAI mapping challenge.

Frame: masks and boxes in pixels of their own chip. pycocotools computes them, or faster-coco-eval
where it is installed, which says the same sooner. Chips are matched block by block, so that no
Python object per annotation stays. Must not import torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import area as area_of

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geoseg.data.annotations import Annotations

IOU_LEVELS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0, 1, 101)
MOST_DETECTIONS = (1, 10, 100)
BLOCK_CHIPS = 1000  # matched at once
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # COCO's areas, in its order


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CocoFigures:
    """COCO's twelve figures, the challenge's two and the curves behind them; NaN where undefined.

    Areas are COCO's: small is below 32 x 32 px, large above 96 x 96. Those of the truth are as its
    document says; finds are as large as their masks, or their boxes where boxes are compared.
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
    """(10, 101) at each of `IOU_LEVELS` and `RECALL_LEVELS`, mean over the classes."""
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
        ConfigError: The results have no scores, chips that the truth does not have, or
            faster-coco-eval is asked for and not installed.

    References:
        Lin et al., Microsoft COCO: common objects in context, ECCV 2014;
        https://cocodataset.org/#detection-eval.
    """
    if results.scores is None and len(results):
        raise ConfigError("results must have scores")
    rows = truth_rows(truth, results)
    backend_ = _backend(backend)
    parts: list[Any] = []
    for first in range(0, max(len(truth.images), 1), BLOCK_CHIPS):
        last = min(first + BLOCK_CHIPS, len(truth.images))
        evaluation = _evaluation(
            truth, results, rows=rows, chips=range(first, last), kind=kind, backend=backend_
        )
        parts.append(evaluation.block())
    counted = evaluation.counted(parts, len(truth.images))
    precision, recall = counted["precision"], counted["recall"]
    return CocoFigures(
        ap=_mean(precision[..., _ALL, 2]),
        ap50=_mean(precision[0, ..., _ALL, 2]),
        ap75=_mean(precision[5, ..., _ALL, 2]),
        ap_small=_mean(precision[..., _SMALL, 2]),
        ap_medium=_mean(precision[..., _MEDIUM, 2]),
        ap_large=_mean(precision[..., _LARGE, 2]),
        ar1=_mean(recall[..., _ALL, 0]),
        ar10=_mean(recall[..., _ALL, 1]),
        ar100=_mean(recall[..., _ALL, 2]),
        ar_small=_mean(recall[..., _SMALL, 2]),
        ar_medium=_mean(recall[..., _MEDIUM, 2]),
        ar_large=_mean(recall[..., _LARGE, 2]),
        challenge_ar50=_mean(recall[0, ..., _ALL, 2]),
        precision=_class_mean(precision[..., _ALL, 2]),
        n_images=len(truth.images),
        n_truth=int((~truth.crowd).sum()),
        n_results=len(results),
    )


def truth_rows(truth: Annotations, results: Annotations) -> NDArray[np.int64]:
    """Return the row in the truth's chips of each chip of the results, by their ids.

    Raises:
        ConfigError: The results have a chip that the truth has not.
    """
    truth_ids, result_ids = truth.images.ids, results.images.ids
    order = np.argsort(truth_ids)
    at = np.searchsorted(truth_ids, result_ids, sorter=order)
    rows = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(at), np.int64)
    strange = len(order) == 0 or truth_ids[rows] != result_ids
    if len(result_ids) and np.any(strange):
        first = result_ids[np.flatnonzero(np.broadcast_to(strange, len(result_ids)))[0]]
        raise ConfigError(f"results must be of the truth's chips, got image id {first}")
    return rows


class _Evaluation(Protocol):
    """What of COCOeval is used."""

    def block(self) -> Any:
        """Match the chips that were given; return what counting needs of it."""
        ...

    def counted(self, parts: list[Any], n_images: int) -> dict[str, NDArray[np.float64]]:
        """Return precision (10, 101, K, 4, 3) and recall (10, K, 4, 3) of all blocks."""
        ...


class _Plain:
    """pycocotools."""

    def __init__(self, truth: dict[str, Any], results: dict[str, Any], kind: str) -> None:
        self._evaluation = COCOeval(_indexed(COCO, truth), _indexed(COCO, results), kind)
        self._evaluation.params.maxDets = list(MOST_DETECTIONS)

    def block(self) -> list[list[dict[str, Any] | None]]:
        with contextlib.redirect_stdout(io.StringIO()):
            self._evaluation.evaluate()
        return _by_area([_compact(e) for e in self._evaluation.evalImgs], self._evaluation.params)

    def counted(self, parts: list[Any], n_images: int) -> dict[str, NDArray[np.float64]]:
        evaluation = self._evaluation
        evaluation.params.imgIds = list(range(n_images))
        evaluation._paramsEval = evaluation.params  # noqa: SLF001 - what evaluate() leaves there
        evaluation.evalImgs = _joined(parts)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        return {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}


class _Faster:
    """faster-coco-eval."""

    def __init__(self, truth: dict[str, Any], results: dict[str, Any], kind: str) -> None:
        from faster_coco_eval import COCO as FasterCOCO  # noqa: PLC0415, N811 - optional; their name
        from faster_coco_eval import COCOeval_faster  # noqa: PLC0415 - optional

        sides = (_indexed(FasterCOCO, truth), _indexed(FasterCOCO, results))
        self._evaluation = COCOeval_faster(*sides, kind, separate_eval=True)
        self._evaluation.params.maxDets = list(MOST_DETECTIONS)
        self._evaluation.rle_iou_max_workers = 1  # threads cost more than a chip's masks

    def block(self) -> list[list[Any]]:
        with contextlib.redirect_stdout(io.StringIO()):
            self._evaluation.evaluate()
        return _by_area(list(self._evaluation._evalImgs_cpp), self._evaluation.params)  # noqa: SLF001 - its only name

    def counted(self, parts: list[Any], n_images: int) -> dict[str, NDArray[np.float64]]:
        evaluation = self._evaluation
        evaluation._paramsEval.imgIds = list(range(n_images))  # noqa: SLF001 - as evaluate() does
        evaluation._evalImgs_cpp = _joined(parts)  # noqa: SLF001 - its only name
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        shapes = {"precision": (10, 101, -1, 4, 3), "recall": (10, -1, 4, 3)}
        return {name: np.reshape(evaluation.eval[name], shape) for name, shape in shapes.items()}


def _backend(name: str) -> Callable[[dict[str, Any], dict[str, Any], str], _Evaluation]:
    installed = importlib.util.find_spec("faster_coco_eval") is not None
    if name == "faster-coco-eval" and not installed:
        raise ConfigError("faster-coco-eval is not installed: pip install 'geoseg[train]'")
    return _Faster if installed and name != "pycocotools" else _Plain


def _evaluation(
    truth: Annotations,
    results: Annotations,
    *,
    rows: NDArray[np.int64],
    chips: range,
    kind: str,
    backend: Callable[[dict[str, Any], dict[str, Any], str], _Evaluation],
) -> _Evaluation:
    """Return the evaluation of a block of the truth's chips."""
    sizes = truth.images.sizes_hw[chips.start : chips.stop].tolist()
    about = {
        "info": {},
        "images": [
            {"id": i, "height": h, "width": w} for i, (h, w) in zip(chips, sizes, strict=True)
        ],
        "categories": [{"id": c.label, "name": c.name} for c in truth.categories],
    }
    masks = kind == "segm"
    truths = _records(truth, truth.image_index, chips, masks=masks)
    found = _records(results, rows[results.image_index], chips, masks=masks)
    return backend({**about, "annotations": truths}, {**about, "annotations": found}, kind)


def _indexed(index_kind: Callable[[], Any], dataset: dict[str, Any]) -> Any:
    index = index_kind()
    index.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index


def _records(
    side: Annotations, places: NDArray[np.integer], chips: range, *, masks: bool
) -> list[dict[str, Any]]:
    """Return COCO's records of the objects whose chip, a row of the truth's, is in a block."""
    inside = np.flatnonzero((places >= chips.start) & (places < chips.stop))
    scores = np.zeros(len(inside)) if side.scores is None else side.scores[inside].astype(float)
    columns = zip(
        inside.tolist(),
        places[inside].tolist(),
        side.labels[inside].tolist(),
        side.areas_px2[inside].tolist(),
        side.boxes_xywh[inside].tolist(),
        side.crowd[inside].tolist(),
        scores.tolist(),
        side.images.sizes_hw[side.image_index[inside]].tolist(),
        strict=True,
    )
    records = []
    for i, place, label, area, box, crowd, score, size in columns:
        record = {
            "id": i + 1,  # 0 says unmatched
            "image_id": place,
            "category_id": label,
            "area": area,
            "bbox": box,
            "iscrowd": int(crowd) if side.scores is None else 0,
            "score": score,
        }
        if masks:
            record["segmentation"] = side.rle(i, *size)
        if side.scores is not None:  # a find is as large as what is compared of it
            record["area"] = float(area_of(record["segmentation"])) if masks else box[2] * box[3]
        records.append(record)
    return records


def _compact(one: dict[str, Any] | None) -> dict[str, Any] | None:
    """Keep of a chip's matches what counting needs, small."""
    if one is None:
        return None
    return {
        "dtScores": np.array(one["dtScores"]),
        "dtMatches": one["dtMatches"] > 0,
        "dtIgnore": one["dtIgnore"].astype(bool),
        "gtIgnore": np.asarray(one["gtIgnore"]).astype(np.int8),
    }


def _by_area(matches: list[Any], params: Any) -> list[list[Any]]:
    """Cut what is ordered by class, area and chip into one list for each class and area."""
    n = len(params.imgIds)
    return [matches[k * n : (k + 1) * n] for k in range(len(params.catIds) * len(params.areaRng))]


def _joined(parts: list[list[list[Any]]]) -> list[Any]:
    """Return the matches of all blocks, ordered by class, area and chip."""
    return [one for group in zip(*parts, strict=True) for block in group for one in block]


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if len(known) else math.nan


def _class_mean(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is defined, NaN where nothing is."""
    known = precision > -1
    total = np.where(known, precision, 0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / known.sum(axis=-1), np.float64)
