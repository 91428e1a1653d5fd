"""Calibrate: maps of ground that a model never saw say what its scores stand for.

The result goes into the JSON beside the weights, which is replaced as a whole.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from geoseg.errors import ConfigError, GeosegWarning
from geoseg.evaluate.scorefit import (
    METHODS,
    FitFigures,
    Judged,
    Method,
    best_threshold,
    cross_validate,
    fit_score_map,
    judge,
    pooled,
)
from geoseg.files import check_output, replacing
from geoseg.models import ModelSpec, find_model
from geoseg.stages.maps import EVERYWHERE, read_area, read_map
from geoseg.vector import read_vector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import geopandas as gpd

    from geoseg.scores import ScoreMap
    from geoseg.stages.origin import Origin


LEAST_SHOWN: Final = 0.2
"""Maps that begin at higher scores of the network show too little of what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedMap:
    """A map and the truth it is held against."""

    footprints: Path
    """Made by `run` or `footprints`, with a least score well below any that will be used. Rows
    without a score, as hands draw them, are left out with a warning: they are no network's."""
    truth: Path
    within: str = EVERYWHERE
    """Area that counts: see `read_area`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What the scores of a model stand for, and how well that is known."""

    method: Method
    chosen: ScoreMap
    threshold: float
    """A least probability with a good F1, the mean over the maps: see `best_threshold`."""
    f1: tuple[float, ...]
    """Of each map at that threshold."""
    counts: tuple[tuple[int, int, int], ...]
    """Of each map: footprints, right ones, buildings."""
    cross_validated: dict[str, FitFigures]
    """By method, each map judged by a fit to the others; empty where one map has footprints."""
    sha256: str | None
    """Of the weights."""
    mask_scores: bool
    """Whether finds were scored by class and mask: `ModelSpec.mask_scores`."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for tables and JSON."""
        return {
            "method": self.method,
            "threshold": self.threshold,
            "f1 at threshold": {f"map {i}": value for i, value in enumerate(self.f1, start=1)},
            "footprints, right, buildings": {
                f"map {i}": ", ".join(map(str, counts))
                for i, counts in enumerate(self.counts, start=1)
            },
            "cross-validated": {name: asdict(v) for name, v in self.cross_validated.items()},
            "calibration": {
                f"{score:.3f}": probability
                for score, probability in zip(
                    self.chosen.scores, self.chosen.probabilities, strict=True
                )
            },
        }


def calibrate(
    maps: Sequence[CheckedMap], *, method: Method | Literal["auto"] = "auto"
) -> Calibrated:
    """Find out what the scores of the model that made some maps stand for.

    Args:
        maps: Of ground the model never saw, on different places if that can be; a least score of
            0.05 of the network's own shows enough of what is wrong. One on which nothing was found
            counts for the threshold: its buildings are missed.
        method: A family of curves; auto takes the one with the least log loss, cross-validated
            over the maps.

    Raises:
        ConfigError: The maps are of different weights, scored differently, or too few or too plain
            to fit to; or a score is not in [0, 1].
        GeosegError: A file is not there or not what it should be.
    """
    if not maps:
        raise ConfigError("a calibration needs a map with its truth, got none")
    if len({(one.footprints.resolve(), one.within) for one in maps}) < len(maps):
        raise ConfigError("the maps must be of different ground, got one of them twice")
    read = [_read(one) for one in maps]
    origins = [origin for _, origin in read]
    if len({origin.model.get("sha256") for origin in origins}) > 1:
        raise ConfigError("the maps must be made with the same weights, got different ones")
    if len({origin.mask_scores for origin in origins}) > 1:
        raise ConfigError("the maps must be scored alike, got some with mask_scores, some without")
    judged = [one for one, _ in read]
    least_shown = max(origin.least_raw for origin in origins)
    _warn_if_cut(least_shown)
    n_shown = sum(len(one.scores) > 0 for one in judged)
    measured = cross_validate(judged) if n_shown > 1 or method == "auto" else {}
    family = _best(measured) if method == "auto" else method
    chosen = fit_score_map(*pooled(judged), method=family)
    threshold, f1 = best_threshold(judged, chosen, least_shown=least_shown)
    return Calibrated(
        method=family,
        chosen=chosen,
        threshold=threshold,
        f1=f1,
        counts=tuple((len(j.scores), int(j.right.sum()), j.n_truth) for j in judged),
        cross_validated=measured,
        sha256=origins[0].model.get("sha256"),
        mask_scores=origins[0].mask_scores,
    )


def _warn_if_cut(least_shown: float) -> None:
    if least_shown > LEAST_SHOWN:
        warnings.warn(
            f"the maps show only what the network scores {least_shown:.2f} or more; what lower "
            "scores stand for is a guess: make maps with --score 0.05 --set model.calibrate=false",
            GeosegWarning,
            stacklevel=3,
        )


def _best(measured: dict[str, FitFigures]) -> Method:
    return min(METHODS, key=lambda name: measured[name].log_loss)


def write_calibration(model: str, found: Calibrated) -> Path:
    """Write what was found into the spec of the weights, and return the spec's path.

    Args:
        model: A bundled name or a `.safetensors` path.
        found: What `calibrate` returned.

    Raises:
        ConfigError: The maps were made with other weights or scored otherwise than the spec says,
            or the model has no file.
        OutputError: The spec cannot be written; it stays as it was.
    """
    source = find_model(model)
    if source.weights is None:
        raise ConfigError(f"--model {model}: a factory has no spec to write a calibration to")
    if source.spec.sha256 != found.sha256:
        raise ConfigError(f"--model {model}: the maps were made with other weights than these")
    if source.spec.mask_scores != found.mask_scores:
        raise ConfigError(f"--model {model}: the maps were made with another mask_scores than its")
    path = check_output(source.weights.with_suffix(".json"), (".json",))
    spec: ModelSpec = replace(
        source.spec, calibration=found.chosen, default_score_threshold=found.threshold
    )
    with replacing(path) as temporary:
        temporary.write_text(spec.to_json(), encoding="ascii")
    return path


def _read(one: CheckedMap) -> tuple[Judged, Origin]:
    """Return a map's verdicts by the network's own scores, and where it comes from."""
    pred, origin = read_map(one.footprints, may_be_empty=True)
    if origin is None or "score" not in pred:
        raise ConfigError(
            f"{one.footprints}: does not say which model made it; what geoseg writes as .parquet "
            "or .gpkg does"
        )
    if origin.config.get("morphology", {}).get("score", "model") != "model":
        raise ConfigError(f"{one.footprints}: must carry the network's scores (morphology.score)")
    pred = _scored(pred, one.footprints)
    area = read_area(one.within, crs=pred.crs, origin=origin)
    if origin.is_calibrated and origin.calibration is not None:
        pred = pred.assign(score=origin.calibration.inverse().apply(pred["score"]))
    return judge(pred, read_vector(one.truth), within=area), origin


def _scored(pred: gpd.GeoDataFrame, path: Path) -> gpd.GeoDataFrame:
    """Return the rows that have a score, counted anew.

    Raises:
        ConfigError: A score is not in [0, 1].
    """
    scores = pred["score"].to_numpy(np.float64)
    known = ~np.isnan(scores)
    wrong = scores[known & ~((scores >= 0) & (scores <= 1))]
    if len(wrong):
        raise ConfigError(f"{path}: scores must be in [0, 1], got {wrong[0]:g}")
    if known.all():
        return pred
    warnings.warn(
        f"{path}: rows without a score, such as hands draw, were left out: {(~known).sum()}",
        GeosegWarning,
        stacklevel=3,
    )
    return pred[known].reset_index(drop=True)
