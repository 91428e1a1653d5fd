"""The steps in their order: detections of one chip in, detections of that chip out.

The order is that of the winner of the crowdAI mapping challenge, with what it had not in between:

    duplicates, binary, join, split, erode, open, close, parts, claims, dilate, min_area, score

A chip's masks are treated without a look at its neighbours', so that streams, blocks and folders of
pictures give the same. Frame: pixels of the chip.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from geoseg.detections import MASK_ON, Detections
from geoseg.morphology.claims import claim, drop_duplicates
from geoseg.morphology.fragments import join_fragments, part, split_glued
from geoseg.morphology.options import reach_of
from geoseg.morphology.reshape import close_masks, dilate, erode, open_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    from geoseg.morphology.options import MorphologyOptions

    C = TypeVar("C")


def refine(found: Detections, options: MorphologyOptions, *, gsd_m: float | None) -> Detections:
    """Do the steps that are asked for to the masks of a chip.

    Args:
        found: Detections of one chip.
        options: Which steps, how far.
        gsd_m: Metres of a pixel; None where that is not known, as of pictures.

    Returns:
        Detections of the chip. Where masks are worked on, each has a pixel at probability 0.5 at
        least, and its box is drawn around these.

    Raises:
        ConfigError: A radius in metres, and `gsd_m` is None; or it is too large.

    Example:
        >>> from geoseg.grid import Window
        >>> from geoseg.morphology import MorphologyOptions
        >>> chip = Window(row_off=0, col_off=0, height=300, width=300)
        >>> len(refine(Detections.empty("s", chip), MorphologyOptions(dilate="0.6m"), gsd_m=0.3))
        0
    """
    if len(found) == 0:
        return found
    done = found
    if options.duplicate_ios > 0:
        done = drop_duplicates(done, least_ios=options.duplicate_ios)
    if not options.works_on_masks:
        return done
    reach = reach_of(options, gsd_m)
    if options.masks == "binary":
        done = _binary(done)
    if options.join > 0:
        done = join_fragments(done, least_share=options.join)
    if options.split > 0:
        done = split_glued(done, neck=options.split)
    done = erode(done, reach.erode, options)
    done = open_masks(done, reach.open, options)
    done = close_masks(done, reach.close, options)
    if options.parts != "keep":
        done = part(done, options.parts, connectivity=options.connectivity)
    if options.claims != "none":
        done = claim(done, by=options.claims)
    done = dilate(done, reach.dilate, options)
    done = _sized(done, reach.min_area, is_open=options.border == "ignored")
    return _scored(done, found) if options.score == "mask" else done


def refine_chips(
    found: Iterable[tuple[C, Detections]], options: MorphologyOptions, *, gsd_m: float | None
) -> Iterator[tuple[C, Detections]]:
    """Yield each chip with its detections refined. See `refine`."""
    for chip, detections in found:
        yield chip, refine(detections, options, gsd_m=gsd_m)


def _binary(found: Detections) -> Detections:
    """Cut masks at 0.5."""
    cut = np.where(found.mask_data >= MASK_ON, np.uint8(255), np.uint8(0))
    return replace(found, mask_data=cut)


def _sized(found: Detections, min_area_px: float, *, is_open: bool) -> Detections:
    """Draw boxes around masks; drop those that are empty or small.

    Small masks at the chip's border stay where that is open: beyond it they may be larger.
    """
    on = replace(found, mask_data=(found.mask_data >= MASK_ON).view(np.uint8)).masks()
    xywh = np.array([cv2.boundingRect(mask) for mask in on], np.float32).reshape(-1, 4)
    low = found.mask_boxes[:, :2].astype(np.float32) + xywh[:, :2]
    boxes = np.hstack([low, low + xywh[:, 2:]])
    areas = np.array([cv2.countNonZero(mask) for mask in on], np.int64)
    kept = areas >= max(min_area_px, 1)
    if is_open:
        ends = np.array([found.window.width, found.window.height])
        at_border = (boxes[:, :2] <= 0).any(axis=1) | (boxes[:, 2:] >= ends).any(axis=1)
        kept |= at_border & (areas > 0)
    sized = replace(found, boxes=boxes)
    return sized if kept.all() else sized.take(kept)


def _scored(done: Detections, found: Detections) -> Detections:
    """Score masks as the challenge's winner did, divided by the most that a chip can give.

    That is the mean probability under a mask times the root of its area. The probability is the
    highest of all detections there.
    """
    shape_hw = (found.window.height, found.window.width)
    probability = np.zeros(shape_hw, np.uint8)
    for mask, (x0, y0, x1, y1) in zip(found.masks(), found.mask_boxes.tolist(), strict=True):
        part_of = probability[y0:y1, x0:x1]
        np.maximum(part_of, mask, out=part_of)
    scores = np.zeros(len(done), np.float32)
    for i, (mask, (x0, y0, x1, y1)) in enumerate(
        zip(done.masks(), done.mask_boxes.tolist(), strict=True)
    ):
        under = probability[y0:y1, x0:x1][mask >= MASK_ON]
        scores[i] = under.mean() / 255 * math.sqrt(under.size / probability.size)
    return replace(done, scores=scores)
