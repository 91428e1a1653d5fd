"""Ragged soft masks: torchvision's pasting and plain numpy are the oracles."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from builders import make_detections, make_window
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image

from geoseg.detections import MASK_ON, Detections, crop_masks, paste_masks
from geoseg.errors import FormatError

HALF_LEVEL = 0.5 / 255 + 1e-6


def paste(
    probs: np.ndarray, boxes: np.ndarray, *, height: int = 90, width: int = 110
) -> Detections:
    n = len(probs)
    return paste_masks(
        "s",
        make_window(7, 9, height, width),
        boxes=boxes,
        scores=np.linspace(0, 1, n, dtype=np.float32),
        labels=np.ones(n, np.int64),
        probs=probs,
    )


def torchvision_pasted(
    probs: np.ndarray, boxes: np.ndarray, *, height: int = 90, width: int = 110
) -> np.ndarray:
    pasted = paste_masks_in_image(
        torch.from_numpy(probs)[:, None], torch.from_numpy(boxes), (height, width)
    )
    return pasted[:, 0].numpy()


EDGE = st.floats(-40, 130, width=32)
SIDE = st.one_of(st.floats(0, 3, width=32), st.floats(0, 140, width=32))


@settings(max_examples=150)
@given(
    corner=st.tuples(EDGE, EDGE),
    size=st.tuples(SIDE, SIDE),
    m=st.sampled_from([1, 2, 7, 14, 28]),
    seed=st.integers(0, 99),
    whole=st.booleans(),
)
def test_pasting_equals_torchvision_inside_the_box(
    corner: tuple[float, float], size: tuple[float, float], m: int, seed: int, whole: bool
) -> None:
    x, y = map(np.round, corner) if whole else corner
    boxes = np.array([[x, y, x + size[0], y + size[1]]], np.float32)
    assume(x + size[0] > 0 and y + size[1] > 0)  # torchvision's pasting fails on boxes outside
    assume(x < 110 and y < 90)
    probs = np.random.default_rng(seed).random((1, m, m), np.float32) ** 0.3
    expected = torchvision_pasted(probs, boxes)[0]
    found = paste(probs, boxes)
    if len(found) == 0:
        assert expected.max(initial=0) * 255 < MASK_ON - 0.5 + 1e-3
        return
    x0, y0, x1, y1 = found.mask_boxes[0].tolist()
    assert np.abs(found.mask(0) / 255 - expected[y0:y1, x0:x1]).max() <= HALF_LEVEL
    outside = expected.copy()
    outside[y0:y1, x0:x1] = 0
    assert not outside.any(), "nothing torchvision paints lies outside the mask box"


def test_pasting_many_keeps_order_scores_and_boxes() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 70, (40, 2))
    boxes = np.hstack([corner, corner + rng.uniform(4, 60, (40, 2))]).astype(np.float32)
    probs = rng.random((40, 28, 28), np.float32) ** 0.2
    probs[[3, 17]] = 0.3  # never reaches 0.5
    found = paste(probs, boxes)
    kept = np.delete(np.arange(40), [3, 17])
    assert np.array_equal(found.boxes, boxes[kept])
    assert np.array_equal(found.scores, np.linspace(0, 1, 40, dtype=np.float32)[kept])
    assert found.window == make_window(7, 9, 90, 110)
    on = torchvision_pasted(probs, boxes) >= 0.5
    for i, mask in zip(kept, found.masks(), strict=True):
        assert abs(int((mask >= MASK_ON).sum()) - int(on[i].sum())) <= 2, "rounding at 0.5 only"


@pytest.mark.parametrize(
    "box", [(50, 50, 50, 50), (50, 50, 40, 40), (-500, -500, -400, -400), (900, 5, 950, 9)]
)
def test_pasting_survives_boxes_without_ground(box: tuple[float, ...]) -> None:
    found = paste(np.ones((1, 28, 28), np.float32), np.array([box], np.float32))
    assert len(found) <= 1
    assert found.mask_boxes.shape == (len(found), 4)


def test_pasting_nothing_is_empty() -> None:
    found = paste(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32))
    assert len(found) == 0
    assert found.masks() == []


@settings(max_examples=80)
@given(
    n=st.integers(0, 4),
    frame=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    pad=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seed=st.integers(0, 999),
)
def test_cropping_keeps_every_pixel_of_the_window(
    n: int, frame: tuple[int, int], pad: tuple[int, int], seed: int
) -> None:
    height, width = frame
    rng = np.random.default_rng(seed)
    masks = rng.random((n, height + pad[0], width + pad[1])).astype(np.float32)
    masks[rng.random(masks.shape) < rng.choice([0, 0.9, 0.99])] = 0
    found = crop_masks(
        "s",
        make_window(0, 0, height, width),
        boxes=np.zeros((n, 4), np.float32),
        scores=np.arange(n, dtype=np.float32) / 10,
        labels=np.arange(n),
        masks=masks,
    )
    levels = np.rint(masks[:, :height, :width].astype(np.float64) * 255)
    kept = [i for i in range(n) if (levels[i] >= MASK_ON).any()]
    assert found.labels.tolist() == kept
    for i, (x0, y0, x1, y1) in zip(kept, found.mask_boxes.tolist(), strict=True):
        full = np.zeros((height, width))
        full[y0:y1, x0:x1] = found.mask(found.labels.tolist().index(i))
        assert np.abs(full - levels[i]).max() <= 1
        assert full[y0].any()
        assert full[y1 - 1].any()
        assert full[:, x0].any()
        assert full[:, x1 - 1].any()


def test_probability_one_half_is_on() -> None:
    masks = np.array([[[0.5]], [[0.4999]], [[127.4 / 255]]], np.float32)
    found = crop_masks(
        "s",
        make_window(0, 0, 1, 1),
        boxes=np.zeros((3, 4), np.float32),
        scores=np.ones(3, np.float32),
        labels=np.arange(3),
        masks=masks,
    )
    assert found.labels.tolist() == [0]


@st.composite
def ragged(draw: st.DrawFn) -> Detections:
    n = draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    low = rng.integers(0, 20, (n, 2))
    boxes = [(*a, *b) for a, b in zip(low, low + rng.integers(1, 10, (n, 2)), strict=True)]
    masks = [rng.integers(0, 256, (y1 - y0, x1 - x0), np.uint8) for x0, y0, x1, y1 in boxes]
    return make_detections(
        boxes=boxes, masks=masks, scores=list(rng.random(n)), labels=list(range(n))
    )


@given(found=ragged())
def test_masks_round_trip_through_the_ragged_store(found: Detections) -> None:
    again = Detections.from_masks(
        found.scene_id,
        found.window,
        boxes=found.boxes,
        scores=found.scores,
        labels=found.labels,
        mask_boxes=found.mask_boxes,
        masks=found.masks(),
    )
    for field in fields(Detections):
        if field.name not in {"scene_id", "window"}:
            assert np.array_equal(getattr(again, field.name), getattr(found, field.name))
    for i, mask in enumerate(found.masks()):
        assert np.array_equal(mask, found.mask(i))
        assert np.shares_memory(mask, found.mask_data)


@given(found=ragged())
def test_expected_ious_are_those_of_each_mask_alone(found: Detections) -> None:
    ious = found.expected_ious()
    assert (ious.shape, ious.dtype) == ((len(found),), np.float32)
    for iou, mask in zip(ious.tolist(), found.masks(), strict=True):
        shared = sum(p for p in mask.ravel().tolist() if p >= 128) / 255
        covered = sum(1 if p >= 128 else p / 255 for p in mask.ravel().tolist())
        assert iou == pytest.approx(shared / covered if covered else 0, abs=1e-6)


def test_an_expected_iou_is_the_mean_over_objects_that_the_mask_may_stand_for() -> None:
    rng = np.random.default_rng(3)
    soft = np.clip(rng.normal([[0.95, 0.9, 0.2, 0.02]] * 30, 0.03), 0, 1)
    drawn = rng.random((4000, *soft.shape)) < soft
    mask = soft >= 0.5
    true = (drawn & mask).sum(axis=(1, 2)) / (drawn | mask).sum(axis=(1, 2))
    found = make_detections(boxes=[(0, 0, 4, 30)], masks=[np.rint(soft * 255).astype(np.uint8)])
    assert found.expected_ious()[0] == pytest.approx(true.mean(), abs=0.01)


def test_a_sure_mask_is_expected_to_fit_and_an_empty_one_not() -> None:
    found = make_detections(
        boxes=[(0, 0, 3, 3)] * 3,
        masks=[np.full((3, 3), p, np.uint8) for p in (255, 127, 0)],
        scores=[1.0] * 3,
        labels=[1] * 3,
    )
    assert found.expected_ious().tolist() == [1, 0, 0]


@given(found=ragged(), data=st.data())
def test_take_picks_rows_with_their_masks(found: Detections, data: st.DataObject) -> None:
    n = len(found)
    index = data.draw(st.lists(st.integers(-n, n - 1), max_size=6)) if n else []
    taken = found.take(index)
    assert taken.labels.tolist() == [found.labels[i] for i in index]
    for mask, i in zip(taken.masks(), index, strict=True):
        assert np.array_equal(mask, found.mask(i % n))
    keep = np.arange(n) % 2 == 0
    assert found.take(keep).labels.tolist() == found.labels[keep].tolist()
    assert len(found.take(np.zeros(n, bool))) == 0


@given(found=ragged(), row=st.integers(-50, 0), col=st.integers(-50, 0))
def test_to_window_keeps_the_place_in_the_scene(found: Detections, row: int, col: int) -> None:
    window = make_window(row, col, 400, 400)
    moved = found.to_window(window)
    assert np.array_equal(
        moved.mask_boxes - found.mask_boxes, np.tile([-col, -row] * 2, (len(found), 1))
    )
    assert np.allclose(moved.boxes - found.boxes, [-col, -row] * 2)
    back = moved.to_window(found.window)
    assert np.array_equal(back.mask_boxes, found.mask_boxes)
    assert np.array_equal(back.mask_data, found.mask_data)


def test_to_window_refuses_a_window_that_cuts_masks() -> None:
    with pytest.raises(FormatError, match="inside the window"):
        make_detections().to_window(make_window(25, 0))


def test_empty_has_every_field() -> None:
    empty = Detections.empty("s", make_window())
    assert len(empty) == 0
    assert empty.boxes.shape == empty.mask_boxes.shape == (0, 4)
    assert empty.mask_offsets.tolist() == [0]
    assert len(empty.take([])) == 0
    assert len(empty.to_window(make_window(-5, -5, 1, 1))) == 0


def _fields(**changes: object) -> dict[str, object]:
    good = make_detections(boxes=[(0, 0, 2, 3), (5, 5, 6, 6)])
    return {field.name: getattr(good, field.name) for field in fields(good)} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.array([0.5], np.float32)}, "1 detections"),
        ({"scores": np.array([0.5, 1.5], np.float32)}, r"scores must be in \[0, 1\]"),
        ({"scores": np.array([0.5, np.nan], np.float32)}, r"scores must be in \[0, 1\]"),
        ({"scores": np.zeros((2, 1), np.float32)}, "scores of 2"),
        ({"labels": np.zeros(3, np.int16)}, "labels of 2"),
        ({"boxes": np.zeros((2, 3), np.float32)}, "boxes of 2"),
        ({"mask_boxes": np.zeros((2, 3), np.int32)}, "mask_boxes of 2"),
        ({"mask_boxes": np.array([[0, 0, 2, 3], [5, 5, 5, 6]], np.int32)}, "non-empty"),
        ({"mask_boxes": np.array([[0, 0, 2, 3], [6, 5, 5, 6]], np.int32)}, "non-empty"),
        ({"mask_boxes": np.array([[-1, 0, 1, 3], [5, 5, 6, 6]], np.int32)}, "inside the window"),
        ({"mask_boxes": np.array([[0, 0, 2, 3], [300, 5, 301, 6]], np.int32)}, "inside"),
        ({"mask_boxes": np.array([[0, 0, 3, 3], [5, 5, 6, 6]], np.int32)}, "offsets"),
        ({"mask_offsets": np.array([1, 6, 7])}, "offsets must follow"),
        ({"mask_offsets": np.array([0, -6, 7])}, "offsets must follow"),
        ({"mask_offsets": np.array([0, 7, 6])}, "offsets must follow"),
        ({"mask_offsets": np.array([0, 6, 2**62])}, "offsets must follow"),
        ({"mask_offsets": np.array([0, 6])}, "mask_offsets of 2"),
        ({"mask_offsets": np.array([], np.int64)}, "mask_offsets of 2"),
        ({"mask_data": np.zeros(6, np.uint8)}, "end where the last mask ends"),
        ({"mask_data": np.zeros(8, np.uint8)}, "end where the last mask ends"),
        ({"mask_data": np.zeros((7, 1), np.uint8)}, "mask_data of 2"),
        ({"mask_data": np.zeros(7, np.float32)}, "uint8"),
    ],
)
def test_hostile_fields_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Detections(**_fields(**changes))


def test_a_mask_of_the_whole_window_is_what_its_own_rectangle_says() -> None:
    soft = np.array([[255, 128, 127], [0, 200, 0]], np.uint8)
    found = make_detections(
        boxes=[(4, 1, 7, 3)], masks=[soft], window=make_window(height=5, width=9)
    )
    pixels = found.window_mask(0)
    assert pixels.shape == (5, 9)
    assert np.argwhere(pixels).tolist() == [[1, 4], [1, 5], [2, 5]]
