"""Who owns a pixel: of masks that claim it, the best keeps it, and the others get what it leaves.

What an owner leaves of a pixel of probability p is 1 - p. So the walls between neighbours, traced
at 0.5, are the same line from both sides: outlines do not overlap. Frame: pixels of a chip.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

import numpy as np

from geoseg.detections import MASK_ON

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from geoseg.detections import Detections

    Masks = Sequence[NDArray[np.uint8]]
    Region = tuple[slice, slice]

By = Literal["score", "probability"]


def best_first(found: Detections) -> list[int]:
    """Return the positions of detections from the best score to the worst."""
    order: list[int] = np.argsort(-found.scores, kind="stable").tolist()
    return order


def settle(
    masks: Masks,
    boxes: NDArray[np.int32],
    cost_of: Callable[[int, Region], NDArray[np.float32]],
    *,
    order: Sequence[int],
    keep_free: bool = False,
) -> list[NDArray[np.uint8]]:
    """Give each pixel to the mask to which it costs least, of those that are 0.5 or more there.

    Args:
        masks: (h, w) soft masks.
        boxes: (N, 4) xyxy where they lie in the chip.
        cost_of: Returns the costs of a mask in a part of it; asked only where it is contested.
        order: Positions; of masks to which a pixel costs the same, the first in here owns it.
        keep_free: Whether what costs a mask nothing stays its own, whoever else owns it.

    Returns:
        Soft masks of the same shapes; those that no other mask reaches are the given ones.
    """
    settled = list(masks)
    for i, j in meeting(boxes, order):
        in_i, in_j = shared(boxes[i].tolist(), boxes[j].tolist())
        mask_i, mask_j = masks[i][in_i], masks[j][in_j]
        lost_i, lost_j = mask_j >= MASK_ON, mask_i >= MASK_ON
        both = lost_i & lost_j
        if both.any():
            cost_i, cost_j = cost_of(i, in_i), cost_of(j, in_j)
            is_first = cost_i <= cost_j
            lost_i &= ~both | ~is_first & ~(keep_free & (cost_i == 0))
            lost_j &= ~both | is_first & ~(keep_free & (cost_j == 0))
        settled[i] = _yielded(settled[i], in_i, lost_i, mask_j)
        settled[j] = _yielded(settled[j], in_j, lost_j, mask_i)
    return settled


def _yielded(
    mask: NDArray[np.uint8],
    here: Region,
    lost: NDArray[np.bool_],
    owner: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Return a mask that has what the owner leaves of the pixels that are lost to it."""
    if not lost.any():
        return mask
    yielded = mask.copy()
    part = yielded[here]
    np.minimum(part, ~owner, out=part, where=lost)
    return yielded


def meeting(boxes: NDArray[np.int32], order: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs whose boxes overlap, each with the one first that comes first in `order`."""
    x0, y0, x1, y1 = boxes[order].T
    meet = (x0[:, None] < x1) & (x0 < x1[:, None]) & (y0[:, None] < y1) & (y0 < y1[:, None])
    first, second = np.nonzero(np.triu(meet, 1))
    at = np.asarray(order)
    return list(zip(at[first].tolist(), at[second].tolist(), strict=True))


def shared(a: Sequence[int], b: Sequence[int]) -> tuple[Region, Region]:
    """Return where in each of two overlapping boxes the rectangle lies that they share."""
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (
        (slice(y0 - a[1], y1 - a[1]), slice(x0 - a[0], x1 - a[0])),
        (slice(y0 - b[1], y1 - b[1]), slice(x0 - b[0], x1 - b[0])),
    )


def claim(found: Detections, *, by: By) -> Detections:
    """Give pixels that several masks claim to the better one; no pixel is claimed twice after.

    Args:
        found: Detections of one chip.
        by: What is better: a higher score of the instance, or a higher probability of the pixel.

    Returns:
        The detections, in the same order; a mask may have lost all of its pixels.
    """
    order, masks = best_first(found), found.masks()
    ranks = np.empty(len(order), np.float32)
    ranks[order] = np.arange(len(order))

    def cost_of(i: int, here: Region) -> NDArray[np.float32]:
        part = masks[i][here]
        if by == "probability":
            return -part.astype(np.float32)
        return np.broadcast_to(ranks[i], part.shape)

    return with_masks(found, settle(masks, found.mask_boxes, cost_of, order=order))


def drop_duplicates(found: Detections, *, least_ios: float) -> Detections:
    """Leave out detections that show what a better one of their label shows in the same chip.

    Args:
        found: Detections of one chip.
        least_ios: Two show the same when they share this part of the smaller.

    Returns:
        The others, in their order; the given ones where none is left out.
    """
    pairs = meeting(found.mask_boxes, best_first(found))
    kept = np.ones(len(found), np.bool_)
    at = sorted(set(itertools.chain(*pairs)))
    masks = {i: found.mask(i) >= MASK_ON for i in at}
    areas = {i: max(int(np.count_nonzero(mask)), 1) for i, mask in masks.items()}
    boxes = found.mask_boxes.tolist()
    for better, worse in pairs:
        if kept[better] and kept[worse] and found.labels[better] == found.labels[worse]:
            in_better, in_worse = shared(boxes[better], boxes[worse])
            both = np.count_nonzero(masks[better][in_better] & masks[worse][in_worse])
            kept[worse] = both < least_ios * min(areas[better], areas[worse])
    return found if kept.all() else found.take(kept)


def with_masks(
    found: Detections, masks: Masks, boxes: NDArray[np.int32] | None = None
) -> Detections:
    """Return the detections with other masks, and where these lie if they moved."""
    return type(found).from_masks(
        found.scene_id,
        found.window,
        boxes=found.boxes,
        scores=found.scores,
        labels=found.labels,
        mask_boxes=found.mask_boxes if boxes is None else boxes,
        masks=masks,
    )
