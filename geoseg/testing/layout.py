"""Where a synthetic town's streets and buildings lie: geometry only, no pixels of the picture.

Frame: pixels of the town, points (x, y) on pixel edges, y down. Placement tests each candidate
against an occupancy raster, so its cost grows with the number of buildings, not its square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import cv2
import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Kind: TypeAlias = Literal[
    "block", "courtyard_block", "terrace", "l_shape", "house", "courtyard_house"
]
Raster: TypeAlias = "NDArray[np.uint8]"
Field: TypeAlias = "NDArray[np.float32]"

EDGE_MARGIN_PX = 6  # no building comes nearer to the town's edge
GAP_PX = 4.0  # least gap between buildings that do not share a wall
CELL_PX = 520.0  # main streets' spacing: the largest block fits between two
STREET_HALF_PX = 10.0
LANE_HALF_PX = 4.5
REFERENCE_AREA_PX = 2100.0**2  # the counts below are for a town of this area
N_BUILDINGS, N_BLOCKS, N_LARGE_BLOCKS, N_TERRACES, N_L_SHAPES = 900, 13, 4, 38, 80
TRIES = 60  # candidates drawn per building before it is given up
_SHIFT = 4  # OpenCV's fixed-point fraction bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Streets:
    """A gently bent street grid: streets where u or v is half a cell off a multiple of it."""

    angle: float
    phases: tuple[float, float]
    centre: float

    def uv(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Return the bent street coordinates of points, px."""
        x, y = x - self.centre, y - self.centre
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u, v = cos * x + sin * y, cos * y - sin * x
        bent_u = u + 26 * np.sin(v / 290 + self.phases[0])
        return bent_u, v + 26 * np.sin(u / 330 + self.phases[1])

    def angle_at(self, x: float, y: float) -> float:
        """Return the direction of the streets near a point, radians."""
        x, y = x - self.centre, y - self.centre
        v = np.cos(self.angle) * y - np.sin(self.angle) * x
        bend = 26 / 290 * np.cos(v / 290 + self.phases[0])
        return float(self.angle + np.arctan(bend))

    def cell_centres(self, size_px: int) -> NDArray[np.float64]:
        """Return the (x, y) of the street cells whose centre lies in the town, (N, 2)."""
        reach = int(size_px / CELL_PX) + 2
        k = np.arange(-reach, reach + 1) * CELL_PX
        u, v = (a.ravel() for a in np.meshgrid(k, k))
        u, v = u - 26 * np.sin(v / 290 + self.phases[0]), v - 26 * np.sin(u / 330 + self.phases[1])
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        xy = np.stack([cos * u - sin * v, sin * u + cos * v], axis=1) + self.centre
        return xy[((xy > 0) & (xy < size_px)).all(axis=1)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Buildings and streets of a town in its pixel frame."""

    polygons: tuple[shapely.Polygon, ...]
    kinds: tuple[Kind, ...]
    street: Raster
    """(H, W): 2 main street, 1 lane, 0 neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rect:
    """An oriented rectangle: a building's or a terrace's outline, px."""

    x: float
    y: float
    width: float
    height: float
    angle: float

    def at(self, s: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (x, y) of points at (s, t) of the sides, 0 to 1, (N, 2)."""
        a, b = (s - 0.5) * self.width, (t - 0.5) * self.height
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([self.x + cos * a - sin * b, self.y + sin * a + cos * b], axis=1)

    def corners(self, grow_px: float = 0.0) -> NDArray[np.float64]:
        """Return the four corners, each side moved out by `grow_px`, (4, 2)."""
        gs, gt = grow_px / self.width, grow_px / self.height
        s, t = np.array([-gs, 1 + gs, 1 + gs, -gs]), np.array([-gt, -gt, 1 + gt, 1 + gt])
        return self.at(s, t)


class _Plot:
    """The land of the town: what is taken, and what has been built."""

    def __init__(self, size_px: int, rng: np.random.Generator) -> None:
        self.size_px = size_px
        self.rng = rng
        self.taken = np.zeros((size_px, size_px), np.uint8)
        self.polygons: list[shapely.Polygon] = []
        self.kinds: list[Kind] = []

    def is_free(self, rect: _Rect) -> bool:
        """Tell whether the rectangle and a gap around it are free and inside the town."""
        corners = rect.corners(GAP_PX)
        lo, hi = corners.min(axis=0), corners.max(axis=0)
        if lo.min() < EDGE_MARGIN_PX or hi.max() > self.size_px - EDGE_MARGIN_PX:
            return False
        x, y = np.floor(lo).astype(int)
        w, h = np.ceil(hi).astype(int) - (x, y)
        stencil = np.zeros((h, w), np.uint8)
        cv2.fillConvexPoly(stencil, _fixed(corners - (x, y)), 1, shift=_SHIFT)
        return not (stencil & self.taken[y : y + h, x : x + w]).any()

    def build(self, polygon: shapely.Polygon, kind: Kind) -> None:
        """Add a building and take its land."""
        rings = [_fixed(np.asarray(r.coords)[:-1]) for r in (polygon.exterior, *polygon.interiors)]
        cv2.fillPoly(self.taken, rings, 1, shift=_SHIFT)
        self.polygons.append(polygon)
        self.kinds.append(kind)

    def find(self, draw: Callable[[], _Rect], tries: int = TRIES) -> _Rect | None:
        """Return the first drawn rectangle that is free, or None."""
        return next((r for r in (draw() for _ in range(tries)) if self.is_free(r)), None)


def lay_out(size_px: int, rng: np.random.Generator) -> Layout:
    """Lay out streets, blocks, terraces and houses on a square of `size_px`.

    Args:
        size_px: Side of the town, px.
        rng: The source of all choices.

    Returns:
        Buildings that share walls or keep a gap, never overlap, and keep off streets and edges.
    """
    streets = Streets(
        angle=rng.uniform(-0.5, 0.5), phases=tuple(rng.uniform(0, 6, 2)), centre=size_px / 2
    )
    share = size_px**2 / REFERENCE_AREA_PX
    plot = _Plot(size_px, rng)
    street = _paint_streets(streets, size_px)
    plot.taken |= street == 2
    _build_blocks(plot, streets, n=max(2, round(N_BLOCKS * share)), share=share)
    street[(street == 1) & (cv2.dilate(plot.taken, np.ones((9, 9), np.uint8)) > 0)] = 0
    plot.taken |= street > 0
    for _ in range(max(2, round(N_TERRACES * share))):
        _build_terrace(plot, streets)
    for _ in range(max(1, round(N_L_SHAPES * share))):
        _build_l_shape(plot, streets)
    for _ in range(round(N_BUILDINGS * share) - len(plot.polygons)):
        _build_house(plot, streets)
    return Layout(polygons=tuple(plot.polygons), kinds=tuple(plot.kinds), street=street)


def _paint_streets(streets: Streets, size_px: int) -> Raster:
    street = np.zeros((size_px, size_px), np.uint8)
    x = np.arange(size_px, dtype=np.float32)[None, :] + 0.5
    for top in range(0, size_px, 512):  # in strips: the coordinate fields are large
        y = np.arange(top, min(top + 512, size_px), dtype=np.float32)[:, None] + 0.5
        u, v = streets.uv(x, y)
        to_street, to_lane = (
            np.minimum(*(np.abs((w + at) % CELL_PX - CELL_PX / 2) for w in (u, v)))
            for at in (0.0, CELL_PX / 2)
        )
        strip = street[top : top + 512]
        strip[to_lane < LANE_HALF_PX] = 1
        strip[to_street < STREET_HALF_PX] = 2
    return street


def _build_blocks(plot: _Plot, streets: Streets, *, n: int, share: float) -> None:
    rng = plot.rng
    centres = rng.permutation(streets.cell_centres(plot.size_px))
    middle = int(np.argmin(np.abs(centres - plot.size_px / 2).sum(axis=1)))
    centres[[0, middle]] = centres[[middle, 0]]  # a small town's only whole cell comes first
    n_large = max(1, round(N_LARGE_BLOCKS * share)) if plot.size_px >= 500 else 0
    for i, (x, y) in enumerate(centres[:n]):
        low, high = (315, 400) if i < n_large else (120, 300)
        high = min(high, plot.size_px // 2 if i >= n_large else high)

        def draw(x: float = x, y: float = y, low: int = low, high: int = high) -> _Rect:
            width = rng.uniform(min(low, high - 1), high)
            dx, dy = rng.uniform(-60, 60, 2)
            angle = streets.angle_at(x, y) + rng.integers(4) * np.pi / 2
            height = max(width * rng.uniform(0.45, 0.9), 110)
            return _Rect(x=x + dx, y=y + dy, width=width, height=height, angle=angle)

        if rect := plot.find(draw):
            _build_block(plot, rect, with_courtyard=i % 2 == 0)


def _build_block(plot: _Plot, rect: _Rect, *, with_courtyard: bool) -> None:
    rng = plot.rng
    if not with_courtyard:
        plot.build(shapely.Polygon(rect.corners()), "block")
        return
    wall = rng.uniform(0.18, 0.3) * min(rect.width, rect.height)
    yard = rect.corners(-wall)
    plot.build(shapely.Polygon(rect.corners(), [yard]), "courtyard_block")

    def draw() -> _Rect:
        x, y = rect.at(*rng.uniform(0.3, 0.7, (2, 1)))[0]
        width, height = rng.uniform(14, 30, 2)
        return _Rect(x=x, y=y, width=width, height=height, angle=rng.uniform(0, np.pi))

    for _ in range(rng.integers(1, 4)):
        if house := plot.find(draw):
            plot.build(shapely.Polygon(house.corners()), "courtyard_house")


def _build_terrace(plot: _Plot, streets: Streets) -> None:
    rng = plot.rng

    def draw() -> _Rect:
        width, height = rng.integers(4, 11) * rng.uniform(20, 34), rng.uniform(30, 52)
        return _somewhere(plot, streets, width, height, any_angle=0.3)

    rect = plot.find(draw)
    if rect is None:
        return
    n = max(2, round(rect.width / rng.uniform(20, 34)))
    cuts = np.linspace(0, 1, n + 1)
    cuts[1:-1] += rng.uniform(-0.2, 0.2, n - 1) / n
    front, back = rect.at(cuts, np.zeros(n + 1)), rect.at(cuts, np.ones(n + 1))
    for k in range(n):  # neighbours use the very same two points: the wall is shared exactly
        ring = [front[k], front[k + 1], back[k + 1], back[k]]
        plot.build(shapely.Polygon(ring), "terrace")


def _build_l_shape(plot: _Plot, streets: Streets) -> None:
    rng = plot.rng
    rect = plot.find(lambda: _somewhere(plot, streets, *rng.uniform(36, 90, 2), any_angle=0.3))
    if rect is None:
        return
    s, t = 1 - rng.uniform(0.4, 0.6, 2)
    ring = rect.at(np.array([0, 1, 1, s, s, 0]), np.array([0, 0, t, t, 1, 1]))
    plot.build(shapely.Polygon(ring), "l_shape")


def _build_house(plot: _Plot, streets: Streets) -> None:
    rng = plot.rng

    def draw() -> _Rect:
        width = rng.uniform(14, 44)
        height = np.clip(width * rng.uniform(0.6, 1.0), 14, 44)
        return _somewhere(plot, streets, width, height, any_angle=0.35)

    if rect := plot.find(draw):
        plot.build(shapely.Polygon(rect.corners()), "house")


def _somewhere(
    plot: _Plot, streets: Streets, width: float, height: float, *, any_angle: float
) -> _Rect:
    """Draw a rectangle anywhere, along the streets but for a share of any angle."""
    rng = plot.rng
    x, y = rng.uniform(0, plot.size_px, 2)
    if rng.random() < any_angle:
        angle = rng.uniform(0, np.pi)
    else:
        angle = streets.angle_at(x, y) + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.04)
    return _Rect(x=x, y=y, width=width, height=height, angle=angle)


def _fixed(xy: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return edge coordinates as OpenCV's fixed-point pixel centres."""
    return np.round((xy - 0.5) * (1 << _SHIFT)).astype(np.int32)
