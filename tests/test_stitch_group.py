"""Grouping under bad masks: bridges must not fuse rows of houses, legs must become one building."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from builders import instance_masks, plan, see, see_ids
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.chips import Chip
from geoseg.detections import Detections
from geoseg.errors import ConfigError
from geoseg.stitch import Instance, StitchOptions, stitch

SCENE = (300, 540)  # two chips of 300 px; both see columns 240 to 300


def terrace(
    *,
    start: int,
    widths: list[int],
    top: int = 120,
    depth: int = 30,
    scene: tuple[int, int] = SCENE,
) -> np.ndarray:
    """Paint a row of touching houses from column `start`."""
    ids = np.zeros(scene, np.int32)
    edges = start + np.concatenate([[0], np.cumsum(widths)])
    for k, (x0, x1) in enumerate(itertools.pairwise(edges), start=1):
        ids[top : top + depth, x0:x1] = k
    return ids


def fused(ids: np.ndarray, *sets: set[int]) -> list[np.ndarray]:
    """Return masks of the ids, those in one set as one mask."""
    alone = set(np.unique(ids[ids > 0]).tolist()) - set().union(*sets)
    return [np.isin(ids, list(names)) for names in (*sets, *({k} for k in sorted(alone)))]


def ious(instances: list[Instance], ids: np.ndarray) -> list[float]:
    """Return each painted shape's best IoU."""
    masks = instance_masks(instances, ids.shape)
    best = []
    for k in range(1, ids.max() + 1):
        shape = ids == k
        best.append(max(((m & shape).sum() / (m | shape).sum() for m in masks), default=0.0))
    return best


def assert_houses(instances: list[Instance], ids: np.ndarray, least: float = 0.5) -> None:
    worst = min(ious(instances, ids))
    assert len(instances) == ids.max(), f"{len(instances)} of {ids.max()}, worst IoU {worst:.2f}"
    assert worst >= least


def run(ids: np.ndarray, found: list[tuple[Chip, Detections]]) -> list[Instance]:
    return stitch(found, shape_hw=ids.shape)


BAD = {
    "all": [{1, 2, 3, 4, 5, 6}],
    "two halves": [{1, 2, 3}, {4, 5, 6}],
    "two uneven": [{1, 2}, {3, 4, 5, 6}],
    "the middle": [{3, 4}],
    "three pairs": [{1, 2}, {3, 4}, {5, 6}],
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("bad_chip", [0, 1])
@pytest.mark.parametrize(
    ("start", "width"),
    [
        (241, 9),  # whole in both chips
        (225, 20),  # the first cut in the right chip, the last cut in the left one
        (230, 13),  # whole in the left chip
        (242, 24),  # whole in the right chip, several outside the left one
    ],
)
def test_one_bad_mask_over_a_seam_does_not_fuse_six_houses(
    bad: str, bad_chip: int, start: int, width: int
) -> None:
    ids = terrace(start=start, widths=[width] * 6)
    chips = plan(ids, size_px=300, overlap_px=60)
    sees_all = [set(np.unique(ids[c.window.slices])) >= set(range(1, 7)) for c in chips]
    found = [see_ids(chip, ids) for chip in chips]
    found[bad_chip] = see(chips[bad_chip], fused(ids, *BAD[bad]))
    instances = run(ids, list(zip(chips, found, strict=True)))
    if sees_all[1 - bad_chip]:
        assert_houses(instances, ids)
        return
    good = set(np.unique(ids[chips[1 - bad_chip].window.slices])) - {0}
    whole = {k for k in good if (ids[chips[1 - bad_chip].window.slices] == k).sum() == width * 30}
    best = ious(instances, ids)
    inner = sorted(whole)[1:-1]
    assert all(best[k - 1] >= 0.5 for k in inner), "what the other chip saw apart stays apart"


@settings(max_examples=40)
@given(
    data=st.data(),
    width=st.integers(6, 14),
    depth=st.integers(12, 80),
    bad_chip=st.integers(0, 1),
    turned=st.booleans(),
    grown=st.booleans(),
)
def test_any_bad_masks_over_a_row_seen_apart_by_the_other_chip_leave_six_houses(
    data: st.DataObject, width: int, depth: int, bad_chip: int, turned: bool, grown: bool
) -> None:
    last = 299 - 5 * width  # the left chip sees a part of the last house,
    first = 242 - width  # and the right one of the first
    assume(last >= first)
    start = data.draw(st.integers(first, last))
    ids = terrace(start=start, widths=[width] * 6, depth=depth)
    good = 1 - bad_chip
    cuts = sorted(data.draw(st.sets(st.integers(1, 5), max_size=1)))
    sets = [set(range(a + 1, b + 1)) for a, b in itertools.pairwise([0, *cuts, 6])]
    if turned:
        ids = np.ascontiguousarray(ids.T)
    chips = plan(ids, size_px=300, overlap_px=60)
    part = ids[chips[good].window.slices]
    if min((part == k).sum() for k in range(1, 7)) < 3 * depth:
        return  # what the good chip hardly sees cannot be saved
    found = [see_ids(chip, ids) for chip in chips]
    masks = fused(ids, *sets)
    if grown:
        masks = [_grow(mask) for mask in masks]
    found[bad_chip] = see(chips[bad_chip], masks)
    assert_houses(run(ids, list(zip(chips, found, strict=True))), ids)


def _grow(mask: np.ndarray) -> np.ndarray:
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    return wide


@pytest.mark.parametrize("bad", [{1}, {0, 2}, {1, 3}, {0, 2, 4}])
@pytest.mark.parametrize("width", [13, 20, 26])
def test_bad_masks_over_several_seams_do_not_fuse_a_row(bad: set[int], width: int) -> None:
    """Every house that a good chip sees whole comes out alone; nothing grows over the whole row."""
    n = 1200 // width
    ids = terrace(start=20, widths=[width] * n, top=15, scene=(60, 1260))
    chips = plan(ids, size_px=300, overlap_px=60)
    found = [
        see(chip, [ids > 0]) if i in bad else see_ids(chip, ids) for i, chip in enumerate(chips)
    ]
    best = ious(run(ids, list(zip(chips, found, strict=True))), ids)
    good = [chip.window for i, chip in enumerate(chips) if i not in bad]
    whole = {
        k
        for k in range(1, n + 1)
        for window in good
        if (ids[window.slices] == k).sum() == (ids == k).sum()
    }
    lost = [k for k in sorted(whole) if best[k - 1] < 0.5]
    assert not lost, (
        f"{len(lost)} of {len(whole)} houses seen whole by a good chip are lost: {lost}"
    )


@pytest.mark.parametrize("width", [13, 20, 26, 31])
def test_every_chip_fusing_a_pair_at_its_border_does_not_chain(width: int) -> None:
    n = 1200 // width
    ids = terrace(start=20, widths=[width] * n, top=15, scene=(60, 1260))
    chips = plan(ids, size_px=300, overlap_px=60)
    found = []
    for chip in chips:
        seen = [k for k in np.unique(ids[chip.window.slices]).tolist() if k]
        whole = [k for k in seen if (ids[chip.window.slices] == k).sum() == (ids == k).sum()]
        found.append(see(chip, fused(ids, {whole[0], whole[1]})))
    instances = run(ids, list(zip(chips, found, strict=True)))
    best = ious(instances, ids)
    first = [k for k in range(1, n + 1) if best[k - 1] < 0.5]
    assert len(first) <= 2, "only the first chip's pair, which no other chip sees, stays fused"
    assert max(i.window.width for i in instances) <= 2 * width + 2


def test_bad_masks_where_four_chips_meet_leave_the_houses_apart() -> None:
    ids = np.zeros((540, 540), np.int32)
    for k, (r, c) in enumerate(itertools.product(range(3), range(3)), start=1):
        ids[225 + 30 * r : 255 + 30 * r, 225 + 30 * c : 255 + 30 * c] = k
    chips = plan(ids, size_px=300, overlap_px=60)
    for bad in range(4):
        found = [see_ids(chip, ids) for chip in chips]
        found[bad] = see(chips[bad], [ids > 0])
        assert_houses(run(ids, list(zip(chips, found, strict=True))), ids)


def test_the_sound_mask_survives_a_bridge_in_the_same_chip() -> None:
    """A chip that sees three houses and, besides, one mask over all of them."""
    ids = terrace(start=243, widths=[16] * 3)
    chips = plan(ids, size_px=300, overlap_px=60)
    found = [see_ids(chip, ids) for chip in chips]
    masks = [ids == k for k in (1, 2, 3)]
    found[0] = see(chips[0], [*masks, ids > 0], [0.9, 0.9, 0.9, 0.4])
    assert_houses(run(ids, list(zip(chips, found, strict=True))), ids, least=0.9)


def test_a_whole_mask_is_not_torn_by_fragments_at_another_chips_border() -> None:
    """The right chip sees the left end of one building only, and in two pieces."""
    ids = terrace(start=200, widths=[70])
    chips = plan(ids, size_px=300, overlap_px=60)
    halves = [ids.astype(bool) & rows for rows in _rows_below(135, ids.shape)]
    found = [(chips[0], see_ids(chips[0], ids)), (chips[1], see(chips[1], halves))]
    assert_houses(run(ids, found), ids, least=0.9)


def test_a_sure_mask_is_not_torn_by_faint_ones() -> None:
    ids = terrace(start=245, widths=[50])
    chips = plan(ids, size_px=300, overlap_px=60)
    halves = [ids.astype(bool) & rows for rows in _rows_below(135, ids.shape)]
    faint = see(chips[1], halves, [0.4, 0.4])
    instances = run(ids, [(chips[0], see_ids(chips[0], ids)), (chips[1], faint)])
    assert ious(instances, ids)[0] > 0.7, "they are blended in, but it is not shared out to them"


def _rows_below(row: int, shape_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    upper = np.zeros(shape_hw, bool)
    upper[:row] = True
    return upper, ~upper


def _u_shape(*, legs: int, scene: tuple[int, int], gap: int = 20) -> np.ndarray:
    """Paint a U whose bar lies at the top and whose two legs reach down `legs` px."""
    mask = np.zeros(scene, bool)
    mask[200:235, 100 : 100 + 60 + gap] = True
    mask[235 : 235 + legs, 100:130] = True
    mask[235 : 235 + legs, 130 + gap : 160 + gap] = True
    return mask


def _by_parts(chip: Chip, mask: np.ndarray) -> Detections:
    """Return one detection per connected part that the chip sees, as a network would."""
    part = np.zeros_like(mask)
    part[chip.window.slices] = mask[chip.window.slices]
    labels, n = ndimage.label(part)
    return see(chip, [labels == k for k in range(1, n + 1)])


@pytest.mark.parametrize("legs", [100, 300, 500, 700])
@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("closed", [False, True])
def test_legs_seen_as_two_detections_are_one_building(legs: int, turn: int, closed: bool) -> None:
    mask = _u_shape(legs=legs, scene=(1000, 300))
    if closed:
        mask[235 + legs - 30 : 235 + legs, 100:180] = True
    mask = np.ascontiguousarray(np.rot90(mask, turn))
    chips = plan(mask, size_px=300, overlap_px=60)
    found = [(chip, _by_parts(chip, mask)) for chip in chips]
    (building,) = run(mask, found)
    assert np.array_equal(instance_masks([building], mask.shape)[0], mask)


def test_two_houses_cut_by_the_border_and_bridged_beyond_it_stay_two() -> None:
    """Not legs: the bridging mask joins them where the other chip sees them apart."""
    ids = np.zeros((540, 300), np.int32)
    ids[220:400, 100:130] = 1
    ids[220:400, 130:160] = 2
    chips = plan(ids, size_px=300, overlap_px=60)
    found = [(chips[0], see(chips[0], [ids > 0])), (chips[1], see_ids(chips[1], ids))]
    assert_houses(run(ids, found), ids, least=0.9)


def test_a_detection_doubled_in_one_chip_comes_out_once() -> None:
    ids = terrace(start=250, widths=[30])
    chips = plan(ids, size_px=300, overlap_px=60)
    twice = see(chips[0], [ids == 1, _grow(ids == 1)], [0.9, 0.5])
    (house,) = run(ids, [(chips[0], twice), (chips[1], see_ids(chips[1], ids))])
    assert house.n_chips == 2


@pytest.mark.parametrize("name", ["agree_iou", "contain_ios", "duplicate_ios"])
@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, float("nan")])
def test_thresholds_are_shares(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be in"):
        StitchOptions(**{name: value})
