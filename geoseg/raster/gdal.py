"""What GDAL needs to be told, and what it says when it fails, on one line.

Most options hold for one `with` block: rasterio keeps them per thread, so every thread that opens
or reads a dataset enters its own. The block cache is one for the whole process: it is set by
`limit_cache` for as long as somebody holds a limit. Knows nothing of scenes.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # what rasterio lets through of GDAL's own
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoseg.errors import InputNotFoundError, SceneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rasterio.io import DatasetReader

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
CACHE_MIN_BYTES = 64 * 2**20  # holds a chip row of 20,000 px, so memory is flat up to there
CACHE_MAX_BYTES = 512 * 2**20
CACHE_ROWS_PX = 300  # one row of chips: blocks shared along it, the usual case, decode once
OVERSAMPLING = 4
NORTH_UP_HINT = "make it north-up first: gdalwarp -t_srs EPSG:XXXX in.tif out.tif"


_lock = threading.Lock()
_limits: list[int] = []
_outside: list[int] = []  # the limit before the first of ours


@contextmanager
def limit_cache(n_bytes: int) -> Iterator[None]:
    """Limit GDAL's block cache, which all threads share; of several limits the greatest holds.

    When the last limit is given up, the one from before the first is back in force.
    """
    with _lock:
        if not _limits:
            _outside[:] = [get_gdal_config("GDAL_CACHEMAX")]
        _limits.append(n_bytes)
        set_gdal_config("GDAL_CACHEMAX", max(_limits))
    try:
        yield
    finally:
        with _lock:
            _limits.remove(n_bytes)
            set_gdal_config("GDAL_CACHEMAX", max(_limits or _outside))


@contextmanager
def no_cache() -> Iterator[None]:
    """Write out and drop every cached block, for all threads, then put the limit back."""
    with _lock:
        before = get_gdal_config("GDAL_CACHEMAX")
        set_gdal_config("GDAL_CACHEMAX", 1)  # bytes: no block fits
        try:
            yield
        finally:
            set_gdal_config("GDAL_CACHEMAX", before)


def is_remote(path: str) -> bool:
    """Say whether a path is read over a network rather than from a local file.

    Example:
        >>> is_remote("s3://bucket/a.tif"), is_remote("/vsicurl/http://x/a.tif"), is_remote("a.tif")
        (True, True, False)
    """
    return "://" in path or path.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz"))


def open_options(path: str) -> dict[str, str]:
    """Return GDAL's options for opening and reading a path.

    Local folders are always listed, or masks and overviews that lie beside a raster would go
    unseen. Remote ones are not, as listing a bucket may cost minutes, unless the caller's own
    environment says otherwise.
    """
    if not is_remote(path):
        return {"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"}
    ours = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_HTTP_MAX_RETRY": "3",
        "GDAL_HTTP_RETRY_DELAY": "1",
    }
    return {key: value for key, value in ours.items() if get_gdal_config(key) is None}


def open_dataset(path: str, *, overview_level: int | None = None) -> DatasetReader:
    """Open a raster for reading, or one of its overviews as if that were the raster.

    Raises:
        InputNotFoundError: No file at a local path.
        SceneError: GDAL cannot open what is there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # an error of ours follows
            level = {} if overview_level is None else {"overview_level": overview_level}
            return rasterio.open(path, **level)
    except (RasterioError, OSError, ValueError) as error:
        if not is_remote(path) and not path.startswith("/vsi") and not Path(path).exists():
            raise InputNotFoundError(
                f"{path}: no such file; give the path or URL of a raster"
            ) from error
        raise SceneError(
            f"{path}: not a raster that GDAL can open ({reason(error)}); "
            "check the file with gdalinfo, it may be truncated"
        ) from error


def source_files(path: Path) -> list[Path]:
    """Return the local files that a raster is made of, such as the parts of a VRT."""
    with open_dataset(str(path)) as dataset:
        return [Path(name) for name in dataset.files if Path(name).is_file()]


def reason(error: BaseException) -> str:
    """Return GDAL's own words, on one line, from the innermost cause of a rasterio error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def cache_bytes(dataset: DatasetReader, *, rows_px: int) -> int:
    """Return a block cache that holds every block of `rows_px` rows, within fixed bounds.

    Bounded so that memory does not grow with the scene; large enough that a block shared by two
    chips of one row is decoded once.
    """
    block_height = dataset.block_shapes[0][0]
    rows = (-(-rows_px // block_height) + 1) * block_height
    row_bytes = sum(dataset.width * np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    return int(min(max(rows * row_bytes, CACHE_MIN_BYTES), CACHE_MAX_BYTES))


def overview_level(dataset: DatasetReader, ratio: float) -> int | None:
    """Return the coarsest overview that is still `OVERSAMPLING` times finer than the working grid.

    Overviews are often made by nearest neighbour, which shifts them by up to half their pixel; so
    much finer than the result, that is below an eighth of a working pixel.

    Args:
        dataset: The open dataset.
        ratio: Native pixels per working pixel.

    Returns:
        Its level, or None for the full resolution.
    """
    fit = [(f, i) for i, f in enumerate(dataset.overviews(1)) if f * OVERSAMPLING <= ratio]
    return max(fit)[1] if fit else None
