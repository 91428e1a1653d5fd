"""Mistakes and calibration against brute force and COCO's own matching, on random chips."""

from __future__ import annotations

import contextlib
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from geoseg.evaluate import coco_figures
from geoseg.evaluate.mistakes import FOUND_KINDS, TRUTH_KINDS, find_mistakes
from tests.test_evaluate_coco import SIZE, annotated

boxes = st.tuples(
    st.integers(0, 30), st.integers(0, 30), st.integers(3, 20), st.integers(3, 20)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
chips = st.lists(boxes, max_size=6, unique=True)


def painted(box) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def overlap(one, other) -> tuple[float, float, float]:
    """Return IoU and the shares of both that the other covers, pixel by pixel."""
    a, b = painted(one), painted(other)
    both = float((a & b).sum())
    return both / float((a | b).sum()), both / float(a.sum()), both / float(b.sum())


def falling(count: int) -> list[float]:
    return [0.95 - 0.05 * i for i in range(count)]


def judge(truth, found):
    (chip,) = find_mistakes(annotated([truth]), annotated([found], [falling(len(found))])).chips
    return chip


def coco_matches(truth, found) -> list[bool]:
    """Return which detections COCOeval itself matches at IoU .5."""

    def side(items):
        index = COCO()
        index.dataset = {
            "info": {},
            "images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}],
            "categories": [{"id": 1, "name": "building"}],
            "annotations": [
                {
                    "id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
                    "score": score,
                }
                for i, ((x0, y0, x1, y1), score) in enumerate(
                    zip(items, falling(len(items)), strict=True)
                )
            ],
        }  # fmt: skip
        index.createIndex()
        return index

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(side(truth), side(found), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
    one = evaluation.evalImgs[0]
    return [False] * len(found) if one is None else (one["dtMatches"][0] > 0).tolist()


@settings(max_examples=150)
@given(chips, chips)
def test_matched_is_what_coco_matches(truth, found):
    chip = judge(truth, found)
    assert [kind == "matched" for kind in chip.found] == coco_matches(truth, found)
    assert chip.truth.count("matched") == chip.found.count("matched")


@settings(max_examples=100)
@given(chips, chips)
def test_kinds_keep_their_definitions(truth, found):
    """Each kind is checked against overlaps counted pixel by pixel."""
    chip = judge(truth, found)
    shape = (len(truth), len(found))
    table = np.array([[overlap(t, f) for f in found] for t in truth]).reshape(*shape, 3)
    iou, of_truth, of_found = table[..., 0], table[..., 1], table[..., 2]
    np.testing.assert_allclose(chip.overlaps, iou, atol=1e-12)
    assert set(chip.truth) <= set(TRUTH_KINDS)
    assert set(chip.found) <= set(FOUND_KINDS)
    for at, kind in enumerate(chip.found):
        covered, best = of_truth[:, at] >= 0.5, iou[:, at].max(initial=0)
        inside = [t for t in range(len(truth)) if of_found[t, at] >= 0.5]
        claims = {
            "matched": best >= 0.5,
            "duplicate": best >= 0.5,
            "merged": covered.sum() >= 2 and best < 0.5,
            "split": any((of_found[t] >= 0.5).sum() >= 2 for t in inside) and best < 0.5,
            "localisation": 0.1 <= best < 0.5,
            "background": best < 0.1,
        }
        assert claims[kind], (kind, at)
    for at, kind in enumerate(chip.truth):
        best = iou[at].max(initial=0)
        claims = {
            "matched": best >= 0.5,
            "merged": any(
                of_truth[at, f] >= 0.5 and (of_truth[:, f] >= 0.5).sum() >= 2
                for f in range(len(found))
            ),
            "split": (of_found[at] >= 0.5).sum() >= 2,
            "localisation": 0.1 <= best < 0.5,
            "missed": best < 0.1,
        }
        assert claims[kind], (kind, at)


@settings(max_examples=50)
@given(chips, chips)
def test_matches_are_as_many_as_the_challenge_recalls(truth, found):
    sides = annotated([truth]), annotated([found], [falling(len(found))])
    (chip,) = find_mistakes(*sides, score=0.0).chips
    recalled = coco_figures(*sides).challenge_ar50
    if truth:
        assert chip.truth.count("matched") / len(truth) == pytest.approx(recalled)


def best_matching(table: np.ndarray) -> int:
    """Return the most pairs with IoU of at least .5 that share nothing: every assignment tried."""
    rows, cols = table.shape
    if rows > cols:
        return best_matching(table.T)
    return max(
        sum(table[r, c] >= 0.5 for r, c in enumerate(chosen))
        for chosen in itertools.permutations(range(cols), rows)
    )


@settings(max_examples=60)
@given(st.lists(boxes, max_size=4, unique=True), st.lists(boxes, max_size=4, unique=True))
def test_greedy_matching_is_between_half_and_all_of_the_best(truth, found):
    chip = judge(truth, found)
    best = best_matching(chip.overlaps)
    assert best / 2 <= chip.found.count("matched") <= best


@settings(max_examples=30)
@given(st.lists(st.tuples(chips, chips), min_size=1, max_size=3))
def test_chips_do_not_touch_each_other(pairs):
    truth, found = [t for t, _ in pairs], [f for _, f in pairs]
    scores = [falling(len(f)) for f in found]
    together = find_mistakes(annotated(truth), annotated(found, scores))
    alone = [judge(t, f) for t, f in pairs]
    assert [(c.truth, c.found) for c in together.chips] == [(c.truth, c.found) for c in alone]
    totals = together.totals()
    assert sum(totals["truth"].values()) == sum(map(len, truth))
    assert sum(totals["found"].values()) == sum(map(len, found))
    for kind in FOUND_KINDS:
        assert totals["found"][kind] == sum(c.found.count(kind) for c in alone)


def test_of_equal_overlaps_the_last_object_is_taken_as_coco_does():
    """One mask over two equal halves has IoU .5 with both; the next one gets what is left."""
    one, other, both = (0, 0, 10, 10), (10, 0, 20, 10), (0, 0, 20, 10)
    for truth in ([one, other], [other, one]):
        for second in (one, other):
            chip = judge(truth, [both, second])
            assert [k == "matched" for k in chip.found] == coco_matches(truth, [both, second])
