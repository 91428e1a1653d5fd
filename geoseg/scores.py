"""What scores stand for: a network's own scores and the probability of being right.

A network's score ranks what it found; how often finds of a score are right differs from network to
network. A `ScoreMap`, fitted on ground the network never saw, turns one into the other and back.
Imports numpy only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

MAX_KNOTS = 256
"""No honest map has more: it would repeat the scores it was fitted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMap:
    """A rising, piecewise linear map of [0, 1] onto itself: score to probability.

    As it rises everywhere, it changes no ranking, and each probability has its score: a threshold
    on probabilities is one on scores, which can be applied before a mask is computed.

    Raises:
        ConfigError: The knots do not rise from 0 to 1; the message says which side.

    Example:
        >>> modest = ScoreMap(scores=(0.0, 0.8, 1.0), probabilities=(0.0, 0.4, 1.0))
        >>> modest.apply([0.4, 0.9]).round(3).tolist()
        [0.2, 0.7]
        >>> modest.inverse().apply(0.2).round(3).tolist()
        0.4
    """

    scores: tuple[float, ...]
    """Of the knots, from 0 to 1."""
    probabilities: tuple[float, ...]
    """That a find of each score is right, from 0 to 1."""

    def __post_init__(self) -> None:
        for name in ("scores", "probabilities"):
            _check_knots(name, getattr(self, name))
        if len(self.scores) != len(self.probabilities):
            raise ConfigError(
                f"calibration must have as many probabilities as scores ({len(self.scores)}), "
                f"got {len(self.probabilities)}"
            )

    def apply(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of scores in [0, 1], of any shape."""
        known = np.asarray(scores, np.float64)
        return np.asarray(np.interp(known, self.scores, self.probabilities), np.float64)

    def inverse(self) -> ScoreMap:
        """Return the map from probabilities to the scores that stand for them."""
        return ScoreMap(scores=self.probabilities, probabilities=self.scores)

    def invert(self, probability: float) -> float:
        """Return the score that stands for one probability."""
        return float(self.inverse().apply(probability))

    def to_dict(self) -> dict[str, list[float]]:
        """Return the knots as JSON-ready values."""
        return {"scores": list(self.scores), "probabilities": list(self.probabilities)}

    @classmethod
    def from_dict(cls, values: Any) -> ScoreMap:
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: It is something else.
        """
        if not isinstance(values, dict) or set(values) != {"scores", "probabilities"}:
            raise ConfigError("calibration must hold scores and probabilities, and nothing else")
        for name, numbers in values.items():
            if not isinstance(numbers, list | tuple):
                raise ConfigError(f"calibration {name} must be a list of numbers")
        return cls(**{name: tuple(numbers) for name, numbers in values.items()})


def _check_knots(name: str, values: tuple[float, ...]) -> None:
    numbers = isinstance(values, tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if not numbers or not 2 <= len(values) <= MAX_KNOTS:
        raise ConfigError(f"calibration {name} must be 2 to {MAX_KNOTS} numbers")
    rises = all(low < high for low, high in itertools.pairwise(values))
    if not rises or (values[0], values[-1]) != (0, 1):  # NaN does not rise
        raise ConfigError(f"calibration {name} must rise from 0 to 1 at every knot")
