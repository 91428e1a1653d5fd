"""Which bands of a dataset are the picture, and which of its pixels are data.

A raster may say "no data" in four ways, and GDAL's own mask reports only the first of them it
finds: an alpha band, a mask band (inside or beside the file), a nodata value, NaN. Here a pixel is
valid when none of them denies it. A nodata *value* denies a pixel only where all chosen bands have
it: a red of 0 is a colour, not a hole. Frame: pixels of the native grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.windows import Window as RioWindow

from geoseg.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from geoseg.grid import Window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandPlan:
    """How the three bands and the validity of a window are read from a dataset."""

    bands: tuple[int, int, int]
    """1-based; all the same for a palette."""
    unique: tuple[int, ...]
    """The bands to decode, each once; the alpha band last where there is one."""
    pick: tuple[int, int, int]
    """Where each of `bands` lies in `unique`."""
    has_alpha: bool
    mask_band: int | None
    """A band whose GDAL mask is a mask of its own (not derived from nodata or alpha)."""
    nodata: tuple[float | None, ...]
    """One per unique band without alpha; None where no pixel of the dtype can equal it."""
    palette: NDArray[np.uint8] | None
    """(N, 4) RGBA, or None."""

    def read(
        self,
        dataset: DatasetReader,
        window: Window,
        *,
        out_hw: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read a window of the native grid, decimated to `out_hw` where that is given.

        Returns:
            Pixels (3, h, w) in the dataset's dtype (uint8 for a palette), 0 where not valid; and
            valid (h, w).
        """
        area = RioWindow(window.col_off, window.row_off, window.width, window.height)
        out_hw = out_hw or (window.height, window.width)
        raw = dataset.read(
            self.unique,
            window=area,
            out_shape=(len(self.unique), *out_hw),
            resampling=Resampling.nearest if self.palette is not None else resampling,
        )
        valid = self._valid(raw)
        if self.mask_band is not None:
            valid &= dataset.read_masks(self.mask_band, window=area, out_shape=out_hw) > 0
        if self.palette is None:
            # Basic slicing where it does: a fancy index would copy every chip.
            pixels = raw[:3] if self.pick == (0, 1, 2) else raw[list(self.pick)]
        else:
            rgba = self.palette[np.minimum(raw[0], len(self.palette) - 1)]
            valid &= rgba[..., 3] > 0
            pixels = np.ascontiguousarray(rgba[..., :3].transpose(2, 0, 1))
        if not valid.all():
            pixels[:, ~valid] = 0
        return pixels, valid

    def _valid(self, raw: NDArray[np.generic]) -> NDArray[np.bool_]:
        data = raw[:-1] if self.has_alpha else raw
        valid = np.ones(raw.shape[1:], bool)
        if self.has_alpha:
            valid &= np.asarray(raw[-1] > 0)
        if data.dtype.kind == "f":
            valid &= np.isfinite(data).all(axis=0)
        if all(value is not None for value in self.nodata):
            is_data = [
                band != np.array(value, band.dtype)
                for band, value in zip(data, self.nodata, strict=True)
            ]
            valid &= np.logical_or.reduce(is_data)
        return valid


def plan_bands(dataset: DatasetReader, bands: Sequence[int] | None) -> BandPlan:
    """Choose the bands of a dataset and find what says which pixels are data.

    Args:
        dataset: An open dataset.
        bands: Three 1-based band numbers (repeats allowed), or None for the first three that are
            not alpha, or the colour table of a palette.

    Raises:
        SceneError: The dataset has too few bands, or a band that does not exist is asked for, or
            pixels are complex numbers.
    """
    kinds = list(dataset.colorinterp)
    usable = [i for i in dataset.indexes if kinds[i - 1] != ColorInterp.alpha]
    is_palette = bands is None and len(usable) > 0 and kinds[usable[0] - 1] == ColorInterp.palette
    chosen = _three(dataset, [usable[0]] * 3 if is_palette else bands, usable)
    if any(dataset.dtypes[b - 1].startswith("complex") for b in chosen):
        raise SceneError(f"{dataset.name}: pixels must be real numbers, got complex ones")
    unique = sorted(set(chosen))
    flags = dataset.mask_flag_enums[unique[0] - 1]
    derived = {MaskFlags.all_valid, MaskFlags.alpha}
    own_mask = not derived & set(flags) and set(flags) != {MaskFlags.nodata}
    alpha = [i for i in dataset.indexes if kinds[i - 1] == ColorInterp.alpha and i not in chosen]
    return BandPlan(
        bands=chosen,
        unique=(*unique, *alpha[:1]),
        pick=(unique.index(chosen[0]), unique.index(chosen[1]), unique.index(chosen[2])),
        has_alpha=bool(alpha),
        mask_band=unique[0] if own_mask else None,
        nodata=tuple(_nodata(dataset, b) for b in unique),
        palette=_palette(dataset, unique[0]) if is_palette else None,
    )


def dtype_of(dataset: DatasetReader, plan: BandPlan) -> np.dtype[np.generic]:
    """Return the dtype that holds the pixels of all chosen bands, as `BandPlan.read` does."""
    if plan.palette is not None:
        return np.dtype(np.uint8)
    return np.result_type(*(dataset.dtypes[band - 1] for band in plan.bands))


def _three(
    dataset: DatasetReader, bands: Sequence[int] | None, usable: list[int]
) -> tuple[int, int, int]:
    if bands is None:
        if len(usable) < 3:
            repeat = f"--bands {usable[0]},{usable[0]},{usable[0]}" if usable else "another raster"
            raise SceneError(
                f"{dataset.name}: a scene needs three bands (red, green, blue), got {len(usable)}; "
                f"to repeat one, give {repeat}"
            )
        bands = usable[:3]
    if len(bands) != 3 or not all(b in dataset.indexes for b in bands):
        raise SceneError(
            f"{dataset.name}: bands must be three numbers from 1 to {dataset.count}, "
            f"got {','.join(map(str, bands))}"
        )
    return bands[0], bands[1], bands[2]


def _nodata(dataset: DatasetReader, band: int) -> float | None:
    value, dtype = dataset.nodatavals[band - 1], np.dtype(dataset.dtypes[band - 1])
    if value is None or (dtype.kind == "f" and np.isnan(value)):
        return None  # NaN is never data anyway
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return value if float(value).is_integer() and info.min <= value <= info.max else None
    return float(value)


def _palette(dataset: DatasetReader, band: int) -> NDArray[np.uint8]:
    colours = dataset.colormap(band)
    table = np.zeros((max(colours) + 1, 4), np.uint8)
    for index, rgba in colours.items():
        table[index] = rgba
    return table
