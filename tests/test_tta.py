"""Test-time augmentation: views undo themselves, an equivariant network gains nothing from them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
from builders import make_chip, make_detections, make_window
from cli_support import ORACLE, assert_one_line, call, succeed, town, town_pixels, write_scene
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.chips import ChipBatch
from geoseg.detections import MASK_ON, Detections
from geoseg.errors import ConfigError
from geoseg.models import load_model
from geoseg.predict import Predictor
from geoseg.tta import TtaOptions, View, ViewsPredictor, make_views, merge_views

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MERGES = ["mean", "gmean", "max", "min", "median"]


class Bright:
    """Finds each bright square of a chip; blind in some of its calls."""

    def __init__(self, *, blind: set[int] = frozenset(), batch_size: int = 4) -> None:  # type: ignore[assignment]
        self.batch_size = batch_size
        self.calls = 0
        self.blind = blind

    def stream(self, batches: Any) -> Iterator[tuple[Any, Detections]]:
        for batch in batches:
            for chip, image in zip(batch.chips, batch.images, strict=True):
                on = image[0] > 127
                if not on.any() or self.calls in self.blind:
                    yield chip, Detections.empty(chip.scene_id, chip.window)
                    continue
                ys, xs = np.flatnonzero(on.any(axis=1)), np.flatnonzero(on.any(axis=0))
                box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
                yield chip, make_detections(boxes=[box], scores=[0.8], window=chip.window)
            self.calls += 1


def batch_of(*squares: tuple[int, int, int, int], side: int = 64) -> ChipBatch:
    """Build a batch with a chip for each bright xyxy square."""
    images = np.zeros((len(squares), 3, side, side), np.uint8)
    for image, (x0, y0, x1, y1) in zip(images, squares, strict=True):
        image[:, y0:y1, x0:x1] = 255
    chips = tuple(
        make_chip(col=i, window=make_window(col=side * i, height=side, width=side))
        for i in range(len(squares))
    )
    return ChipBatch(chips=chips, images=images, valid=np.ones((len(squares), side, side), bool))


def painted(found: Detections) -> list[np.ndarray]:
    """Return each mask in its window."""
    full = []
    for mask, (x0, y0, x1, y1) in zip(found.masks(), found.mask_boxes.tolist(), strict=True):
        canvas = np.zeros((found.window.height, found.window.width), np.uint8)
        canvas[y0:y1, x0:x1] = mask
        full.append(canvas)
    return full


def test_the_eight_views_are_the_flips_and_rotations_each_once() -> None:
    image = np.random.default_rng(1).integers(0, 255, (1, 3, 5, 5), np.uint8)
    seen = {view.apply(image).tobytes() for view in make_views("d4")}
    turned = (np.rot90(image, k, (2, 3)) for k in range(4))
    expected = {
        np.ascontiguousarray(each).tobytes() for one in turned for each in (one, one[:, :, :, ::-1])
    }
    assert seen == expected
    assert len(seen) == 8
    assert [len(make_views(name)) for name in ("none", "hflip", "d4+scale")] == [1, 2, 9]  # type: ignore[arg-type]


@given(st.sampled_from(make_views("d4")), st.data())
@settings(deadline=None)
def test_a_view_undoes_itself_exactly(view: View, data: Any) -> None:
    height, width = data.draw(st.sampled_from([(20, 20), (20, 9), (7, 20)]))
    (x0, x1), (y0, y1) = (
        data.draw(st.tuples(st.integers(0, side - 1), st.integers(1, side)).filter(rising))
        for side in (width, height)
    )
    seed = data.draw(st.integers(0, 99))
    mask = np.random.default_rng(seed).integers(0, 255, (y1 - y0, x1 - x0), np.uint8)
    window = make_window(height=height, width=width)
    before = make_detections(boxes=[(x0, y0, x1, y1)], masks=[mask], window=window)
    (canvas,) = painted(before)
    shown = view.apply(np.repeat(canvas[None, None], 3, axis=1))[0, 0]
    ys, xs = (view.apply(box_image(before))[0, 0] > 0).nonzero()
    seen_box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    part = shown[seen_box[1] : seen_box[3], seen_box[0] : seen_box[2]]
    shown_window = make_window(height=shown.shape[0], width=shown.shape[1])
    seen = make_detections(boxes=[seen_box], masks=[part], window=shown_window)
    after = view.undo(seen)
    assert after.window == window
    np.testing.assert_array_equal(after.mask_boxes, before.mask_boxes)
    np.testing.assert_array_equal(after.boxes, before.boxes)
    np.testing.assert_array_equal(after.mask_data, before.mask_data)


def rising(ends: tuple[int, int]) -> bool:
    return ends[0] < ends[1]


def box_image(found: Detections) -> np.ndarray:
    """Paint the box of the only detection, (1, 3, H, W)."""
    x0, y0, x1, y1 = found.mask_boxes[0].tolist()
    image = np.zeros((1, 3, found.window.height, found.window.width), np.uint8)
    image[:, :, y0:y1, x0:x1] = 255
    return image


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("views", ["hflip", "d4"])
def test_an_equivariant_network_gains_nothing(views: Any, merge: Any) -> None:
    model = load_model(ORACLE[1], device="cpu", score_threshold=0.5)
    plain = Predictor(model, score_threshold=0.5, batch_size=4)
    options = TtaOptions(views=views, merge=merge)
    pixels = town_pixels()
    images = np.stack([pixels[:, y : y + 300, x : x + 300] for y in (0, 300) for x in (0, 300)])
    chips = tuple(make_chip(col=i) for i in range(4))
    batch = ChipBatch(chips=chips, images=images, valid=np.ones((4, 300, 300), bool))
    several = ViewsPredictor(plain, options, score_threshold=0.5)
    pairs = zip(plain.stream([batch]), several.stream([batch]), strict=True)
    for (chip, one), (same_chip, other) in pairs:
        assert chip == same_chip
        assert len(one) > 5
        assert {m.tobytes() for m in painted(one)} == {m.tobytes() for m in painted(other)}
        np.testing.assert_allclose(other.scores, one.scores[0], rtol=1e-5)
        assert sorted(map(tuple, one.boxes.tolist())) == sorted(map(tuple, other.boxes.tolist()))


@pytest.mark.parametrize("width", [64, 90])
def test_the_shrunk_view_comes_back_to_size(width: int) -> None:
    square = (13, 22, 51, 60)
    view = View(scale=0.8)
    plain = batch_of(square)
    chip = replace(plain.chips[0], window=make_window(height=64, width=width))
    images = np.pad(plain.images, ((0, 0), (0, 0), (0, 0), (0, width - 64)))
    batch = ChipBatch(chips=(chip,), images=images, valid=np.ones((1, 64, width), bool))
    shown = ChipBatch(chips=batch.chips, images=view.apply(batch.images), valid=batch.valid)
    ((_, found),) = Bright().stream([shown])
    (back,) = painted(view.undo(found))
    truth = batch.images[0, 0] > 0
    on = back >= MASK_ON
    assert (on & truth).sum() / (on | truth).sum() > 0.93
    np.testing.assert_allclose(view.undo(found).boxes[0], square, atol=1.3)


@pytest.mark.parametrize(
    ("merge", "score"),
    [("mean", (0.8 + 7 * 0.2) / 8), ("max", 0.8), ("min", 0.2), ("median", 0.2),
     ("gmean", (0.8 * 0.2**7) ** (1 / 8))],
)  # fmt: skip
def test_what_one_view_found_is_scored_down(merge: Any, score: float) -> None:
    lonely = Bright(blind=set(range(1, 8)))
    several = ViewsPredictor(lonely, TtaOptions(views="d4", merge=merge), score_threshold=0.4)
    ((_, found),) = several.stream([batch_of((10, 10, 30, 30))])
    if score < 0.4:
        assert len(found) == 0
    else:
        assert found.scores.tolist() == [pytest.approx(score)]
    everyone = ViewsPredictor(Bright(), TtaOptions(views="d4", merge=merge), score_threshold=0.4)
    ((_, found),) = everyone.stream([batch_of((10, 10, 30, 30))])
    assert found.scores.tolist() == [pytest.approx(0.8)]


def test_each_view_is_one_pass_over_the_batch() -> None:
    counting = Bright()
    squares = [(5, 5, 20, 20), (1, 30, 20, 60), (40, 2, 60, 12)]
    several = ViewsPredictor(counting, TtaOptions(views="d4"), score_threshold=0.5)
    found = dict(several.stream([batch_of(*squares)]))
    assert counting.calls == 8
    assert [chip.col for chip in found] == [0, 1, 2]
    boxes = [tuple(each.mask_boxes[0].tolist()) for each in found.values()]
    assert boxes == squares


def test_neighbours_in_every_view_stay_apart() -> None:
    pair = make_detections(boxes=[(10, 10, 30, 30), (31, 10, 50, 30)])
    merged = merge_views([pair] * 3, TtaOptions(views="d4"), score_threshold=0.5)
    assert sorted(map(tuple, merged.mask_boxes.tolist())) == [(10, 10, 30, 30), (31, 10, 50, 30)]


def test_one_views_doubles_are_not_made_one() -> None:
    doubled = make_detections(boxes=[(10, 10, 30, 30), (11, 10, 31, 30)], scores=[0.9, 0.8])
    single = make_detections(boxes=[(10, 10, 30, 30)])
    merged = merge_views([doubled, single], TtaOptions(views="hflip"), score_threshold=0.1)
    assert len(merged) == 2


def test_classes_are_not_mixed() -> None:
    one = make_detections(boxes=[(10, 10, 30, 30)], labels=[1])
    other = make_detections(boxes=[(10, 10, 30, 30)], labels=[2])
    merged = merge_views([one, other], TtaOptions(views="hflip"), score_threshold=0.1)
    assert sorted(merged.labels.tolist()) == [1, 2]


@given(st.permutations(range(4)), st.sampled_from(MERGES), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_the_order_of_views_does_not_matter(order: list[int], merge: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(4):
        boxes = []
        for x, y in itertools.product((10, 60, 110), (10, 60)):
            if rng.random() < 0.7:
                dx, dy = rng.integers(-3, 4, 2).tolist()
                boxes.append((x + dx, y + dy, x + dx + 30, y + dy + 35))
        boxes = boxes or [(1, 1, 9, 9)]
        scores = rng.uniform(0.5, 1, len(boxes)).tolist()
        seen.append(make_detections(boxes=boxes, scores=scores))
    options = TtaOptions(views="d4", merge=merge)
    first = merge_views(seen, options, score_threshold=0.3)
    again = merge_views([seen[i] for i in order], options, score_threshold=0.3)
    np.testing.assert_array_equal(first.mask_boxes, again.mask_boxes)
    np.testing.assert_allclose(first.scores, again.scores, rtol=1e-6)
    assert np.abs(first.mask_data.astype(int) - again.mask_data).max(initial=0) <= 1


def test_views_of_a_scene_smaller_than_a_chip_stay_inside_it(tmp_path: Path, capsys: Any) -> None:
    pixels = town_pixels()[:, :210, :170].copy()
    scene = write_scene(tmp_path / "s.tif", pixels)
    plain, several = tmp_path / "a.parquet", tmp_path / "b.parquet"
    succeed(capsys, "run", scene, "-o", plain, *ORACLE)
    succeed(capsys, "run", scene, "-o", several, *ORACLE, "--tta", "d4")
    a, b = gpd.read_parquet(plain), gpd.read_parquet(several)
    assert len(a) > 3
    assert sorted(a.geometry.to_wkb()) == sorted(b.geometry.to_wkb())


def test_the_oracles_footprints_are_the_same_with_eight_views(tmp_path: Path, capsys: Any) -> None:
    scene = write_scene(tmp_path / "s.tif")
    succeed(capsys, "run", scene, "-o", tmp_path / "a.parquet", *ORACLE)
    words = ("--tta", "d4", "--tta-merge", "gmean")
    succeed(capsys, "run", scene, "-o", tmp_path / "b.parquet", *ORACLE, *words)
    a, b = (gpd.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
    assert len(a) == len(town().truth)
    assert sorted(a.geometry.to_wkb()) == sorted(b.geometry.to_wkb())
    wrong = call(capsys, "run", scene, "-o", tmp_path / "c.parquet", "--set", "tta.agree_iou=0")
    assert wrong.code == 2
    assert_one_line(wrong, "agree_iou must be in (0, 1]")


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="agree_iou"):
        TtaOptions(agree_iou=1.5)
