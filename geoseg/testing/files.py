"""Towns on disk: GeoTIFFs and GeoJSON, each complete or absent; and very large rasters by tiling.

Frames: rasters lie on the town's grid; a mosaic repeats the town's ids rightward and downward from
the same origin. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.windows import Window as RasterWindow

from geoseg.errors import ConfigError
from geoseg.files import replacing
from geoseg.grid import Grid
from geoseg.testing.oracle import ids_to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.testing.town import Town

BLOCK_PX = 512  # GeoTIFF tile side
STEP_PX = 2048  # side of one written window of a mosaic: 16 blocks, 12 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class TownFiles:
    """Where `write_town` put a town."""

    image: Path
    """RGB picture, GeoTIFF."""
    ids: Path
    """Painted ids for the oracle models, GeoTIFF: id = r + 256 g + 65536 b."""
    truth: Path
    """Outlines, GeoJSON in WGS84 to 0.1 mm."""


def write_town(town: Town, folder: Path | str) -> TownFiles:
    """Write a town as `town.tif`, `town_ids.tif` and `town.geojson`.

    Args:
        town: What `make_town` made.
        folder: Made where it is absent; files of these names are replaced.

    Returns:
        The three paths.

    Raises:
        OSError: The folder cannot be made or written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = TownFiles(
        image=folder / "town.tif", ids=folder / "town_ids.tif", truth=folder / "town.geojson"
    )
    for path, pixels in ((files.image, town.image), (files.ids, ids_to_rgb(town.ids))):
        with replacing(path) as temporary, _geotiff(temporary, town.grid, "deflate") as raster:
            raster.write(pixels.transpose(2, 0, 1))
    with replacing(files.truth) as temporary:
        wgs84 = town.truth.to_crs("EPSG:4326")
        wgs84.to_file(temporary, driver="GeoJSON", RFC7946="YES", COORDINATE_PRECISION=9)
    return files


def write_town_mosaic(
    path: Path | str, *, size_px: int, tile: Town, compress: str = "deflate"
) -> Grid:
    """Write a large ids raster by repeating a town with new ids, in bounded memory.

    Args:
        path: The GeoTIFF to write; one that exists is replaced.
        size_px: Side of the square raster, px; the last repeats are cut off where it ends.
        tile: The town to repeat.
        compress: GeoTIFF compression, such as "deflate", "lzw" or "none".

    Returns:
        The raster's grid.

    Raises:
        ConfigError: The size is not positive, or the ids would not fit into 24 bits.
        OSError: The file cannot be written.
    """
    grid = _mosaic_grid(tile, size_px)
    with replacing(Path(path)) as temporary, _geotiff(temporary, grid, compress) as raster:
        for row in range(0, size_px, STEP_PX):
            for col in range(0, size_px, STEP_PX):
                rows = np.arange(row, min(row + STEP_PX, size_px))
                cols = np.arange(col, min(col + STEP_PX, size_px))
                window = RasterWindow(col, row, len(cols), len(rows))
                pixels = ids_to_rgb(_mosaic_ids(tile, size_px, rows, cols))
                raster.write(pixels.transpose(2, 0, 1), window=window)
    return grid


def mosaic_truth(tile: Town, *, size_px: int) -> gpd.GeoDataFrame:
    """Return the outlines of the buildings in a mosaic, cut off where the mosaic ends.

    Args:
        tile: The town that is repeated.
        size_px: Side of the mosaic, px.

    Returns:
        `ident`, `kind` and geometry in the tile's CRS; buildings outside the mosaic are left out.

    Raises:
        ConfigError: As `write_town_mosaic`.
    """
    grid = _mosaic_grid(tile, size_px)
    side, n = tile.grid.height, _repeats(tile, size_px)
    row, col = (a.ravel() * side for a in np.mgrid[:n, :n])
    shifts = np.stack(grid.xy(row, col), axis=1) - grid.xy(0, 0)
    geometry = np.concatenate(
        [shapely.transform(tile.truth.geometry.to_numpy(), lambda xy, d=d: xy + d) for d in shifts]
    )
    offsets = np.repeat(np.arange(n * n) * len(tile.truth), len(tile.truth))
    truth = gpd.GeoDataFrame(
        {
            "ident": np.tile(tile.truth["ident"], n * n) + offsets,
            "kind": np.tile(tile.truth["kind"], n * n),
        },
        geometry=shapely.intersection(geometry, shapely.box(*grid.bounds)),
        crs=grid.crs,
    )
    return truth[~truth.is_empty].reset_index(drop=True)


def _repeats(tile: Town, size_px: int) -> int:
    return -(-size_px // tile.grid.height)


def _mosaic_grid(tile: Town, size_px: int) -> Grid:
    if size_px < 1:
        raise ConfigError(f"size_px must be at least 1, got {size_px}")
    n_ids = _repeats(tile, size_px) ** 2 * len(tile.truth)
    if n_ids >= 1 << 24:
        raise ConfigError(f"ids must fit into 24 bits, got {n_ids}: make the mosaic smaller")
    grid = tile.grid
    return Grid(crs=grid.crs, transform=grid.transform, height=size_px, width=size_px)


def _mosaic_ids(
    tile: Town, size_px: int, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.int32]:
    side = tile.grid.height
    ids = tile.ids[rows % side][:, cols % side]
    repeat = (rows // side * _repeats(tile, size_px))[:, None] + cols // side
    return np.where(ids > 0, ids + repeat * len(tile.truth), 0).astype(np.int32)


def _geotiff(path: Path, grid: Grid, compress: str) -> rasterio.io.DatasetWriter:
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=3,
        height=grid.height,
        width=grid.width,
        crs=rasterio.crs.CRS.from_wkt(grid.crs.to_wkt()),
        transform=grid.transform,
        tiled=True,
        blockxsize=BLOCK_PX,
        blockysize=BLOCK_PX,
        compress=compress,
        photometric="RGB",
        bigtiff="IF_SAFER",
    )
