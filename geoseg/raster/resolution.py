"""The working grid: the ground resolution at which a scene is read.

Frames: the native grid (the file's pixels) and the working grid (the pixels the model sees) cover
the same ground; only the number of rows and columns differs. No pixels here, no GDAL.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Literal

from geoseg.errors import ConfigError, ResolutionWarning, SceneError

if TYPE_CHECKING:
    from geoseg.grid import Grid

GSD_TOLERANCE = 0.05  # a model does not feel 5% of scale; resampling for less only blurs
MAX_SIDE_PX = 1_000_000


def working_grid(
    native: Grid,
    gsd: Literal["auto", "native"] | float,
    gsd_range_m: tuple[float, float] | None,
    *,
    name: str,
) -> Grid:
    """Return the grid to read a scene on.

    Args:
        native: The file's own grid.
        gsd: "native" keeps the file's pixels; a number resamples to square ground pixels of that
            many metres; "auto" keeps the file's pixels where they are square and within
            `gsd_range_m`, and otherwise goes to the nearest resolution that is.
        gsd_range_m: Least and greatest ground resolution the model does best at, metres per pixel.
        name: The scene, for messages.

    Returns:
        The native grid itself, or one of the same ground with another shape. Its pixels are square
        but for the rounding to whole rows and columns.

    Raises:
        ConfigError: `gsd` or the range is not positive.
        SceneError: The scene would be smaller than a pixel, or absurdly large.
    """
    _check(gsd, gsd_range_m)
    size_x_m, size_y_m = native.pixel_size_m
    native_m = math.sqrt(size_x_m * size_y_m)
    if gsd == "native":
        target = None
    elif gsd == "auto":
        is_square = abs(size_x_m / size_y_m - 1) <= GSD_TOLERANCE
        fits = gsd_range_m is None or (is_square and _within(native_m, gsd_range_m))
        target = None if fits or gsd_range_m is None else _clamp(native_m, gsd_range_m)
    else:
        target = float(gsd)
    if gsd_range_m is not None and not _within(target or native_m, gsd_range_m):
        warnings.warn(
            f"{name}: read at {target or native_m:.3g} m per pixel, but the model does best at "
            f"{gsd_range_m[0]:g}-{gsd_range_m[1]:g} m; use --gsd auto",
            ResolutionWarning,
            stacklevel=3,
        )
    if target is None:
        return native
    height, width = (
        round(native.height * size_y_m / target),
        round(native.width * size_x_m / target),
    )
    if min(height, width) < 1 or max(height, width) > MAX_SIDE_PX:
        raise SceneError(
            f"{name}: at {target:g} m per pixel the scene must be 1 to {MAX_SIDE_PX} px a side, "
            f"got {height}x{width} (native {native_m:.3g} m); choose another --gsd"
        )
    if (height, width) == (native.height, native.width):
        return native
    return native.scaled(height=height, width=width)


def _check(gsd: str | float, gsd_range_m: tuple[float, float] | None) -> None:
    if isinstance(gsd, str):
        if gsd not in {"auto", "native"}:
            raise ConfigError(f"gsd must be auto, native or metres per pixel, got {gsd!r}")
    elif not (math.isfinite(gsd) and gsd > 0):
        raise ConfigError(f"gsd must be more than 0 metres per pixel, got {gsd}")
    if gsd_range_m is not None and not 0 < gsd_range_m[0] <= gsd_range_m[1]:
        raise ConfigError(f"gsd_range_m must be (least, greatest) above 0, got {gsd_range_m}")


def _within(gsd_m: float, range_m: tuple[float, float]) -> bool:
    return range_m[0] * (1 - GSD_TOLERANCE) <= gsd_m <= range_m[1] * (1 + GSD_TOLERANCE)


def _clamp(gsd_m: float, range_m: tuple[float, float]) -> float:
    return min(max(gsd_m, range_m[0]), range_m[1])
