"""A sheet of pictures of what changed most: imagery, outlines before and after, the truth.

Works on pixels it is given and reads no raster. Frame: outlines in pixels of their panel's picture.
Imports Pillow, numpy and shapely only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    _Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PANEL_PX: Final = 240
COLUMNS: Final = 4
GAP_PX: Final = 10
TEXT_PX: Final = 15
INK: Final = (24, 28, 33)
PAPER: Final = (255, 255, 255)
BEFORE: Final = (240, 120, 20)
AFTER: Final = (30, 110, 235)
TRUTH: Final = (40, 200, 90)
WASH: Final = 0.78  # of the imagery's brightness: lines stand out
LINE_PX: Final = 2
SUPERSAMPLE: Final = 2
KEY: Final = (("before", BEFORE), ("after", AFTER), ("truth", TRUTH))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One place, before and after."""

    image: NDArray[np.uint8]
    """(h, w, 3)."""
    before: Sequence[shapely.Geometry]
    after: Sequence[shapely.Geometry]
    truth: Sequence[shapely.Geometry]
    caption: str


def draw_gallery(panels: Sequence[Panel], *, title: str) -> Image.Image:
    """Draw panels in rows, with a title and a key above.

    Args:
        panels: In the order of reading; pictures of any size.
        title: A line.

    Returns:
        The sheet, RGB.
    """
    font = ImageFont.load_default(size=TEXT_PX)
    cell = PANEL_PX + GAP_PX, PANEL_PX + GAP_PX + TEXT_PX + 6
    rows = max(1, -(-len(panels) // COLUMNS))
    head = 2 * GAP_PX + TEXT_PX
    size = GAP_PX + COLUMNS * cell[0], head + rows * cell[1]
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP_PX, GAP_PX), title, fill=INK, font=font)
    _draw_key(pen, font, right=size[0] - GAP_PX)
    for i, panel in enumerate(panels):
        x = GAP_PX + i % COLUMNS * cell[0]
        y = head + i // COLUMNS * cell[1]
        sheet.paste(_drawn(panel), (x, y))
        pen.text((x, y + PANEL_PX + 3), panel.caption, fill=INK, font=font)
    return sheet


def _draw_key(pen: ImageDraw.ImageDraw, font: _Font, *, right: int) -> None:
    x: float = right
    for name, colour in reversed(KEY):
        x -= pen.textlength(name, font)
        pen.text((x, GAP_PX), name, fill=INK, font=font)
        middle = GAP_PX + TEXT_PX // 2 + 2
        pen.line([(x - 26, middle), (x - 6, middle)], fill=colour, width=3)
        x -= 40


def _drawn(panel: Panel) -> Image.Image:
    """Return a panel at its size: drawn large, then averaged down."""
    side = PANEL_PX * SUPERSAMPLE
    height, width = panel.image.shape[:2]
    picture = Image.fromarray(np.ascontiguousarray(panel.image)).resize((side, side))
    picture = Image.blend(Image.new("RGB", picture.size), picture, WASH)
    pen = ImageDraw.Draw(picture)
    scale = np.array([side / width, side / height])
    layers = ((panel.truth, TRUTH, 2), (panel.before, BEFORE, 1), (panel.after, AFTER, 1))
    for shapes, colour, weight in layers:  # the truth widest and lowest, so that all three show
        for ring in _rings(shapes):
            xy = [tuple(point) for point in (shapely.get_coordinates(ring) * scale).tolist()]
            pen.line(xy, fill=colour, width=weight * LINE_PX * SUPERSAMPLE, joint="curve")
    return picture.resize((PANEL_PX, PANEL_PX), Image.Resampling.BOX)


def _rings(shapes: Sequence[shapely.Geometry]) -> NDArray[np.object_]:
    parts = shapely.get_parts(np.asarray(shapes, object))
    return np.asarray(shapely.get_rings(parts), object)
