"""One instance from a group of pieces: blended soft mask, score, how many chips saw it.

Where several chips look, probabilities are averaged with weights that fall towards each chip's
inner borders, where the network sees least around a pixel. A chip of the group that sees a pixel
but leaves it out of its mask votes zero there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.detections import MASK_ON
from geoseg.grid import Window
from geoseg.stitch.pieces import overlap, window_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.chips import Chip
    from geoseg.stitch.pieces import Key, Piece

TAPER_PX = 30
"""Weights grow linearly over this distance from a chip's inner border: half the usual overlap."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instance:
    """One building of a scene, whole across chip borders."""

    scene_id: str
    window: Window
    """Where `soft` lies, pixels of the scene's grid."""
    soft: NDArray[np.uint8]
    """(h, w) probability, 255 = 1."""
    score: float
    """Mean of the pieces' scores, weighted by their areas; in [0, 1]."""
    label: int
    n_chips: int
    touches_edge: bool
    """It reaches the border of the scene, which may cut it."""
    order: tuple[int, ...] = ()
    """Its place among the scene's instances, the same however the scene was worked through."""


def merge(group: Sequence[Piece], *, shape_hw: tuple[int, int]) -> Instance:
    """Blend the pieces of one building.

    Args:
        group: Pieces in the order of their keys; several may be of one chip.
        shape_hw: Shape of the scene, px.

    Returns:
        The instance; its mask covers the union of the pieces' boxes.
    """
    first = group[0]
    weights = [piece.area for piece in group]
    score = float(np.dot(weights, [piece.score for piece in group]) / sum(weights))
    box, soft = (first.box, first.soft) if len(group) == 1 else _blend(group, shape_hw)
    window = Window(row_off=box[1], col_off=box[0], height=box[3] - box[1], width=box[2] - box[0])
    return Instance(
        scene_id=first.chip.scene_id,
        window=window,
        soft=soft,
        score=min(score, 1.0),
        label=first.label,
        n_chips=len({(piece.chip.row, piece.chip.col) for piece in group}),
        touches_edge=_touches(box, soft, shape_hw),
    )


def drop_duplicates(
    merged: list[tuple[Key, Instance]], *, least_ios: float
) -> list[tuple[Key, Instance]]:
    """Keep the strongest of instances that claim the same ground.

    Args:
        merged: Instances of one component with their keys.
        least_ios: Two instances are duplicates when they share this part of the smaller.

    Returns:
        The kept ones, in the given order.
    """
    if len(merged) == 1:
        return merged
    strongest_first = sorted(merged, key=lambda item: (-item[1].score, item[0]))
    instances = [instance for _, instance in strongest_first]
    areas = [int(np.count_nonzero(instance.soft >= MASK_ON)) for instance in instances]
    boxes = shapely.box(*np.array([_box(instance) for instance in instances], float).T)
    weaker, stronger = shapely.STRtree(boxes).query(boxes)
    pairs = sorted(zip(weaker.tolist(), stronger.tolist(), strict=True))
    kept = [True] * len(instances)
    for i, j in pairs:
        if j < i and kept[i] and kept[j]:
            both = _shared_area(instances[i], instances[j])
            kept[i] = both < least_ios * max(1, min(areas[i], areas[j]))
    return sorted(
        (item for item, keep in zip(strongest_first, kept, strict=True) if keep),
        key=lambda item: item[0],
    )


def _box(instance: Instance) -> tuple[int, int, int, int]:
    window = instance.window
    return window.col_off, window.row_off, window.col_stop, window.row_stop


def _shared_area(a: Instance, b: Instance) -> int:
    shared = a.window.intersection(b.window)
    if shared is None:
        return 0
    on_a, on_b = (
        item.soft[
            shared.row_off - item.window.row_off : shared.row_stop - item.window.row_off,
            shared.col_off - item.window.col_off : shared.col_stop - item.window.col_off,
        ]
        >= MASK_ON
        for item in (a, b)
    )
    return int(np.count_nonzero(on_a & on_b))


def _blend(
    group: Sequence[Piece], shape_hw: tuple[int, int]
) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
    boxes = np.array([piece.box for piece in group])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    total = np.zeros((y1 - y0, x1 - x0), np.float32)
    weight = np.zeros_like(total)
    by_chip: dict[tuple[int, int], list[Piece]] = {}
    for piece in group:
        by_chip.setdefault((piece.chip.row, piece.chip.col), []).append(piece)
    for pieces in by_chip.values():
        seen = overlap((x0, y0, x1, y1), window_box(pieces[0].chip))
        assert seen is not None, "a chip sees its own pieces"
        taper = _taper(pieces[0].chip, seen, shape_hw)
        rows, cols = slice(seen[1] - y0, seen[3] - y0), slice(seen[0] - x0, seen[2] - x0)
        weight[rows, cols] += taper
        total[rows, cols] += taper * _soft_in(pieces, seen)
    soft = np.rint(total / np.maximum(weight, np.float32(1e-9)))
    return (x0, y0, x1, y1), soft.astype(np.uint8)


def _soft_in(pieces: list[Piece], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = box
    canvas = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for piece in pieces:
        left, top, right, bottom = piece.box
        part = canvas[top - y0 : bottom - y0, left - x0 : right - x0]
        np.maximum(part, piece.soft, out=part)
    return canvas


def _taper(
    chip: Chip, box: tuple[int, int, int, int], shape_hw: tuple[int, int]
) -> NDArray[np.float32]:
    x0, y0, x1, y1 = box
    window = chip.window
    rows = _ramp(y0, y1, window.row_off, window.row_stop, shape_hw[0])
    cols = _ramp(x0, x1, window.col_off, window.col_stop, shape_hw[1])
    return np.minimum.outer(rows, cols)


def _ramp(start: int, stop: int, low: int, high: int, length: int) -> NDArray[np.float32]:
    """Return weights of pixels [start, stop) in a window [low, high) of an axis of `length`."""
    at = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    from_low = at - low if low > 0 else np.full_like(at, TAPER_PX)
    from_high = high - at if high < length else np.full_like(at, TAPER_PX)
    return np.minimum(np.minimum(from_low, from_high), TAPER_PX)


def _touches(
    box: tuple[int, int, int, int], soft: NDArray[np.uint8], shape_hw: tuple[int, int]
) -> bool:
    height, width = shape_hw
    x0, y0, x1, y1 = box
    if x0 > 0 and y0 > 0 and x1 < width and y1 < height:
        return False
    on = soft >= MASK_ON
    return bool(
        (x0 == 0 and on[:, 0].any())
        or (y0 == 0 and on[0].any())
        or (x1 == width and on[:, -1].any())
        or (y1 == height and on[-1].any())
    )
