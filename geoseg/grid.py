"""Windows and georeferenced pixel grids: the coordinate algebra everything else stands on.

Frames: `Window` and all `*_px` values are pixel *edges* of one scene (pixel k spans [k, k+1)),
(row, col) order; `transform` maps pixel corners (x=col, y=row) to the CRS. Both types are immutable
and hold no pixels. Imports numpy, affine and pyproj only: no GDAL, no torch.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from affine import Affine
from pyproj import CRS, Geod, Transformer

from geoseg.errors import ConfigError, SceneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

METRES_PER_DEGREE: Final = 111_320.0
"""Along a meridian, or the equator; along a parallel it is less by the cosine of the latitude."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of whole pixels: rows [row_off, row_off+height), columns likewise."""

    row_off: int
    col_off: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ConfigError(
                f"a window must be at least 1x1 px, got height={self.height}, width={self.width}"
            )

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row_off + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col_off + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into an array that covers the whole scene."""
        return slice(self.row_off, self.row_stop), slice(self.col_off, self.col_stop)

    def intersection(self, other: Window) -> Window | None:
        """Return the shared rectangle, or None where the windows do not overlap."""
        row, col = max(self.row_off, other.row_off), max(self.col_off, other.col_off)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        if height < 1 or width < 1:
            return None
        return Window(row_off=row, col_off=col, height=height, width=width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A CRS, an affine transform and a shape: where every pixel of a scene lies on the ground."""

    crs: CRS
    transform: Affine
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise SceneError(f"a grid must be at least 1x1 px, got {self.height}x{self.width}")
        if not all(map(math.isfinite, self.transform)) or self.transform.determinant == 0:
            raise SceneError(f"the transform must be invertible, got {tuple(self.transform)[:6]}")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(min x, min y, max x, max y) in the CRS, true for rotated transforms too."""
        x, y = self._corners_xy()
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    @property
    def gsd_m(self) -> float:
        """Ground metres per pixel at the centre: the side of a square of one pixel's area.

        Geodesic for geographic CRSs; corrected for the scale of projections such as Web Mercator.
        """
        return math.sqrt(math.prod(self.pixel_size_m))

    @property
    def pixel_size_m(self) -> tuple[float, float]:
        """Ground metres of one pixel along its row (x) and its column (y), at the centre."""
        return _pixel_size_m(self)

    @property
    def window(self) -> Window:
        """The window that covers the whole grid."""
        return Window(row_off=0, col_off=0, height=self.height, width=self.width)

    def xy(
        self, rows: ArrayLike, cols: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return CRS coordinates of pixel-edge positions (rows, cols), elementwise."""
        t = self.transform
        rows, cols = np.asarray(rows, float), np.asarray(cols, float)
        return t.c + t.a * cols + t.b * rows, t.f + t.d * cols + t.e * rows

    def pixel_area_m2(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float64]:
        """Return the ground area of one pixel at the given positions, square metres."""
        x, y = self.xy(rows, cols)
        per_unit2 = _areal_scale(self.crs, x, y)
        return np.asarray(abs(self.transform.determinant) * per_unit2, float)

    def window_grid(self, window: Window) -> Self:
        """Return the grid of a window of this grid."""
        return type(self)(
            crs=self.crs,
            transform=self.transform @ Affine.translation(window.col_off, window.row_off),
            height=window.height,
            width=window.width,
        )

    def scaled(self, *, height: int, width: int) -> Self:
        """Return the grid of the same ground cut into `height` x `width` pixels."""
        scale = Affine.scale(self.width / width, self.height / height)
        return type(self)(
            crs=self.crs, transform=self.transform @ scale, height=height, width=width
        )

    def split(self, size_px: int, overlap_px: int) -> Iterator[tuple[int, int, Window, Window]]:
        """Yield (row, col, window, core) of overlapping windows, row by row.

        See `split_axis` for how the windows and cores of one axis are laid out.
        """
        rows = split_axis(self.height, size_px, overlap_px)
        cols = split_axis(self.width, size_px, overlap_px)
        for r, (y, h, core_y, core_h) in enumerate(rows):
            for c, (x, w, core_x, core_w) in enumerate(cols):
                window = Window(row_off=y, col_off=x, height=h, width=w)
                core = Window(row_off=core_y, col_off=core_x, height=core_h, width=core_w)
                yield r, c, window, core

    def _corners_xy(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = [0, 0, self.height, self.height]
        return self.xy(rows, [0, self.width, 0, self.width])


def split_axis(length: int, size_px: int, overlap_px: int) -> list[tuple[int, int, int, int]]:
    """Cut one axis into spans of `size_px` that overlap by at least `overlap_px`.

    The last span is shifted inward so that it ends where the axis ends: nothing is padded. An axis
    shorter than `size_px` is one short span. Cores meet in the middle of each overlap and partition
    the axis.

    Args:
        length: Length of the axis, px.
        size_px: Length of a span, px.
        overlap_px: Least overlap of neighbours, in [0, size_px).

    Returns:
        One (start, length, core start, core length) per span, in order, px.

    Raises:
        ConfigError: A size or overlap is out of range.

    Example:
        >>> split_axis(700, 300, 60)
        [(0, 300, 0, 270), (240, 300, 270, 200), (400, 300, 470, 230)]
    """
    if size_px < 1:
        raise ConfigError(f"size_px must be at least 1, got {size_px}")
    if not 0 <= overlap_px < size_px:
        raise ConfigError(f"overlap_px must be in [0, size_px={size_px}), got {overlap_px}")
    if length <= size_px:
        return [(0, length, 0, length)]
    starts = [*range(0, length - size_px, size_px - overlap_px), length - size_px]
    cuts = [0, *((a + size_px + b) // 2 for a, b in itertools.pairwise(starts)), length]
    return [
        (start, size_px, lo, hi - lo) for start, lo, hi in zip(starts, cuts, cuts[1:], strict=False)
    ]


def apply_transform(transform: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 2) points moved by a transform, each by itself: equal ones stay equal to the bit.

    A matrix product rounds by place, and overlays break on shared corners that differ by that.

    Example:
        >>> apply_transform(Affine(0.5, 0, 100, 0, -0.5, 40), np.array([[2.0, 4.0]])).tolist()
        [[101.0, 38.0]]
    """
    x, y = xy.T
    t = transform
    return np.column_stack([t.c + t.a * x + t.b * y, t.f + t.d * x + t.e * y])


def _pixel_size_m(grid: Grid) -> tuple[float, float]:
    row, col = grid.height / 2, grid.width / 2
    x, y = grid.xy([row, row, row - 0.5, row + 0.5], [col - 0.5, col + 0.5, col, col])
    lon, lat = _to_lonlat(grid.crs, x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise SceneError("the scene's centre does not lie on the Earth in its CRS: check both")
    _, _, metres = _geod(grid.crs).inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])
    if not (metres > 0).all():
        raise SceneError("pixels have no size on the ground: check the CRS and the transform")
    return float(metres[0]), float(metres[1])


def _areal_scale(crs: CRS, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return square metres on the ground per square CRS unit at (x, y).

    From the ground lengths of two short steps along the axes: exact to the step's curvature for
    every CRS alike, geographic or projected, whatever its unit.
    """
    step = 1e-5 if crs.is_geographic else 1.0 / _unit_m(crs)
    shape = np.shape(x)
    x, y = np.ravel(x), np.ravel(y)
    lon, lat = _to_lonlat(crs, np.r_[x, x + step, x], np.r_[y, y, y + step])
    geod = _geod(crs)
    (lon, lon_x, lon_y), (lat, lat_x, lat_y) = np.split(lon, 3), np.split(lat, 3)
    az_x, _, d_x = geod.inv(lon, lat, lon_x, lat_x)
    az_y, _, d_y = geod.inv(lon, lat, lon_y, lat_y)
    area = np.abs(np.asarray(d_x) * d_y * np.sin(np.radians(np.asarray(az_x) - az_y)))
    return np.asarray(area / (step * step), float).reshape(shape)


def _to_lonlat(
    crs: CRS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return degrees from the CRS's own prime meridian: lengths do not care which that is."""
    if not crs.is_geographic:
        x, y = _lonlat_transformer(crs).transform(x, y)
    degrees = _degrees_per_unit(crs)
    return np.asarray(x, float) * degrees, np.asarray(y, float) * degrees


@functools.lru_cache(maxsize=32)
def _degrees_per_unit(crs: CRS) -> float:
    """Return 1, or 0.9 for CRSs that stand on grads, such as France's old Lambert zones."""
    axes = (crs.geodetic_crs or crs).axis_info
    return round(math.degrees(axes[0].unit_conversion_factor), 12) if axes else 1.0


@functools.lru_cache(maxsize=32)
def _lonlat_transformer(crs: CRS) -> Transformer:
    geodetic = crs.geodetic_crs
    if geodetic is None:
        raise SceneError(f"the CRS must be tied to the Earth, got {crs.name!r}: assign a real CRS")
    return Transformer.from_crs(crs, geodetic, always_xy=True)


@functools.lru_cache(maxsize=32)
def _geod(crs: CRS) -> Geod:
    geod = crs.get_geod()
    if geod is None:
        raise SceneError(f"the CRS must be tied to the Earth, got {crs.name!r}: assign a real CRS")
    return geod


@functools.lru_cache(maxsize=32)
def _unit_m(crs: CRS) -> float:
    return float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
