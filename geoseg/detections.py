"""What the network found in one chip: boxes, scores, labels and soft cropped ragged masks.

Struct of arrays with one length. Every coordinate is in pixels of `window`, which says where its
(0, 0) lies in the scene; nothing is shifted in place. Masks are uint8 probabilities (255 = 1) of
the instance's own `mask_boxes` rectangle, stored flat. No full-chip mask is ever made. Imports
numpy and cv2 (resizing) only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from geoseg.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.grid import Window

MASK_ON = 128
"""Least uint8 probability of a pixel that belongs to the instance: round(0.5 * 255)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """N detections of one window.

    Raises:
        FormatError: Lengths, offsets or mask boxes disagree.
    """

    scene_id: str
    window: Window
    boxes: NDArray[np.float32]
    """(N, 4) xyxy pixel edges."""
    scores: NDArray[np.float32]
    """(N,) in [0, 1]."""
    labels: NDArray[np.int16]
    """(N,) labels of the model."""
    mask_boxes: NDArray[np.int32]
    """(N, 4) xyxy whole pixel edges: where the mask lies; inside the window."""
    mask_offsets: NDArray[np.int64]
    """(N + 1,) mask i is mask_data[mask_offsets[i]:mask_offsets[i + 1]], row-major."""
    mask_data: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.scores)
        shapes = {
            "boxes": (self.boxes.shape, (n, 4)),
            "scores": (self.scores.shape, (n,)),
            "labels": (self.labels.shape, (n,)),
            "mask_boxes": (self.mask_boxes.shape, (n, 4)),
            "mask_offsets": (self.mask_offsets.shape, (n + 1,)),
            "mask_data": (self.mask_data.shape, (self.mask_data.size,)),
        }
        for name, (came, must) in shapes.items():
            if came != must:
                raise FormatError(f"{name} of {n} detections must have shape {must}, got {came}")
        if self.mask_data.dtype != np.uint8:
            raise FormatError(f"mask data must be uint8, got {self.mask_data.dtype}")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise FormatError("scores must be in [0, 1]")
        x0, y0, x1, y1 = self.mask_boxes.T
        inside = (x0 >= 0) & (y0 >= 0) & (x1 <= self.window.width) & (y1 <= self.window.height)
        if not (inside & (x1 > x0) & (y1 > y0)).all():
            raise FormatError("mask boxes must be non-empty and inside the window")
        sizes = (x1 - x0).astype(np.int64) * (y1 - y0)
        if self.mask_offsets[0] != 0 or (np.diff(self.mask_offsets) != sizes).any():
            raise FormatError("mask offsets must follow the mask boxes' areas")
        if self.mask_offsets[-1] != len(self.mask_data):
            raise FormatError("mask data must end where the last mask ends")

    def __len__(self) -> int:
        return len(self.scores)

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Return the soft mask of detection i, (h, w) of its mask box, a view."""
        x0, y0, x1, y1 = self.mask_boxes[i].tolist()
        data = self.mask_data[self.mask_offsets[i] : self.mask_offsets[i + 1]]
        return data.reshape(y1 - y0, x1 - x0)

    def window_mask(self, i: int) -> NDArray[np.bool_]:
        """Return which pixels of the whole window are detection i's, (H, W)."""
        x0, y0, x1, y1 = self.mask_boxes[i].tolist()
        pixels = np.zeros((self.window.height, self.window.width), np.bool_)
        pixels[y0:y1, x0:x1] = self.mask(i) >= MASK_ON
        return pixels

    def masks(self) -> list[NDArray[np.uint8]]:
        """Return every soft mask, views in order."""
        shapes = (self.mask_boxes[:, [3, 2]] - self.mask_boxes[:, [1, 0]]).tolist()
        edges = itertools.pairwise(self.mask_offsets.tolist())
        data = self.mask_data
        return [data[a:b].reshape(shape) for (a, b), shape in zip(edges, shapes, strict=True)]

    def expected_ious(self) -> NDArray[np.float32]:
        """Return how well each mask is expected to fit its object, (N,) in [0, 1].

        A pixel is the object's as probably as the soft mask says, and the mask's from one half
        on. This is the expected area of what both share over that of what either covers: near 1
        where the network is sure of the outline, 0 where no pixel is the mask's.
        """
        if not len(self):
            return np.zeros(0, np.float32)
        on = self.mask_data >= MASK_ON
        likely, starts = self.mask_data / 255, self.mask_offsets[:-1]
        shared = np.add.reduceat(np.where(on, likely, 0), starts)
        covered = np.add.reduceat(np.where(on, 1, likely), starts)
        ious = np.divide(shared, covered, out=np.zeros_like(shared), where=covered > 0)
        return ious.astype(np.float32)

    def take(self, index: NDArray[np.bool_] | NDArray[np.integer] | Sequence[int]) -> Self:
        """Return the detections at `index` (a bool mask or positions), in that order."""
        where = np.asarray(index)
        where = np.flatnonzero(where) if where.dtype == np.bool_ else where.astype(np.int64)
        masks = self.masks()
        offsets, data = _ragged([masks[i] for i in where.tolist()])
        return type(self)(
            scene_id=self.scene_id,
            window=self.window,
            boxes=self.boxes[where],
            scores=self.scores[where],
            labels=self.labels[where],
            mask_boxes=self.mask_boxes[where],
            mask_offsets=offsets,
            mask_data=data,
        )

    def to_window(self, window: Window) -> Self:
        """Return the same detections in the frame of another window that contains their masks."""
        dx, dy = self.window.col_off - window.col_off, self.window.row_off - window.row_off
        shift = np.array([dx, dy, dx, dy])
        return type(self)(
            scene_id=self.scene_id,
            window=window,
            boxes=(self.boxes + shift).astype(np.float32),
            scores=self.scores,
            labels=self.labels,
            mask_boxes=(self.mask_boxes + shift).astype(np.int32),
            mask_offsets=self.mask_offsets,
            mask_data=self.mask_data,
        )

    @classmethod
    def from_masks(
        cls,
        scene_id: str,
        window: Window,
        *,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        labels: NDArray[np.integer],
        mask_boxes: NDArray[np.integer],
        masks: Sequence[NDArray[np.uint8]],
    ) -> Self:
        """Build from one (h, w) soft mask per detection."""
        offsets, data = _ragged(masks)
        return cls(
            scene_id=scene_id,
            window=window,
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
            scores=np.asarray(scores, np.float32),
            labels=np.asarray(labels, np.int16),
            mask_boxes=np.asarray(mask_boxes, np.int32).reshape(-1, 4),
            mask_offsets=offsets,
            mask_data=data,
        )

    @classmethod
    def empty(cls, scene_id: str, window: Window) -> Self:
        """Build the result of a chip in which nothing was found."""
        floats, ints = np.zeros(0, np.float32), np.zeros(0, np.int32)
        return cls.from_masks(
            scene_id, window, boxes=floats, scores=floats, labels=ints, mask_boxes=ints, masks=[]
        )


def paste_masks(
    scene_id: str,
    window: Window,
    *,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.integer],
    probs: NDArray[np.float32],
) -> Detections:
    """Resize the mask head's (M, M) outputs to their boxes, cropped to the window.

    Inside a box the values equal torchvision's `paste_masks_in_image` (the mask is padded by one
    cell, its box grown alike and cut to whole pixels, bilinear without aligned corners); nothing
    is pasted into a full-size image. Detections without a pixel at probability 0.5 are dropped.

    Args:
        scene_id: The scene of the window.
        window: The chip's window.
        boxes: (N, 4) xyxy pixel edges in the window.
        scores: (N,) in [0, 1].
        labels: (N,).
        probs: (N, M, M) probabilities.

    Returns:
        Detections in the window's frame, in the given order.
    """
    padded = np.pad(np.asarray(probs, np.float32), ((0, 0), (1, 1), (1, 1)))
    frames = _grown_boxes(np.asarray(boxes, np.float32), probs.shape[-1])
    limits = np.array([window.width, window.height, window.width, window.height])
    crops = np.clip(frames, 0, limits)
    masks, kept = [], []
    for i, (frame, crop) in enumerate(zip(frames.tolist(), crops.tolist(), strict=True)):
        soft = _resized_crop(padded[i], frame, crop)
        if soft is not None:
            masks.append(soft)
            kept.append(i)
    return Detections.from_masks(
        scene_id,
        window,
        boxes=boxes[kept],
        scores=scores[kept],
        labels=labels[kept],
        mask_boxes=crops[kept],
        masks=masks,
    )


def crop_masks(
    scene_id: str,
    window: Window,
    *,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.integer],
    masks: NDArray[np.float32],
) -> Detections:
    """Crop full-chip masks (N, H, W) in [0, 1] to their own rectangles.

    For models that return pasted masks. What lies outside the window (padding) is cut off;
    detections without a pixel at probability 0.5 are dropped.
    """
    soft = np.rint(masks[:, : window.height, : window.width] * np.float32(255)).astype(np.uint8)
    rows, cols = soft.any(axis=2), soft.any(axis=1)
    crops, mask_boxes, kept = [], [], []
    for i in np.flatnonzero((soft >= MASK_ON).any(axis=(1, 2))).tolist():
        y0, y1 = _extent(rows[i])
        x0, x1 = _extent(cols[i])
        crops.append(soft[i, y0:y1, x0:x1])
        mask_boxes.append((x0, y0, x1, y1))
        kept.append(i)
    return Detections.from_masks(
        scene_id,
        window,
        boxes=boxes[kept],
        scores=scores[kept],
        labels=labels[kept],
        mask_boxes=np.array(mask_boxes, np.int32),
        masks=crops,
    )


def _ragged(masks: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    offsets = np.zeros(len(masks) + 1, np.int64)
    np.cumsum([mask.size for mask in masks], out=offsets[1:])
    data = np.concatenate([mask.ravel() for mask in masks]) if masks else np.zeros(0, np.uint8)
    return offsets, data


def _grown_boxes(boxes: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """Return whole-pixel xyxy edges of masks padded by one cell on each side."""
    scale = np.float32((size + 2) / size)
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * scale
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    low, high = np.trunc(centre - half), np.trunc(centre + half)
    return np.hstack([low, np.maximum(high, low) + 1]).astype(np.int64)


def _resized_crop(
    prob: NDArray[np.float32], frame: list[int], crop: list[int]
) -> NDArray[np.uint8] | None:
    fx, fy, fx1, fy1 = frame
    x0, y0, x1, y1 = crop
    if x1 <= x0 or y1 <= y0:
        return None
    resized = cv2.resize(prob, (fx1 - fx, fy1 - fy), interpolation=cv2.INTER_LINEAR)
    soft = np.rint(resized[y0 - fy : y1 - fy, x0 - fx : x1 - fx] * np.float32(255))
    return soft.astype(np.uint8) if soft.max() >= MASK_ON else None


def _extent(line: NDArray[np.bool_]) -> tuple[int, int]:
    on = np.flatnonzero(line)
    return int(on[0]), int(on[-1]) + 1
