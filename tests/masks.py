"""Random masks for tests: detections of one chip, and what they look like painted into it."""

from __future__ import annotations

import numpy as np
from builders import make_window
from scipy import ndimage as ndi

from geoseg.detections import MASK_ON, Detections


def random_detections(
    seed: int, *, n: int = 5, shape_hw: tuple[int, int] = (48, 56), hard: bool = False
) -> Detections:
    """Build detections of blurred rectangles and specks, some cut by the chip's border.

    Their scores are distinct; each has a pixel at 0.5, and a border of faint ones most of the time.
    """
    rng = np.random.default_rng(seed)
    height, width = shape_hw
    boxes, masks = [], []
    while len(boxes) < n:
        h, w = rng.integers(1, 22, 2)
        y0, x0 = rng.integers(-5, height - 1), rng.integers(-5, width - 1)
        soft = np.zeros((h + 6, w + 6), np.float64)
        soft[3:-3, 3:-3] = rng.uniform(140, 256)
        soft *= rng.random(soft.shape) > rng.choice([0, 0.25])
        if not hard:
            soft = ndi.gaussian_filter(soft, rng.uniform(0.3, 1.5))
        top, left = max(0, -y0), max(0, -x0)
        part = soft[top : height - y0, left : width - x0]
        part = np.minimum(np.rint(part), 255).astype(np.uint8)
        if hard:
            part = np.where(part >= MASK_ON, np.uint8(255), np.uint8(0))
        if part.size and part.max() >= MASK_ON:
            y, x = y0 + top, x0 + left
            boxes.append((x, y, x + part.shape[1], y + part.shape[0]))
            masks.append(part)
    scores = rng.permutation(n) / n * 0.9 + 0.05
    return Detections.from_masks(
        "s",
        make_window(7, 11, height, width),
        boxes=np.array(boxes, np.float32),
        scores=scores.astype(np.float32),
        labels=np.ones(n),
        mask_boxes=np.array(boxes),
        masks=masks,
    )


def painted(found: Detections) -> np.ndarray:
    """Return every soft mask in a chip of its own, (N, H, W) uint8."""
    chips = np.zeros((len(found), found.window.height, found.window.width), np.uint8)
    for chip, mask, (x0, y0, x1, y1) in zip(
        chips, found.masks(), found.mask_boxes.tolist(), strict=True
    ):
        chip[y0:y1, x0:x1] = mask
    return chips


def on(found: Detections) -> np.ndarray:
    """Return where every mask is at 0.5 or more, (N, H, W)."""
    return painted(found) >= MASK_ON
