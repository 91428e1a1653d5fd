"""Views of a chip undo themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import make_detections, make_window
from hypothesis import given
from hypothesis import strategies as st

from geoseg.chips import ChipBatch
from geoseg.detections import MASK_ON, Detections
from geoseg.tta import View, make_views

if TYPE_CHECKING:
    pass
from tta_support import Bright, batch_of, painted


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
