"""All masks of a chip on one canvas, so that one call of OpenCV works on all of them.

For masks of some 30 px the calls cost more than the pixels. Each mask has a cell with a margin, so
that none reaches into another's. Frame: pixels of the canvas; boxes are in the chip's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from numpy.typing import NDArray

    from geoseg.detections import Detections

    T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Atlas:
    """Masks laid out on a canvas."""

    canvas: NDArray[np.uint8]
    """(H, W) soft masks, 0 between them."""
    corners_xy: list[tuple[int, int]]
    """Where each mask's top-left pixel lies on the canvas."""
    margin_px: int
    """Pixels around each mask that are its own."""
    beyond: NDArray[np.bool_] | None
    """(H, W) pixels of margins that lie outside the chip; None where there are none."""


def pack(found: Detections, *, margin_px: int) -> Atlas:
    """Lay out the masks of a chip, the high ones first, in rows."""
    boxes = found.mask_boxes
    widths = (boxes[:, 2] - boxes[:, 0] + 2 * margin_px).tolist()
    heights = (boxes[:, 3] - boxes[:, 1] + 2 * margin_px).tolist()
    corners, shape_hw = _shelves(heights, widths)
    corners = [(x + margin_px, y + margin_px) for x, y in corners]
    canvas = np.zeros(shape_hw, np.uint8)
    for mask, (x, y) in zip(found.masks(), corners, strict=True):
        canvas[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return Atlas(
        canvas=canvas,
        corners_xy=corners,
        margin_px=margin_px,
        beyond=_beyond(found, corners, margin_px, shape_hw),
    )


def unpack(
    canvas: NDArray[T], atlas: Atlas, boxes: NDArray[np.int32], found: Detections
) -> list[NDArray[T]]:
    """Cut boxes out of a canvas that was made from an atlas.

    Args:
        canvas: (H, W) of the atlas' shape.
        atlas: Says where the masks lie.
        boxes: (N, 4) xyxy in the chip's frame, no further than the margin from the masks' own.
        found: What was packed.

    Returns:
        (h, w) views.
    """
    corners = np.array(atlas.corners_xy).reshape(-1, 2)
    shift = (corners - found.mask_boxes[:, :2])[:, [0, 1, 0, 1]]
    return [canvas[y0:y1, x0:x1] for x0, y0, x1, y1 in (boxes + shift).tolist()]


def grown_boxes(found: Detections, by_px: int) -> NDArray[np.int32]:
    """Return mask boxes (N, 4) grown on all sides as far as the chip goes."""
    window = found.window
    limit = np.array([window.width, window.height, window.width, window.height], np.int32)
    grown = found.mask_boxes + np.array([-by_px, -by_px, by_px, by_px], np.int32)
    return np.clip(grown, 0, limit)


def _shelves(
    heights: Sequence[int], widths: Sequence[int]
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Place cells in rows of falling height; return their corners and the canvas' shape."""
    area = sum(h * w for h, w in zip(heights, widths, strict=True))
    line = max(max(widths, default=1), math.ceil(math.sqrt(area)))
    corners = [(0, 0)] * len(heights)
    x = y = below = 0
    for i in sorted(range(len(heights)), key=lambda i: -heights[i]):
        if x + widths[i] > line:
            x, y = 0, below
        corners[i] = (x, y)
        x += widths[i]
        below = max(below, y + heights[i])
    return corners, (max(below, 1), line)


def _beyond(
    found: Detections, corners: Sequence[tuple[int, int]], margin_px: int, shape_hw: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """Mark the margins of masks near the chip's border that lie outside it."""
    window = found.window
    boxes = found.mask_boxes
    limit = np.array([window.width, window.height])
    low = np.minimum(boxes[:, :2] - margin_px, 0)
    high = np.maximum(boxes[:, 2:] + margin_px - limit, 0)
    near = np.flatnonzero((low < 0).any(axis=1) | (high > 0).any(axis=1)).tolist()
    if not near:
        return None
    beyond = np.zeros(shape_hw, np.bool_)
    for i in near:
        (x, y), (x0, y0, x1, y1) = corners[i], boxes[i].tolist()
        left, top = x - margin_px, y - margin_px
        right, bottom = x + x1 - x0 + margin_px, y + y1 - y0 + margin_px
        (west, north), (east, south) = (-low[i]).tolist(), high[i].tolist()
        beyond[top : top + north, left:right] = True
        beyond[bottom - south : bottom, left:right] = True
        beyond[top:bottom, left : left + west] = True
        beyond[top:bottom, right - east : right] = True
    return beyond
