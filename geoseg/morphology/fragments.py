"""Masks in parts, fragments of one roof, and terraces glued together. Frame: pixels of a chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from geoseg.detections import MASK_ON
from geoseg.morphology.claims import best_first, meeting, shared, with_masks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.detections import Detections

    Mask = NDArray[np.uint8]

Parts = Literal["split", "largest"]
FAINT = 51
"""Probability 0.2 of a uint8 soft mask: what a network half takes for the same roof."""
LEAST_LEVEL_PX = 1.0
"""Necks of less width than this are as good as none."""
LEAST_PEAK_PX = 3.0
"""Parts that are nowhere this far from their outline are bays and corners, no roofs."""
STEP_PX = 0.5
WALL_SHARE = 0.75
"""Least drop of probability at a wall: to this share of what it is in the parts."""


def part(found: Detections, parts: Parts, *, connectivity: int) -> Detections:
    """Make each connected part of a mask one of its own, or keep the largest alone.

    Args:
        found: Detections of one chip.
        parts: What to do; parts follow each other in the order of their first pixels, row by row.
        connectivity: 4, or 8 where pixels that touch at a corner are connected.

    Returns:
        Detections, in the order of those they came from, with their scores and labels.
    """
    cut: list[tuple[int, Mask]] = []
    for i, mask in enumerate(found.masks()):
        on = (mask >= MASK_ON).astype(np.uint8)
        n, components = cv2.connectedComponents(on, connectivity=connectivity)
        labels = np.asarray(components, np.int32)
        if n <= 2:
            cut.append((i, mask))
            continue
        values, first, sizes = np.unique(labels, return_index=True, return_counts=True)
        chosen = values[1:][np.argsort(first[1:])]
        if parts == "largest":
            chosen = values[1:][[int(np.argmax(sizes[1:]))]]
        cut += [(i, _alone(mask, labels, value)) for value in chosen.tolist()]
    return _recut(found, cut)


def split_glued(found: Detections, *, neck: float) -> Detections:
    """Cut masks where they are narrow between two wide parts, as between roofs that were glued.

    How wide a mask is somewhere is its distance from its outline times its probability, so that a
    common wall that the network is less sure of counts as a narrow place. Parts are grown back from
    what lies above the narrow place, each pixel to the nearest. Where the network is as sure of the
    wall as of the parts, the mask stays whole.

    Args:
        found: Detections of one chip.
        neck: A mask is cut where it is narrower than this share of the narrower of two parts.

    Returns:
        Detections, in the order of those they came from, with their scores and labels.
    """
    cut: list[tuple[int, Mask]] = []
    for i, mask in enumerate(found.masks()):
        seeds = _seeds(_widths_px(mask), neck)
        values = np.unique(seeds[seeds > 0]).tolist()
        nearest = _nearest(seeds) if len(values) > 1 else seeds
        if len(values) > 1 and _are_walls(mask, seeds, nearest):
            cut += [(i, _alone(mask, nearest, value)) for value in values]
        else:
            cut.append((i, mask))
    return _recut(found, cut)


def join_fragments(found: Detections, *, least_share: float) -> Detections:
    """Join masks to those of a higher score in whose faint part they lie.

    Args:
        found: Detections of one chip.
        least_share: Share of a fragment's pixels where the better mask has probability 0.2.

    Returns:
        The detections that are left, in their order; masks are the higher of both probabilities.
    """
    masks, boxes = found.masks(), found.mask_boxes.tolist()
    order = best_first(found)
    into = dict(zip(order, order, strict=True))
    for better, worse in meeting(found.mask_boxes, order):
        if found.labels[better] != found.labels[worse] or into[worse] != worse:
            continue
        in_better, in_worse = shared(boxes[better], boxes[worse])
        on = masks[worse] >= MASK_ON
        faint = masks[better][in_better] >= FAINT
        if np.count_nonzero(on[in_worse] & faint) >= least_share * np.count_nonzero(on):
            into[worse] = into[better]
    groups: dict[int, list[int]] = {}
    for i in range(len(found)):
        groups.setdefault(into[i], []).append(i)
    united = [_united(found, masks, groups[i]) for i in sorted(groups)]
    return with_masks(
        found.take(sorted(groups)),
        [mask for mask, _ in united],
        np.array([box for _, box in united], np.int32).reshape(-1, 4),
    )


def _united(
    found: Detections, masks: Sequence[Mask], group: Sequence[int]
) -> tuple[Mask, tuple[int, ...]]:
    """Return the highest probabilities of several masks, and where they lie."""
    boxes = found.mask_boxes[group]
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    united = np.zeros((bottom - top, right - left), np.uint8)
    for i, (x0, y0, x1, y1) in zip(group, boxes.tolist(), strict=True):
        part_of = united[y0 - top : y1 - top, x0 - left : x1 - left]
        np.maximum(part_of, masks[i], out=part_of)
    return united, (int(left), int(top), int(right), int(bottom))


def _widths_px(mask: Mask) -> NDArray[np.float32]:
    on = np.pad((mask >= MASK_ON).astype(np.uint8), 1)
    distances = cv2.distanceTransform(on, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.asarray(distances * mask / np.float32(255))


def _seeds(widths_px: NDArray[np.float32], neck: float) -> NDArray[np.int32]:
    """Return the parts above the narrow places, numbered from 1; 0 elsewhere.

    Levels are lowered step by step. Where parts flow together, they stay apart if the level is
    below `neck` times the width of the narrower of them.
    """
    seeds = np.zeros(widths_px.shape, np.int32)
    peaks = [0.0]
    for level in np.arange(float(widths_px.max()), LEAST_LEVEL_PX, -STEP_PX).tolist():
        n, labels = cv2.connectedComponents((widths_px >= level).view(np.uint8), connectivity=4)
        for value in range(1, n):
            here = labels == value
            inside: list[int] = np.unique(seeds[here & (seeds > 0)]).tolist()
            if not inside:
                inside = [len(peaks)]
                peaks.append(level)
            widest, *others = sorted(inside, key=lambda seed: -peaks[seed])
            apart = [s for s in others if peaks[s] >= LEAST_PEAK_PX and level < neck * peaks[s]]
            for seed in set(others) - set(apart):
                seeds[seeds == seed] = widest
            if not apart:
                seeds[here] = widest
    return seeds


def _nearest(seeds: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return for each pixel the seed that is nearest."""
    free = (seeds == 0).astype(np.uint8)
    _, cells = cv2.distanceTransformWithLabels(
        free, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_cell = np.zeros(int(cells.max()) + 1, np.int32)
    of_cell[cells[seeds > 0]] = seeds[seeds > 0]
    return of_cell[cells]


def _are_walls(mask: Mask, seeds: NDArray[np.int32], nearest: NDArray[np.int32]) -> bool:
    """Say whether the network is less sure where cells of the nearest seed meet."""
    cells, around = nearest.astype(np.float32), np.ones((3, 3), np.uint8)
    meet = cv2.dilate(cells, around) != cv2.erode(cells, around)
    walls = mask[meet & (mask >= MASK_ON)]
    return len(walls) == 0 or bool(walls.mean() <= WALL_SHARE * mask[seeds > 0].mean())


def _alone(mask: Mask, labels: NDArray[np.int32], value: int) -> Mask:
    """Return a mask that leaves its other parts what `claims` lets an owner leave."""
    return np.where((labels == value) | (mask < MASK_ON), mask, ~mask)


def _recut(found: Detections, cut: Sequence[tuple[int, Mask]]) -> Detections:
    """Return masks in the box of the detection that they came from; parts cropped to themselves."""
    source = np.array([i for i, _ in cut], np.int64)
    whole = np.bincount(source, minlength=len(found)) == 1
    boxes, masks = [], []
    for i, mask in cut:
        left, top, right, bottom = found.mask_boxes[i].tolist()
        x0, y0, x1, y1 = (0, 0, right - left, bottom - top) if whole[i] else _extent(mask)
        boxes.append((left + x0, top + y0, left + x1, top + y1))
        masks.append(mask[y0:y1, x0:x1])
    return type(found).from_masks(
        found.scene_id,
        found.window,
        boxes=found.boxes[source],
        scores=found.scores[source],
        labels=found.labels[source],
        mask_boxes=np.array(boxes, np.int32),
        masks=masks,
    )


def _extent(mask: Mask) -> tuple[int, int, int, int]:
    """Return the xyxy edges of the pixels at 0.5, with those around them that shape the outline."""
    x, y, width, height = cv2.boundingRect((mask >= MASK_ON).view(np.uint8))
    limit_y, limit_x = mask.shape
    return max(x - 1, 0), max(y - 1, 0), min(x + width + 1, limit_x), min(y + height + 1, limit_y)
