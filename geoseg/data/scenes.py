"""Scenes with outlines as training data: windows at random places, scales and angles.

Nothing is cut beforehand and no chip lies on disk; a window is read when it is drawn. Frames:
outlines are kept in native pixels of the scene, samples are in pixels of their chip, both (x, y)
with pixel edges. Must not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import cv2
import numpy as np
import shapely

from geoseg.data.samples import LEAST_OBJECT_PX, Sample
from geoseg.errors import ConfigError, VectorError
from geoseg.frames import to_px
from geoseg.grid import Window
from geoseg.raster import Scene, rasterize_polygons
from geoseg.vector import read_vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.grid import Grid

LEAST_VISIBLE_SHARE = 0.08  # of an object's own area


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions:
    """How windows are drawn from a scene."""

    size_px: int = 300
    """Side of a chip."""
    gsd_range_m: tuple[float, float] | None = None
    """Ground metres per pixel, drawn log-uniformly; None keeps the scene's own."""
    near_object: float = 0.85
    """Share of windows placed around an object rather than anywhere, in [0, 1]."""
    rotate: float = 0.5
    """Share of windows turned by any angle; the others keep the pixels' axes."""

    def __post_init__(self) -> None:
        if not 32 <= self.size_px <= 4096:
            raise ConfigError(f"size_px must be in [32, 4096], got {self.size_px}")
        finest, coarsest = self.gsd_range_m or (1.0, 1.0)
        if not 0 < finest <= coarsest < math.inf:
            raise ConfigError(f"gsd_range_m must be (finest, coarsest), got {self.gsd_range_m}")
        for name in ("near_object", "rotate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a chip lies in a scene: its centre, scale and angle."""

    x: float
    """Of the centre, native px."""
    y: float
    scale_x: float
    """Native pixels per chip pixel along the scene's x."""
    scale_y: float
    angle_rad: float = 0.0

    def to_native(self, size_px: int) -> NDArray[np.float64]:
        """Return the (2, 3) matrix from chip px to native px, pixel edges."""
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        scale = np.array([[self.scale_x], [self.scale_y]])
        linear = scale * np.array([[cos, -sin], [sin, cos]])
        centre = np.array([self.x, self.y]) - linear @ np.full(2, size_px / 2)
        return np.column_stack([linear, centre])


class Pixels(Protocol):
    """Where a scene's pixels come from; must survive being sent to another process."""

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return image (3, h, w) and valid (h, w) of a window of the native grid."""
        ...


class RasterPixels:
    """A raster's pixels; it is opened on first use in each process.

    Args:
        path: As for `Scene.open`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._scene: Scene | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_scene": None}

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return image (3, h, w) and valid (h, w) of a window of the native grid."""
        if self._scene is None:
            self._scene = Scene.open(self.path, gsd="native")
        return self._scene.read(window)


class LabelledScene:
    """A scene with outlines, or a part of one, as a source of samples.

    Attributes:
        pixels: Where its pixels come from.
        grid: The scene's native grid.
        polygons: (N,) outlines in native px.
        bounds_px: (left, top, right, bottom) that windows keep inside, native px.
    """

    def __init__(
        self,
        *,
        pixels: Pixels,
        grid: Grid,
        polygons: NDArray[np.object_],
        bounds_px: tuple[float, float, float, float],
        options: WindowOptions,
    ) -> None:
        self.pixels = pixels
        self.grid = grid
        self.polygons = polygons
        self.bounds_px = bounds_px
        self.options = options
        self._gsd_m = grid.gsd_m  # a grid works its pixels' sizes out each time
        self._pixel_size_m = grid.pixel_size_m
        self._tree = shapely.STRtree(polygons)
        inside = shapely.contains(shapely.box(*bounds_px), shapely.centroid(polygons))
        self._near = polygons[inside]

    @classmethod
    def open(
        cls,
        path: str,
        labels: str,
        *,
        part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
        options: WindowOptions | None = None,
    ) -> Self:
        """Open a scene and its outlines.

        Args:
            path: Raster, as for `Scene.open`.
            labels: Vector file of outlines, any CRS.
            part: (left, top, right, bottom) of the scene that may be seen, as shares of its width
                and height: what lies beyond stays unseen, for validation.
            options: How windows are drawn.

        Raises:
            ConfigError: `part` is no part of the scene.
            VectorError: The labels cannot be read or do not touch the part.
            SceneError: The raster cannot be used.
        """
        options = options or WindowOptions()
        left, top, right, bottom = part
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ConfigError(f"part must be left, top, right, bottom in [0, 1], got {part}")
        with Scene.open(path, gsd="native") as scene:
            grid = scene.grid
        polygons = outlines_px(labels, grid)
        edges = np.array(part) * [grid.width, grid.height, grid.width, grid.height]
        bounds = (float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3]))
        polygons = polygons[shapely.intersects(polygons, shapely.box(*bounds))]
        if not len(polygons):
            raise VectorError(f"{labels} must hold outlines that touch {path}, none does")
        return cls(
            pixels=RasterPixels(path),
            grid=grid,
            polygons=polygons,
            bounds_px=bounds,
            options=options,
        )

    def __len__(self) -> int:
        """Return how many chips of the finest resolution cover the part, at least 1."""
        left, top, right, bottom = self.bounds_px
        scale_x, scale_y = self._scales(self._finest_m())
        area = (right - left) / scale_x * (bottom - top) / scale_y
        return max(1, round(area / self.options.size_px**2))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return a window drawn by chance alone."""
        return self.cut(self._place(rng))

    def tiles(self, gsd_m: float, *, step: float = 1.0) -> list[Placement]:
        """Return chips that cover the part at one resolution, row by row, none beyond it.

        They overlap as little as the part's size allows; a part smaller than a chip is one chip.

        Args:
            gsd_m: Ground metres per pixel.
            step: Most that neighbours are apart, in sides of a chip.
        """
        scale_x, scale_y = self._scales(gsd_m)
        left, top, right, bottom = self.bounds_px
        xs = _centres(left, right, self.options.size_px * scale_x, step)
        ys = _centres(top, bottom, self.options.size_px * scale_y, step)
        return [Placement(x=x, y=y, scale_x=scale_x, scale_y=scale_y) for y in ys for x in xs]

    def cut(self, place: Placement) -> Sample:
        """Return the chip at a place: pixels, and the masks of the outlines there.

        Raises:
            ReadError: The raster cannot be read there.
        """
        size = self.options.size_px
        matrix = place.to_native(size)
        image = self._read(place, matrix)
        masks = self._masks(matrix)
        gsd_m = math.sqrt(place.scale_x * place.scale_y) * self._gsd_m
        return Sample(image=image, masks=masks, labels=np.ones(len(masks), np.int64), gsd_m=gsd_m)

    def _finest_m(self) -> float:
        return self.options.gsd_range_m[0] if self.options.gsd_range_m else self._gsd_m

    def _scales(self, gsd_m: float) -> tuple[float, float]:
        across_m, down_m = self._pixel_size_m
        return gsd_m / across_m, gsd_m / down_m

    def _place(self, rng: np.random.Generator) -> Placement:
        options = self.options
        finest, coarsest = options.gsd_range_m or (self._gsd_m,) * 2
        gsd_m = math.exp(rng.uniform(math.log(finest), math.log(coarsest)))
        scale_x, scale_y = self._scales(gsd_m)
        angle = rng.uniform(-math.pi, math.pi) if rng.random() < options.rotate else 0.0
        left, top, right, bottom = self.bounds_px
        reach = options.size_px / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
        if min((right - left) / scale_x, (bottom - top) / scale_y) < 2 * reach:
            angle, reach = 0.0, options.size_px / 2
        x, y = self._centre(rng, options.size_px * scale_x, options.size_px * scale_y)
        return Placement(
            x=_clamped(x, left + reach * scale_x, right - reach * scale_x),
            y=_clamped(y, top + reach * scale_y, bottom - reach * scale_y),
            scale_x=scale_x,
            scale_y=scale_y,
            angle_rad=angle,
        )

    def _centre(self, rng: np.random.Generator, width: float, height: float) -> tuple[float, float]:
        if len(self._near) and rng.random() < self.options.near_object:
            point = shapely.centroid(self._near[int(rng.integers(len(self._near)))])
            shift = rng.uniform(-0.45, 0.45, size=2)
            return float(point.x + shift[0] * width), float(point.y + shift[1] * height)
        left, top, right, bottom = self.bounds_px
        return float(rng.uniform(left, right)), float(rng.uniform(top, bottom))

    def _read(self, place: Placement, matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return (3, size, size): read what lies under the chip, reduce it, then turn it."""
        size = self.options.size_px
        corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) @ matrix[:, :2].T
        corners += matrix[:, 2]
        lows = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 2, 0)
        highs = np.ceil(corners.max(axis=0)).astype(int) + 2
        highs = np.minimum(highs, [self.grid.width, self.grid.height])
        if (highs <= lows).any():
            return np.zeros((3, size, size), np.uint8)
        width, height = (highs - lows).tolist()
        window = Window(row_off=int(lows[1]), col_off=int(lows[0]), height=height, width=width)
        native, _ = self.pixels.read(window)
        pixels = np.ascontiguousarray(native.transpose(1, 2, 0))
        # Reduced by area first: turning takes four neighbours only, which would alias.
        reduced = (
            max(1, round(width / max(1, place.scale_x))),
            max(1, round(height / max(1, place.scale_y))),
        )
        if reduced != (width, height):
            pixels = np.asarray(cv2.resize(pixels, reduced, interpolation=cv2.INTER_AREA), np.uint8)
        to_reduced = np.diag([reduced[0] / width, reduced[1] / height])
        linear = to_reduced @ matrix[:, :2]
        shift = to_reduced @ (matrix[:, 2] - lows)
        # OpenCV counts from pixel centres, we from edges.
        shift = shift + linear @ np.full(2, 0.5) - 0.5
        turned = cv2.warpAffine(
            pixels,
            np.column_stack([linear, shift]),
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        return np.ascontiguousarray(turned.transpose(2, 0, 1))

    def _masks(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        size = self.options.size_px
        frame = shapely.transform(
            shapely.box(0, 0, size, size), lambda xy: xy @ matrix[:, :2].T + matrix[:, 2]
        )
        found = self.polygons[np.sort(self._tree.query(frame, predicate="intersects"))]
        inverse = np.linalg.inv(matrix[:, :2])
        moved = shapely.transform(found, lambda xy: (xy - matrix[:, 2]) @ inverse.T)
        return instance_masks(np.asarray(moved, object), (size, size))


def outlines_px(labels: str, grid: Grid) -> NDArray[np.object_]:
    """Read outlines and return their polygons (N,) in pixels of a grid, parts of one as several.

    Raises:
        VectorError: They cannot be read, or are no areas.
    """
    frame = read_vector(labels, crs=grid.crs)
    parts = shapely.get_parts(shapely.make_valid(frame.geometry.to_numpy()))
    parts = shapely.get_parts(parts)
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    if not len(parts):
        raise VectorError(f"{labels} must hold polygons, it holds none")
    return to_px(parts, grid)


def instance_masks(polygons: NDArray[np.object_], shape_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return masks (N, H, W) of polygons in chip px; what is hardly in the chip has none.

    Where polygons overlap, a pixel belongs to the later one.
    """
    ids = rasterize_polygons(polygons, shape_hw)
    seen_px = np.bincount(ids.ravel(), minlength=len(polygons) + 1)[1:]
    least_px = np.maximum(LEAST_OBJECT_PX, LEAST_VISIBLE_SHARE * shapely.area(polygons))
    kept = np.flatnonzero(seen_px >= least_px) + 1
    masks: NDArray[np.bool_] = ids[None] == kept[:, None, None]
    return masks


def _centres(low: float, high: float, side: float, step: float) -> list[float]:
    room = high - low - side
    if room <= 0:
        return [(low + high) / 2]
    count = math.ceil(room / (side * step) - 1e-6) + 1
    return [float(v) for v in np.linspace(low + side / 2, high - side / 2, count)]


def _clamped(value: float, low: float, high: float) -> float:
    return (low + high) / 2 if low > high else min(max(value, low), high)
