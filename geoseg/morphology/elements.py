"""Disks and squares, and what they do to a canvas of soft masks: erode, dilate, open, close.

On soft masks these are the grey operations: the least, or greatest, probability under the element.
So the pixels at 0.5 are those that the same operation on binary masks gives. Imports numpy and cv2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from geoseg.detections import MASK_ON

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.morphology.atlas import Atlas

    Canvas = NDArray[np.uint8]

Element = Literal["disk", "square"]
Border = Literal["ignored", "background"]


def make_element(radius_px: float, element: Element) -> Canvas | None:
    """Return the pixels of an element, (2r + 1, 2r + 1) of 0 and 1; None below a pixel's radius.

    Example:
        >>> make_element(1, "disk").tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    reach = math.floor(radius_px)
    if reach < 1:
        return None
    if element == "square":
        return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    steps = np.arange(-reach, reach + 1) ** 2
    return (np.add.outer(steps, steps) <= radius_px**2).astype(np.uint8)


def erode(canvas: Canvas, kernel: Canvas, atlas: Atlas, border: Border) -> Canvas:
    """Shrink masks; what lies beyond the chip is ignored, or takes part as background."""
    beyond = atlas.beyond
    if beyond is None:
        return np.asarray(cv2.erode(canvas, kernel), np.uint8)
    if border == "ignored":
        canvas = np.where(beyond, np.uint8(255), canvas)
    eroded = np.asarray(cv2.erode(canvas, kernel), np.uint8)
    eroded[beyond] = 0
    return eroded


def dilate(canvas: Canvas, kernel: Canvas, atlas: Atlas) -> Canvas:
    """Grow masks, as far as the chip goes."""
    dilated = np.asarray(cv2.dilate(canvas, kernel), np.uint8)
    if atlas.beyond is not None:
        dilated[atlas.beyond] = 0
    return dilated


def distances_px(canvas: Canvas, element: Element) -> NDArray[np.float32]:
    """Return how far each pixel is from a mask, 0 on it: the radius at which an element hits it."""
    off = (canvas < MASK_ON).astype(np.uint8)
    kind, size = (
        (cv2.DIST_L2, cv2.DIST_MASK_PRECISE) if element == "disk" else (cv2.DIST_C, cv2.DIST_MASK_3)
    )
    return np.asarray(cv2.distanceTransform(off, kind, size), np.float32)


def bring_back(
    before: Canvas, after: Canvas, *, erased: bool, least_area_px: float, connectivity: int
) -> Canvas:
    """Return `after` with objects as they were that it erased, and those that are small.

    An object is a connected part of a mask at 0.5; its faint surroundings come back with it.

    Args:
        before: Canvas that was eroded or opened.
        after: What came of it; nowhere above `before`.
        erased: Whether objects without a pixel left come back.
        least_area_px: Objects of fewer pixels are as before.
        connectivity: 4, or 8 where pixels that touch at a corner are connected.
    """
    if not erased and least_area_px <= 0:
        return after
    on = (before >= MASK_ON).view(np.uint8)
    n, labels = cv2.connectedComponents(on, connectivity=connectivity)
    back = np.zeros(n, np.bool_)
    if least_area_px > 0:
        back = np.bincount(labels.ravel(), minlength=n) < least_area_px
    if erased:
        survives = np.zeros(n, np.bool_)
        survives[labels[after >= MASK_ON]] = True
        back |= ~survives
    back[0] = False
    if not back.any():
        return after
    objects = back[labels].view(np.uint8)
    around = np.asarray(cv2.dilate(objects, np.ones((3, 3), np.uint8)))
    return np.where((objects > 0) | ((around > 0) & (on == 0)), before, after)


def small_objects(canvas: Canvas, least_area_px: float, connectivity: int) -> Canvas:
    """Return a canvas of the objects of fewer pixels alone."""
    on = (canvas >= MASK_ON).view(np.uint8)
    _, labels = cv2.connectedComponents(on, connectivity=connectivity)
    small = np.bincount(labels.ravel()) < least_area_px
    small[0] = False
    return np.where(small[labels], canvas, np.uint8(0))
