"""What several views show becomes one, whatever their order."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import make_detections
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.tta import TtaOptions, ViewsPredictor, merge_views

if TYPE_CHECKING:
    pass
from tta_support import Bright, batch_of

MERGES = ["mean", "gmean", "max", "min", "median"]


@pytest.mark.parametrize(
    ("merge", "score"),
    [("mean", (0.8 + 7 * 0.2) / 8), ("max", 0.8), ("min", 0.2), ("median", 0.2),
     ("gmean", (0.8 * 0.2**7) ** (1 / 8))],
)  # fmt: skip
def test_what_one_view_found_is_scored_down(merge: Any, score: float) -> None:
    lonely = Bright(blind=set(range(1, 8)))
    several = ViewsPredictor(lonely, TtaOptions(views="d4", merge=merge), score_threshold=0.4)
    ((_, found),) = several.stream([batch_of((10, 10, 30, 30))])
    if score < 0.4:
        assert len(found) == 0
    else:
        assert found.scores.tolist() == [pytest.approx(score)]
    everyone = ViewsPredictor(Bright(), TtaOptions(views="d4", merge=merge), score_threshold=0.4)
    ((_, found),) = everyone.stream([batch_of((10, 10, 30, 30))])
    assert found.scores.tolist() == [pytest.approx(0.8)]


def test_neighbours_in_every_view_stay_apart() -> None:
    pair = make_detections(boxes=[(10, 10, 30, 30), (31, 10, 50, 30)])
    merged = merge_views([pair] * 3, TtaOptions(views="d4"), score_threshold=0.5)
    assert sorted(map(tuple, merged.mask_boxes.tolist())) == [(10, 10, 30, 30), (31, 10, 50, 30)]


def test_one_views_doubles_are_not_made_one() -> None:
    doubled = make_detections(boxes=[(10, 10, 30, 30), (11, 10, 31, 30)], scores=[0.9, 0.8])
    single = make_detections(boxes=[(10, 10, 30, 30)])
    merged = merge_views([doubled, single], TtaOptions(views="hflip"), score_threshold=0.1)
    assert len(merged) == 2


def test_classes_are_not_mixed() -> None:
    one = make_detections(boxes=[(10, 10, 30, 30)], labels=[1])
    other = make_detections(boxes=[(10, 10, 30, 30)], labels=[2])
    merged = merge_views([one, other], TtaOptions(views="hflip"), score_threshold=0.1)
    assert sorted(merged.labels.tolist()) == [1, 2]


@given(st.permutations(range(4)), st.sampled_from(MERGES), st.integers(0, 50))
@settings(max_examples=30)
def test_the_order_of_views_does_not_matter(order: list[int], merge: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(4):
        boxes = []
        for x, y in itertools.product((10, 60, 110), (10, 60)):
            if rng.random() < 0.7:
                dx, dy = rng.integers(-3, 4, 2).tolist()
                boxes.append((x + dx, y + dy, x + dx + 30, y + dy + 35))
        boxes = boxes or [(1, 1, 9, 9)]
        scores = rng.uniform(0.5, 1, len(boxes)).tolist()
        seen.append(make_detections(boxes=boxes, scores=scores))
    options = TtaOptions(views="d4", merge=merge)
    first = merge_views(seen, options, score_threshold=0.3)
    again = merge_views([seen[i] for i in order], options, score_threshold=0.3)
    np.testing.assert_array_equal(first.mask_boxes, again.mask_boxes)
    np.testing.assert_allclose(first.scores, again.scores, rtol=1e-6)
    assert np.abs(first.mask_data.astype(int) - again.mask_data).max(initial=0) <= 1
