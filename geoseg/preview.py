"""A picture of footprints over imagery, readable at a glance: fills and outlines by score, a scale.

Works on pixels it is given: it reads no raster. Frame: pixel edges of the given grid, (x, y).
Imports Pillow, numpy and shapely only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont

from geoseg.errors import SceneError
from geoseg.files import replacing
from geoseg.frames import to_px

if TYPE_CHECKING:
    import os

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from geoseg.grid import Grid

    _Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


# Viridis without its darkest quarter, which drowns in shade: ordered in lightness for every eye.
RAMP: Final[tuple[tuple[int, int, int], ...]] = (
    (72, 105, 175),
    (38, 140, 142),
    (53, 183, 121),
    (144, 215, 67),
    (253, 231, 37),
)
"""Colours from the lowest score drawn to 1."""

BRIGHTNESS: Final = 0.74
SATURATION: Final = 0.55
_FILL: Final = 86  # opacity, of 255
_CASING: Final = 100  # of the dark edge that parts outlines from bright roofs

LINE_PX: Final = (0.9, 2.6)
SUPERSAMPLE: Final = 3
STRIPE_PX: Final = 512
"""Rows drawn at once: bounds the memory of the supersampled layer."""
PLATE: Final = (16, 20, 24, 205)
INK: Final = (242, 244, 245, 255)
FAINT: Final = (176, 184, 190, 255)
LEAST_FURNITURE_PX: Final = 220
"""Pictures narrower or lower than this get no plates: they would hide the scene."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """One footprint in supersampled pixels of a stripe."""

    rings: list[list[tuple[float, float]]]
    """All parts' rings, each exterior before its holes."""
    holes: list[bool]
    colour: tuple[int, int, int]


def draw_preview(
    image: NDArray[np.uint8],
    grid: Grid,
    footprints: GeoDataFrame,
    *,
    path: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Draw footprints over the imagery they lie on.

    Args:
        image: (H, W, 3), 0-255.
        grid: The grid of that image, H x W.
        footprints: Footprints in the grid's CRS with a column `score`; those outside are ignored.
        path: Where to write the picture as PNG, at once or not at all.

    Returns:
        The picture, H x W, RGB.

    Raises:
        SceneError: The image does not fit the grid, or the footprints are in another CRS.
        OutputError: The picture cannot be written.
    """
    if image.shape != (grid.height, grid.width, 3) or image.dtype != np.uint8:
        raise SceneError(
            f"the image must be uint8 of shape ({grid.height}, {grid.width}, 3), "
            f"got {image.dtype} {image.shape}"
        )
    if footprints.crs is not None and not grid.crs.equals(footprints.crs, ignore_axis_order=True):
        raise SceneError(
            f"footprints must be in the grid's CRS {grid.crs.name!r}, got {footprints.crs.name!r}"
        )
    shapes, scores = _in_pixels(footprints, grid)
    floor = _floor(scores)
    picture = _dimmed(image)
    _draw_shapes(picture, shapes, _colours(scores, floor))
    if min(picture.size) >= LEAST_FURNITURE_PX:
        _draw_furniture(picture, grid, count=len(shapes), floor=floor)
    if path is not None:
        with replacing(Path(path)) as new:
            picture.save(new, format="PNG", optimize=False)
    return picture


def nice_length_m(most_m: float) -> float:
    """Return the longest of 1, 2, 5, 10, ... metres that is at most `most_m`.

    Example:
        >>> nice_length_m(37.0)
        20.0
    """
    power = 10.0 ** math.floor(math.log10(most_m))
    return next(step * power for step in (5.0, 2.0, 1.0) if step * power <= most_m * (1 + 1e-9))


def _in_pixels(footprints: GeoDataFrame, grid: Grid) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the shapes that touch the image, in pixels, and their scores, large ones first.

    A house in a courtyard is then drawn after the block around it.
    """
    shapes = to_px(footprints.geometry.to_numpy(), grid)
    scores = footprints["score"].to_numpy(float)
    seen = np.flatnonzero(shapely.intersects(shapes, shapely.box(0, 0, grid.width, grid.height)))
    seen = seen[np.argsort(-shapely.area(shapes[seen]), kind="stable")]
    return shapes[seen], scores[seen]


def _floor(scores: NDArray[np.float64]) -> float:
    """Return the score at the low end of the ramp: the lowest one drawn, rounded down to 0.1."""
    low = float(scores.min()) if len(scores) else 0.5
    return min(0.9, max(0.0, math.floor(low * 10 + 1e-6) / 10))


def _colours(scores: NDArray[np.float64], floor: float) -> list[tuple[int, int, int]]:
    place = np.clip((scores - floor) / (1 - floor), 0, 1) * (len(RAMP) - 1)
    channels = [np.interp(place, np.arange(len(RAMP)), band) for band in np.transpose(RAMP)]
    return [(int(r), int(g), int(b)) for r, g, b in np.rint(np.stack(channels, axis=-1))]


def _dimmed(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    muted = Image.blend(picture.convert("L").convert("RGB"), picture, SATURATION)
    return Image.blend(Image.new("RGB", picture.size), muted, BRIGHTNESS)


def _draw_shapes(
    picture: Image.Image, shapes: NDArray[Any], colours: list[tuple[int, int, int]]
) -> None:
    """Draw every shape, one stripe of rows after another."""
    line_px = _line_px(shapes)
    tree = shapely.STRtree(shapes)
    for top in range(0, picture.height, STRIPE_PX):
        bottom = min(top + STRIPE_PX, picture.height)
        margin = 2 * line_px
        reach = shapely.box(-margin, top - margin, picture.width + margin, bottom + margin)
        near = np.sort(tree.query(reach)).tolist()
        if near:
            stripe = picture.crop((0, top, picture.width, bottom))
            drawn = [_drawn(shapes[i], colours[i], top) for i in near]
            picture.paste(_with_rings(stripe, drawn, line_px), (0, top))


def _line_px(shapes: NDArray[Any]) -> float:
    """Return the outlines' width: thin among small buildings."""
    if not len(shapes):
        return LINE_PX[0]
    side_px = float(np.median(np.sqrt(shapely.area(shapes))))
    return float(np.clip(side_px / 16, *LINE_PX))


def _drawn(shape: Any, colour: tuple[int, int, int], top: int) -> _Drawn:
    parts = shapely.get_parts(shape)
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    return _Drawn(
        rings=[
            [(x * SUPERSAMPLE - 0.5, (y - top) * SUPERSAMPLE - 0.5) for x, y in ring.coords]
            for ring in rings
        ],
        holes=[k > 0 for part in parts for k in range(1 + len(part.interiors))],
        colour=colour,
    )


def _with_rings(stripe: Image.Image, drawn: list[_Drawn], line_px: float) -> Image.Image:
    """Return the stripe with casings, fills and outlines, drawn large and averaged down."""
    size = stripe.width * SUPERSAMPLE, stripe.height * SUPERSAMPLE
    large = stripe.resize(size, Image.Resampling.NEAREST)
    casing, tint, fill = Image.new("L", size), Image.new("RGB", size), Image.new("L", size)
    brushes = [ImageDraw.Draw(layer) for layer in (casing, tint, fill, large)]
    line = max(1, round(line_px * SUPERSAMPLE))
    for item in drawn:
        for ring, hole in zip(item.rings, item.holes, strict=True):
            closed = [*ring, ring[1]]
            brushes[0].line(closed, fill=_CASING, width=line + 2 * SUPERSAMPLE, joint="curve")
            brushes[1].polygon(ring, fill=item.colour)
            brushes[2].polygon(ring, fill=0 if hole else _FILL)
    large.paste((0, 0, 0), mask=casing)
    large.paste(tint, mask=fill)
    for item in drawn:
        for ring in item.rings:
            brushes[3].line([*ring, ring[1]], fill=item.colour, width=line, joint="curve")
    return large.resize(stripe.size, Image.Resampling.BOX)


def _draw_furniture(picture: Image.Image, grid: Grid, *, count: int, floor: float) -> None:
    """Draw the plates: how many and what the colours mean, and the scale."""
    text_px = int(np.clip(min(picture.size) / 42, 12, 30))
    font = ImageFont.load_default(size=text_px)
    canvas = ImageDraw.Draw(picture, "RGBA")
    _draw_legend(canvas, font, text_px=text_px, count=count, floor=floor)
    _draw_scale(canvas, font, picture.size, text_px=text_px, metres_per_px=grid.pixel_size_m[0])


def _draw_legend(
    canvas: ImageDraw.ImageDraw, font: _Font, *, text_px: int, count: int, floor: float
) -> None:
    pad, bar_height = text_px * 3 // 4, max(4, text_px // 2)
    title = f"{count:,} footprint{'' if count == 1 else 's'}"
    width = max(round(canvas.textlength(title, font)), text_px * 9)
    left, top = pad, pad
    _plate(canvas, (left, top, width + 2 * pad, 3 * pad + text_px * 5 // 2 + bar_height), pad)
    x, y = left + pad, top + pad
    canvas.text((x, y), title, fill=INK, font=font, anchor="lt")
    y += text_px + pad // 2
    colours = _colours(np.linspace(floor, 1, width), floor)
    for k, colour in enumerate(colours):
        canvas.line([(x + k, y), (x + k, y + bar_height - 1)], fill=colour)
    y += bar_height + text_px * 5 // 4
    canvas.text((x, y), f"{floor:.1f}", fill=FAINT, font=font, anchor="ls")
    canvas.text((x + width / 2, y), "score", fill=FAINT, font=font, anchor="ms")
    canvas.text((x + width, y), "1.0", fill=FAINT, font=font, anchor="rs")


def _draw_scale(
    canvas: ImageDraw.ImageDraw,
    font: _Font,
    size: tuple[int, int],
    *,
    text_px: int,
    metres_per_px: float,
) -> None:
    pad, bar_height = text_px * 3 // 4, max(3, text_px // 4)
    length_m = nice_length_m(max(0.22 * min(size[0], 2 * size[1]), text_px * 5) * metres_per_px)
    length = round(length_m / metres_per_px)
    label = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    height = 2 * pad + text_px + text_px // 3 + bar_height
    width = max(length, round(canvas.textlength(label, font))) + 2 * pad
    left, top = pad, size[1] - pad - height
    _plate(canvas, (left, top, width, height), pad)
    x, y = left + pad, top + pad
    canvas.text((x, y), label, fill=INK, font=font, anchor="lt")
    y += text_px + text_px // 3
    canvas.rectangle([x, y, x + length - 1, y + bar_height - 1], fill=INK)


def _plate(canvas: ImageDraw.ImageDraw, box: tuple[int, int, int, int], radius: int) -> None:
    """Draw a dark plate; `box` is left, top, width, height."""
    left, top, width, height = box
    corners = [left, top, left + width - 1, top + height - 1]
    canvas.rounded_rectangle(corners, radius=radius // 2, fill=PLATE)
