"""Mask rasters: instance ids or probabilities on a scene's grid, as a cloud-optimised GeoTIFF.

Written by windows into a sparse, tiled work file beside the result, which is then copied into a
COG: memory is GDAL's bounded block cache, whatever the scene's size. Frame: pixels of the grid.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window as RioWindow

from geoseg.errors import ConfigError
from geoseg.files import check_output, hidden_folder, move, output_errors
from geoseg.frames import to_px
from geoseg.raster.gdal import CACHE_MIN_BYTES, GDAL_ERRORS, limit_cache, no_cache
from geoseg.raster.images import TIFF_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from rasterio.io import DatasetWriter

    from geoseg.grid import Grid, Window

SOFT_HALF = 128  # a soft mask's 0.5 in uint8
TILE_PX = 512
RASTERIZE_PX = 2048  # ids of one block: 16 MB
MAX_ID = 2**31 - 1


class MaskWriter:
    """Burns instances into a mask raster, one window at a time.

    A context manager: the raster appears under its name at the end, or not at all.

    Args:
        path: The GeoTIFF to write.
        grid: Its grid.
        kind: "ids" writes int32 instance ids, 0 where there is none; "probability" writes uint8.

    Raises:
        OutputError: The path cannot be written; nothing is left behind.
    """

    def __init__(
        self, path: str | Path, grid: Grid, kind: Literal["ids", "probability"] = "ids"
    ) -> None:
        if kind not in {"ids", "probability"}:
            raise ConfigError(f"kind must be ids or probability, got {kind!r}")
        self._path = check_output(path, TIFF_SUFFIXES)
        self._grid = grid
        self._kind = kind
        self._dataset: DatasetWriter | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(limit_cache(CACHE_MIN_BYTES))
            self._folder = stack.enter_context(hidden_folder(self._path))
            with output_errors(self._path, *GDAL_ERRORS):
                self._dataset = _create(self._folder / "work.tif", self._grid, self._kind)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        dataset, self._dataset = self._open(), None
        with self._resources, output_errors(self._path, *GDAL_ERRORS):
            try:
                if error is None:
                    _flush(dataset)
            finally:
                dataset.close()
            if error is None:
                new = self._folder / "new.tif"
                _copy_to_cog(self._folder / "work.tif", new, self._kind)
                _read_back(new)
                move(new, self._path)

    def burn(self, window: Window, soft: NDArray[np.uint8], value: int = 1) -> None:
        """Burn one instance's soft mask.

        Args:
            window: Where the mask lies, px of the grid; parts beyond the grid are cut off.
            soft: (window.height, window.width) probability in 1/255.
            value: The instance's id; later ids win over earlier ones. Not used for probability,
                where the greater one wins.

        Raises:
            ConfigError: The mask does not have the window's shape, or the id is not positive.
            OutputError: Writing failed.
        """
        if soft.shape != (window.height, window.width) or soft.dtype != np.uint8:
            raise ConfigError(
                f"soft must be uint8 ({window.height}, {window.width}), "
                f"got {soft.dtype} {soft.shape}"
            )
        _check_ids([value])
        inside = window.intersection(self._grid.window)
        if inside is None:
            return
        row, col = inside.row_off - window.row_off, inside.col_off - window.col_off
        part = soft[row : row + inside.height, col : col + inside.width]
        with output_errors(self._path, *GDAL_ERRORS):
            dataset, area = self._open(), _rio(inside)
            before = dataset.read(1, window=area)
            if self._kind == "ids":
                after = np.where(part >= SOFT_HALF, np.int32(value), before)
            else:
                after = np.maximum(before, part)
            dataset.write(after, 1, window=area)

    def write(self, window: Window, values: NDArray[np.int32] | NDArray[np.uint8]) -> None:
        """Write finished pixels of a window inside the grid, replacing what is there.

        Raises:
            OutputError: Writing failed.
        """
        with output_errors(self._path, *GDAL_ERRORS):
            self._open().write(values, 1, window=_rio(window))

    def renumber(self, numbers: NDArray[np.int32]) -> None:
        """Give the ids burnt so far other numbers, 0 for none.

        Args:
            numbers: (highest id + 1,) the new number of each id; that of 0 is 0.

        Raises:
            OutputError: Writing failed.
        """
        if np.array_equal(numbers, np.arange(len(numbers))):
            return
        with output_errors(self._path, *GDAL_ERRORS):
            dataset = self._open()
            for _, area in dataset.block_windows(1):
                before = dataset.read(1, window=area)
                if before.any():
                    dataset.write(numbers[before], 1, window=area)

    def _open(self) -> DatasetWriter:
        assert self._dataset is not None, "a writer is used inside its `with` block"
        return self._dataset


def rasterize_footprints(
    path: str | Path,
    grid: Grid,
    geometries: Sequence[shapely.Geometry] | NDArray[np.object_],
    ids: Sequence[int] | NDArray[np.integer],
) -> None:
    """Write finished footprints as a raster of ids: pixels whose centre is inside; later ones win.

    Args:
        path: The GeoTIFF to write.
        grid: Its grid.
        geometries: Polygons in the grid's CRS.
        ids: One positive int32 per polygon.

    Raises:
        OutputError: The file cannot be written; nothing is left behind.
        ConfigError: Ids and geometries do not match, or an id is not positive.
    """
    if len(geometries) != len(ids):
        raise ConfigError(f"ids must be one per geometry ({len(geometries)}), got {len(ids)}")
    _check_ids(ids)
    # In pixels, so that a window's transform is whole numbers and blocks meet without a seam.
    in_px = to_px(np.asarray(geometries, object), grid)
    tree = shapely.STRtree(in_px)
    with MaskWriter(path, grid, "ids") as writer:
        for _, _, block, _ in grid.split(RASTERIZE_PX, 0):
            box = shapely.box(block.col_off, block.row_off, block.col_stop, block.row_stop)
            hits = np.sort(tree.query(box))
            if hits.size == 0:
                continue
            values = rasterize(
                ((in_px[i], int(ids[i])) for i in hits),
                out_shape=(block.height, block.width),
                transform=Affine.translation(block.col_off, block.row_off),
                dtype="int32",
            )
            writer.write(block, values)


def rasterize_polygons(
    polygons: NDArray[np.object_], shape_hw: tuple[int, int]
) -> NDArray[np.int32]:
    """Return the number, from 1, of the polygon that holds each pixel's centre; later ones win.

    Args:
        polygons: (N,) polygons in pixels, points (x, y), pixel edges.
        shape_hw: (H, W) of the result.

    Returns:
        (H, W), 0 where there is none.

    Example:
        >>> rasterize_polygons(np.array([shapely.box(1, 0, 3, 1)]), (2, 3)).tolist()
        [[0, 1, 1], [0, 0, 0]]
    """
    filled = ~shapely.is_empty(polygons)
    if not filled.any():
        return np.zeros(shape_hw, np.int32)
    numbers = np.arange(1, len(polygons) + 1)
    burnt: NDArray[np.int32] = rasterize(
        zip(polygons[filled], numbers[filled].tolist(), strict=True),
        out_shape=shape_hw,
        dtype="int32",
    )
    return burnt


def _create(path: Path, grid: Grid, kind: Literal["ids", "probability"]) -> DatasetWriter:
    return rasterio.open(
        path,
        "w+",
        driver="GTiff",
        count=1,
        dtype="int32" if kind == "ids" else "uint8",
        nodata=0 if kind == "ids" else None,
        height=grid.height,
        width=grid.width,
        crs=grid.crs.to_wkt(),
        transform=grid.transform,
        tiled=True,
        blockxsize=TILE_PX,
        blockysize=TILE_PX,
        compress="deflate",
        zlevel=1,
        sparse_ok=True,
        bigtiff="if_safer",
    )


def _flush(dataset: DatasetWriter) -> None:
    """Write all that is cached, and raise if that fails, which closing would not tell."""
    corner = RioWindow(0, 0, 1, 1)
    for _ in range(2):  # the second turn tells how the first one's own block fared
        with no_cache():
            dataset.write(dataset.read(1, window=corner), 1, window=corner)


def _copy_to_cog(work: Path, path: Path, kind: Literal["ids", "probability"]) -> None:
    rasterio.shutil.copy(
        work,
        path,
        driver="COG",
        compress="DEFLATE",
        blocksize=TILE_PX,
        overview_resampling="NEAREST" if kind == "ids" else "AVERAGE",
        bigtiff="IF_SAFER",
    )


def _read_back(path: Path) -> None:
    """Read every block of a new file: its driver may say nothing of a disk that was full."""
    with rasterio.open(path) as dataset:
        levels = [None, *range(len(dataset.overviews(1)))]
    for level in levels:
        options = {} if level is None else {"overview_level": level}
        with rasterio.open(path, **options) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(1, window=window)


def _check_ids(ids: Sequence[int] | NDArray[np.integer]) -> None:
    values = np.asarray(ids)
    if values.size and not (values.min() >= 1 and values.max() <= MAX_ID):
        raise ConfigError(f"ids must be in [1, {MAX_ID}], got {values.min()} to {values.max()}")


def _rio(window: Window) -> RioWindow:
    return RioWindow(window.col_off, window.row_off, window.width, window.height)
