"""Stitching painted scenes: whatever the chips, each painted shape comes back once and to the bit.

The oracle is the painting itself. Shapes are 4-connected, as buildings are.
"""

from __future__ import annotations

import numpy as np
import pytest
from builders import (
    instance_masks,
    make_chip,
    make_detections,
    make_window,
    plan,
    rows_of,
    see,
    see_ids,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.chips import Chip
from geoseg.detections import Detections
from geoseg.errors import ConfigError
from geoseg.stitch import Instance, Stitcher, stitch
from geoseg.testing import make_town


def paint(rng: np.random.Generator, shape_hw: tuple[int, int], n: int) -> np.ndarray:
    """Paint random rectangles, rings and L shapes over each other, then number what is connected.

    Overpainting makes shapes touch; each connected remainder is a shape of its own.
    """
    height, width = shape_hw
    painted = np.zeros(shape_hw, np.int32)
    for k in range(1, n + 1):
        h, w = rng.integers(1, max(2, height)), rng.integers(1, max(2, width))
        if rng.random() < 0.7:
            h, w = min(h, 40), min(w, 40)
        y, x = rng.integers(0, height), rng.integers(0, width)
        part = painted[y : y + h, x : x + w]
        before = part.copy()
        part[:] = k
        kind = rng.integers(3)
        if kind == 1:  # a courtyard
            t = max(1, min(h, w) // 4)
            part[t:-t, t:-t] = before[t:-t, t:-t]
        elif kind == 2:  # an L
            part[h // 2 :, w // 2 :] = before[h // 2 :, w // 2 :]
    return renumber(painted)


def renumber(painted: np.ndarray) -> np.ndarray:
    ids = np.zeros_like(painted)
    count = 0
    for k in np.unique(painted[painted > 0]):
        parts, n = ndimage.label(painted == k)  # 4-connected
        ids[parts > 0] = parts[parts > 0] + count
        count += n
    return ids


def assert_each_shape_once(instances: list[Instance], ids: np.ndarray, chips: list[Chip]) -> None:
    """Compare with the painting: masks, numbers of chips and the scene's border."""
    masks = instance_masks(instances, ids.shape)
    assert len(instances) == ids.max(initial=0)
    names = [int(ids[mask][0]) for mask in masks]
    assert sorted(names) == list(range(1, ids.max(initial=0) + 1))
    for name, mask, instance in zip(names, masks, instances, strict=True):
        shape = ids == name
        assert np.array_equal(mask, shape)
        assert set(np.unique(instance.soft)) <= {0, 255}
        assert instance.n_chips == sum(bool(shape[chip.window.slices].any()) for chip in chips)
        rim = shape.copy()
        rim[1:-1, 1:-1] = False
        assert instance.touches_edge == rim.any()
        assert instance.score == pytest.approx(0.9)


@settings(max_examples=120)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    size=st.integers(8, 64),
    overlap=st.floats(0, 1),
    n=st.integers(0, 12),
)
def test_each_painted_shape_comes_back_once_and_exactly(
    seed: int, height: int, width: int, size: int, overlap: float, n: int
) -> None:
    overlap_px = 1 + round(overlap * min(size - 2, 40))
    ids = paint(np.random.default_rng(seed), (height, width), n)
    chips = plan(ids, size_px=size, overlap_px=min(overlap_px, size - 1))
    if len(chips) > 400:
        return
    instances = stitch(((chip, see_ids(chip, ids)) for chip in chips), shape_hw=ids.shape)
    assert_each_shape_once(instances, ids, chips)


def test_a_ring_far_larger_than_a_chip_keeps_its_courtyard_and_the_house_in_it() -> None:
    ids = np.zeros((230, 270), np.int32)
    ids[5:225, 3:260] = 1
    ids[25:205, 23:240] = 0
    ids[100:130, 120:150] = 2
    chips = plan(ids, size_px=60, overlap_px=12)
    instances = stitch(((c, see_ids(c, ids)) for c in chips), shape_hw=ids.shape)
    assert_each_shape_once(instances, ids, chips)
    assert max(item.n_chips for item in instances) > 8


@pytest.mark.parametrize("extent", [301, 330, 481, 541, 599])
def test_a_last_row_and_column_shifted_far_inward_change_nothing(extent: int) -> None:
    ids = paint(np.random.default_rng(extent), (extent, extent), 14)
    chips = plan(ids, size_px=300, overlap_px=60)
    instances = stitch(((c, see_ids(c, ids)) for c in chips), shape_hw=ids.shape)
    assert_each_shape_once(instances, ids, chips)


def test_a_whole_town_comes_back_exactly() -> None:
    ids = make_town(size_px=700, seed=4).ids
    chips = plan(ids, size_px=300, overlap_px=60)
    instances = stitch(((c, see_ids(c, ids)) for c in chips), shape_hw=ids.shape)
    assert_each_shape_once(instances, ids, chips)


def _signature(instances: list[Instance]) -> list[tuple[object, ...]]:
    return sorted(
        (i.window.row_off, i.window.col_off, i.soft.tobytes(), i.score, i.n_chips, i.touches_edge)
        for i in instances
    )


def _noisy(chip: Chip, ids: np.ndarray) -> Detections:
    """Return grown, shrunk, fused and missing masks with scores: hard input, fixed for a chip."""
    rng = np.random.default_rng([chip.row, chip.col])
    masks = []
    for k in np.unique(ids[ids > 0]):
        shape = ids == k
        change = rng.integers(6)
        if change == 0:
            shape = ndimage.binary_dilation(shape)
        elif change == 1:
            shape = ndimage.binary_erosion(shape)
        elif change == 2:
            shape = shape | (ids == k + 1)
        elif change == 3:
            continue
        masks.append(shape)
    return see(chip, masks, list(rng.uniform(0.3, 1, len(masks)))) if masks else see(chip, [])


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_the_order_of_chips_within_a_row_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = paint(rng, (130, 150), 16)
    chips = plan(ids, size_px=48, overlap_px=14)
    found = {chip.name: _noisy(chip, ids) for chip in chips}
    results = []
    for _ in range(3):
        shuffled = [chips[i] for i in rng.permutation(len(chips))]
        pairs = ((chip, found[chip.name]) for chip in shuffled)
        results.append(_signature(stitch(pairs, shape_hw=ids.shape)))
    assert results[0] == results[1] == results[2]
    in_order = stitch(((c, found[c.name]) for c in chips), shape_hw=ids.shape)
    assert _signature(in_order) == results[0]


@settings(max_examples=25)
@given(seed=st.integers(0, 1000))
def test_noise_never_breaks_the_invariants(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = paint(rng, (110, 120), 20)
    chips = plan(ids, size_px=40, overlap_px=int(rng.integers(1, 30)))
    instances = stitch(((c, _noisy(c, ids)) for c in chips), shape_hw=ids.shape)
    for item in instances:
        assert 0 <= item.score <= 1
        assert 1 <= item.n_chips <= len(chips)
        assert item.window.row_stop <= 110
        assert item.window.col_stop <= 120
        assert item.soft.shape == (item.window.height, item.window.width)


def test_labels_are_never_mixed() -> None:
    chips = plan(np.zeros((60, 100)), size_px=60, overlap_px=20)
    box = (42, 10, 58, 30)
    found = [
        (
            chip,
            make_detections(
                boxes=[(box[0] - x, box[1], box[2] - x, box[3])] * 2,
                labels=[1, 2],
                window=chip.window,
            ),
        )
        for chip in chips
        for x in [chip.window.col_off]
    ]
    instances = stitch(found, shape_hw=(60, 100))
    assert sorted(item.label for item in instances) == [1, 2]
    assert {item.n_chips for item in instances} == {2}


def test_instances_are_handed_over_as_soon_as_no_row_can_change_them() -> None:
    """A tall sweep holds pieces of the rows in touch, not of the scene."""
    rng = np.random.default_rng(1)
    ids = np.zeros((3000, 120), np.int32)
    for k, y in enumerate(range(0, 2990, 12), start=1):
        x = rng.integers(0, 100)
        ids[y : y + 9, x : x + 15] = k
    chips = plan(ids, size_px=60, overlap_px=16)
    stitcher = Stitcher(shape_hw=ids.shape)
    done, most_open = 0, 0
    for row in rows_of(chips):
        found = [(chip, see_ids(chip, ids)) for chip in row]
        finished = stitcher.push_row(found)
        done += len(finished)
        most_open = max(most_open, len(stitcher._open))
        top = row[0].window.row_off
        assert all(item.window.row_off < top for item in finished)
        stops = {component.row_stop for component in stitcher._open.values()}
        assert min(stops, default=top + 1) > top, "only what reaches into this row is held"
    assert most_open <= 2 * 4 * 7, "two rows of chips with at most seven houses each"
    assert done + len(stitcher.finish()) == ids.max()
    assert len(stitcher._open) == 0


def test_a_building_through_every_row_stays_open_and_comes_out_once() -> None:
    ids = np.zeros((400, 50), np.int32)
    ids[2:398, 20:30] = 1
    chips = plan(ids, size_px=50, overlap_px=10)
    stitcher = Stitcher(shape_hw=ids.shape)
    early = [
        i for row in rows_of(chips) for i in stitcher.push_row([(c, see_ids(c, ids)) for c in row])
    ]
    assert early == []
    assert_each_shape_once(stitcher.finish(), ids, chips)


def test_rows_out_of_order_are_refused_and_leave_the_sweep_intact() -> None:
    upper, lower = make_chip(), make_chip(row=1, window=make_window(240))
    stitcher = Stitcher(shape_hw=(540, 300))
    found = make_detections()
    stitcher.push_row([(upper, found)])
    with pytest.raises(ConfigError, match="top to bottom"):
        stitcher.push_row([(upper, found)])
    with pytest.raises(ConfigError, match="top to bottom"):
        stitcher.push_row([(lower, found), (upper, found)])
    stitcher.push_row([(lower, Detections.empty("s", lower.window))])
    with pytest.raises(ConfigError, match="top to bottom"):
        stitcher.push_row([(upper, found)])
    assert len(stitcher.finish()) == 1


def test_nothing_found_is_nothing_stitched() -> None:
    stitcher = Stitcher(shape_hw=(300, 300))
    assert stitcher.push_row([]) == []
    assert stitcher.push_row([(make_chip(), Detections.empty("s", make_window()))]) == []
    assert stitcher.finish() == []
    assert stitch([], shape_hw=(1, 1)) == []


def test_a_one_pixel_scene_works() -> None:
    chip = make_chip(window=make_window(height=1, width=1))
    found = make_detections(boxes=[(0, 0, 1, 1)], window=chip.window)
    (item,) = stitch([(chip, found)], shape_hw=(1, 1))
    assert item.touches_edge
    assert item.soft.tolist() == [[255]]
