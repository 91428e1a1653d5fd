"""Test-time augmentation on instances: a chip seen from several sides, what is found merged.

Each view carries its own inverse. Instances of different views that agree are one; their soft masks
and scores are merged. What few views saw is scored down: a view that did not find it is taken to
have scored it half of the least score. Frame: pixels of a chip's frame (S x S). Works with anything
that streams detections; no torch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Protocol, TypeVar

import cv2
import numpy as np
import shapely

from geoseg.chips import Chip, ChipBatch
from geoseg.detections import MASK_ON, Detections
from geoseg.errors import ConfigError
from geoseg.grid import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

T = TypeVar("T", np.float32, np.int32)
ViewSet = Literal["none", "hflip", "d4", "d4+scale"]
Merge = Literal["mean", "gmean", "max", "min", "median"]

SHRUNK: Final = 0.8
"""Size of the scaled view: buildings a fifth smaller, so that large ones fit into a chip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TtaOptions:
    """From which sides chips are seen, and how what is found is merged."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    views: ViewSet = "none"
    """none; hflip, two; d4, the eight flips and rotations; d4+scale, those and a smaller one."""
    merge: Merge = "mean"
    """How probabilities and scores of the views become one."""
    agree_iou: float = 0.5
    """Instances of two views are one where their masks agree at this IoU."""

    def __post_init__(self) -> None:
        if not 0 < self.agree_iou <= 1:
            raise ConfigError(f"agree_iou must be in (0, 1], got {self.agree_iou}")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way to look at a chip: shrunk, transposed, flipped, in this order."""

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False
    scale: float = 1.0

    def apply(self, images_BCHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return images (B, 3, S, S) as this view shows them, of the same shape."""
        seen = images_BCHW if self.scale == 1 else _shrunk(images_BCHW, self.scale)
        if self.transpose:
            seen = seen.swapaxes(2, 3)
        if self.flip_rows:
            seen = seen[:, :, ::-1]
        if self.flip_cols:
            seen = seen[:, :, :, ::-1]
        return np.ascontiguousarray(seen)

    def undo(self, found: Detections) -> Detections:
        """Return what was found in this view in the frame of the chip; both are S x S."""
        side = found.window.height
        boxes, mask_boxes, masks = found.boxes, found.mask_boxes, found.masks()
        if self.flip_cols:
            boxes, mask_boxes = _mirrored(boxes, side, 0), _mirrored(mask_boxes, side, 0)
            masks = [mask[:, ::-1] for mask in masks]
        if self.flip_rows:
            boxes, mask_boxes = _mirrored(boxes, side, 1), _mirrored(mask_boxes, side, 1)
            masks = [mask[::-1] for mask in masks]
        if self.transpose:
            boxes, mask_boxes = boxes[:, [1, 0, 3, 2]], mask_boxes[:, [1, 0, 3, 2]]
            masks = [mask.T for mask in masks]
        if self.scale != 1:
            boxes = boxes / np.float32(self.scale)
            grown = [
                _grown(mask, box, self.scale, side)
                for mask, box in zip(masks, mask_boxes.tolist(), strict=True)
            ]
            masks = [mask for mask, _ in grown]
            mask_boxes = np.array([box for _, box in grown], np.int32).reshape(-1, 4)
        return Detections.from_masks(
            found.scene_id,
            found.window,
            boxes=boxes,
            scores=found.scores,
            labels=found.labels,
            mask_boxes=mask_boxes,
            masks=[np.ascontiguousarray(mask) for mask in masks],
        )


def make_views(views: ViewSet) -> tuple[View, ...]:
    """Return the views of a set, each once, the plain one first.

    Example:
        >>> len(make_views("d4")), len(set(make_views("d4+scale")))
        (8, 9)
    """
    if views == "none":
        return (View(),)
    if views == "hflip":
        return View(), View(flip_cols=True)
    sides = itertools.product([False, True], repeat=3)
    d4 = tuple(View(transpose=t, flip_rows=r, flip_cols=c) for t, r, c in sides)
    return (*d4, View(scale=SHRUNK)) if views == "d4+scale" else d4


class ChipPredictor(Protocol):
    """Anything that finds something in batches of chips."""

    @property
    def batch_size(self) -> int:
        """Chips of a batch."""
        ...

    def stream(self, batches: Iterable[ChipBatch]) -> Iterator[tuple[Chip, Detections]]:
        """Yield each chip with what was found in it, in the order the chips come."""
        ...


class ViewsPredictor:
    """A predictor that looks at every chip from several sides; a `ChipPredictor` itself.

    Pixels are read once; the network runs once for each view.

    Args:
        predictor: Finds things in one view.
        options: Views and merging.
        score_threshold: Least score of the predictor's detections, and of what comes out.
    """

    def __init__(
        self, predictor: ChipPredictor, options: TtaOptions, *, score_threshold: float
    ) -> None:
        self._predictor = predictor
        self._options = options
        self._views = make_views(options.views)
        self._least = score_threshold

    @property
    def batch_size(self) -> int:
        """Chips of a batch; the predictor halves it when memory runs out."""
        return self._predictor.batch_size

    def stream(self, batches: Iterable[ChipBatch]) -> Iterator[tuple[Chip, Detections]]:
        """Yield each chip with what was found in it, in the order the chips come."""
        for batch in batches:
            found = [list(self._seen(view, batch)) for view in self._views]
            for i, chip in enumerate(batch.chips):
                seen = [of_view[i] for of_view in found]
                merged = merge_views(seen, self._options, score_threshold=self._least)
                yield chip, _clipped(merged, chip.window)

    def _seen(self, view: View, batch: ChipBatch) -> Iterator[Detections]:
        """Yield what a view finds in each chip, in the frame of the batch."""
        side = batch.images.shape[2]
        framed = tuple(replace(chip, window=_frame(chip.window, side)) for chip in batch.chips)
        shown = ChipBatch(
            chips=framed,
            images=view.apply(batch.images),
            valid=np.ones(batch.valid.shape, np.bool_),
        )
        for _, found in self._predictor.stream([shown]):
            yield view.undo(found)


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


def _mirrored(boxes: NDArray[T], side: int, axis: int) -> NDArray[T]:
    """Mirror xyxy boxes in a frame along x (0) or y (1)."""
    mirrored = boxes.copy()
    mirrored[:, axis], mirrored[:, axis + 2] = side - boxes[:, axis + 2], side - boxes[:, axis]
    return mirrored


def _shrunk(images_BCHW: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Return images reduced into the top-left corner of their frame, zero around."""
    side = images_BCHW.shape[2]
    small = round(side * scale)
    shrunk = np.zeros_like(images_BCHW)
    for image, target in zip(images_BCHW, shrunk, strict=True):
        reduced = cv2.resize(image.transpose(1, 2, 0), (small, small), interpolation=cv2.INTER_AREA)
        target[:, :small, :small] = reduced.transpose(2, 0, 1)
    return shrunk


def _grown(
    mask: NDArray[np.uint8], box: list[int], scale: float, side: int
) -> tuple[NDArray[np.uint8], list[int]]:
    """Return a mask of a shrunk view at full size, with its box in the frame."""
    small = round(side * scale)
    ratio = small / side
    x0, y0 = (min(side - 1, int(edge / ratio)) for edge in box[:2])
    x1, y1 = (min(side, max(1, int(np.ceil(edge / ratio)))) for edge in box[2:])
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    shift_x, shift_y = (
        (low + 0.5) * ratio - 0.5 - edge for low, edge in ((x0, box[0]), (y0, box[1]))
    )
    back = np.array([[ratio, 0, shift_x], [0, ratio, shift_y]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    grown = cv2.warpAffine(
        np.ascontiguousarray(mask), back, (x1 - x0, y1 - y0), flags=flags, borderValue=0.0
    )
    return np.asarray(grown, np.uint8), [x0, y0, x1, y1]


def _frame(window: Window, side: int) -> Window:
    return Window(row_off=window.row_off, col_off=window.col_off, height=side, width=side)


def _clipped(found: Detections, window: Window) -> Detections:
    """Return detections of a batch's frame in the chip's window, which may be smaller."""
    if (found.window.height, found.window.width) == (window.height, window.width):
        return found
    limit = np.array([window.width, window.height, window.width, window.height])
    boxes = np.minimum(found.mask_boxes, limit)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    kept = np.flatnonzero(inside).tolist()
    shapes = (boxes[:, 3:1:-1] - boxes[:, 1::-1]).tolist()
    return Detections.from_masks(
        found.scene_id,
        window,
        boxes=np.minimum(found.boxes[kept], limit.astype(np.float32)),
        scores=found.scores[kept],
        labels=found.labels[kept],
        mask_boxes=boxes[kept],
        masks=[found.mask(i)[: shapes[i][0], : shapes[i][1]] for i in kept],
    )
