"""Compare footprints with reference outlines: who found what, and how well it fits.

Frame: both sides are brought to one metric frame, see `sides.metric_crs`; areas and IoU are
measured there. Ratios without a denominator are NaN, never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.errors import ConfigError
from geoseg.evaluate.sides import sides

if TYPE_CHECKING:
    from collections.abc import Callable

    import geopandas as gpd
    from numpy.typing import NDArray

    from geoseg.evaluate.sides import Side

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Shapes = NDArray[np.object_]

IOU_LEVELS = (0.5, 0.75, 0.95)
AP_LEVELS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALL_POINTS = np.linspace(0, 1, 101)  # COCO's, for interpolated precision
_EPSILON = 1e-9  # areas of intersections carry rounding errors of about this share


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Pairs of one prediction and one truth each, by descending score."""

    pred: Ints
    """(M,) row positions in the prediction."""
    truth: Ints
    """(M,) row positions in the truth."""
    iou: Floats
    """(M,) intersection over union."""

    def __len__(self) -> int:
        return len(self.pred)


@dataclass(frozen=True, slots=True, kw_only=True)
class IouLevel:
    """What holds when a match needs at least `iou`."""

    iou: float
    n_matched: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """How a set of footprints compares with the truth; NaN where a figure is undefined."""

    n_pred: int
    n_truth: int
    levels: tuple[IouLevel, ...]
    """At IoU .5, .75 and .95, every footprint counted whatever its score."""
    best_f1: float
    """Highest F1 at IoU .5 over all score thresholds; NaN without scores."""
    best_f1_score: float
    """The score threshold that reaches it."""
    ap50: float
    """Average precision at IoU .5, 101 recall points; NaN without scores."""
    mean_iou: float
    """Mean IoU of the matches at IoU .5."""
    area_ratio: float
    """Area of all footprints over area of all truth, in the metric frame."""

    def at(self, iou: float) -> IouLevel:
        """Return the figures at one of the IoU levels.

        Raises:
            ConfigError: The level was not evaluated.
        """
        for level in self.levels:
            if math.isclose(level.iou, iou):
                return level
        raise ConfigError(f"iou must be one of {[v.iou for v in self.levels]}, got {iou}")

    def as_dict(self) -> dict[str, float]:
        """Return all figures by flat names such as `f1@.5`, for tables and JSON."""
        flat: dict[str, float] = {"n_pred": self.n_pred, "n_truth": self.n_truth}
        for level in self.levels:
            name = f"{level.iou:g}".removeprefix("0")
            for figure in ("n_matched", "precision", "recall", "f1"):
                flat[f"{figure}@{name}"] = getattr(level, figure)
        for figure in ("best_f1", "best_f1_score", "ap50", "mean_iou", "area_ratio"):
            flat[figure] = getattr(self, figure)
        return flat


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pairs:
    """Every overlapping pair, best first: by score, then by IoU, then by position."""

    pred: Ints
    truth: Ints
    iou: Floats


def match_footprints(
    pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame, *, iou: float = 0.5
) -> Matches:
    """Match footprints and outlines one to one, the higher score choosing first.

    As COCO does: in order of descending `score`, each footprint takes the free outline it overlaps
    best, if that reaches `iou`. Among equal scores (all, where there is no `score` column) the pair
    with the higher IoU goes first, so the rows' order does not matter.

    Args:
        pred: Footprints in any CRS.
        truth: Outlines in any CRS; invalid ones are mended, ones that are not areas ignored.
        iou: Least intersection over union of a match, in (0, 1].

    Returns:
        The matches.

    Raises:
        ConfigError: `iou` is out of range.
        VectorError: A side has no CRS.

    Example:
        >>> from shapely.geometry import box
        >>> import geopandas as gpd
        >>> truth = gpd.GeoDataFrame(geometry=[box(0, 0, 10, 10)], crs="EPSG:32736")
        >>> pred = gpd.GeoDataFrame(geometry=[box(0, 0, 10, 8)], crs="EPSG:32736")
        >>> match_footprints(pred, truth).iou.round(3).tolist()
        [0.8]
    """
    if not 0 < iou <= 1:
        raise ConfigError(f"iou must be in (0, 1], got {iou}")
    pred_side, truth_side = sides(pred, truth, within=None)
    matches = _match(_overlaps(pred_side, truth_side), iou)
    return Matches(
        pred=pred_side.rows[matches.pred], truth=truth_side.rows[matches.truth], iou=matches.iou
    )


def evaluate_footprints(
    pred: gpd.GeoDataFrame,
    truth: gpd.GeoDataFrame,
    *,
    within: shapely.Polygon | shapely.MultiPolygon | None = None,
) -> EvalResult:
    """Score footprints against outlines.

    Precision-recall points are taken between distinct scores only, so that ties cannot be ordered
    in anyone's favour; where no two scores are equal, `ap50` is COCO's.

    Args:
        pred: Footprints in any CRS; `score` ranks them where the column is there.
        truth: Outlines in any CRS; invalid ones are mended, ones that are not areas ignored.
        within: An area in the CRS of `pred`: only what has its centroid inside counts.

    Returns:
        The figures.

    Raises:
        VectorError: A side has no CRS.

    Example:
        >>> from shapely.geometry import box
        >>> import geopandas as gpd
        >>> truth = gpd.GeoDataFrame(geometry=[box(0, 0, 10, 10)], crs="EPSG:32736")
        >>> result = evaluate_footprints(truth.assign(score=0.9), truth)
        >>> result.at(0.95).f1, result.ap50, result.area_ratio
        (1.0, 1.0, 1.0)
    """
    pred_side, truth_side = sides(pred, truth, within=within)
    n_pred, n_truth = len(pred_side.rows), len(truth_side.rows)
    pairs = _overlaps(pred_side, truth_side)
    by_level = {iou: _match(pairs, iou) for iou in IOU_LEVELS}
    loose = by_level[0.5]
    best_f1, best_f1_score, ap50 = _ranked(pred_side, loose, n_truth)
    pred_area, truth_area = (float(shapely.area(s.shapes).sum()) for s in (pred_side, truth_side))
    return EvalResult(
        n_pred=n_pred,
        n_truth=n_truth,
        levels=tuple(_level(iou, len(m), n_pred, n_truth) for iou, m in by_level.items()),
        best_f1=best_f1,
        best_f1_score=best_f1_score,
        ap50=ap50,
        mean_iou=_ratio(float(loose.iou.sum()), len(loose)),
        area_ratio=_ratio(pred_area, truth_area),
    )


def mean_average_precision(
    pred: gpd.GeoDataFrame,
    truth: gpd.GeoDataFrame,
    *,
    quality: Callable[[Shapes, Shapes], Floats] | None = None,
) -> float:
    """Return COCO's AP of a map, the mean over IoU .50 to .95; NaN without scores or truth.

    Args:
        pred: Footprints in any CRS; `score` ranks them.
        truth: Outlines in any CRS.
        quality: Says in [0, 1] how well paired polygons in the metric frame agree; a match then
            needs both this and the IoU to reach the level.

    Raises:
        VectorError: A side has no CRS.
    """
    pred_side, truth_side = sides(pred, truth, within=None)
    pairs = _overlaps(pred_side, truth_side)
    near = np.flatnonzero(pairs.iou >= AP_LEVELS[0] - _EPSILON)
    p, t, worth = pairs.pred[near], pairs.truth[near], pairs.iou[near]
    if quality is not None:
        worth = np.minimum(worth, quality(pred_side.shapes[p], truth_side.shapes[t]))
    scores = np.zeros(len(p)) if pred_side.scores is None else pred_side.scores[p]
    order = np.lexsort((t, p, -worth, -scores))
    ranked = _Pairs(pred=p[order], truth=t[order], iou=worth[order])
    n_truth = len(truth_side.rows)
    return float(
        np.mean([_ranked(pred_side, _match(ranked, iou), n_truth)[2] for iou in AP_LEVELS])
    )


def _overlaps(pred: Side, truth: Side) -> _Pairs:
    tree = shapely.STRtree(truth.shapes)
    p, t = tree.query(pred.shapes, predicate="intersects")
    shared = shapely.area(shapely.intersection(pred.shapes[p], truth.shapes[t]))
    union = shapely.area(pred.shapes)[p] + shapely.area(truth.shapes)[t] - shared
    iou = shared / union
    scores = np.zeros(len(p)) if pred.scores is None else pred.scores[p]
    order = np.lexsort((t, p, -iou, -scores))
    return _Pairs(pred=p[order], truth=t[order], iou=iou[order])


def _match(pairs: _Pairs, iou: float) -> Matches:
    """Take pairs best first while both are free: COCO's greedy rule, ties going to higher IoU."""
    pred_taken, truth_taken = set[int](), set[int]()
    kept = []
    for i in np.flatnonzero(pairs.iou >= iou - _EPSILON).tolist():
        p, t = int(pairs.pred[i]), int(pairs.truth[i])
        if p not in pred_taken and t not in truth_taken:
            pred_taken.add(p)
            truth_taken.add(t)
            kept.append(i)
    return Matches(pred=pairs.pred[kept], truth=pairs.truth[kept], iou=pairs.iou[kept])


def _level(iou: float, n_matched: int, n_pred: int, n_truth: int) -> IouLevel:
    return IouLevel(
        iou=iou,
        n_matched=n_matched,
        precision=_ratio(n_matched, n_pred),
        recall=_ratio(n_matched, n_truth),
        f1=_ratio(2 * n_matched, n_pred + n_truth),
    )


def _ranked(pred: Side, matches: Matches, n_truth: int) -> tuple[float, float, float]:
    """Return best F1, its score threshold and AP over the score thresholds."""
    if pred.scores is None or n_truth == 0:
        return math.nan, math.nan, math.nan
    if len(pred.scores) == 0:
        return 0.0, math.nan, 0.0
    order = np.argsort(-pred.scores, kind="stable")
    scores = pred.scores[order]
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])
    hits = np.cumsum(np.isin(order, matches.pred), dtype=np.int64)[ends]
    f1 = 2 * hits / (ends + 1 + n_truth)
    best = int(np.argmax(f1))
    return float(f1[best]), float(scores[ends[best]]), _average_precision(hits, ends + 1, n_truth)


def _average_precision(hits: Ints, found: Ints, n_truth: int) -> float:
    """Return COCO's AP: the best precision at or beyond each recall point, on average."""
    envelope = np.maximum.accumulate((hits / found)[::-1])[::-1]
    at = np.searchsorted(hits / n_truth, RECALL_POINTS, side="left")
    return float(np.where(at < len(hits), np.r_[envelope, 0.0][at], 0.0).mean())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
