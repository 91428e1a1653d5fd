"""Chips: the S x S samples a scene is cut into, without their pixels, and batches of them.

`window` is what the network sees; `core` is the part the chip owns. Cores partition the scene. Both
are in pixels of the scene's working grid. Imports numpy only: no GDAL, no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.grid import Grid, Window

CHIP_SIZE_PX = 300  # the crowdAI mapping challenge's chip
CHIP_OVERLAP_PX = 60  # a 12-m house at 0.2 m: most buildings are whole in at least one chip


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One sample of a scene: where it lies, and which part of it the chip owns."""

    scene_id: str
    row: int
    col: int
    window: Window
    core: Window

    @property
    def name(self) -> str:
        """File-system-safe name, unique within the scene."""
        return f"r{self.row:05d}_c{self.col:05d}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChipBatch:
    """Chips with their pixels, ready for the network.

    Chips smaller than the batch's frame (scenes smaller than a chip) lie in its top-left corner;
    the rest of the frame is zero and not valid.
    """

    chips: tuple[Chip, ...]
    images: NDArray[np.uint8]
    """(B, 3, S, S), 0-255."""
    valid: NDArray[np.bool_]
    """(B, S, S): False on nodata and outside the chip's window."""

    def __post_init__(self) -> None:
        b = len(self.chips)
        if self.images.shape[:2] != (b, 3) or self.images.dtype != np.uint8:
            raise ConfigError(
                f"images must be uint8 of shape ({b}, 3, S, S), "
                f"got {self.images.dtype} {self.images.shape}"
            )
        if self.valid.shape != (b, *self.images.shape[2:]) or self.valid.dtype != np.bool_:
            raise ConfigError(
                f"valid must be bool of shape ({b}, S, S), "
                f"got {self.valid.dtype} {self.valid.shape}"
            )

    def __len__(self) -> int:
        return len(self.chips)

    def split(self, size: int) -> list[ChipBatch]:
        """Cut into batches of at most `size` chips, views on the same pixels."""
        return [
            ChipBatch(
                chips=self.chips[i : i + size],
                images=self.images[i : i + size],
                valid=self.valid[i : i + size],
            )
            for i in range(0, len(self), size)
        ]


def plan_chips(
    scene_id: str,
    grid: Grid,
    *,
    size_px: int = CHIP_SIZE_PX,
    overlap_px: int = CHIP_OVERLAP_PX,
) -> list[Chip]:
    """Cut a grid into chips, row by row.

    Args:
        scene_id: Name of the scene, carried by each chip.
        grid: The scene's working grid.
        size_px: Side of a chip, px.
        overlap_px: Least overlap of neighbouring chips, px, in [0, size_px).

    Returns:
        Chips in row-major order; their cores partition the grid.

    Raises:
        ConfigError: A size or overlap is out of range.
    """
    return [
        Chip(scene_id=scene_id, row=r, col=c, window=window, core=core)
        for r, c, window, core in grid.split(size_px, overlap_px)
    ]
