from __future__ import annotations

import numpy as np
import pytest

from geoseg.errors import ConfigError
from geoseg.evaluate.calibration import calibration
from geoseg.evaluate.mistakes import find_mistakes
from tests.test_evaluate_coco import annotated

HOUSE = (10, 10, 30, 30)
TERRACE = [(10, 50, 20, 70), (20, 50, 30, 70), (30, 50, 40, 70)]


def kinds(truth, found, scores=None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    scores = scores or [0.9 - 0.01 * i for i in range(len(found))]
    (chip,) = find_mistakes(annotated([truth]), annotated([found], [scores])).chips
    return chip.truth, chip.found


@pytest.mark.parametrize(
    ("truth", "found", "truth_kinds", "found_kinds"),
    [
        ([HOUSE], [HOUSE], ("matched",), ("matched",)),
        ([HOUSE], [], ("missed",), ()),
        ([], [HOUSE], (), ("background",)),
        ([HOUSE], [(60, 60, 70, 70)], ("missed",), ("background",)),
        ([HOUSE], [HOUSE, (10, 10, 30, 28)], ("matched",), ("matched", "duplicate")),
        ([HOUSE], [(10, 10, 30, 19)], ("localisation",), ("localisation",)),
        (TERRACE, [(10, 50, 40, 70)], ("merged",) * 3, ("merged",)),
        ([(10, 10, 40, 30)], [(10, 10, 20, 30), (20, 10, 30, 30)], ("split",), ("split", "split")),
        # One part is more than half: it matches, and the other is what is left of a split.
        ([(10, 10, 40, 30)], [(10, 10, 30, 30), (30, 10, 40, 30)], ("matched",),
         ("matched", "split")),
        # A mask over a house and its shed matches the house; the shed is merged.
        ([HOUSE, (30, 10, 36, 20)], [(10, 10, 36, 30)], ("matched", "merged"), ("matched",)),
    ],
)  # fmt: skip
def test_each_mistake_has_its_name(truth, found, truth_kinds, found_kinds):
    assert kinds(truth, found) == (truth_kinds, found_kinds)


def test_the_higher_score_chooses_first():
    found = [(10, 10, 30, 26), HOUSE]
    assert kinds([HOUSE], found, [0.9, 0.6])[1] == ("matched", "duplicate")
    assert kinds([HOUSE], found, [0.6, 0.9])[1] == ("matched", "duplicate")


def test_low_scores_and_crowds_are_left_out():
    truth = annotated([[HOUSE, (60, 60, 80, 80)]])
    truth.crowd[1] = True
    found = annotated([[HOUSE, (0, 0, 5, 5)]], [[0.9, 0.3]])
    (chip,) = find_mistakes(truth, found, score=0.5).chips
    assert (chip.truth, chip.found) == (("matched",), ("matched",))
    assert chip.f1 == 1


def test_totals_and_order_of_chips():
    truth = annotated([[HOUSE], [HOUSE, (60, 60, 80, 80)], []])
    found = annotated([[(60, 0, 70, 9)], [HOUSE, (60, 60, 80, 80)], []], [[0.8], [0.9, 0.8], []])
    mistakes = find_mistakes(truth, found)
    totals = mistakes.totals()
    assert totals["truth"] == {
        "matched": 2, "merged": 0, "split": 0, "localisation": 0, "missed": 1
    }  # fmt: skip
    assert totals["found"]["background"] == 1
    assert mistakes.worst(1)[0].name == "0.png"
    assert [c.name for c in mistakes.best(2)] == ["1.png", "2.png"]


def test_results_without_scores_are_refused():
    with pytest.raises(ConfigError, match="must have scores"):
        find_mistakes(annotated([[HOUSE]]), annotated([[HOUSE]]))


def test_scores_that_mean_what_they_say_have_no_error():
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    right = rng.random(200_000) < scores
    assert calibration(scores, right).error < 0.01
    assert calibration(scores**2, right).error > 0.1


def test_bins_are_counted_by_hand():
    found = calibration(np.array([0.1, 0.15, 0.95, 1.0]), np.array([False, True, True, True]))
    assert found.counts.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.right[[1, 9]].tolist() == [0.5, 1]
    assert found.error == pytest.approx((0.375 * 2 + 0.025 * 2) / 4)
    assert np.isnan(calibration(np.zeros(0), np.zeros(0, bool)).error)
    with pytest.raises(ConfigError):
        calibration(np.zeros(2), np.zeros(3, bool))
