"""Eroding, opening, closing and dilating: scikit-image and scipy are the oracles."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.morphology as sk
from builders import make_detections, make_window
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import on, painted, random_detections
from scipy import ndimage as ndi

from geoseg.detections import MASK_ON, Detections
from geoseg.morphology import MorphologyOptions
from geoseg.morphology.atlas import grown_boxes, pack, unpack
from geoseg.morphology.elements import make_element
from geoseg.morphology.reshape import close_masks, dilate, erode, open_masks

SEEDS = st.integers(0, 100_000)
RADII = st.sampled_from([1, 1.5, 2, 3, 4.2])
ELEMENTS = st.sampled_from(["disk", "square"])
RANDOM = settings(max_examples=60)


def element(radius: float, kind: str) -> np.ndarray:
    """Return an element from its definition."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.hypot(x, y) <= radius + 1e-9 if kind == "disk" else np.ones(y.shape, bool)


def scores_order(found: Detections) -> list[int]:
    return sorted(range(len(found)), key=lambda i: -found.scores[i])


@given(seed=SEEDS, margin=st.integers(1, 5))
@RANDOM
def test_an_atlas_holds_every_mask_apart(seed: int, margin: int) -> None:
    found = random_detections(seed, n=7)
    atlas = pack(found, margin_px=margin)
    boxes = grown_boxes(found, margin)
    assert int(atlas.canvas.sum(dtype=np.int64)) == int(found.mask_data.sum(dtype=np.int64))
    for part, box, whole in zip(
        unpack(atlas.canvas, atlas, boxes, found), boxes.tolist(), painted(found), strict=True
    ):
        x0, y0, x1, y1 = box
        assert (part == whole[y0:y1, x0:x1]).all()


def test_an_atlas_of_very_different_masks_wastes_little() -> None:
    boxes = [(0, 0, 290, 290), *((10 * i, 10, 10 * i + 9, 20) for i in range(28))]
    found = make_detections(boxes=boxes)
    used = sum((x1 - x0 + 2) * (y1 - y0 + 2) for x0, y0, x1, y1 in boxes)
    assert pack(found, margin_px=1).canvas.size < 1.2 * used


@pytest.mark.parametrize("radius", [1, 2, 3, 6])
def test_elements_are_those_of_scikit_image(radius: int) -> None:
    assert (make_element(radius, "disk") == sk.disk(radius)).all()
    side = 2 * radius + 1
    assert (make_element(radius, "square") == sk.footprint_rectangle((side, side))).all()
    assert make_element(0.9, "disk") is None


@given(seed=SEEDS, radius=RADII, kind=ELEMENTS, border=st.sampled_from(["ignored", "background"]))
@RANDOM
def test_eroding_is_the_least_under_the_element(
    seed: int, radius: float, kind: str, border: str
) -> None:
    found = random_detections(seed)
    options = MorphologyOptions(element=kind, border=border, restore=False)
    cval = 255 if border == "ignored" else 0
    expected = [
        ndi.grey_erosion(chip, footprint=element(radius, kind), mode="constant", cval=cval)
        for chip in painted(found)
    ]
    assert (painted(erode(found, radius, options)) == expected).all()


@given(seed=SEEDS, radius=st.integers(1, 3), kind=ELEMENTS)
@RANDOM
def test_opening_is_that_of_scikit_image(seed: int, radius: int, kind: str) -> None:
    found = random_detections(seed)
    options = MorphologyOptions(element=kind, restore=False)
    expected = [sk.opening(chip, element(radius, kind), mode="ignore") for chip in painted(found)]
    assert (painted(open_masks(found, radius, options)) == expected).all()


@given(seed=SEEDS, radius=st.integers(1, 3), kind=ELEMENTS)
@RANDOM
def test_growing_alone_is_that_of_scikit_image(seed: int, radius: int, kind: str) -> None:
    found = random_detections(seed, n=1)
    options = MorphologyOptions(element=kind)
    ((chip,), footprint) = painted(found), element(radius, kind)
    assert (
        painted(dilate(found, radius, options)) == sk.dilation(chip, footprint, mode="ignore")
    ).all()
    assert (
        painted(close_masks(found, radius, options)) == sk.closing(chip, footprint, mode="ignore")
    ).all()


@given(seed=SEEDS, radius=RADII, kind=ELEMENTS, connectivity=st.sampled_from([4, 8]))
@RANDOM
def test_objects_that_would_vanish_come_back_whole(
    seed: int, radius: float, kind: str, connectivity: int
) -> None:
    found = random_detections(seed)
    options = MorphologyOptions(element=kind, connectivity=connectivity)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    for chip, shrunk in zip(on(found), on(erode(found, radius, options)), strict=True):
        eroded = ndi.binary_erosion(chip, element(radius, kind), border_value=1)
        labels, n = ndi.label(chip, structure)
        expected = eroded.copy()
        for value in range(1, n + 1):
            if not (eroded & (labels == value)).any():
                expected |= labels == value
        assert (shrunk == expected).all()


@given(seed=SEEDS, radius=RADII)
@RANDOM
def test_masks_shrink_and_grow_one_way(seed: int, radius: float) -> None:
    found, options = random_detections(seed), MorphologyOptions()
    before = painted(found)
    assert (painted(erode(found, radius, options)) <= before).all()
    assert (painted(open_masks(found, radius, options)) <= before).all()
    for grow in (dilate, close_masks):
        assert (on(grow(found, radius, options)) >= on(found)).all()


@given(seed=SEEDS, radius=RADII, kind=ELEMENTS)
@RANDOM
def test_ground_goes_to_the_nearest_and_never_from_another(
    seed: int, radius: float, kind: str
) -> None:
    found = random_detections(seed)
    before = on(found)
    if kind == "disk":
        far = np.stack([ndi.distance_transform_edt(~mask) for mask in before])
    else:
        far = np.stack([ndi.distance_transform_cdt(~mask, "chessboard") for mask in before])
        radius = int(radius)
    far = np.where(far <= radius + 1e-6, np.round(far, 4), np.inf)
    expected = before.copy()
    order = scores_order(found)
    nearest = np.array(order)[far[order].argmin(axis=0)]
    free = ~before.any(axis=0) & np.isfinite(far.min(axis=0))
    for i in range(len(found)):
        expected[i] |= free & (nearest == i)
    grown = on(dilate(found, radius, MorphologyOptions(element=kind)))
    assert (grown == expected).all()


def test_growing_masks_meet_in_the_middle() -> None:
    found = make_detections(
        boxes=[(10, 10, 20, 20), (25, 10, 40, 20)], scores=[0.5, 0.9], window=make_window()
    )
    one, two = on(dilate(found, 4, MorphologyOptions(element="square")))
    assert one[15].nonzero()[0].tolist() == list(range(6, 22))  # 22 is as near to both
    assert two[15].nonzero()[0].tolist() == list(range(22, 44))


def test_closing_leaves_a_house_in_a_courtyard_alone() -> None:
    block = np.full((40, 40), 255, np.uint8)
    block[10:30, 10:30] = 0
    house = np.full((6, 6), 255, np.uint8)
    found = make_detections(boxes=[(0, 0, 40, 40), (17, 17, 23, 23)], masks=[block, house])
    closed = on(close_masks(found, 12, MorphologyOptions(element="square")))
    assert not (closed[0] & closed[1]).any()
    assert (closed.sum(axis=(1, 2)) == [1600 - 36, 36]).all()


@pytest.mark.parametrize(("small", "areas"), [("spared", (64, 400)), ("grown", (64, 324))])
def test_small_objects_are_treated_apart(small: str, areas: tuple[int, int]) -> None:
    found = make_detections(boxes=[(10, 10, 16, 16), (30, 30, 50, 50)])
    options = MorphologyOptions(element="square", small_px=14, small=small)
    shrunk = erode(found, 1, options)
    assert on(shrunk).sum(axis=(1, 2)).tolist() == [36, 18 * 18]
    assert on(dilate(shrunk, 1, options)).sum(axis=(1, 2)).tolist() == list(areas)


def test_masks_grow_as_far_as_the_chip_goes() -> None:
    found = make_detections(boxes=[(0, 0, 5, 5)], window=make_window(0, 0, 6, 6))
    grown = dilate(found, 3, MorphologyOptions(element="square"))
    assert grown.mask_boxes.tolist() == [[0, 0, 6, 6]]
    assert on(grown).all()


def test_a_seam_does_not_shrink() -> None:
    found = make_detections(boxes=[(0, 20, 40, 60)], window=make_window(0, 300, 300, 300))
    shrunk = on(erode(found, 2, MorphologyOptions()))[0]
    assert shrunk[40, 0]
    assert on(erode(found, 2, MorphologyOptions(border="background")))[0][40].argmax() == 2


@pytest.mark.parametrize("step", [erode, open_masks, close_masks, dilate])
def test_nothing_is_done_below_a_pixel_or_to_nothing(step) -> None:
    found, options = random_detections(3), MorphologyOptions()
    assert step(found, 0.0, options) is found
    assert step(found, 0.99, options) is found
    empty = Detections.empty("s", make_window())
    assert len(step(empty, 3, options)) == 0
    assert MASK_ON == 128
