"""Fits of scores against the rule that the data were drawn by, and against brute force."""

from __future__ import annotations

import itertools

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, Point, box

from geoseg.errors import ConfigError
from geoseg.evaluate.scorefit import (
    METHODS,
    THRESHOLDS,
    Judged,
    best_threshold,
    cross_validate,
    fit_score_map,
    judge,
)
from geoseg.scores import ScoreMap


def drawn(rule, *, n: int = 4000, seed: int = 0) -> Judged:
    """Draw scores evenly and their verdicts by a rule."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=n)
    right = rng.uniform(size=n) < rule(scores)
    return Judged(scores=scores, right=right, n_truth=int(right.sum()))


def line(slope: float, shift: float):
    return lambda s: 1 / (1 + np.exp(-(slope * np.log(s / (1 - s)) + shift)))


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        ("temperature", line(0.5, 0.0)),
        ("logistic", line(0.7, -1.2)),
        ("isotonic", line(0.7, -1.2)),
        ("isotonic", lambda s: 0.1 + 0.8 * (s > 0.6)),
    ],
)
def test_the_rule_that_made_the_data_is_found(method, rule):
    sample = drawn(rule, n=20_000)
    fitted = fit_score_map(sample.scores, sample.right, method=method)
    at = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    assert fitted.apply(at) == pytest.approx(rule(at), abs=0.05)


few = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=7)


@given(few)
@settings(max_examples=60)
def test_isotonic_steps_are_the_best_of_all_that_rise(pairs):
    """Against every way to cut the sorted scores into steps whose shares rise."""
    scores = np.array([s / 10 for s, _ in pairs])
    right = np.array([r for _, r in pairs])
    if not 0 < right.sum() < len(right):
        return
    every = np.r_[0.0, scores, 1.0], np.r_[1.0, right, 0.0]  # with the two that stand for doubt
    levels, where = np.unique(every[0], return_inverse=True)
    n, hits = np.bincount(where), np.bincount(where, every[1])
    best = np.inf
    for cuts in itertools.product([False, True], repeat=len(levels) - 1):
        step = np.cumsum([0, *cuts])
        share = np.bincount(step, hits) / np.bincount(step, n)
        if (np.diff(share) > 0).all():
            best = min(best, float(((every[1] - share[step][where]) ** 2).sum()))
    fitted = fit_score_map(scores, right, method="isotonic")
    knots = dict(zip(fitted.scores[1:-1], fitted.probabilities[1:-1], strict=True))
    shares = np.array([(p - 0.02 * x) / 0.98 for x, p in knots.items()])
    assert len(shares)
    # Each score's step is the knot whose centre is nearest in rank: rebuild the steps by shares.
    reached = min(
        float(((every[1] - shares[np.cumsum([0, *cuts])][where]) ** 2).sum())
        for cuts in itertools.product([False, True], repeat=len(levels) - 1)
        if sum(cuts) + 1 == len(shares)
    )
    assert reached == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_every_fit_rises_over_all_of_0_to_1(method, seed):
    sample = drawn(lambda s: s**2, n=30, seed=seed)
    fitted = fit_score_map(sample.scores, sample.right, method=method)
    assert (np.diff(fitted.apply(np.linspace(0, 1, 1001))) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_what_can_be_told_apart_entirely_is_fitted_too(method):
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    fitted = fit_score_map(scores, scores > 0.5, method=method)
    low, high = fitted.apply([0.15, 0.85])
    assert low < 0.5 < high


def test_scores_that_rank_nothing_are_refused():
    sample = drawn(lambda s: 1 - s, n=500)
    for method in ("temperature", "logistic"):
        with pytest.raises(ConfigError, match="must be right more often"):
            fit_score_map(sample.scores, sample.right, method=method)


@pytest.mark.parametrize("verdict", [True, False])
def test_verdicts_of_one_kind_say_nothing(verdict):
    with pytest.raises(ConfigError, match="right and wrong"):
        fit_score_map(np.array([0.2, 0.4]), np.full(2, verdict), method="isotonic")


def test_the_family_that_made_the_data_wins_where_the_others_cannot_follow():
    maps = [drawn(line(0.8, -1.5), n=400, seed=seed) for seed in range(4)]
    found = cross_validate(maps)
    assert found["logistic"].log_loss < found["temperature"].log_loss
    assert found["logistic"].log_loss < found["as they are"].log_loss
    assert found["logistic"].error < 0.5 * found["as they are"].error


def test_a_map_is_never_judged_by_itself():
    """Two maps of opposite rules: a fit to the other is worse than none."""
    maps = [drawn(lambda s: s**3, n=2000), drawn(lambda s: s ** (1 / 3), n=2000, seed=1)]
    found = cross_validate(maps)
    assert found["isotonic"].log_loss > found["as they are"].log_loss
    with pytest.raises(ConfigError, match="two maps"):
        cross_validate(maps[:1])


def test_a_map_without_footprints_says_nothing_of_curves_and_counts_for_f1():
    maps = [drawn(lambda s: s**2, n=400, seed=seed) for seed in range(3)]
    missed = Judged(scores=np.zeros(0), right=np.zeros(0, bool), n_truth=9)
    assert cross_validate([missed, *maps]) == cross_validate(maps)
    with pytest.raises(ConfigError, match=r"two maps.*got 1"):
        cross_validate([missed, maps[0], missed])
    fitted = fit_score_map(maps[0].scores, maps[0].right, method="logistic")
    assert best_threshold([maps[0], missed], fitted)[1][1] == 0


def test_the_threshold_is_amid_those_that_a_loop_finds_good():
    maps = [drawn(lambda s: s**2, n=60, seed=seed) for seed in range(3)]
    fitted = fit_score_map(maps[0].scores, maps[0].right, method="logistic")
    chosen, f1 = best_threshold(maps, fitted)
    by_loop = {}
    for least in THRESHOLDS.tolist():
        each = []
        for one in maps:
            kept = fitted.apply(one.scores) >= least
            hits = int((kept & one.right).sum())
            each.append(2 * hits / (int(kept.sum()) + one.n_truth))
        by_loop[least] = float(np.mean(each))
    good = [least for least, mean in by_loop.items() if mean >= max(by_loop.values()) - 0.01]
    assert min(good) <= chosen <= max(good)
    assert abs(sum(g < chosen for g in good) - sum(g > chosen for g in good)) <= 1
    assert np.mean(f1) == pytest.approx(by_loop[chosen])


def test_no_threshold_is_chosen_below_what_maps_show() -> None:
    """A map cut at 0.6 has the same F1 for all lower scores: that says nothing for them."""
    whole = drawn(lambda s: s**2, n=400)
    kept = whole.scores >= 0.6
    cut = Judged(scores=whole.scores[kept], right=whole.right[kept], n_truth=whole.n_truth)
    plain = ScoreMap(scores=(0.0, 1.0), probabilities=(0.0, 1.0))
    assert best_threshold([cut], plain)[0] < 0.6
    assert best_threshold([cut], plain, least_shown=0.6)[0] >= 0.6
    assert best_threshold([cut], plain, least_shown=1.0)[0] == THRESHOLDS[-1]


def test_a_map_is_judged_inside_by_outlines_everywhere():
    crs = "EPSG:32736"
    pred = gpd.GeoDataFrame(
        {"score": [0.9, 0.8, 0.7]},
        geometry=[box(0, 0, 10, 10), box(18, 0, 28, 10), box(40, 0, 50, 10)],
        crs=crs,
    )
    truth = gpd.GeoDataFrame(geometry=[box(0, 0, 10, 9), box(19, 0, 32, 10)], crs=crs)
    judged = judge(pred, truth, within=box(-5, -5, 25, 15))
    assert judged.scores.tolist() == [0.9, 0.8]
    assert judged.right.tolist() == [True, True]  # the second by an outline centred outside
    assert judged.n_truth == 1
    whole = judge(pred, truth.to_crs("EPSG:4326"))
    assert (whole.right.tolist(), whole.n_truth) == ([True, True, False], 2)
    assert whole.f1(0.75) == pytest.approx(1.0)


@pytest.mark.parametrize("within", [None, box(-5, -5, 50, 50)])
def test_what_is_no_area_is_no_building(within):
    """Extracts of OpenStreetMap hold buildings that are points."""
    crs = "EPSG:32736"
    shapes = [box(0, 0, 10, 10), Point(20, 5), LineString([(30, 0), (40, 9)]), box(42, 0, 49, 0)]
    pred = gpd.GeoDataFrame({"score": [0.9, 0.8, 0.7, 0.6]}, geometry=shapes, crs=crs)
    judged = judge(pred, pred.to_crs("EPSG:4326"), within=within)
    assert (judged.scores.tolist(), judged.right.tolist(), judged.n_truth) == ([0.9], [True], 1)


def test_nothing_found_where_nothing_is_has_no_f1():
    nothing = Judged(scores=np.zeros(0), right=np.zeros(0, bool), n_truth=0)
    assert nothing.f1(0.5) == 0
    plain = ScoreMap(scores=(0.0, 1.0), probabilities=(0.0, 1.0))
    assert best_threshold([nothing], plain) == (0.5, (0.0,))
