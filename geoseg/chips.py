"""Chips: the S x S samples a scene is cut into, without their pixels, and batches of them.

`window` is what the network sees; `core` is the part the chip owns. Cores partition the scene. Both
are in pixels of the scene's working grid. Imports numpy only: no GDAL, no torch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import ConfigError
from geoseg.grid import Window, split_axis

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from geoseg.grid import Grid

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipPlan:
    """How a scene is cut, without a list of its chips: any of them is computed when asked for.

    Example:
        >>> plan = ChipPlan(scene_id="town", shape_hw=(700, 300), size_px=300, overlap_px=60)
        >>> plan.rows, plan.cols, plan.chip(1, 0).window.row_off
        (3, 1, 240)
    """

    scene_id: str
    shape_hw: tuple[int, int]
    """Of the scene's working grid, px."""
    size_px: int = CHIP_SIZE_PX
    overlap_px: int = CHIP_OVERLAP_PX
    """Least overlap of neighbouring chips, in [0, size_px)."""

    def __post_init__(self) -> None:
        self._spans(0)  # raises where a size or overlap is out of range

    @property
    def rows(self) -> int:
        """Chip rows."""
        return len(self._spans(0))

    @property
    def cols(self) -> int:
        """Chip columns."""
        return len(self._spans(1))

    def chip(self, row: int, col: int) -> Chip:
        """Return one chip."""
        y, h, core_y, core_h = self._spans(0)[row]
        x, w, core_x, core_w = self._spans(1)[col]
        return Chip(
            scene_id=self.scene_id,
            row=row,
            col=col,
            window=Window(row_off=y, col_off=x, height=h, width=w),
            core=Window(row_off=core_y, col_off=core_x, height=core_h, width=core_w),
        )

    def chips(self, rows: range | None = None, cols: range | None = None) -> Iterator[Chip]:
        """Yield the chips of a rectangle of the plan, all by default, in row-major order."""
        places = itertools.product(rows or range(self.rows), cols or range(self.cols))
        return itertools.starmap(self.chip, places)

    def unshared(self, rows: range, cols: range) -> tuple[int, int, int, int]:
        """Return the xyxy pixel edges of what no chip outside a rectangle of the plan sees.

        It may be empty: then x1 <= x0 or y1 <= y0.
        """
        y0, y1 = self._unshared(0, rows)
        x0, x1 = self._unshared(1, cols)
        return x0, y0, x1, y1

    def _unshared(self, axis: int, part: range) -> tuple[int, int]:
        spans = self._spans(axis)
        before, after = spans[: part.start], spans[part.stop :]
        low = before[-1][0] + before[-1][1] if before else 0
        return low, after[0][0] if after else self.shape_hw[axis]

    def _spans(self, axis: int) -> list[tuple[int, int, int, int]]:
        return _axis_spans(self.shape_hw[axis], self.size_px, self.overlap_px)


class ListedPlan:
    """A plan of chips that are listed, such as those of a folder, where some may be missing."""

    def __init__(self, chips: Iterable[Chip]) -> None:
        self._chips = {(chip.row, chip.col): chip for chip in chips}
        self.rows = max((row for row, _ in self._chips), default=-1) + 1
        self.cols = max((col for _, col in self._chips), default=-1) + 1

    def chips(self, rows: range | None = None, cols: range | None = None) -> Iterator[Chip]:
        """Yield the chips of a rectangle of the plan that there are, in row-major order."""
        for place in itertools.product(rows or range(self.rows), cols or range(self.cols)):
            if place in self._chips:
                yield self._chips[place]

    def unshared(self, rows: range, cols: range) -> tuple[int, int, int, int]:
        """Return the xyxy pixel edges of what no chip outside a rectangle of the plan sees."""
        ends = [chip.window for chip in self._chips.values()]
        x0, y0 = 0, 0
        x1 = max((w.col_stop for w in ends), default=0)
        y1 = max((w.row_stop for w in ends), default=0)
        for (row, col), chip in self._chips.items():
            x0 = max(x0, chip.window.col_stop) if col < cols.start else x0
            x1 = min(x1, chip.window.col_off) if col >= cols.stop else x1
            y0 = max(y0, chip.window.row_stop) if row < rows.start else y0
            y1 = min(y1, chip.window.row_off) if row >= rows.stop else y1
        return x0, y0, x1, y1


@lru_cache(maxsize=64)
def _axis_spans(length: int, size_px: int, overlap_px: int) -> list[tuple[int, int, int, int]]:
    return split_axis(length, size_px, overlap_px)


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
    shape_hw = (grid.height, grid.width)
    plan = ChipPlan(scene_id=scene_id, shape_hw=shape_hw, size_px=size_px, overlap_px=overlap_px)
    return list(plan.chips())
