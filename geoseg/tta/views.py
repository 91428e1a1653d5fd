"""Views of a chip: flipped, turned or smaller, each with its own inverse.

Frame: pixels of a chip's frame (H x W), which a transposed view shows as W x H.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

import cv2
import numpy as np

from geoseg.detections import Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.tta.options import ViewSet

T = TypeVar("T", np.float32, np.int32)

SHRUNK: Final = 0.8
"""Size of the scaled view: buildings a fifth smaller, so that large ones fit into a chip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way to look at a chip: shrunk, transposed, flipped, in this order."""

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False
    scale: float = 1.0

    def apply(self, images_BCHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return images (B, 3, H, W) as this view shows them, (B, 3, W, H) where it transposes."""
        seen = images_BCHW if self.scale == 1 else _shrunk(images_BCHW, self.scale)
        if self.transpose:
            seen = seen.swapaxes(2, 3)
        if self.flip_rows:
            seen = seen[:, :, ::-1]
        if self.flip_cols:
            seen = seen[:, :, :, ::-1]
        return np.ascontiguousarray(seen)

    def undo(self, found: Detections) -> Detections:
        """Return what was found in this view's frame, the detections' window, in the chip's."""
        height, width = found.window.height, found.window.width
        boxes, mask_boxes, masks = found.boxes, found.mask_boxes, found.masks()
        if self.flip_cols:
            boxes, mask_boxes = _mirrored(boxes, width, 0), _mirrored(mask_boxes, width, 0)
            masks = [mask[:, ::-1] for mask in masks]
        if self.flip_rows:
            boxes, mask_boxes = _mirrored(boxes, height, 1), _mirrored(mask_boxes, height, 1)
            masks = [mask[::-1] for mask in masks]
        if self.transpose:
            boxes, mask_boxes = boxes[:, [1, 0, 3, 2]], mask_boxes[:, [1, 0, 3, 2]]
            masks = [mask.T for mask in masks]
            height, width = width, height
        if self.scale != 1:
            boxes = boxes / np.float32(self.scale)
            grown = [
                _grown(mask, box, self.scale, (height, width))
                for mask, box in zip(masks, mask_boxes.tolist(), strict=True)
            ]
            masks = [mask for mask, _ in grown]
            mask_boxes = np.array([box for _, box in grown], np.int32).reshape(-1, 4)
        return Detections.from_masks(
            found.scene_id,
            replace(found.window, height=height, width=width),
            boxes=boxes,
            scores=found.scores,
            labels=found.labels,
            mask_boxes=mask_boxes,
            masks=[np.ascontiguousarray(mask) for mask in masks],
        )


def make_views(views: ViewSet) -> tuple[View, ...]:
    """Return the views of a set, each once, the plain one first.

    Example:
        >>> len(make_views("d4")), len(set(make_views("d4+scale")))
        (8, 9)
    """
    if views == "none":
        return (View(),)
    if views == "hflip":
        return View(), View(flip_cols=True)
    sides = itertools.product([False, True], repeat=3)
    d4 = tuple(View(transpose=t, flip_rows=r, flip_cols=c) for t, r, c in sides)
    return (*d4, View(scale=SHRUNK)) if views == "d4+scale" else d4


def _mirrored(boxes: NDArray[T], side: int, axis: int) -> NDArray[T]:
    """Mirror xyxy boxes along x (0) or y (1), of which a frame has `side` pixels."""
    mirrored = boxes.copy()
    mirrored[:, axis], mirrored[:, axis + 2] = side - boxes[:, axis + 2], side - boxes[:, axis]
    return mirrored


def _shrunk(images_BCHW: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Return images reduced into the top-left corner of their frame, zero around."""
    height, width = (round(side * scale) for side in images_BCHW.shape[2:])
    shrunk = np.zeros_like(images_BCHW)
    for image, target in zip(images_BCHW.transpose(0, 2, 3, 1), shrunk, strict=True):
        reduced = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        target[:, :height, :width] = reduced.transpose(2, 0, 1)
    return shrunk


def _grown(
    mask: NDArray[np.uint8], box: list[int], scale: float, frame_hw: tuple[int, int]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Return a mask of a shrunk view at full size, with its box in the frame."""
    (y0, y1, ratio_y), (x0, x1, ratio_x) = (
        _grown_side(box[axis], box[axis + 2], scale, side)
        for axis, side in ((1, frame_hw[0]), (0, frame_hw[1]))
    )
    shift_x = (x0 + 0.5) * ratio_x - 0.5 - box[0]
    shift_y = (y0 + 0.5) * ratio_y - 0.5 - box[1]
    back = np.array([[ratio_x, 0, shift_x], [0, ratio_y, shift_y]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    grown = cv2.warpAffine(
        np.ascontiguousarray(mask), back, (x1 - x0, y1 - y0), flags=flags, borderValue=0.0
    )
    return np.asarray(grown, np.uint8), [x0, y0, x1, y1]


def _grown_side(low: int, high: int, scale: float, side: int) -> tuple[int, int, float]:
    """Return the edges of a box at full size along an axis of the frame, and the true scale."""
    ratio = round(side * scale) / side
    first = min(side - 1, int(low / ratio))
    last = min(side, max(1, int(np.ceil(high / ratio))))
    return first, max(last, first + 1), ratio
