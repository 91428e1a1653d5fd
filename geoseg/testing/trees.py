"""Trees of the synthetic town: crowns of leaf clumps with highlights and cast shadows.

Frame: pixels of the town, (row, col). A few dozen crowns are drawn once and pasted many times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]
    Raster = NDArray[np.uint8]

N_CROWNS = 40
TREES_PER_PX = 1 / 1500
SHADOW_SHARE = 0.55  # of the crown's radius, how far its shadow is thrown
SHADE = np.array([0.45, 0.5, 0.55], np.float32)
CROWNS = ((62, 84, 40), (78, 98, 46), (52, 74, 40), (96, 108, 58), (70, 92, 60))


def plant_trees(
    picture: Field,
    green: Field,
    built: Raster,
    street: Raster,
    rng: np.random.Generator,
    *,
    shadow_xy: tuple[float, float],
) -> None:
    """Paint trees where it is green; crowns keep off roofs and main streets.

    Args:
        picture: (H, W, 3), painted in place.
        green: (H, W), 0 to 1: more trees where it is higher.
        built: (H, W), above 0 on buildings.
        street: (H, W), 2 on main streets.
        rng: The source of all choices.
        shadow_xy: Direction in which shadows fall.
    """
    height, width = green.shape
    crowns = [_draw_crown(rng.uniform(4, 17), rng) for _ in range(N_CROWNS)]
    n = round(height * width * TREES_PER_PX)
    rows, cols = rng.integers(0, height, n), rng.integers(0, width, n)
    kept = rng.random(n) < np.clip(green[rows, cols] * 1.5 - 0.2, 0.04, 1)
    room_px = cv2.distanceTransform(((built == 0) & (street < 2)).astype(np.uint8), cv2.DIST_L2, 3)
    picks = rng.integers(0, N_CROWNS, n)
    for row, col, pick in zip(rows[kept], cols[kept], picks[kept], strict=True):
        crown = crowns[pick]
        if room_px[row, col] > crown.shape[0] / 2 - 1:
            radius = crown.shape[0] / 2
            _paste_tree(picture, crown, row, col, np.multiply(shadow_xy, SHADOW_SHARE * radius))


def _paste_tree(
    picture: Field, crown: Field, row: int, col: int, throw_xy: NDArray[np.float64]
) -> None:
    down, right = round(throw_xy[1]), round(throw_xy[0])
    if shaded := _placed(picture, crown, row + down, col + right):
        ground, part = shaded
        ground *= 1 - part[..., 3:] * (1 - SHADE)
    if coloured := _placed(picture, crown, row, col):
        ground, part = coloured
        ground += part[..., 3:] * (part[..., :3] - ground)


def _placed(picture: Field, sprite: Field, row: int, col: int) -> tuple[Field, Field] | None:
    """Return the picture's and the sprite's common part, the sprite centred on (row, col)."""
    top, left = row - sprite.shape[0] // 2, col - sprite.shape[1] // 2
    ground = picture[max(top, 0) : max(top + sprite.shape[0], 0)]
    ground = ground[:, max(left, 0) : max(left + sprite.shape[1], 0)]
    if ground.size == 0:
        return None
    part = sprite[max(-top, 0) :, max(-left, 0) :]
    return ground, part[: ground.shape[0], : ground.shape[1]]


def _draw_crown(radius_px: float, rng: np.random.Generator) -> Field:
    """Return one crown: RGB of 0-255 and its cover of 0-1, (D, D, 4)."""
    side = 2 * int(np.ceil(radius_px + 3)) + 1
    y, x = np.mgrid[:side, :side].astype(np.float32) - side // 2
    cover, light = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    for _ in range(int(10 + radius_px * 3)):  # clumps, the later (higher) ones brighter
        angle, away = rng.uniform(0, 2 * np.pi), radius_px * 0.75 * np.sqrt(rng.random())
        size = radius_px * rng.uniform(0.2, 0.42)
        dx, dy = x - away * np.cos(angle), y - away * np.sin(angle)
        clump = np.clip((size - np.hypot(dx, dy)) + 0.5, 0, 1)
        lit = (
            1 - 0.28 * (dx * 0.7 + dy * 0.6) / size - 0.018 * away * (np.cos(angle) + np.sin(angle))
        )
        light += clump * (lit * rng.uniform(0.75, 1.2) - light)
        cover = np.maximum(cover, clump)
    base = np.array(CROWNS[rng.integers(len(CROWNS))], np.float32) * rng.uniform(0.85, 1.15)
    grain = 1 + 0.16 * rng.standard_normal((side, side)).astype(np.float32)
    return np.dstack([base * (light * grain)[..., None], cover * 0.96])
