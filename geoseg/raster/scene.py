"""A scene: windows of a raster as the network wants them, uint8 and three bands, on one grid.

Frame: `Scene.grid`, the working grid; what is read from the file is in `Scene.native_grid`, which
covers the same ground. Nothing is ever read whole. Must not import torch.
"""

from __future__ import annotations

import math
import threading
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import rasterio
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from geoseg.errors import ConfigError, ReadError, SceneError
from geoseg.grid import Grid, Window
from geoseg.raster.bands import BandPlan, dtype_of, plan_bands
from geoseg.raster.gdal import (
    CACHE_ROWS_PX,
    NORTH_UP_HINT,
    cache_bytes,
    limit_cache,
    open_dataset,
    open_options,
    overview_level,
    reason,
)
from geoseg.raster.resample import axis_taps, resample
from geoseg.raster.rescale import Rescale, to_uint8
from geoseg.raster.resolution import working_grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from geoseg.chips import Chip

MAX_READ_PX = 512  # source rows read at once when reducing, or those of one working row if more
STATISTICS_PX = 1024  # enough for percentiles; small enough to come from an overview


class Scene:
    """A raster that is read by windows, from any number of threads at once.

    Open one with `Scene.open`. Each handle serves one reader at a time; `close()` closes all.

    Attributes:
        path: Where the raster is: a path, a URL or anything else GDAL opens.
        scene_id: Name of the scene, carried into its footprints.
        grid: The working grid: the pixels the model sees; windows count in it.
        native_grid: The file's own pixels; the same object as `grid` where nothing is resampled.
        bands: The three bands read, 1-based.
        dtype: The file's dtype.
        rescale: The line from the file's values to 0-255, or None where they are taken as they are.
    """

    def __init__(
        self,
        *,
        path: str,
        scene_id: str,
        grid: Grid,
        native_grid: Grid,
        source_grid: Grid,
        level: int | None,
        plan: BandPlan,
        dtype: np.dtype[np.generic],
        options: dict[str, str],
        cache_bytes: int,
    ) -> None:
        self.path = path
        self.scene_id = scene_id
        self.grid = grid
        self.native_grid = native_grid
        self.bands = plan.bands
        self.dtype = dtype
        self.rescale: Rescale | None = None
        self._source_grid = source_grid
        self._level = level
        self._plan = plan
        self._options = options
        self._handles: list[DatasetReader] = []
        self._idle: list[DatasetReader] = []
        self._resources = ExitStack()
        self._resources.enter_context(limit_cache(cache_bytes))
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str,
        *,
        bands: Sequence[int] | None = None,
        rescale: Literal["auto"] | tuple[float, float] = "auto",
        gsd: Literal["auto", "native"] | float = "auto",
        gsd_range_m: tuple[float, float] | None = None,
        scene_id: str | None = None,
    ) -> Self:
        """Open a raster as a scene.

        Args:
            path: Anything rasterio opens: GeoTIFF, COG, VRT, `/vsicurl/...`, `https://`, `s3://`.
            bands: Three 1-based band numbers, repeats allowed; by default the first three that are
                not alpha, or a palette's colours.
            rescale: (MIN, MAX) of the file's values that become 0 and 255 in all bands; "auto"
                leaves uint8 as it is and takes the 2nd and 98th percentile of each band otherwise.
            gsd: "native", metres per pixel, or "auto": see `resolution.working_grid`.
            gsd_range_m: The ground resolutions the model knows, (least, greatest), m per pixel.
            scene_id: The file's stem by default.

        Raises:
            InputNotFoundError: No such local file.
            SceneError: Not a raster; or no CRS or geotransform; or bands or resolution do not fit.
            ConfigError: An option is out of its range.
            ReadError: The statistics for "auto" cannot be read.

        Warns:
            ResolutionWarning: The scene is read at a resolution outside `gsd_range_m`.
        """
        path = str(path)
        with rasterio.Env(**open_options(path)), open_dataset(path) as dataset:
            plan = plan_bands(dataset, bands)
            native = _grid_of(dataset)
            grid = working_grid(native, gsd, gsd_range_m, name=path)
            level, source = _source_of(dataset, native, grid)
            rows_px = math.ceil(CACHE_ROWS_PX * native.height / grid.height)
            scene = cls(
                path=path,
                scene_id=scene_id or PurePosixPath(path.split("?")[0]).stem,
                grid=grid,
                native_grid=native,
                source_grid=source,
                level=level,
                plan=plan,
                dtype=dtype_of(dataset, plan),
                options=open_options(path),
                cache_bytes=cache_bytes(dataset, rows_px=rows_px),
            )
        try:
            scene.rescale = scene._choose_rescale(rescale)
        except BaseException:
            scene.close()
            raise
        return scene

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all handles; reading afterwards is an error. May be repeated."""
        with self._lock:
            self._closed = True
            handles, self._handles, self._idle = self._handles, [], []
            resources = self._resources.pop_all()
        for handle in handles:
            handle.close()
        resources.close()

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a window of the working grid. Safe to call from several threads.

        A pixel has the same value in every window it is read with.

        Returns:
            Image (3, h, w), 0 where not valid; and valid (h, w), False on nodata.

        Raises:
            ReadError: The file is truncated or corrupt there, or the connection was lost.
            ConfigError: The window is not inside the working grid.
        """
        if window.intersection(self.grid.window) != window:
            raise ConfigError(
                f"a window must lie inside the scene of {self.grid.height}x{self.grid.width} px, "
                f"got {_place(window)}"
            )
        if self.grid is self.native_grid:
            pixels, valid = self._read_source(window)
            return self._to_uint8(pixels, valid), valid
        image = np.empty((3, window.height, window.width), np.uint8)
        valid = np.empty((window.height, window.width), np.bool_)
        step = max(1, int(MAX_READ_PX * self.grid.height / self._source_grid.height))
        for row in range(0, window.height, step):
            part = slice(row, row + step)
            image[:, part], valid[part] = self._read_resampled(
                Window(
                    row_off=window.row_off + row,
                    col_off=window.col_off,
                    height=min(step, window.height - row),
                    width=window.width,
                )
            )
        return image, valid

    def read_chip(self, chip: Chip) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a chip's window; see `read`."""
        return self.read(chip.window)

    def valid_fraction(self, window: Window) -> float:
        """Return the part of a window, in [0, 1], that holds data; it is read to know."""
        return float(self.read(window)[1].mean())

    def overview(self, max_px: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Grid]:
        """Return the whole scene, reduced so that no side is longer than `max_px`.

        From the file's overviews where it has them. For pictures: pixels are averaged, and valid
        is that of the nearest pixel.

        Returns:
            Image (H, W, 3), 0 where not valid; valid (H, W); and their grid.

        Raises:
            ReadError: The file cannot be read.
            ConfigError: `max_px` is less than 1.
        """
        if max_px < 1:
            raise ConfigError(f"max_px must be at least 1, got {max_px}")
        out_hw = _fit(self.grid, max_px)
        pixels, valid = self._read_source(self._source_grid.window, out_hw, Resampling.average)
        image = self._to_uint8(pixels, valid).transpose(1, 2, 0)
        grid = self.native_grid.scaled(height=out_hw[0], width=out_hw[1])
        return np.ascontiguousarray(image), valid, grid

    def _read_resampled(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        source, grid = self._source_grid, self.grid
        rows = axis_taps(window.row_off, window.height, n_source=source.height, n_out=grid.height)
        cols = axis_taps(window.col_off, window.width, n_source=source.width, n_out=grid.width)
        pixels, valid = self._read_source(
            Window(row_off=rows.start, col_off=cols.start, height=rows.length, width=cols.length)
        )
        mean, valid = resample(self._scaled(pixels, valid), valid, rows, cols)
        return to_uint8(mean), valid

    def _choose_rescale(self, rescale: Literal["auto"] | tuple[float, float]) -> Rescale | None:
        if not isinstance(rescale, str):
            return Rescale(low=(float(rescale[0]),) * 3, high=(float(rescale[1]),) * 3)
        if rescale != "auto":
            raise ConfigError(f"rescale must be auto or MIN,MAX, got {rescale!r}")
        if self.dtype == np.uint8:
            return None
        out_hw = _fit(self._source_grid, STATISTICS_PX)
        pixels, valid = self._read_source(self._source_grid.window, out_hw)
        return Rescale.from_pixels(pixels, valid)

    def _scaled(self, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        if self.rescale is None:
            return pixels.astype(np.float32)
        scaled = self.rescale.apply(pixels)
        if not valid.all():
            scaled[:, ~valid] = 0
        return scaled

    def _to_uint8(self, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        if self.rescale is None:
            return pixels.astype(np.uint8, copy=False)
        return to_uint8(self._scaled(pixels, valid))

    def _read_source(
        self,
        window: Window,
        out_hw: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        try:
            with self._dataset() as dataset:
                return self._plan.read(dataset, window, out_hw=out_hw, resampling=resampling)
        except (RasterioError, OSError) as error:
            raise ReadError(
                f"{self.path}: pixels of {_place(window)} must be readable, got: {reason(error)}; "
                "the file may be truncated or the connection lost"
            ) from error

    @contextmanager
    def _dataset(self) -> Iterator[DatasetReader]:
        """Lend a handle that no other reader has, with GDAL's options in force."""
        if self._closed:
            raise ConfigError(f"{self.path}: the scene is closed; open it again to read")
        with rasterio.Env(**self._options):
            with self._lock:
                dataset = self._idle.pop() if self._idle else None
            if dataset is None:
                dataset = open_dataset(self.path, overview_level=self._level)
                self._handles.append(dataset)
            try:
                yield dataset
            finally:
                self._idle.append(dataset)


def _grid_of(dataset: DatasetReader) -> Grid:
    """Return the dataset's own grid, or say what keeps it from having one."""
    name = dataset.name
    if dataset.count == 0:
        inside = f"; it holds several: give one of {dataset.subdatasets[:3]}"
        raise SceneError(f"{name}: no raster bands{inside if dataset.subdatasets else ''}")
    if dataset.transform.is_identity:
        by = "ground control points" if dataset.gcps[0] else "RPCs" if dataset.rpcs else None
        if by:
            raise SceneError(f"{name}: located by {by} only; {NORTH_UP_HINT}")
        raise SceneError(
            f"{name}: no geotransform, its place on the ground is unknown; "
            "set one: gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM file.tif"
        )
    if dataset.crs is None:
        raise SceneError(
            f"{name}: no CRS, its place on the ground is unknown; "
            "assign the one it was made in: gdal_edit.py -a_srs EPSG:XXXX file.tif"
        )
    try:
        crs = CRS.from_wkt(dataset.crs.to_wkt())
    except CRSError as error:
        raise SceneError(f"{name}: the CRS is not understood ({reason(error)})") from error
    return Grid(crs=crs, transform=dataset.transform, height=dataset.height, width=dataset.width)


def _source_of(dataset: DatasetReader, native: Grid, grid: Grid) -> tuple[int | None, Grid]:
    """Return the overview level to resample from, and its grid: the full resolution if None."""
    ratio = min(native.height / grid.height, native.width / grid.width)
    level = overview_level(dataset, ratio)
    if level is None:
        return None, native
    with open_dataset(dataset.name, overview_level=level) as overview:
        return level, native.scaled(height=overview.height, width=overview.width)


def _fit(grid: Grid, max_px: int) -> tuple[int, int]:
    factor = min(1.0, max_px / max(grid.height, grid.width))
    return max(1, round(grid.height * factor)), max(1, round(grid.width * factor))


def _place(window: Window) -> str:
    return f"rows {window.row_off}-{window.row_stop}, columns {window.col_off}-{window.col_stop}"
