"""The steps in their order, and the open solution's chain, written out with scikit-image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.morphology as sk
from builders import make_detections, make_window
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import on, painted, random_detections
from scipy import ndimage as ndi

from geoseg.config import load_config
from geoseg.detections import Detections
from geoseg.errors import ConfigError
from geoseg.morphology import MorphologyOptions, refine, refine_chips

PRESET = Path(__file__).resolve().parents[1] / "configs" / "postprocess-open-solution.yaml"
SEEDS = st.integers(0, 100_000)
RANDOM = settings(max_examples=60)
NOTHING = MorphologyOptions(duplicate_ios=0)


def probabilities(seed: int) -> np.ndarray:
    """Return a picture of probabilities with blobs of all sizes, some at its border."""
    rng = np.random.default_rng(seed)
    noise = ndi.gaussian_filter(rng.normal(size=(52, 60)), rng.uniform(0.8, 3))
    noise += ndi.gaussian_filter(rng.normal(size=noise.shape), 0.5) * noise.std()
    scaled = 128 + 90 * (noise - rng.uniform(-0.5, 1) * noise.std()) / noise.std()
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def as_one_detection(soft: np.ndarray) -> Detections:
    height, width = soft.shape
    window = make_window(0, 0, height, width)
    return make_detections(boxes=[(0, 0, width, height)], masks=[soft], window=window)


def square(side: int) -> np.ndarray:
    return sk.footprint_rectangle((side, side))


def eroded_by_winner(mask: np.ndarray, side: int) -> np.ndarray:
    """Erode, and add the objects that have not a pixel left."""
    eroded = sk.erosion(mask, square(side), mode="ignore")
    objects, n = ndi.label(mask)
    dropped = [k for k in range(1, n + 1) if not (eroded & (objects == k)).any()]
    return eroded | np.isin(objects, dropped)


def scores_by_winner(labels: np.ndarray, probability: np.ndarray) -> list[float]:
    values = [k for k in range(1, labels.max() + 1) if (labels == k).any()]
    return [probability[labels == k].mean() * np.sqrt((labels == k).sum()) for k in values]


@given(seed=SEEDS, erosion=st.sampled_from([1, 3, 5]), dilation=st.sampled_from([1, 3, 5]))
@RANDOM
def test_every_step_is_the_open_solutions(seed: int, erosion: int, dilation: int) -> None:
    soft = probabilities(seed)
    found = as_one_detection(soft)
    preset = load_config(PRESET).morphology
    mask = soft / 255 > 0.5
    if not mask.any():
        return
    step = replace(NOTHING, masks="binary", element="square", connectivity=4)
    assert (on(refine(found, step, gsd_m=None))[0] == mask).all()

    eroded = eroded_by_winner(mask, erosion)
    step = replace(step, erode=f"{erosion}x{erosion}")
    assert (on(refine(found, step, gsd_m=None))[0] == eroded).all()

    labels, n = ndi.label(eroded)
    parts = on(refine(found, replace(step, parts="split"), gsd_m=None))
    assert (parts == [labels == k for k in range(1, n + 1)]).all()

    labels = sk.dilation(labels, square(dilation))
    whole = replace(preset, erode=f"{erosion}x{erosion}", dilate=f"{dilation}x{dilation}")
    done = refine(found, whole, gsd_m=None)
    values = [k for k in range(1, n + 1) if (labels == k).any()]
    assert (on(done) == [labels == k for k in values]).all()
    scores = np.array(scores_by_winner(labels, soft / 255)) / np.sqrt(labels.size)
    assert np.allclose(done.scores, scores, atol=1e-6)


def test_the_preset_says_the_steps_and_nothing_else() -> None:
    config = load_config(PRESET)
    assert replace(config, morphology=MorphologyOptions()) == load_config()
    assert config.morphology.dilate == "3x3"


@given(seed=SEEDS)
@RANDOM
def test_without_a_step_the_same_comes_back(seed: int) -> None:
    found = random_detections(seed)
    assert refine(found, NOTHING, gsd_m=0.3) is found
    assert refine(found, replace(NOTHING, erode="0m", min_area="0px"), gsd_m=0.3) is found


@given(
    seed=SEEDS,
    erode=st.integers(0, 3),
    opening=st.integers(0, 2),
    closing=st.integers(0, 2),
    dilate=st.integers(0, 3),
    claims=st.sampled_from(["score", "probability"]),
    parts=st.sampled_from(["keep", "split", "largest"]),
    masks=st.sampled_from(["soft", "binary"]),
    element=st.sampled_from(["disk", "square"]),
    restore=st.booleans(),
)
@settings(max_examples=120)
def test_claimed_masks_never_share_a_pixel_whatever_follows(
    seed: int, erode: int, opening: int, closing: int, dilate: int, **choices: object
) -> None:
    found = random_detections(seed, n=6, shape_hw=(32, 36))
    options = MorphologyOptions(
        erode=erode, open=opening, close=closing, dilate=dilate, split=0.5, join=0.9, **choices
    )
    done = refine(found, options, gsd_m=0.3)
    masks = on(done)
    assert masks.sum(axis=0, initial=0).max(initial=0) <= 1
    assert masks.any(axis=(1, 2)).all()
    for mask, box in zip(masks, done.boxes.tolist(), strict=True):
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box == [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]
    assert set(done.scores.tolist()) <= set(found.scores.tolist())


@given(seed=SEEDS)
@RANDOM
def test_the_order_of_detections_does_not_matter(seed: int) -> None:
    found = random_detections(seed, n=6, shape_hw=(32, 36))
    turned = found.take(list(range(len(found)))[::-1])
    options = MorphologyOptions(erode=1, close=1, dilate=2, claims="score", join=0.8)
    one, two = (refine(item, options, gsd_m=0.3) for item in (found, turned))
    assert sorted(one.scores.tolist()) == sorted(two.scores.tolist())
    assert (painted(one)[np.argsort(one.scores)] == painted(two)[np.argsort(two.scores)]).all()


def test_small_masks_go_but_not_where_the_chip_cuts_them() -> None:
    boxes = [(10, 10, 13, 13), (0, 50, 3, 53), (40, 40, 60, 60)]
    found = make_detections(boxes=boxes)
    options = replace(NOTHING, min_area="10px")
    assert refine(found, options, gsd_m=None).mask_boxes.tolist() == [list(b) for b in boxes[1:]]
    closed = refine(found, replace(options, border="background"), gsd_m=None)
    assert closed.mask_boxes.tolist() == [list(boxes[2])]
    assert len(refine(found, replace(NOTHING, min_area="0.9m2"), gsd_m=0.3)) == 2


def test_masks_that_eroding_leaves_nothing_of_go_where_they_are_not_restored() -> None:
    found = make_detections(boxes=[(10, 10, 13, 13), (40, 40, 60, 60)])
    assert len(refine(found, replace(NOTHING, erode=2), gsd_m=None)) == 2
    assert len(refine(found, replace(NOTHING, erode=2, restore=False), gsd_m=None)) == 1


def test_metres_are_pixels_of_the_ground_resolution() -> None:
    found = make_detections(boxes=[(40, 40, 60, 60)])
    in_metres = refine(found, replace(NOTHING, dilate="0.6m"), gsd_m=0.3)
    in_pixels = refine(found, replace(NOTHING, dilate=2), gsd_m=None)
    assert (on(in_metres) == on(in_pixels)).all()
    with pytest.raises(ConfigError, match="dilate"):
        refine(found, replace(NOTHING, dilate="0.6m"), gsd_m=None)


def test_chips_keep_their_order_and_empty_ones_stay_empty() -> None:
    empty = Detections.empty("s", make_window())
    chips = [("a", empty), ("b", random_detections(1)), ("c", empty)]
    done = list(refine_chips(chips, MorphologyOptions(dilate=1), gsd_m=0.3))
    assert [name for name, _ in done] == ["a", "b", "c"]
    assert [len(found) > 0 for _, found in done] == [False, True, False]
