"""Instances of different views that agree are one: their soft masks and scores are merged.

What few views saw is scored down: a view that did not find it is taken to have scored it half of
the least score. Frame: pixels of a chip's frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.detections import MASK_ON, Detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.tta.options import Merge, TtaOptions


def merge_views(
    seen: Sequence[Detections], options: TtaOptions, *, score_threshold: float
) -> Detections:
    """Merge what several views of one chip found.

    Args:
        seen: One for each view, in one frame.
        options: How to match and merge.
        score_threshold: Least score that the views were asked for.

    Returns:
        Instances that score at least that after merging, from the best to the worst.
    """
    items = [(v, i) for v, found in enumerate(seen) for i in range(len(found))]
    groups = _groups(seen, items, options.agree_iou)
    merged = []
    for group in groups:
        members = [(seen[view], i) for view, i in (items[at] for at in group)]
        merged.append(_merged(members, len(seen), options.merge, score_threshold / 2))
    first = seen[0]
    kept = [one for one in merged if one.scores[0] >= np.float32(score_threshold)]
    if not kept:
        return Detections.empty(first.scene_id, first.window)
    kept.sort(key=lambda one: (-float(one.scores[0]), *one.mask_boxes[0].tolist()))
    return Detections.from_masks(
        first.scene_id,
        first.window,
        boxes=np.concatenate([one.boxes for one in kept]),
        scores=np.concatenate([one.scores for one in kept]),
        labels=np.concatenate([one.labels for one in kept]),
        mask_boxes=np.concatenate([one.mask_boxes for one in kept]),
        masks=[one.mask(0) for one in kept],
    )


def _groups(
    seen: Sequence[Detections], items: Sequence[tuple[int, int]], agree_iou: float
) -> list[list[int]]:
    """Unite instances of different views from the best agreement on, one of each view at most."""
    if not items:
        return []
    boxes = np.concatenate([found.mask_boxes for found in seen]).astype(float)
    rectangles = shapely.box(*boxes.T)
    left, right = shapely.STRtree(rectangles).query(rectangles)
    masks = [mask >= MASK_ON for found in seen for mask in found.masks()]
    areas = np.array([int(np.count_nonzero(mask)) for mask in masks])
    corners = boxes.astype(int).tolist()
    pairs = []
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        (view_a, i), (view_b, j) = items[a], items[b]
        if a < b and view_a != view_b and seen[view_a].labels[i] == seen[view_b].labels[j]:
            both = _shared(masks[a], corners[a], masks[b], corners[b])
            iou = both / max(1, areas[a] + areas[b] - both)
            if iou >= agree_iou:
                pairs.append((-iou, a, b))
    groups = {at: [at] for at in range(len(items))}
    for _, a, b in sorted(pairs):
        one, two = groups[a], groups[b]
        if one is two or {items[at][0] for at in one} & {items[at][0] for at in two}:
            continue
        one.extend(two)
        groups.update(dict.fromkeys(two, one))
    return list({id(group): sorted(group) for group in groups.values()}.values())


def _shared(a: NDArray[np.bool_], box_a: list[int], b: NDArray[np.bool_], box_b: list[int]) -> int:
    x0, y0 = max(box_a[0], box_b[0]), max(box_a[1], box_b[1])
    x1, y1 = min(box_a[2], box_b[2]), min(box_a[3], box_b[3])
    if x1 <= x0 or y1 <= y0:
        return 0
    in_a = a[y0 - box_a[1] : y1 - box_a[1], x0 - box_a[0] : x1 - box_a[0]]
    in_b = b[y0 - box_b[1] : y1 - box_b[1], x0 - box_b[0] : x1 - box_b[0]]
    return int(np.count_nonzero(in_a & in_b))


def _merged(
    group: Sequence[tuple[Detections, int]], n_views: int, merge: Merge, unseen: float
) -> Detections:
    """Return one instance; `unseen` is the score of a view that did not find it."""
    boxes = np.array([found.mask_boxes[i] for found, i in group])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    stack = np.zeros((len(group), y1 - y0, x1 - x0), np.float32)
    for layer, (found, i) in zip(stack, group, strict=True):
        left, top, right, bottom = found.mask_boxes[i].tolist()
        layer[top - y0 : bottom - y0, left - x0 : right - x0] = found.mask(i)
    soft = np.rint(_combined(stack, merge, least=1.0)).astype(np.uint8)
    scores = np.full(n_views, unseen, np.float32)
    scores[: len(group)] = [found.scores[i] for found, i in group]
    score = _combined(scores, merge, least=1e-6)
    first, i = group[0]
    return Detections.from_masks(
        first.scene_id,
        first.window,
        boxes=np.stack([found.boxes[j] for found, j in group]).mean(axis=0, keepdims=True),
        scores=np.clip([score], 0, 1),
        labels=first.labels[i : i + 1],
        mask_boxes=np.array([[x0, y0, x1, y1]]),
        masks=[soft],
    )


def _combined(values: NDArray[np.float32], merge: Merge, *, least: float) -> NDArray[np.float32]:
    """Reduce the first axis; a geometric mean takes `least` for less."""
    if merge == "gmean":
        logs = np.log(np.maximum(values, np.float32(least)))
        mean = np.exp(logs.mean(axis=0, dtype=np.float64))
        reduced = np.where((values == 0).all(axis=0), 0, mean)
    elif merge == "mean":
        reduced = values.mean(axis=0, dtype=np.float64)
    elif merge == "median":
        reduced = np.median(values, axis=0)
    else:
        reduced = values.max(axis=0) if merge == "max" else values.min(axis=0)
    return np.asarray(reduced, np.float32)
