"""Synthetic towns as training data: any number of them, with exact outlines, from nothing.

Frame: as `scenes`. Must not import torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoseg.data.scenes import LabelledScene, WindowOptions
from geoseg.frames import to_px
from geoseg.testing.town import make_town

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.grid import Window

TOWN_SIZE_PX = 1200
TOWN_GSD_M = 0.3
TOWN_GSD_RANGE_M = (0.24, 0.45)  # finer would only enlarge what was painted at 0.3
FIRST_SEED = 100_000
"""Seeds from here on are for training; those below belong to tests, demos and benchmarks."""
FIRST_VAL_SEED = 90_000
"""Seeds from here on, up to `FIRST_SEED`, are for validation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayPixels:
    """Pixels that are in memory."""

    image: NDArray[np.uint8]
    """(3, H, W)."""

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return image (3, h, w) and valid (h, w) of a window."""
        rows = slice(window.row_off, window.row_stop)
        cols = slice(window.col_off, window.col_stop)
        part = self.image[:, rows, cols]
        return part, np.ones(part.shape[1:], np.bool_)


def make_towns(
    count: int, *, options: WindowOptions, first_seed: int = FIRST_SEED
) -> Sequence[LabelledScene]:
    """Return synthetic towns as sources; each takes about a second and 4 MB.

    Args:
        count: How many.
        options: How windows are drawn; the resolution is the towns' own, 0.24 to 0.45 m.
        first_seed: Of the first town; the others count up.
    """
    options = dataclasses.replace(options, gsd_range_m=TOWN_GSD_RANGE_M)
    return [_town(first_seed + i, options) for i in range(count)]


def _town(seed: int, options: WindowOptions) -> LabelledScene:
    town = make_town(size_px=TOWN_SIZE_PX, gsd_m=TOWN_GSD_M, seed=seed)
    return LabelledScene(
        pixels=ArrayPixels(image=np.ascontiguousarray(town.image.transpose(2, 0, 1))),
        grid=town.grid,
        polygons=to_px(town.truth.geometry.to_numpy(), town.grid),
        bounds_px=(0.0, 0.0, float(TOWN_SIZE_PX), float(TOWN_SIZE_PX)),
        options=options,
    )
