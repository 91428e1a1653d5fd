"""Fit what scores stand for: footprints that were compared with the truth become a `ScoreMap`.

Three families: a *temperature* (Guo et al. 2017, arXiv 1706.04599), one number; a *logistic* line
(Platt 1999), two; and an *isotonic* curve, as many as the data ask for, in its centred form, which
rises between its steps (Oron and Flournoy 2017). Which one serves is a matter of measurement: each
is judged on maps that it was not fitted on. Scores here are the network's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from geoseg.errors import ConfigError
from geoseg.evaluate.calibration import calibration
from geoseg.evaluate.footprints import match_footprints
from geoseg.evaluate.sides import are_areas
from geoseg.scores import ScoreMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd
    import shapely
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Method = Literal["temperature", "logistic", "isotonic"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)

THRESHOLDS: Final = np.arange(0.05, 0.951, 0.05).round(2)
"""Least probabilities that are tried: finer ones would fit the maps at hand."""
NEAR_F1: Final = 0.01
"""Differences of F1 that a few buildings make."""
LEAST_PROBABILITY: Final = 1e-4  # a surprise costs no more than this in the log loss
_LOGITS: Final = np.arange(-7, 7.1, 0.5)  # knots of curves that are smooth
_SLOPE_SHARE: Final = 0.02  # of the identity in isotonic curves: no two scores become one
_RIDGE: Final = 0.1  # pulls towards "scores are right as they are", about as a tenth of a footprint
_STEPS: Final = 50
_DIGITS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The footprints of one map, and which of them are right."""

    scores: Floats
    """(N,) in [0, 1], the network's own."""
    right: NDArray[np.bool_]
    """(N,) whether each matches a building of the truth at IoU .5."""
    n_truth: int

    def f1(self, least: float) -> float:
        """Return F1 of the footprints that score at least so much; 0 where nothing is there."""
        kept = self.scores >= least
        sides = int(kept.sum()) + self.n_truth
        return 2 * int((kept & self.right).sum()) / sides if sides else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FitFigures:
    """How far scores are from what happens, the mean over maps; 0 is perfect."""

    log_loss: float
    brier: float
    error: float
    """Expected calibration error, ten bins."""


def judge(
    pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame, *, within: shapely.Geometry | None = None
) -> Judged:
    """Say which footprints are right.

    Args:
        pred: Footprints with a `score`, in any CRS.
        truth: Outlines in any CRS; ones that are not areas are ignored, as in `pred`.
        within: An area in the CRS of `pred`: only what has its centroid inside counts, but may
            match outlines outside.

    Raises:
        VectorError: A side has no CRS.
    """
    right = np.zeros(len(pred), np.bool_)
    right[match_footprints(pred, truth).pred] = True
    counts, truth_counts = (
        are_areas(frame.geometry.to_crs(pred.crs).to_numpy(), within=within)
        for frame in (pred, truth)
    )
    scores = pred["score"].to_numpy(np.float64)
    return Judged(scores=scores[counts], right=right[counts], n_truth=int(truth_counts.sum()))


def fit_score_map(scores: Floats, right: NDArray[np.bool_], *, method: Method) -> ScoreMap:
    """Fit a map from scores to the probability of being right.

    Args:
        scores: (N,) in [0, 1].
        right: (N,) whether each find is right.
        method: A family of `METHODS`.

    Raises:
        ConfigError: There is nothing to fit to, or higher scores are not right more often.

    Example:
        >>> scores, right = np.array([0.2, 0.4, 0.6, 0.8]), np.array([False, False, True, True])
        >>> fit_score_map(scores, right, method="isotonic").apply(0.5).round(2).tolist()
        0.5
    """
    if not 0 < np.sum(right) < len(right):
        raise ConfigError(
            f"a calibration needs right and wrong footprints, got {int(np.sum(right))} right of "
            f"{len(right)}: give maps of a lower --score, or more of them"
        )
    if method == "isotonic":
        at, share = _isotonic(np.asarray(scores, np.float64), np.asarray(right, np.float64))
        return _rising(at, (1 - _SLOPE_SHARE) * share + _SLOPE_SHARE * at)
    slope, shift = _logistic(np.asarray(scores, np.float64), right, shifts=method == "logistic")
    if slope <= 0:
        raise ConfigError("higher scores must be right more often: these rank nothing")
    return _rising(_sigmoid(_LOGITS), _sigmoid(slope * _LOGITS + shift))


def cross_validate(maps: Sequence[Judged]) -> dict[str, FitFigures]:
    """Judge each family on every map, fitted on all the others.

    Args:
        maps: On different ground, at least two with footprints; those without any say nothing of
            what scores stand for.

    Returns:
        Figures by method, after those of the scores "as they are".

    Raises:
        ConfigError: Fewer than two maps have footprints, or some cannot be fitted to.
    """
    shown = [one for one in maps if len(one.scores)]
    if len(shown) < 2:
        raise ConfigError(
            "to choose a method by measurement takes two maps or more with footprints in the area "
            f"that counts, got {len(shown)}: give more, or name one with --method"
        )
    found = {"as they are": figures([_measured(one.scores, one.right) for one in shown])}
    for method in METHODS:
        parts = []
        for i, one in enumerate(shown):
            others = [other for j, other in enumerate(shown) if j != i]
            fitted = fit_score_map(*pooled(others), method=method)
            parts.append(_measured(fitted.apply(one.scores), one.right))
        found[method] = figures(parts)
    return found


def best_threshold(
    maps: Sequence[Judged], fitted: ScoreMap, *, least_shown: float = 0.0
) -> tuple[float, tuple[float, ...]]:
    """Return a least probability at which F1 is good, and each map's F1 there.

    F1, the mean over maps, is flat around its best, and where exactly that lies is chance: the
    middle is taken of all thresholds that come near it.

    Args:
        maps: What was judged.
        fitted: What scores stand for.
        least_shown: Score from which on the maps show every find: F1 further down is not known.
    """
    shown = THRESHOLDS[fitted.inverse().apply(THRESHOLDS) >= least_shown]
    tried = shown if len(shown) else THRESHOLDS[-1:]
    least = fitted.inverse().apply(tried)
    f1 = np.array([[one.f1(float(score)) for one in maps] for score in least])
    near = np.flatnonzero(f1.mean(axis=1) >= f1.mean(axis=1).max() - NEAR_F1)
    middle = int(near[len(near) // 2])
    return float(tried[middle]), tuple(f1[middle].tolist())


def pooled(maps: Sequence[Judged]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the scores and verdicts of several maps, one after the other."""
    return np.concatenate([m.scores for m in maps]), np.concatenate([m.right for m in maps])


def figures(parts: Sequence[FitFigures]) -> FitFigures:
    """Return the mean of the figures of several maps."""
    names = ("log_loss", "brier", "error")
    return FitFigures(**{n: float(np.mean([getattr(part, n) for part in parts])) for n in names})


def _measured(probabilities: Floats, right: NDArray[np.bool_]) -> FitFigures:
    sure = np.clip(probabilities, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return FitFigures(
        log_loss=float(-np.log(np.where(right, sure, 1 - sure)).mean()),
        brier=float(((probabilities - right) ** 2).mean()),
        error=calibration(np.clip(probabilities, 0, 1), right).error,
    )


def _isotonic(scores: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return the centres of the steps that pooling adjacent violators leaves: score and share.

    A right find of score 0 and a wrong one of score 1 are added: what a few finds show is not sure.
    """
    scores, right = np.r_[0.0, scores, 1.0], np.r_[1.0, right, 0.0]
    at, where = np.unique(scores, return_inverse=True)
    blocks: list[tuple[float, float, float]] = []  # sums of scores and of right ones; how many
    for x, hits, n in zip(at, np.bincount(where, right), np.bincount(where), strict=True):
        blocks.append((x * n, hits, n))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    sums = np.array(blocks)
    return sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]


def _logistic(scores: Floats, right: NDArray[np.bool_], *, shifts: bool) -> tuple[float, float]:
    """Return slope and shift, on the scores' logits, of greatest likelihood: Newton's steps."""
    limit = LEAST_PROBABILITY
    logits = np.log(np.clip(scores, limit, 1 - limit) / (1 - np.clip(scores, limit, 1 - limit)))
    columns = np.column_stack([logits, np.ones(len(logits))])[:, : 1 + shifts]
    start = np.array([1.0, 0.0])[: 1 + shifts]
    weights = start.copy()
    for _ in range(_STEPS):
        p = _sigmoid(columns @ weights)
        slope = columns.T @ (p - right) + _RIDGE * (weights - start)
        bend = (columns * (p * (1 - p))[:, None]).T @ columns + _RIDGE * np.eye(len(weights))
        step = np.linalg.solve(bend, slope)
        weights = weights - step / max(1.0, float(np.abs(step).max()))  # no leaps from afar
    return float(weights[0]), float(weights[1]) if shifts else 0.0


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))


def _rising(scores: Floats, probabilities: Floats) -> ScoreMap:
    """Return the map through these knots and both corners, without those that do not rise."""
    knots = [(0.0, 0.0)]
    for x, p in np.round(np.column_stack([scores, probabilities]), _DIGITS).tolist():
        if knots[-1][0] < x < 1 and knots[-1][1] < p < 1:
            knots.append((x, p))
    at, share = zip(*knots, (1.0, 1.0), strict=True)
    return ScoreMap(scores=at, probabilities=share)
