"""Score maps: they rise, turn back, and refuse knots that do neither."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import ConfigError
from geoseg.scores import MAX_KNOTS, ScoreMap

shares = st.floats(0, 1, allow_nan=False)


@st.composite
def maps(draw: st.DrawFn) -> ScoreMap:
    """Draw knots that are a hundredth apart or more."""
    inner = draw(st.integers(0, 8))
    sides = [
        sorted(draw(st.sets(st.integers(1, 99), min_size=inner, max_size=inner))) for _ in range(2)
    ]
    scores, probabilities = ((0.0, *(n / 100 for n in side), 1.0) for side in sides)
    return ScoreMap(scores=scores, probabilities=probabilities)


@given(maps(), st.lists(shares, min_size=2, max_size=20))
def test_a_map_keeps_the_ranking_and_its_ends(chosen: ScoreMap, scores: list[float]) -> None:
    found = chosen.apply(scores)
    assert ((found >= 0) & (found <= 1)).all()
    order = np.argsort(scores, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert chosen.apply([0, 1]).tolist() == [0, 1]


@given(maps(), shares)
def test_a_map_is_undone_by_its_inverse(chosen: ScoreMap, score: float) -> None:
    assert chosen.invert(float(chosen.apply(score))) == pytest.approx(score, abs=1e-9)
    assert chosen.inverse().inverse() == chosen


@given(maps(), st.lists(shares, max_size=20), shares)
def test_a_threshold_on_either_side_keeps_the_same(
    chosen: ScoreMap, scores: list[float], least: float
) -> None:
    raw = np.array(scores)
    clear = np.abs(raw - chosen.invert(least)) > 1e-9
    by_raw, by_probability = raw >= chosen.invert(least), chosen.apply(raw) >= least
    assert (by_raw == by_probability)[clear].all()


@given(maps())
def test_a_map_survives_plain_values(chosen: ScoreMap) -> None:
    assert ScoreMap.from_dict(chosen.to_dict()) == chosen


@pytest.mark.parametrize(
    ("scores", "probabilities", "needle"),
    [
        ((0.0, 1.0), (0.0, 0.5, 1.0), "as many"),
        ((0.0,), (0.0,), "2 to"),
        ((0.0, 0.5, 0.5, 1.0), (0.0, 0.1, 0.2, 1.0), "scores must rise"),
        ((0.0, 0.5, 1.0), (0.0, 0.6, 0.9), "probabilities must rise from 0 to 1"),
        ((0.0, float("nan"), 1.0), (0.0, 0.5, 1.0), "scores must rise"),
        ((0.0, True, 1.0), (0.0, 0.5, 1.0), "numbers"),
        ((0.0, "0.5", 1.0), (0.0, 0.5, 1.0), "numbers"),
        ([0.0, 1.0], (0.0, 1.0), "numbers"),
        (tuple(np.linspace(0, 1, MAX_KNOTS + 1).tolist()), (0.0, 1.0), "2 to"),
    ],
)
def test_knots_that_are_none_are_refused(scores: object, probabilities: object, needle: str):
    with pytest.raises(ConfigError, match=needle):
        ScoreMap(scores=scores, probabilities=probabilities)


@pytest.mark.parametrize(
    "values",
    [None, [], {}, {"scores": [0, 1]}, {"scores": 1, "probabilities": [0, 1]},
     {"scores": [0, 1], "probabilities": [0, 1], "more": 1}, {"scores": "01", "probabilities": []}],
)  # fmt: skip
def test_plain_values_that_are_no_map_are_refused(values: object) -> None:
    with pytest.raises(ConfigError, match="calibration"):
        ScoreMap.from_dict(values)
