"""Which least score holds in a run, as the user says it and as the network does.

A user's score is a probability wherever the model's spec has a calibration; detections are kept
with the network's own scores, so that another calibration needs no second look at the pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from geoseg.config import Config, ModelOptions
    from geoseg.detections import Detections
    from geoseg.models import ModelSpec
    from geoseg.scores import ScoreMap

DEFAULT_SCORE: Final = 0.5
"""Least score where neither the user nor the model's spec says one."""


def settled(config: Config, spec: ModelSpec) -> Config:
    """Return a config that says its least score, the spec's own where the user gave none."""
    if config.model.score is not None:
        return config
    score = spec.default_score_threshold
    if score is None:
        score = DEFAULT_SCORE
    elif not config.model.calibrate:
        score = spec.raw_score(score)
    return replace(config, model=replace(config.model, score=score))


def score_map(config: Config, calibration: ScoreMap | None) -> ScoreMap | None:
    """Return what scores become before a user sees them.

    None where they stay as they are: because that was asked for, because nobody measured what they
    stand for, or because they are no longer the network's (`morphology.score`).
    """
    is_own = config.morphology.score == "model"
    return calibration if config.model.calibrate and is_own else None


def least_raw(options: ModelOptions, calibration: ScoreMap | None) -> float:
    """Return the least of the network's own scores that may pass.

    Args:
        options: What the user asked for.
        calibration: What the network's scores stand for, if that is known.
    """
    score = DEFAULT_SCORE if options.score is None else options.score
    chosen = calibration if options.calibrate else None
    return score if chosen is None else chosen.invert(score)


def calibrated(found: Detections, chosen: ScoreMap | None) -> Detections:
    """Return detections whose scores are what users are to see."""
    if chosen is None:
        return found
    return replace(found, scores=chosen.apply(found.scores).astype(found.scores.dtype))
