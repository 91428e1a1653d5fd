"""Whether scores mean something: how often detections of a score are right.

A score is calibrated when of all detections with score s a share of s is right (Guo et al. 2017,
arXiv 1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Scores in bins of one width; NaN in bins without a score."""

    edges: NDArray[np.float64]
    """(B + 1,) from 0 to 1; a bin holds its lower edge, the last one both."""
    counts: NDArray[np.int64]
    """(B,)."""
    score: NDArray[np.float64]
    """(B,) mean score."""
    right: NDArray[np.float64]
    """(B,) share that is right."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of score and share, by number of scores."""
        if not self.counts.any():
            return float("nan")
        some = self.counts > 0
        gaps = np.abs(self.score[some] - self.right[some])
        return float(np.average(gaps, weights=self.counts[some]))


def calibration(
    scores: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = 10
) -> Calibration:
    """Compare scores with how often they are right.

    Args:
        scores: (N,) in [0, 1].
        right: (N,) whether each detection matches an object.
        bins: How many.

    Raises:
        ConfigError: The lengths differ, or there is no bin.

    Example:
        >>> round(calibration(np.array([0.9, 0.9]), np.array([True, False])).error, 3)
        0.4
    """
    if len(scores) != len(right) or bins < 1:
        raise ConfigError(f"right must be one per score ({len(scores)}), got {len(right)}")
    edges = np.linspace(0, 1, bins + 1)
    at = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    counts = np.bincount(at, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(at, weights=np.asarray(scores, float), minlength=bins) / counts
        share = np.bincount(at, weights=np.asarray(right, float), minlength=bins) / counts
    return Calibration(edges=edges, counts=counts, score=mean, right=share)
