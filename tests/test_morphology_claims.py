"""Claims: one owner for a pixel, shared walls, duplicates left out."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from builders import make_detections, make_window
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import on, painted, random_detections

from geoseg.detections import Detections
from geoseg.morphology.claims import claim, drop_duplicates
from geoseg.polygonize import contour

SEEDS = st.integers(0, 100_000)
WAYS = st.sampled_from(["score", "probability"])
RANDOM = settings(max_examples=80)


def outlines(found: Detections) -> np.ndarray:
    return contour(found.masks(), [(int(x), int(y)) for x, y in found.mask_boxes[:, :2]])


@given(seed=SEEDS, by=WAYS)
@RANDOM
def test_no_pixel_is_claimed_twice_and_none_is_lost(seed: int, by: str) -> None:
    found = random_detections(seed, n=6, shape_hw=(30, 34))
    settled = on(claim(found, by=by))
    assert (settled.sum(axis=0) == on(found).any(axis=0)).all()
    assert (settled <= on(found)).all()


@given(seed=SEEDS, by=WAYS)
@RANDOM
def test_the_better_mask_owns_a_pixel(seed: int, by: str) -> None:
    found = random_detections(seed, n=6, shape_hw=(30, 34))
    claimed = on(found)
    worth = painted(found).astype(float) if by == "probability" else np.zeros(claimed.shape)
    worth += found.scores[:, None, None]  # below 1: of equal probabilities the better score's
    best = np.where(claimed, worth, -1).argmax(axis=0)
    for i, mask in enumerate(on(claim(found, by=by))):
        assert (mask == (claimed.any(axis=0) & (best == i))).all()


@given(seed=SEEDS, by=WAYS)
@RANDOM
def test_outlines_of_claimed_ground_do_not_overlap(seed: int, by: str) -> None:
    shapes = outlines(claim(random_detections(seed, n=5, shape_hw=(30, 34)), by=by))
    left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = left < right
    shared = shapely.area(shapely.intersection(shapes[left[pairs]], shapes[right[pairs]]))
    assert (shared < 1e-6).all()


def test_walls_are_the_same_from_both_sides() -> None:
    ramp = np.tile(np.linspace(255, 60, 24).round().astype(np.uint8), (20, 1))
    boxes = [(10, 10, 34, 30), (16, 10, 40, 30)]
    found = make_detections(boxes=boxes, masks=[ramp, ramp[:, ::-1]], scores=[0.9, 0.8])
    one, two = outlines(claim(found, by="probability"))
    wall = shapely.intersection(one, two)
    assert shapely.area(wall) < 1e-9
    assert shapely.length(wall) == pytest.approx(20, abs=2)
    assert shapely.bounds(wall)[[0, 2]] == pytest.approx([25, 25], abs=0.6)


def test_masks_that_nobody_contests_are_the_same_objects() -> None:
    found = make_detections(boxes=[(0, 0, 9, 9), (9, 0, 18, 9), (40, 40, 50, 50)])
    assert (claim(found, by="score").mask_data == found.mask_data).all()


@given(seed=SEEDS, least_ios=st.sampled_from([0.2, 0.6, 1.0]))
@RANDOM
def test_duplicates_are_those_of_brute_force(seed: int, least_ios: float) -> None:
    found = random_detections(seed, n=7, shape_hw=(26, 30))
    masks, kept = on(found), []
    for i in sorted(range(len(found)), key=lambda i: -found.scores[i]):
        smaller = [min(masks[i].sum(), masks[j].sum()) for j in kept]
        both = [(masks[i] & masks[j]).sum() for j in kept]
        if all(b < least_ios * s for b, s in zip(both, smaller, strict=True)):
            kept.append(i)
    left = drop_duplicates(found, least_ios=least_ios)
    assert left.scores.tolist() == found.scores[sorted(kept)].tolist()
    again = drop_duplicates(left, least_ios=least_ios)
    assert again is left


def test_a_thing_of_another_class_is_no_duplicate() -> None:
    boxes = [(10, 10, 40, 40), (12, 11, 20, 20)]
    found = make_detections(boxes=boxes, scores=[0.9, 0.6], labels=[1, 2])
    assert drop_duplicates(found, least_ios=0.6) is found


def test_of_two_masks_of_one_roof_the_surer_stays() -> None:
    boxes = [(10, 10, 40, 40), (12, 11, 40, 41), (60, 60, 80, 80)]
    found = make_detections(boxes=boxes, scores=[0.6, 0.9, 0.3])
    assert drop_duplicates(found, least_ios=0.6).mask_boxes.tolist() == [
        [12, 11, 40, 41],
        [60, 60, 80, 80],
    ]


def test_nothing_stays_nothing() -> None:
    nothing = Detections.empty("s", make_window())
    assert drop_duplicates(nothing, least_ios=0.5) is nothing
    assert len(claim(nothing, by="score")) == 0
