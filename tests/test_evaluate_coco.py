from __future__ import annotations

import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.annotations import Annotations
from geoseg.data.collect import Collector
from geoseg.errors import ConfigError
from geoseg.evaluate import coco_figures
from geoseg.models.spec import BUILDING, Category

Box = tuple[int, int, int, int]
SIZE = (100, 100)


def annotated(
    chips: list[list[Box]], scores: list[list[float]] | None = None, **words
) -> Annotations:
    """Build annotations of xyxy rectangles, chip by chip."""
    collector = Collector(words.get("categories", (BUILDING,)))
    labels = words.get("labels")
    for i, boxes in enumerate(chips):
        collector.add_image(f"{i}.png", SIZE, image_id=words.get("first_id", 1) + i)
        for k, (x0, y0, x1, y1) in enumerate(boxes):
            mask = np.zeros(SIZE, bool)
            mask[y0:y1, x0:x1] = True
            label = labels[i][k] if labels else 1
            score = scores[i][k] if scores else None
            collector.add_object(mask, np.array([x0, y0, x1, y1], np.float32), label, score)
    return collector.finish()


TRUTH = [[(10, 10, 30, 30), (50, 50, 80, 80)], [(0, 0, 10, 10)]]


def test_perfect_results_have_all_figures_one():
    figures = coco_figures(annotated(TRUTH), annotated(TRUTH, [[0.9, 0.8], [0.7]]))
    assert (figures.ap, figures.ap50, figures.ap75) == (1, 1, 1)
    assert (figures.ar100, figures.challenge_ar50, figures.challenge_ap50) == (1, 1, 1)
    assert (figures.n_images, figures.n_truth, figures.n_results) == (2, 3, 3)
    assert math.isnan(figures.ap_large)
    assert figures.precision.shape == (10, 101)
    assert (figures.precision == 1).all()


def test_half_found_with_one_mistake_between():
    """By hand: hit, miss, hit of 3: precision 1 up to recall 1/3, then 2/3 up to 2/3, then 0."""
    found = annotated([[(10, 10, 30, 30), (0, 60, 20, 80)], [(0, 0, 10, 10)]], [[0.9, 0.8], [0.7]])
    figures = coco_figures(annotated(TRUTH), found)
    assert figures.ap50 == pytest.approx((34 * 1 + 33 * 2 / 3) / 101, abs=1e-9)
    assert figures.challenge_ar50 == pytest.approx(2 / 3)


def test_iou_decides_which_levels_count():
    """A box of 20 x 20 found as 20 x 16 has IoU .8: it counts at 7 of the 10 levels."""
    figures = coco_figures(
        annotated([[(10, 10, 30, 30)]]), annotated([[(10, 10, 30, 26)]], [[0.9]])
    )
    assert figures.ap == pytest.approx(0.7)
    assert figures.ar100 == pytest.approx(0.7)
    assert figures.ap75 == 1


def test_boxes_may_be_compared_instead_of_masks():
    collector = Collector((BUILDING,))
    collector.add_image("0.png", SIZE)
    mask = np.zeros(SIZE, bool)
    mask[10:30, 10:12] = True  # hardly anything of the box
    collector.add_object(mask, np.array([10, 10, 30, 30], np.float32), 1, 0.9)
    truth, found = annotated([[(10, 10, 30, 30)]]), collector.finish()
    assert coco_figures(truth, found, kind="bbox").ap == 1
    assert coco_figures(truth, found).ap == 0


@pytest.mark.parametrize("area", [0, 80, 1600])
def test_a_find_is_as_large_as_its_mask_or_its_box_is(area):
    """A wrong find, small as a mask and medium as a box, comes before a right one of 40 x 40 px."""
    collector = Collector((BUILDING,))
    collector.add_image("0.png", SIZE)
    for box, height, score in (((0, 0, 40, 40), 2, 0.9), ((50, 50, 90, 90), 40, 0.8)):
        mask = np.zeros(SIZE, bool)
        mask[box[1] : box[1] + height, box[0] : box[2]] = True
        collector.add_object(mask, np.array(box, np.float32), 1, score)
    found = replace(collector.finish(), areas_px2=np.full(2, float(area)))  # what files may say
    truth = annotated([[(50, 50, 90, 90)]])
    assert coco_figures(truth, found).ap_medium == 1
    assert coco_figures(truth, found, kind="bbox").ap_medium == 0.5


def test_classes_are_averaged():
    kinds = (BUILDING, Category(label=2, id=7, name="shed"))
    words = {"categories": kinds, "labels": [[1, 2]]}
    boxes = [[(10, 10, 30, 30), (50, 50, 80, 80)]]
    found = annotated([[(10, 10, 30, 30), (0, 0, 5, 5)]], [[0.9, 0.9]], **words)
    assert coco_figures(annotated(boxes, **words), found).ap50 == pytest.approx(0.5)


def test_nothing_found_is_zero_and_nothing_to_find_undefined():
    empty = annotated([[], []])
    assert coco_figures(annotated(TRUTH), empty).ap == 0
    figures = coco_figures(empty, annotated(TRUTH, [[0.9, 0.8], [0.7]]))
    assert math.isnan(figures.ap)
    assert math.isnan(figures.challenge_ar50)


def test_crowds_neither_count_nor_hurt():
    truth = annotated([[(10, 10, 30, 30), (50, 50, 90, 90)]])
    truth.crowd[1] = True
    found = annotated([[(10, 10, 30, 30), (55, 55, 70, 70)]], [[0.5, 0.9]])
    assert coco_figures(truth, found).ap50 == 1


def test_chips_are_matched_by_id():
    truth = annotated(TRUTH)
    found = annotated([TRUTH[1]], [[0.9]], first_id=2)
    figures = coco_figures(truth, found)
    assert figures.challenge_ar50 == pytest.approx(1 / 3)
    assert figures.ap50 == pytest.approx(34 / 101)


def test_strange_chips_and_missing_scores_are_refused():
    with pytest.raises(ConfigError, match="got image id 9"):
        coco_figures(annotated(TRUTH), annotated([TRUTH[0]], [[0.9, 0.8]], first_id=9))
    with pytest.raises(ConfigError, match="must have scores"):
        coco_figures(annotated(TRUTH), annotated(TRUTH))


boxes = st.tuples(
    st.integers(0, 80), st.integers(0, 80), st.integers(3, 20), st.integers(3, 20)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
chips = st.lists(st.lists(boxes, max_size=5), min_size=3, max_size=3)


@pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None, reason="faster-coco-eval is not installed"
)
@settings(max_examples=25)
@given(chips, chips, st.integers(0, 99))
def test_both_backends_say_the_same(truth, found, seed):
    rng = np.random.default_rng(seed)
    scores = [list(rng.permutation(len(c)) / 10 + rng.random() / 100) for c in found]
    sides = annotated(truth), annotated(found, scores)
    one, other = (coco_figures(*sides, backend=b) for b in ("pycocotools", "faster-coco-eval"))
    for name, value in one.as_dict().items():
        assert value == pytest.approx(other.as_dict()[name], nan_ok=True), name
    np.testing.assert_allclose(one.precision, other.precision, atol=1e-12)
