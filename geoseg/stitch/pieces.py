"""Pieces: detections placed in the scene, the things that stitching matches.

Frame: pixels of the scene's working grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoseg.detections import MASK_ON

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.chips import Chip
    from geoseg.detections import Detections

Key = tuple[int, int, int]

CUT_MARGIN_PX = 2
"""A mask this near its chip's border is cut by it: networks stop a pixel or two short."""

SLIVER_PX = 6
"""A mask that reaches no further into its chip says little: noise of two masks is as deep."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """What one chip saw of one building."""

    chip: Chip
    index: int
    """Position among its chip's detections."""
    box: tuple[int, int, int, int]
    """xyxy whole pixel edges of `soft`."""
    soft: NDArray[np.uint8]
    on: NDArray[np.bool_]
    """`soft` at probability 0.5."""
    area: int
    """Pixels on; at least 1."""
    score: float
    label: int
    cut: bool
    """It reaches a border of its chip beyond which the scene goes on."""
    depth_px: int
    """How far it reaches into its chip from such a border, at the least."""

    @property
    def key(self) -> Key:
        """Order that does not depend on when the piece was seen."""
        return self.chip.row, self.chip.col, self.index

    def view(self, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """Return the on-pixels of a rectangle inside `self.box`, a view."""
        x0, y0, x1, y1 = box
        left, top = self.box[0], self.box[1]
        return self.on[y0 - top : y1 - top, x0 - left : x1 - left]


def make_pieces(chip: Chip, detections: Detections, *, shape_hw: tuple[int, int]) -> list[Piece]:
    """Place a chip's detections in the scene of `shape_hw` pixels."""
    placed = []
    left, top = chip.window.col_off, chip.window.row_off
    for i, (soft, (x0, y0, x1, y1)) in enumerate(
        zip(detections.masks(), detections.mask_boxes.tolist(), strict=True)
    ):
        on = soft >= MASK_ON
        area = int(np.count_nonzero(on))
        if area == 0:
            continue
        box = (x0 + left, y0 + top, x1 + left, y1 + top)
        placed.append(
            Piece(
                chip=chip,
                index=i,
                box=box,
                soft=soft,
                on=on,
                area=area,
                score=float(detections.scores[i]),
                label=int(detections.labels[i]),
                cut=_is_cut(box, on, chip, shape_hw),
                depth_px=_depth_px(box, chip, shape_hw),
            )
        )
    return placed


def overlap(
    a: tuple[int, int, int, int], b: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    """Return the rectangle two xyxy boxes share, or None."""
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def is_sliver(piece: Piece) -> bool:
    """Say whether a piece only just reaches into its chip from beyond the border."""
    return piece.cut and piece.depth_px <= SLIVER_PX


def window_box(chip: Chip) -> tuple[int, int, int, int]:
    """Return the chip's window as an xyxy box."""
    window = chip.window
    return window.col_off, window.row_off, window.col_stop, window.row_stop


def _depth_px(box: tuple[int, int, int, int], chip: Chip, shape_hw: tuple[int, int]) -> int:
    x0, y0, x1, y1 = window_box(chip)
    height, width = shape_hw
    depths = [
        (x0 > 0, box[2] - x0),
        (y0 > 0, box[3] - y0),
        (x1 < width, x1 - box[0]),
        (y1 < height, y1 - box[1]),
    ]
    return min((depth for goes_on, depth in depths if goes_on), default=max(shape_hw))


def _is_cut(
    box: tuple[int, int, int, int],
    on: NDArray[np.bool_],
    chip: Chip,
    shape_hw: tuple[int, int],
) -> bool:
    x0, y0, x1, y1 = window_box(chip)
    near = CUT_MARGIN_PX
    return bool(
        (x0 > 0 and on[:, : max(0, x0 + near - box[0])].any())
        or (y0 > 0 and on[: max(0, y0 + near - box[1])].any())
        or (x1 < shape_hw[1] and on[:, max(0, x1 - near - box[0]) :].any())
        or (y1 < shape_hw[0] and on[max(0, y1 - near - box[1]) :].any())
    )
