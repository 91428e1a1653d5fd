"""Roofs of the synthetic town: corrugated metal, tiles and concrete, lit from the upper left.

Frame: pixels of the town, (row, col). Each roof is painted in the window of its own building, in
coordinates along (s) and across (t) its first wall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import shapely
    from numpy.typing import NDArray

    from geoseg.testing.layout import Layout

    Field = NDArray[np.float32]
    Mask = NDArray[np.bool_]

LIGHT_XY = np.array([-0.78, -0.62])  # towards the sun
METAL = ((206, 210, 214), (182, 188, 194), (158, 162, 166), (222, 222, 218), (140, 146, 154))
RUST = ((146, 92, 66), (160, 104, 76), (128, 84, 64), (176, 122, 92))
PAINTED = ((66, 108, 168), (84, 130, 184), (150, 66, 56), (88, 128, 100), (60, 90, 140))
TILES = ((172, 100, 72), (158, 86, 64), (186, 118, 86))
CONCRETE = ((176, 172, 164), (192, 186, 176), (160, 156, 150), (204, 198, 190))
TANKS = ((40, 42, 46), (62, 120, 180), (70, 140, 96), (210, 206, 196))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Site:
    """One building's window: its mask and coordinates."""

    inside: Mask
    s: Field
    """Along the first wall, px from the building's middle."""
    t: Field
    """Across it."""
    depth: Field
    """Distance to the nearest wall, px."""
    along_xy: NDArray[np.float64]
    half_t: float


def paint_roofs(
    picture: Field, layout: Layout, ids: NDArray[np.int32], rng: np.random.Generator
) -> None:
    """Paint every building's roof over the picture, in place.

    Args:
        picture: (H, W, 3).
        layout: The buildings.
        ids: (H, W), k + 1 where the k-th building is.
        rng: The source of all choices.
    """
    row_colour: NDArray[np.float32] | None = None
    for k, (polygon, kind) in enumerate(zip(layout.polygons, layout.kinds, strict=True)):
        x0, y0, x1, y1 = polygon.bounds
        window = (slice(int(y0), int(y1) + 2), slice(int(x0), int(x1) + 2))
        site = _survey(polygon, ids[window] == k + 1, window)
        roof, row_colour = _roof(site, kind, rng, row_colour)
        patch = picture[window]
        patch[site.inside] = roof[site.inside]


def _survey(polygon: shapely.Polygon, inside: Mask, window: tuple[slice, slice]) -> _Site:
    first, second = np.asarray(polygon.exterior.coords)[:2]
    along = (second - first) / np.hypot(*(second - first))
    middle = np.asarray(polygon.minimum_rotated_rectangle.centroid.coords)[0]
    y, x = (np.arange(w.start, w.stop, dtype=np.float32) + 0.5 for w in window)
    y, x = y[: inside.shape[0], None] - middle[1], x[None, : inside.shape[1]] - middle[0]
    s, t = x * along[0] + y * along[1], y * along[0] - x * along[1]
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]
    if np.ptp(s[inside]) < np.ptp(t[inside]):  # s runs along the longer side
        s, t, along = t, -s, np.array([-along[1], along[0]])
    half_t = float(np.abs(t[inside]).max())
    return _Site(inside=inside, s=s, t=t, depth=depth, along_xy=along, half_t=half_t)


def _roof(
    site: _Site, kind: str, rng: np.random.Generator, row_colour: Field | None
) -> tuple[Field, Field]:
    """Return the roof's colours (h, w, 3), and its base colour for the next house in a row."""
    material = _material(kind, rng)
    base = _base_colour(material, rng)
    if kind == "terrace" and row_colour is not None and rng.random() < 0.6:
        base = row_colour * rng.uniform(0.92, 1.08)
    light = _flat(site, rng) if material == "concrete" else _pitched(site, kind, rng)
    if material != "concrete":
        light *= _corrugation(site, rng, deep=material == "tiles")
    light *= (
        1 + 0.035 * _cloth(site.inside.shape, 1.6, rng) + 0.035 * _cloth(site.inside.shape, 9, rng)
    )
    roof = base * light[..., None]
    if material in {"metal", "rust"}:
        _add_rust(roof, site, rng, heavy=material == "rust")
    if material == "concrete":
        _stain(roof, site, rng)
        _add_tanks(roof, site, rng)
    roof[site.inside & (site.depth < 1.4)] *= 0.8  # the eave's dark line
    return roof, base


def _material(kind: str, rng: np.random.Generator) -> str:
    shares = {"concrete": 0.24, "metal": 0.38, "rust": 0.16, "painted": 0.1, "tiles": 0.12}
    if kind.endswith("block"):
        shares = {"concrete": 0.45, "metal": 0.2, "rust": 0.15, "painted": 0.05, "tiles": 0.15}
    return str(rng.choice(list(shares), p=list(shares.values())))


def _base_colour(material: str, rng: np.random.Generator) -> Field:
    palettes = {
        "concrete": CONCRETE, "metal": METAL, "rust": RUST, "painted": PAINTED, "tiles": TILES
    }  # fmt: skip
    palette = palettes[material]
    colour = np.array(palette[rng.integers(len(palette))], np.float32)
    return np.asarray(colour * rng.uniform(0.9, 1.1) + rng.normal(0, 1.8, 3), np.float32)


def _pitched(site: _Site, kind: str, rng: np.random.Generator) -> Field:
    """Return how bright each slope is: gable, single pitch, or hip by the nearest wall."""
    across = np.array([-site.along_xy[1], site.along_xy[0]])
    facing = float(across @ LIGHT_XY)
    if kind in {"courtyard_block", "l_shape"} or (kind == "house" and rng.random() < 0.25):
        return _hipped(site)
    if kind == "house" and rng.random() < 0.3:
        return np.full(site.inside.shape, 1 + 0.1 * facing, np.float32)
    slope = np.clip(site.t / 0.8, -1, 1)
    light = 1 + 0.17 * facing * slope
    light[np.abs(site.t) < 0.8] *= 1.08  # the ridge cap catches light
    return np.asarray(light, np.float32)


def _hipped(site: _Site) -> Field:
    smooth = cv2.GaussianBlur(site.depth, (0, 0), 1.5)
    gy, gx = np.gradient(smooth)
    norm = np.maximum(np.hypot(gx, gy), 0.35)
    down = -(gx * LIGHT_XY[0] + gy * LIGHT_XY[1]) / norm  # slopes fall towards the nearest wall
    ridge = np.hypot(gx, gy) < 0.45
    light = cv2.GaussianBlur((1 + 0.17 * down).astype(np.float32), (0, 0), 0.7)
    light[ridge & (site.depth > 3)] *= 1.05
    return np.asarray(light, np.float32)


def _flat(site: _Site, rng: np.random.Generator) -> Field:
    """Return a flat roof's brightness: parapet lit, its inner foot in shadow on the sun's side."""
    light = np.ones(site.inside.shape, np.float32)
    wide = 2.6 if site.half_t > 14 else 1.8
    light[site.depth < wide] = 1.16
    throw = rng.uniform(1.5, 3.0)
    if site.half_t > 40:  # large roofs are built in bays
        bay = rng.uniform(45, 80)
        joint = np.minimum(np.abs(site.s % bay - bay / 2), np.abs(site.t % bay - bay / 2))
        light[(joint < 0.8) & (site.depth > wide)] = 0.87
    shift = np.array([[1, 0, -LIGHT_XY[0] * throw], [0, 1, -LIGHT_XY[1] * throw]])
    size = site.depth.shape[::-1]
    moved = cv2.warpAffine(site.depth, shift, size)
    light[(moved < wide) & (site.depth >= wide)] = 0.72
    return light


def _corrugation(site: _Site, rng: np.random.Generator, *, deep: bool) -> Field:
    """Return the fine stripes of sheets down the slope, and the seams between sheets."""
    period = rng.uniform(2.6, 4.2)
    stripes = np.sin(2 * np.pi * (site.s if not deep else site.t) / period)
    sheet = np.floor(site.s / rng.uniform(9, 16) + rng.random()).astype(np.int64)
    course = np.floor(site.t / rng.uniform(16, 30) + rng.random()).astype(np.int64)
    tone = rng.normal(0, 0.045, 64)[(sheet * 7 + course * 13) % 64]
    return np.asarray(1 + (0.05 if deep else 0.035) * stripes + tone, np.float32)


def _add_rust(roof: Field, site: _Site, rng: np.random.Generator, *, heavy: bool) -> None:
    amount = rng.uniform(0.3, 0.7) if heavy else max(rng.normal(-0.25, 0.4), 0)
    field = 0.6 * _cloth(site.inside.shape, 14, rng) + 0.5 * _cloth(site.inside.shape, 4, rng)
    weight = np.clip(field + amount - 0.5, 0, 0.28 if heavy else 0.6) * (amount > 0)
    target = np.array((196, 178, 164) if heavy else (136, 88, 62), np.float32)
    roof += weight[..., None] * (target - roof)


def _stain(roof: Field, site: _Site, rng: np.random.Generator) -> None:
    dirt = 0.5 * _cloth(site.inside.shape, 22, rng) + 0.4 * _cloth(site.inside.shape, 6, rng)
    roof *= (1 - 0.16 * np.clip(dirt, 0, 1.5))[..., None]


def _add_tanks(roof: Field, site: _Site, rng: np.random.Generator) -> None:
    """Put water tanks and stair heads on a flat roof, each with its shadow."""
    rows, cols = np.nonzero(site.depth > 7)
    for _ in range(min(int(rng.poisson(len(rows) / 1100)), 24) if len(rows) else 0):
        pick = rng.integers(len(rows))
        x, y, radius = int(cols[pick]), int(rows[pick]), int(rng.integers(2, 4))
        colour = tuple(float(c) for c in TANKS[rng.integers(len(TANKS))])
        cv2.circle(roof, (x + 2, y + 2), radius, (70, 70, 74), -1, cv2.LINE_AA)
        cv2.circle(roof, (x, y), radius, colour, -1, cv2.LINE_AA)
        cv2.circle(roof, (x - 1, y - 1), 1, tuple(min(c * 1.25, 245) for c in colour), -1)


def _cloth(shape_hw: tuple[int, int], scale_px: float, rng: np.random.Generator) -> Field:
    """Return smooth noise for one roof, features `scale_px` wide."""
    height, width = shape_hw
    coarse = (int(height / scale_px) + 2, int(width / scale_px) + 2)
    field = rng.standard_normal(coarse, dtype=np.float32)
    return np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR))
