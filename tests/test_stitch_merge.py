"""Blending pieces into one instance, dropping duplicates, measuring pairs."""

from __future__ import annotations

import numpy as np
import pytest
from builders import (
    instance_masks,
    make_chip,
    make_detections,
    make_instance,
    make_window,
    plan,
    see,
    see_ids,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.chips import Chip
from geoseg.stitch import Instance, Stitcher, StitchOptions, stitch
from geoseg.stitch.agree import measure
from geoseg.stitch.merge import _shared_area, drop_duplicates
from geoseg.stitch.pieces import Piece, make_pieces

LEFT = make_chip(col=0, window=make_window(0, 0))
RIGHT = make_chip(col=1, window=make_window(0, 240))
SCENE = (300, 540)


def make_piece(chip: Chip, mask: np.ndarray, *, label: int = 1) -> Piece | None:
    """Place one full-scene mask as a chip sees it."""
    found = see(chip, [mask])
    pieces = make_pieces(chip, found, shape_hw=mask.shape)
    return pieces[0] if pieces else None


def scene_mask(x0: int, x1: int, y0: int = 50, y1: int = 90) -> np.ndarray:
    mask = np.zeros(SCENE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_agreement_is_counted_inside_the_strip_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = (40, 70)
    one = make_chip(window=make_window(0, 0, 40, 40))
    two = make_chip(col=1, window=make_window(0, 30 - int(rng.integers(20)), 40, 40))
    masks = []
    for _ in range(2):
        mask = np.zeros(scene, bool)
        y, x = rng.integers(0, 30), rng.integers(0, 60)
        mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 40)] = True
        masks.append(mask & (rng.random(scene) < rng.choice([0.5, 1])))
    a, b = make_piece(one, masks[0]), make_piece(two, masks[1])
    strip = one.window.intersection(two.window)
    assert strip is not None
    seen_a, seen_b = (mask[strip.slices] for mask in masks)
    both = int((seen_a & seen_b).sum())
    link = measure(a, b) if a and b else None
    if both == 0:
        assert link is None
        return
    assert link is not None
    assert link.iou == pytest.approx(both / (seen_a | seen_b).sum())
    assert link.ios_a == pytest.approx(both / seen_a.sum())
    assert link.ios_b == pytest.approx(both / seen_b.sum())
    mirrored = measure(b, a)
    assert mirrored is not None
    assert (mirrored.a.key, mirrored.iou, mirrored.ios_a) == (link.a.key, link.iou, link.ios_a)


@pytest.mark.parametrize(
    ("x0", "x1", "cut"),
    [(10, 297, False), (10, 299, True), (10, 300, True), (0, 40, False), (10, 400, True)],
)
def test_a_piece_is_cut_where_the_scene_goes_on(x0: int, x1: int, cut: bool) -> None:
    piece = make_piece(LEFT, scene_mask(x0, x1))
    assert piece is not None
    assert piece.cut == cut


def test_a_mask_without_a_pixel_on_is_no_piece() -> None:
    faint = make_detections(masks=[np.full((30, 20), 127, np.uint8)])
    assert make_pieces(make_chip(), faint, shape_hw=(300, 300)) == []


def test_scores_are_weighted_by_area() -> None:
    mask = scene_mask(220, 320)
    found = [(LEFT, see(LEFT, [mask], [0.9])), (RIGHT, see(RIGHT, [mask], [0.3]))]
    (item,) = stitch(found, shape_hw=SCENE)
    assert item.score == pytest.approx((0.9 * 80 + 0.3 * 80) / 160)
    wider = scene_mask(120, 320)
    found = [(LEFT, see(LEFT, [wider], [1.0])), (RIGHT, see(RIGHT, [wider], [0.5]))]
    (item,) = stitch(found, shape_hw=SCENE)
    assert item.score == pytest.approx((180 + 0.5 * 80) / 260)
    assert item.n_chips == 2


@given(scores=st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)))
def test_scores_stay_between_the_pieces(scores: tuple[float, float]) -> None:
    mask = scene_mask(230, 310)
    found = [(c, see(c, [mask], [s])) for c, s in zip((LEFT, RIGHT), scores, strict=True)]
    (item,) = stitch(found, shape_hw=SCENE)
    assert 0 <= item.score <= 1
    assert min(scores) - 1e-6 <= item.score <= max(scores) + 1e-6


def test_probabilities_blend_between_what_the_chips_say() -> None:
    mask = scene_mask(230, 320).astype(np.float32)
    found = [(LEFT, see(LEFT, [mask * 0.8])), (RIGHT, see(RIGHT, [mask * 0.6]))]
    (item,) = stitch(found, shape_hw=SCENE)
    assert (item.window.col_off, item.window.col_stop) == (230, 320)
    row = item.soft[10].astype(int)
    assert set(row[:10]) == {204}, "the left chip alone"
    assert set(row[70:]) == {153}, "the right chip alone"
    assert (np.diff(row) <= 0).all(), "one passes into the other without a step back"
    assert abs(row[40] - 178.5) <= 2, "halves in the middle of the strip"


def test_the_chip_that_sees_further_decides_near_a_border() -> None:
    """The left chip's mask stops short of its border; the right chip sees the building whole."""
    found = [(LEFT, see(LEFT, [scene_mask(250, 295)])), (RIGHT, see(RIGHT, [scene_mask(250, 330)]))]
    (item,) = stitch(found, shape_hw=SCENE)
    assert np.array_equal(instance_masks([item], SCENE)[0], scene_mask(250, 330))


def test_the_weaker_of_two_claims_to_the_same_ground_is_dropped() -> None:
    masks = [scene_mask(20, 60), scene_mask(22, 60)]
    for scores in ([0.9, 0.5], [0.5, 0.9]):
        (item,) = stitch([(LEFT, see(LEFT, masks, scores))], shape_hw=SCENE)
        assert item.score == pytest.approx(0.9)


def test_neighbours_that_overlap_a_little_are_both_kept() -> None:
    masks = [scene_mask(20, 60), scene_mask(55, 100)]
    assert len(stitch([(LEFT, see(LEFT, masks))], shape_hw=SCENE)) == 2


def test_a_looser_duplicate_share_keeps_more() -> None:
    masks = [scene_mask(20, 60), scene_mask(32, 72)]  # 0.7 of each
    found = [(LEFT, see(LEFT, masks, [0.9, 0.8]))]
    assert len(stitch(found, shape_hw=SCENE)) == 1
    assert len(stitch(found, shape_hw=SCENE, options=StitchOptions(duplicate_ios=0.8))) == 2


Keyed = list[tuple[tuple[int, int, int], Instance]]


def strongest_of_all_pairs(merged: Keyed, least_ios: float) -> Keyed:
    """Keep the strongest by comparing full-scene masks of every pair."""
    masks = instance_masks([instance for _, instance in merged], (60, 60))
    kept: list[int] = []
    for i in sorted(range(len(merged)), key=lambda i: (-merged[i][1].score, merged[i][0])):
        least_area = [max(1, min(masks[i].sum(), masks[j].sum())) for j in kept]
        shared = [(masks[i] & masks[j]).sum() for j in kept]
        if all(both / area < least_ios for both, area in zip(shared, least_area, strict=True)):
            kept.append(i)
    return [merged[i] for i in sorted(kept)]


@settings(max_examples=100)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 25), least_ios=st.sampled_from([0.05, 0.6, 1]))
def test_duplicates_are_those_that_comparing_every_pair_finds(
    seed: int, n: int, least_ios: float
) -> None:
    rng = np.random.default_rng(seed)
    merged = []
    for k in range(n):
        soft = rng.integers(0, 256, tuple(rng.integers(1, 25, 2)), np.uint8)
        if rng.random() < 0.7:
            soft[:] = rng.choice([0, 127, 128, 255], p=[0.1, 0.1, 0.4, 0.4])
        x, y = rng.integers(0, 36, 2).tolist()
        score = float(rng.choice([0.5, 0.7, 0.9]))
        merged.append(((0, 0, k), make_instance(soft, x=x, y=y, score=score)))
    kept = drop_duplicates(merged, least_ios=least_ios)
    assert [key for key, _ in kept] == [key for key, _ in strongest_of_all_pairs(merged, least_ios)]


@pytest.mark.parametrize(
    ("box", "touches"),
    [
        ((0, 10, 20, 30), True),
        ((10, 0, 20, 30), True),
        ((280, 10, 300, 30), True),
        ((10, 280, 20, 300), True),
        ((1, 1, 299, 299), False),
    ],
)
def test_touching_the_scenes_border_is_told(box: tuple[int, int, int, int], touches: bool) -> None:
    (item,) = stitch([(make_chip(), make_detections(boxes=[box]))], shape_hw=(300, 300))
    assert item.touches_edge == touches


def test_a_faint_margin_on_the_border_does_not_touch_it() -> None:
    soft = np.full((20, 20), 255, np.uint8)
    soft[:, 0] = 100
    found = make_detections(boxes=[(0, 10, 20, 30)], masks=[soft])
    (item,) = stitch([(make_chip(), found)], shape_hw=(300, 300))
    assert not item.touches_edge


def test_a_sliver_that_the_chip_beside_denies_is_dropped() -> None:
    sliver, house = scene_mask(236, 243), scene_mask(100, 140)
    denied = [(LEFT, see(LEFT, [house])), (RIGHT, see(RIGHT, [sliver]))]
    (item,) = stitch(denied, shape_hw=SCENE)
    assert item.window.col_off == 100
    confirmed = [(LEFT, see(LEFT, [house, sliver])), (RIGHT, see(RIGHT, [sliver]))]
    assert len(stitch(confirmed, shape_hw=SCENE)) == 2


def test_a_sliver_is_kept_where_no_chip_beside_was_looked_at() -> None:
    sliver = scene_mask(236, 243)
    assert len(stitch([(RIGHT, see(RIGHT, [sliver]))], shape_hw=SCENE)) == 1


@pytest.mark.parametrize("overlap_px", [1, 2, 3, 5])
def test_thin_walls_survive_the_narrowest_overlaps(overlap_px: int) -> None:
    ids = np.zeros((60, 60), np.int32)
    for k, x in enumerate(range(0, 60, 2), start=1):
        ids[3:55, x] = k
    chips = plan(ids, size_px=20, overlap_px=overlap_px)
    instances = stitch(((c, see_ids(c, ids)) for c in chips), shape_hw=ids.shape)
    assert len(instances) == 30
    assert {item.soft.shape for item in instances} == {(52, 1)}


def test_the_sweep_forgets_windows_it_has_passed() -> None:
    ids = np.zeros((2000, 40), np.int32)
    stitcher = Stitcher(shape_hw=ids.shape)
    for chip in plan(ids, size_px=40, overlap_px=10):
        stitcher.push_row([(chip, see_ids(chip, ids))])
        assert len(stitcher._windows) <= 3
    stitcher.finish()
    assert not stitcher._windows


def test_only_instances_whose_windows_meet_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of 200 houses, each over a bit of the next."""
    soft = np.full((10, 12), 255, np.uint8)
    row = [((0, 0, k), make_instance(soft, x=10 * k)) for k in range(200)]
    compared = []
    name = "geoseg.stitch.merge._shared_area"
    monkeypatch.setattr(name, lambda *pair: compared.append(pair) or _shared_area(*pair))
    assert drop_duplicates(row, least_ios=0.6) == row
    assert len(compared) <= 199


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_strip_along_the_scenes_edge_is_no_sliver(turn: int) -> None:
    """Thin, but it reaches far into its chip; the chip that sees its end is silent."""
    mask = np.zeros((540, 300), bool)
    mask[245:300, :6] = True
    mask = np.ascontiguousarray(np.rot90(mask, turn))
    chips = plan(mask, size_px=300, overlap_px=60)
    first = max(chips, key=lambda chip: int(mask[chip.window.slices].sum()))
    found = [(chip, see(chip, [mask] if chip == first else [])) for chip in chips]
    (strip,) = stitch(found, shape_hw=mask.shape)
    assert np.array_equal(instance_masks([strip], mask.shape)[0], mask)
