"""Chip images on disk: small PNG or GeoTIFF files for annotation and training.

Frames: a chip's own pixels; a GeoTIFF also says where they lie. Must not import torch.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from PIL import Image, UnidentifiedImageError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoseg.errors import ConfigError, InputNotFoundError, ReadError
from geoseg.files import check_output, replacing
from geoseg.raster.gdal import GDAL_ERRORS, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.grid import Grid

TIFF_SUFFIXES = (".tif", ".tiff")
CHIP_SUFFIXES = (".png", *TIFF_SUFFIXES)
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", *TIFF_SUFFIXES)
UNREADABLE = (RasterioError, UnidentifiedImageError, OSError, SyntaxError, ValueError)
MAX_SIDE_PX = 8192  # far above any chip; 256 MB decoded


def is_picture(name: str) -> bool:
    """Say whether a file is meant as a picture, by its name.

    Hidden files are not: macOS leaves a ._NAME.jpg, no picture, beside each one it copies.
    """
    return not name.startswith(".") and name.lower().endswith(PICTURE_SUFFIXES)


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image from its header.

    Raises:
        InputNotFoundError: It is not there.
        ReadError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise InputNotFoundError(f"{path}: no such image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ReadError(f"{path}: must be a readable image, got: {str(error)[:100]}") from error


def write_chip_image(
    path: str | Path, image: NDArray[np.uint8], grid: Grid, valid: NDArray[np.bool_]
) -> None:
    """Write one chip's pixels, as PNG or GeoTIFF by the extension.

    A PNG is plain RGB, with an alpha channel only where some pixel is not valid. A GeoTIFF has the
    transform, the CRS and a mask.

    Args:
        path: A name that ends in .png, .tif or .tiff.
        image: (3, h, w).
        grid: The chip's grid, h x w.
        valid: (h, w).

    Raises:
        OutputError: The file cannot be written; nothing is left behind.
        ConfigError: The shapes do not fit.
    """
    shape = (grid.height, grid.width)
    if image.shape != (3, *shape) or image.dtype != np.uint8 or valid.shape != shape:
        raise ConfigError(
            f"a chip image must be uint8 (3, {shape[0]}, {shape[1]}) with valid {shape}, "
            f"got {image.dtype} {image.shape} with {valid.shape}"
        )
    path = check_output(path, CHIP_SUFFIXES)
    with replacing(path, *GDAL_ERRORS, sync=False) as temporary:  # chips come in thousands
        if path.suffix.lower() == ".png":
            _write_png(temporary, image, valid)
        else:
            _write_tiff(temporary, image, grid, valid)


def read_chip_image(path: str | Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read a chip image that `write_chip_image` (or an annotation tool) wrote.

    Returns:
        Image (3, h, w), 0 where not valid; and valid (h, w).

    Raises:
        InputNotFoundError: No such file.
        ReadError: Not an image, or truncated.
    """
    path = Path(path)
    if not path.exists():
        raise InputNotFoundError(f"{path}: no such chip image; write the chips again")
    try:
        rgba = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else _read_png(path)
    except (
        RasterioError,
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise ReadError(
            f"{path}: must be a readable JPEG, PNG or TIFF image, got: {reason(error)}"
        ) from error
    valid = rgba[3] > 0
    image = rgba[:3]
    image[:, ~valid] = 0
    return image, valid


def _write_png(path: Path, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
    layers = image if valid.all() else np.concatenate([image, _as_mask(valid)[None]])
    Image.fromarray(np.ascontiguousarray(layers.transpose(1, 2, 0))).save(path, format="PNG")


def _write_tiff(path: Path, image: NDArray[np.uint8], grid: Grid, valid: NDArray[np.bool_]) -> None:
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=3,
            dtype="uint8",
            height=grid.height,
            width=grid.width,
            crs=grid.crs.to_wkt(),
            transform=grid.transform,
            compress="deflate",
            photometric="RGB",
        ) as dataset,
    ):
        dataset.write(image)
        if not valid.all():
            dataset.write_mask(_as_mask(valid))


def _read_png(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        _check_size(image.height, image.width)
        rgba = np.array(image.convert("RGBA"), np.uint8)
    return np.ascontiguousarray(rgba.transpose(2, 0, 1))


def _read_tiff(path: Path) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # pixels are all that is asked
        with rasterio.open(path) as dataset:
            _check_size(dataset.height, dataset.width)
            if dataset.count < 3 or dataset.dtypes[0] != "uint8":
                raise ValueError(f"{dataset.count} bands of {dataset.dtypes[0]}, not 3 of uint8")
            return np.concatenate([dataset.read([1, 2, 3]), dataset.dataset_mask()[None]])


def _check_size(height: int, width: int) -> None:
    if max(height, width) > MAX_SIDE_PX:
        raise ValueError(f"{height}x{width} px, more than {MAX_SIDE_PX} a side")


def _as_mask(valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return valid.astype(np.uint8) * np.uint8(255)
