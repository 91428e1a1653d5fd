"""The picture of a synthetic town: ground, streets, trees, cast shadows, roofs, camera.

Frame: pixels of the town, (row, col); colours are float32 RGB of 0-255 until the end. Light comes
from the upper left (north-west), as in most printed maps and many morning flights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from geoseg.testing.roofs import paint_roofs
from geoseg.testing.trees import plant_trees

if TYPE_CHECKING:
    import shapely
    from numpy.typing import NDArray

    from geoseg.testing.layout import Layout

    Picture = NDArray[np.float32]
    Field = NDArray[np.float32]
    Raster = NDArray[np.uint8]

SHADOW_STEP_XY = (0.78, 0.62)  # direction in which shadows fall
SHADOW_TINT = np.array([0.42, 0.46, 0.55], np.float32)  # what sky light alone leaves of a colour
EARTH, SAND = (168.0, 140.0, 108.0), (196.0, 174.0, 142.0)
DRY_GRASS, GRASS, SCRUB = (139.0, 136.0, 86.0), (98.0, 114.0, 60.0), (70.0, 88.0, 48.0)
TARMAC, GRAVEL = (128.0, 124.0, 120.0), (186.0, 164.0, 134.0)
FADE = np.float32(0.18)  # of the colour that the air and the sensor take away
HAZE, HAZE_LEVEL = np.float32(0.07), np.float32(168)  # light the air adds
NOISE_SD = 2.6  # sensor noise, grey levels
BLUR_PX = 0.65  # standard deviation of the optics


def render(layout: Layout, ids: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint a town.

    Args:
        layout: Its buildings and streets.
        ids: (H, W), k + 1 where the layout's k-th building is painted.
        rng: The source of all choices.

    Returns:
        (H, W, 3) RGB.
    """
    built = (ids > 0).astype(np.uint8)
    green = _greenness(built, layout.street, rng)
    picture = _paint_ground(green, rng)
    _paint_streets(picture, layout.street, rng)
    heights_px = _heights_px(layout, rng)
    _cast_shadows(picture, layout.polygons, heights_px)
    plant_trees(picture, green, built, layout.street, rng, shadow_xy=SHADOW_STEP_XY)
    paint_roofs(picture, layout, ids, rng)
    return _expose(picture, rng)


def noise(shape_hw: tuple[int, int], scale_px: float, rng: np.random.Generator) -> Field:
    """Return smooth noise of about unit deviation whose features are `scale_px` wide."""
    height, width = shape_hw
    coarse = (int(height / scale_px) + 3, int(width / scale_px) + 3)
    field = rng.standard_normal(coarse, dtype=np.float32)
    size = (round(coarse[1] * scale_px), round(coarse[0] * scale_px))
    return np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)[:height, :width])


def blend(picture: Picture, colour: tuple[float, float, float] | Picture, weight: Field) -> None:
    """Mix a colour into a picture in place, by a weight in [0, 1] per pixel."""
    for band in range(3):
        layer = picture[..., band]
        target = colour[..., band] if isinstance(colour, np.ndarray) else colour[band]
        layer += weight * (target - layer)


def _greenness(built: Raster, street: Raster, rng: np.random.Generator) -> Field:
    """Return how green the ground is, 0 bare to 1 lush: trodden bare near houses and streets."""
    shape = built.shape
    trodden = cv2.blur(((built > 0) | (street > 0)).astype(np.float32), (61, 61))
    field = 0.62 + 0.30 * noise(shape, 170, rng) + 0.17 * noise(shape, 45, rng)
    field += 0.12 * noise(shape, 12, rng) - 0.95 * trodden
    return np.clip(field, 0, 1)


def _paint_ground(green: Field, rng: np.random.Generator) -> Picture:
    shape = green.shape
    picture = np.empty((*shape, 3), np.float32)
    picture[:] = EARTH
    blend(picture, SAND, np.clip(0.4 + 0.5 * noise(shape, 90, rng), 0, 1))
    blend(picture, DRY_GRASS, np.clip(green * 2.6 - 0.4, 0, 1))
    blend(picture, GRASS, np.clip(green * 2.4 - 0.9 + 0.25 * noise(shape, 7, rng), 0, 1))
    blend(picture, SCRUB, np.clip(green * 3.0 - 2.0 + 0.4 * noise(shape, 9, rng), 0, 1))
    grain = 0.025 + 0.05 * green
    texture = noise(shape, 2.2, rng) + 0.6 * noise(shape, 5, rng) + 0.5 * noise(shape, 30, rng)
    picture *= (1 + grain * texture)[..., None]
    return picture


def _paint_streets(picture: Picture, street: Raster, rng: np.random.Generator) -> None:
    shape = street.shape
    ragged = 0.5 + 0.14 * noise(shape, 14, rng) + 0.10 * noise(shape, 4, rng)
    patches = np.clip(0.75 + 0.2 * noise(shape, 60, rng), 0.3, 0.95)
    for level, colour, blur_px in ((1, GRAVEL, 3.0), (2, SAND, 5.0), (2, TARMAC, 1.5)):
        near = cv2.GaussianBlur((street == level).astype(np.float32), (0, 0), blur_px)
        edge = np.clip((near - ragged * 0.8) * 4 + 0.5, 0, 1)
        blend(picture, colour, edge * patches)


def _heights_px(layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how long each building's shadow is, px."""
    tall = np.array([kind.endswith("block") for kind in layout.kinds])
    low = rng.uniform(5, 11, len(tall))
    terraces = np.array([kind == "terrace" for kind in layout.kinds])
    return np.where(tall, rng.uniform(14, 26, len(tall)), np.where(terraces, 8.5, low))


def _cast_shadows(
    picture: Picture, polygons: tuple[shapely.Polygon, ...], heights_px: NDArray[np.float64]
) -> None:
    shade = np.zeros(picture.shape[:2], np.uint8)
    for polygon, height in zip(polygons, heights_px, strict=True):
        rings = [np.asarray(r.coords) for r in (polygon.exterior, *polygon.interiors)]
        for step in np.arange(1.0, height + 2, 2.0):
            shift = np.multiply(SHADOW_STEP_XY, min(step, height)) - 0.5
            cv2.fillPoly(
                shade, [np.round((r + shift) * 16).astype(np.int32) for r in rings], 1, shift=4
            )
    soft = cv2.GaussianBlur(shade.astype(np.float32), (0, 0), 0.9)
    picture *= 1 - soft[..., None] * (1 - SHADOW_TINT)
    contact = cv2.GaussianBlur(shade.astype(np.float32), (0, 0), 6)
    picture *= 1 - 0.10 * contact[..., None]


def _expose(picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    shape = picture.shape[:2]
    grey = picture.mean(axis=2, keepdims=True)
    picture += FADE * (grey - picture)
    picture += HAZE * (HAZE_LEVEL - picture)
    picture *= (1 + 0.02 * noise(shape, 400, rng))[..., None]
    cv2.GaussianBlur(picture, (0, 0), BLUR_PX, dst=picture)
    shared = rng.standard_normal(shape, dtype=np.float32)
    for band in range(3):
        own = rng.standard_normal(shape, dtype=np.float32)
        picture[..., band] += NOISE_SD * (0.8 * shared + 0.6 * own)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
