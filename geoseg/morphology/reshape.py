"""Masks of a chip eroded, opened, closed and dilated, without growing into each other.

All of a chip's masks are worked on at once (`atlas`). Frame: pixels of the chip.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from geoseg.morphology import elements
from geoseg.morphology.atlas import grown_boxes, pack, unpack
from geoseg.morphology.claims import best_first, settle, with_masks
from geoseg.morphology.elements import make_element

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.detections import Detections
    from geoseg.morphology.atlas import Atlas
    from geoseg.morphology.claims import Region
    from geoseg.morphology.options import MorphologyOptions


def erode(found: Detections, radius_px: float, options: MorphologyOptions) -> Detections:
    """Shrink masks by a radius; objects that would vanish, or are small, stay as they were."""
    return _shrunk(found, radius_px, options, opens=False)


def open_masks(found: Detections, radius_px: float, options: MorphologyOptions) -> Detections:
    """Take away what is narrower than an element; objects are spared as `erode` spares them."""
    return _shrunk(found, radius_px, options, opens=True)


def close_masks(found: Detections, radius_px: float, options: MorphologyOptions) -> Detections:
    """Fill gaps narrower than an element, where no other mask lies."""
    kernel = make_element(radius_px, options.element)
    if kernel is None or len(found) == 0:
        return found
    atlas = pack(found, margin_px=math.floor(radius_px) + 1)
    grown = elements.dilate(atlas.canvas, kernel, atlas)
    closed = elements.erode(grown, kernel, atlas, "ignored")  # else the border would eat into masks
    return _without_overlaps(found, atlas, closed, radius_px, options)


def dilate(found: Detections, radius_px: float, options: MorphologyOptions) -> Detections:
    """Grow masks by a radius, each pixel to one mask, and none that was another's.

    With `contested="last"` the later mask takes all that it reaches, another's own pixels, too.
    """
    kernel = make_element(radius_px, options.element)
    if kernel is None or len(found) == 0:
        return found
    atlas = pack(found, margin_px=math.floor(radius_px) + 1)
    if options.small_px > 0 and options.small == "grown":
        small = elements.small_objects(atlas.canvas, options.small_px**2, options.connectivity)
        grown = np.maximum(atlas.canvas, elements.dilate(small, kernel, atlas))
    else:
        grown = elements.dilate(atlas.canvas, kernel, atlas)
    return _without_overlaps(found, atlas, grown, radius_px, options)


def _shrunk(
    found: Detections, radius_px: float, options: MorphologyOptions, *, opens: bool
) -> Detections:
    kernel = make_element(radius_px, options.element)
    if kernel is None or len(found) == 0:
        return found
    atlas = pack(found, margin_px=math.floor(radius_px) + 1)
    less = elements.erode(atlas.canvas, kernel, atlas, options.border)
    if opens:
        less = elements.dilate(less, kernel, atlas)
    less = elements.bring_back(
        atlas.canvas,
        less,
        erased=options.restore,
        least_area_px=options.small_px**2,
        connectivity=options.connectivity,
    )
    return with_masks(found, unpack(less, atlas, found.mask_boxes, found))


def _without_overlaps(
    found: Detections,
    atlas: Atlas,
    grown: NDArray[np.uint8],
    radius_px: float,
    options: MorphologyOptions,
) -> Detections:
    """Return what masks have become, each grown pixel with its owner alone."""
    boxes = grown_boxes(found, math.floor(radius_px))
    masks = unpack(grown, atlas, boxes, found)
    is_last = options.contested == "last"

    def place(i: int, here: Region) -> NDArray[np.float32]:
        return np.broadcast_to(np.float32(-i), masks[i][here].shape)

    def distance(i: int, here: Region) -> NDArray[np.float32]:
        (rows, cols), reach = here, math.floor(radius_px)
        top, left = max(rows.start - reach, 0), max(cols.start - reach, 0)
        near = before[i][top : rows.stop + reach, left : cols.stop + reach]
        far = elements.distances_px(near, options.element)
        return far[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]

    before = unpack(atlas.canvas, atlas, boxes, found)
    cost_of = place if is_last else distance
    settled = settle(masks, boxes, cost_of, order=best_first(found), keep_free=not is_last)
    return with_masks(found, settled, boxes)
