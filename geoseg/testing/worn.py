"""Worn masks: exact outlines as a network would show them, rounded, noisy, shifted, partly merged.

Frame: pixels of the scene, points (x, y) on pixel edges. No torch: these stand in for a network
where the shapes of outlines are measured against exact truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Field = NDArray[np.float32]

CELLS = 28
"""Cells a side of a mask head's output, which is then enlarged to the box."""
_OVER = 4  # subpixels a side


@dataclass(frozen=True, slots=True, kw_only=True)
class Wear:
    """How far masks are from the truth."""

    blur_px: float = 1.5
    """Standard deviation of the rounding, px; in large boxes that of one cell of the mask head."""
    noise: float = 0.12
    """Standard deviation of the probability's noise, smooth over about 3 px."""
    shift_px: float = 0.4
    """Standard deviation of a whole mask's shift, px."""
    merged_share: float = 0.06
    """Share of the masks that run on into a neighbour nearer than 2 px."""


def worn_masks(
    shapes: Sequence[shapely.Polygon], *, seed: int = 0, wear: Wear | None = None
) -> tuple[list[NDArray[np.uint8]], list[tuple[int, int]]]:
    """Paint soft masks of buildings as a network would see them.

    Args:
        shapes: Exact outlines, px.
        seed: Any integer of at least 0; the same arguments give the same masks.
        wear: How worn they are.

    Returns:
        Per building an (h, w) soft mask and the (col, row) of its top-left pixel.

    Example:
        >>> masks, origins = worn_masks([shapely.box(10, 10, 40, 30)])
        >>> int(masks[0][20 - origins[0][1], 25 - origins[0][0]]) > 200
        True
    """
    wear = wear or Wear()
    geometry = np.array(shapes, object)
    first, second = shapely.STRtree(geometry).query(geometry, predicate="dwithin", distance=2.0)
    masks, origins = [], []
    for i, shape in enumerate(geometry):
        rng = np.random.default_rng([seed, i])
        left, top = (int(np.floor(v)) - 4 for v in shape.bounds[:2])
        right, bottom = (int(np.ceil(v)) + 4 for v in shape.bounds[2:])
        size_hw = (bottom - top, right - left)
        cover = _painted(shape, (left, top), size_hw)
        near = second[(first == i) & (second != i)]
        if len(near) and rng.random() < wear.merged_share:
            cover = _run_on(cover, _painted(geometry[near[0]], (left, top), size_hw), rng)
        masks.append(_worn(cover, wear, rng))
        origins.append((left, top))
    return masks, origins


def _painted(shape: shapely.Polygon, origin_xy: tuple[int, int], size_hw: tuple[int, int]) -> Field:
    """Return the share of each pixel that a polygon covers, float32 (h, w)."""
    fine_hw = (size_hw[0] * _OVER, size_hw[1] * _OVER)
    corner = Affine(1 / _OVER, 0, origin_xy[0], 0, 1 / _OVER, origin_xy[1])
    fine = rasterize([(shape, 1)], out_shape=fine_hw, transform=corner, dtype="uint8")
    blocks = fine.reshape(size_hw[0], _OVER, size_hw[1], _OVER)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def _run_on(cover: Field, neighbour: Field, rng: np.random.Generator) -> Field:
    """Let a mask run on into a neighbour, for a blob around a point of their border."""
    both = cv2.dilate(cover, np.ones((5, 5))) * cv2.dilate(neighbour, np.ones((5, 5)))
    rows, cols = np.nonzero(both > 0.25)
    if len(rows) == 0:
        return cover
    k = int(rng.integers(len(rows)))
    y, x = np.ogrid[: cover.shape[0], : cover.shape[1]]
    reach = rng.uniform(3, 7)
    blob = np.exp(-((y - rows[k]) ** 2 + (x - cols[k]) ** 2) / (2 * reach**2))
    return np.asarray(np.maximum(cover, 0.9 * blob * (cover + neighbour > 0.3)), np.float32)


def _worn(cover: Field, wear: Wear, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift, round and disturb a cover, as a mask head of `CELLS` cells would."""
    height, width = cover.shape
    right, down = rng.normal(0, wear.shift_px, 2)
    shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(cover, shift, (width, height), flags=cv2.INTER_LINEAR)
    blur = tuple(max(wear.blur_px, 0.6 * side / CELLS) for side in (width, height))
    soft = cv2.GaussianBlur(moved, (0, 0), blur[0], sigmaY=blur[1])
    grain = cv2.GaussianBlur(
        rng.normal(0, 1, cover.shape).astype(np.float32), (0, 0), 3 * blur[0], sigmaY=3 * blur[1]
    )
    scale = wear.noise / max(float(np.std(grain)), 1e-9)
    worn = np.clip(soft + scale * grain * 4 * soft * (1 - soft), 0, 1)
    return np.asarray(np.round(worn * 255), np.uint8)
