"""Parts labelled as scipy labels them, fragments joined, glued roofs cut along their wall."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_detections, make_window
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import on, painted, random_detections
from scipy import ndimage as ndi

from geoseg.detections import MASK_ON, Detections
from geoseg.morphology.fragments import join_fragments, part, split_glued

SEEDS = st.integers(0, 100_000)
RANDOM = settings(max_examples=60)


def one_mask(soft: np.ndarray) -> Detections:
    height, width = soft.shape
    return make_detections(boxes=[(20, 30, 20 + width, 30 + height)], masks=[soft])


def blurred(hard: np.ndarray, sigma: float = 1.2) -> np.ndarray:
    return np.rint(ndi.gaussian_filter(hard.astype(float), sigma)).astype(np.uint8)


def terrace(*, wall: int, n: int = 2) -> np.ndarray:
    """Return n roofs of 30 x 24 px side by side, the probability at their walls as given."""
    soft = np.zeros((36, 24 * n + 6), np.uint8)
    soft[3:-3, 3:-3] = 250
    for k in range(1, n):
        soft[3:-3, 3 + 24 * k - 1 : 3 + 24 * k + 1] = wall
    return soft


@given(seed=SEEDS, connectivity=st.sampled_from([4, 8]))
@RANDOM
def test_parts_are_the_labels_of_scipy(seed: int, connectivity: int) -> None:
    found = random_detections(seed, n=4)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    expected = []
    for chip in on(found):
        labels, n = ndi.label(chip, structure)
        expected += [labels == value for value in range(1, n + 1)]
    assert (on(part(found, "split", connectivity=connectivity)) == expected).all()


@given(seed=SEEDS)
@RANDOM
def test_the_largest_part_stays(seed: int) -> None:
    found = random_detections(seed, n=4)
    left = part(found, "largest", connectivity=8)
    assert left.scores.tolist() == found.scores.tolist()
    for chip, kept in zip(on(found), on(left), strict=True):
        labels, n = ndi.label(chip, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        assert kept.sum() == sizes.max()
        assert ndi.label(kept, np.ones((3, 3)))[1] == 1
        assert n >= 1


def test_a_mask_in_one_part_is_left_as_it_is() -> None:
    found = one_mask(blurred(terrace(wall=250)))
    for kind in ("split", "largest"):
        same = part(found, kind, connectivity=8)
        assert (same.mask_data == found.mask_data).all()
        assert (same.mask_boxes == found.mask_boxes).all()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_terrace_is_cut_at_its_faint_walls(n: int) -> None:
    found = one_mask(terrace(wall=140, n=n))
    cut = on(split_glued(found, neck=0.7))
    assert len(cut) == n
    assert (cut.sum(axis=0) == on(found)[0]).all()
    walls = [np.flatnonzero(mask.any(axis=0)) for mask in cut]
    ends = sorted((int(cols.min()), int(cols.max()) + 1) for cols in walls)
    assert [a for a, _ in ends] == pytest.approx([23 + 24 * k for k in range(n)], abs=2)


def test_a_block_without_walls_stays_whole() -> None:
    found = one_mask(terrace(wall=250, n=3))
    assert len(split_glued(found, neck=0.9)) == 1


def test_two_roofs_that_touch_at_a_corner_are_cut_there() -> None:
    hard = np.zeros((60, 60))
    hard[5:30, 5:30] = hard[28:55, 28:55] = 255
    hard[24:34, 24:34] *= 0.6
    found = one_mask(blurred(hard, 2))
    cut = split_glued(found, neck=0.5)
    assert len(cut) == 2
    roofs = [np.s_[:59, :49], np.s_[59:, 49:]]
    for mask, place in zip(on(cut), roofs[::-1], strict=True):  # the wider roof first
        assert mask[place].sum() > 0.9 * mask.sum()


@given(seed=SEEDS, neck=st.floats(0.1, 1.0))
@RANDOM
def test_cutting_shares_out_every_pixel_once(seed: int, neck: float) -> None:
    found = random_detections(seed, n=1, shape_hw=(60, 60))
    cut = on(split_glued(found, neck=neck))
    assert (cut.sum(axis=0) == on(found)[0]).all()
    assert cut.any(axis=(1, 2)).all()


def roof_with_fragment(faint: int, scores: list[float], labels: list[int] | None = None):
    """Return a mask that fades out over what another one takes for a roof of its own."""
    roof = np.zeros((30, 50), np.uint8)
    roof[:, :30], roof[:, 30:] = 240, faint
    fragment = np.full((24, 16), 220, np.uint8)
    boxes = [(10, 10, 60, 40), (42, 12, 58, 36)]
    return make_detections(boxes=boxes, masks=[roof, fragment], scores=scores, labels=labels)


def test_a_fragment_joins_the_better_mask_that_half_sees_it() -> None:
    found = roof_with_fragment(90, [0.9, 0.5])
    joined = join_fragments(found, least_share=0.8)
    assert joined.scores.tolist() == pytest.approx([0.9])
    assert (painted(joined)[0] == painted(found).max(axis=0)).all()


@pytest.mark.parametrize(
    ("faint", "scores", "labels"),
    [(40, [0.9, 0.5], None), (90, [0.5, 0.9], None), (90, [0.9, 0.5], [1, 2])],
    ids=["not seen", "not better", "another class"],
)
def test_what_is_no_fragment_stays(faint: int, scores: list[float], labels) -> None:
    found = roof_with_fragment(faint, scores, labels)
    assert len(join_fragments(found, least_share=0.8)) == 2


@given(seed=SEEDS, share=st.floats(0.1, 1.0))
@RANDOM
def test_joining_keeps_every_probability(seed: int, share: float) -> None:
    found = random_detections(seed, n=6, shape_hw=(30, 34))
    joined = join_fragments(found, least_share=share)
    assert (painted(joined).max(axis=0) == painted(found).max(axis=0)).all()
    assert set(joined.scores.tolist()) <= set(found.scores.tolist())
    assert (painted(joined) >= MASK_ON).any(axis=(1, 2)).all()


def test_nothing_stays_nothing() -> None:
    nothing = Detections.empty("s", make_window())
    assert len(part(nothing, "split", connectivity=8)) == 0
    assert len(split_glued(nothing, neck=0.5)) == 0
    assert len(join_fragments(nothing, least_share=0.5)) == 0
