"""Calibration against a loop over scores and bins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import ConfigError
from geoseg.evaluate.calibration import calibration

# In hundredths, so that scores lie on the edges of bins too.
scored = st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=1, max_size=60)


@given(scored, st.sampled_from([1, 3, 4, 8]))
def test_the_table_is_that_of_a_loop(pairs, bins):
    scores = np.array([s / 100 for s, _ in pairs])
    right = np.array([r for _, r in pairs])
    table = calibration(scores, right, bins=bins)
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for score, hit in zip(scores.tolist(), right.tolist(), strict=True):
        (at,) = [
            b
            for b in range(bins)
            if table.edges[b] <= score < table.edges[b + 1] or (b == bins - 1 and score == 1)
        ]
        members[at].append((score, hit))
    assert table.counts.tolist() == [len(m) for m in members]
    error = 0.0
    for at, inside in enumerate(members):
        if not inside:
            assert math.isnan(table.score[at])
            assert math.isnan(table.right[at])
            continue
        mean = sum(s for s, _ in inside) / len(inside)
        share = sum(r for _, r in inside) / len(inside)
        assert table.score[at] == pytest.approx(mean)
        assert table.right[at] == pytest.approx(share)
        error += len(inside) / len(pairs) * abs(mean - share)
    assert table.error == pytest.approx(error)


def test_sure_and_right_has_no_error_and_sure_and_wrong_all():
    ones = np.ones(5)
    assert calibration(ones, np.ones(5, bool)).error == 0
    assert calibration(ones, np.zeros(5, bool)).error == 1


def test_single_precision_scores_of_one_are_in_the_last_bin():
    scores = np.array([1.0, 0.9999999, 0.0], np.float32)
    assert calibration(scores, np.ones(3, bool), bins=4).counts.tolist() == [1, 0, 0, 2]


def test_a_table_without_bins_is_refused():
    with pytest.raises(ConfigError):
        calibration(np.zeros(2), np.zeros(2, bool), bins=0)
