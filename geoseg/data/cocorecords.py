"""COCO's annotation records: their form, what makes one unusable, and how they become columns.

Frame: pixels of each chip. Must not import torch, or read files.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from geoseg.coco import check_runs, pack_runs, rle_extents
from geoseg.data.annotations import Annotations, Segments
from geoseg.data.findings import Finding
from geoseg.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geoseg.data.annotations import Images
    from geoseg.models.spec import Category

COLUMNS = 9  # chip, label, area, crowd, box, score
MAX_SIDE_PX = 65_536

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what columns of int64 hold


class _Runs(msgspec.Struct):
    size: list[int]
    counts: str | list[int]


class AnnotationRecord(msgspec.Struct):
    """An annotation or a result as COCO writes it."""

    image_id: Id
    category_id: Id
    id: Id | None = None
    bbox: Any = None  # checked later: a malformed one does not spoil the outline beside it
    area: float | None = None
    iscrowd: int = 0
    score: float | None = None
    segmentation: list[list[float]] | _Runs | None = None


class _UnusableError(Exception):
    """A record that says nothing that could be used."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Columns:
    """Gathers annotations, block by block, into arrays.

    Args:
        images: The chips.
        row_of: Image id to row of `images`.
        label_of: Category id to label.
        tell: Told of each record that cannot be used.
        scored: Whether every record must have a score.
    """

    def __init__(
        self,
        images: Images,
        row_of: dict[int, int],
        label_of: dict[int, int],
        tell: Callable[[Finding], None],
        *,
        scored: bool = False,
    ) -> None:
        self._images, self._row_of, self._label_of = images, row_of, label_of
        self._tell, self._scored = tell, scored
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._seen = 0
        self._ids = set[int]()

    def add(self, block: list[AnnotationRecord]) -> None:
        """Add a block; records that cannot be used are told and left out."""
        rows: list[tuple[Any, ...]] = []
        ids = list[int]()
        rings, points, counts = list[int](), list[float](), list[bytes]()
        lengths = list[int]()
        for annotation in block:
            self._seen += 1
            checked = self._checked(annotation)
            if checked is None:
                continue
            ident, row, outline, runs = checked
            ids.append(ident)
            rows.append(row)
            rings.append(len(outline))
            lengths.extend(len(ring) // 2 for ring in outline)
            for ring in outline:
                points.extend(ring)
            counts.append(runs)
        self._parts.append(
            {
                "ids": np.array(ids, np.int64),
                "rows": np.array(rows, np.float64).reshape(-1, COLUMNS),
                "rings": np.array(rings, np.int64),
                "lengths": np.array(lengths, np.int64),
                "xy": np.array(points, np.float32).reshape(-1, 2),
                "count_bytes": np.array([len(c) for c in counts], np.int64),
                "counts": np.frombuffer(b"".join(counts), np.uint8),
            }
        )

    def finish(self, categories: tuple[Category, ...], images: Images) -> Annotations:
        """Return all that was added, sorted by chip."""
        joined = {
            key: np.concatenate(
                [part[key] for part in self._parts if len(part[key])] or [_EMPTY[key]]
            )
            for key in _EMPTY
        }
        rows = joined["rows"]
        annotations = Annotations(
            categories=categories,
            images=images,
            ids=joined["ids"],
            image_index=np.zeros(len(rows), np.int32),
            labels=rows[:, 1].astype(np.int16),
            boxes_xywh=rows[:, 4:8].astype(np.float32),
            areas_px2=rows[:, 2].astype(np.float64),
            crowd=rows[:, 3] > 0,
            segments=Segments(
                xy=joined["xy"],
                ring_offsets=_offsets(joined["lengths"]),
                object_rings=_offsets(joined["rings"]),
                runs=joined["counts"],
                run_offsets=_offsets(joined["count_bytes"]),
            ),
            scores=rows[:, 8].astype(np.float32) if self._scored else None,
        )
        return annotations.sorted_by(rows[:, 0].astype(np.int32))

    def _checked(
        self, annotation: AnnotationRecord
    ) -> tuple[int, tuple[Any, ...], list[list[float]], bytes] | None:
        """Return a record's id, numbers, rings and runs; None where it cannot be used."""
        # Results are numbered in their order, as pycocotools does.
        ident = self._seen if self._scored or annotation.id is None else annotation.id
        row = self._row_of.get(annotation.image_id)
        problems = list[tuple[str, str]]()
        found = None
        try:
            numbers, rings, runs = self._values(annotation, row, problems)
            if ident in self._ids:
                problems.append(("duplicate annotation id", f"{ident} comes twice"))
            self._ids.add(ident)
            found = ident, numbers, rings, runs
        except (_UnusableError, FormatError) as error:
            problems.append((getattr(error, "kind", "malformed annotation"), str(error)))
        name = None if row is None else self._images.file_names[row]
        for kind, message in problems:
            self._tell(Finding(kind=kind, message=message, image=name, annotation=ident))
        return found

    def _values(
        self, annotation: AnnotationRecord, row: int | None, problems: list[tuple[str, str]]
    ) -> tuple[tuple[Any, ...], list[list[float]], bytes]:
        """Return a record's numbers, rings and runs; problems that do not spoil it are added."""
        label = self._label(annotation, known=row is not None)
        score = _score(annotation.score) if self._scored else math.nan
        height, width = self._images.sizes_hw[row].tolist()
        box, area, segmentation = annotation.bbox, annotation.area, annotation.segmentation
        if not _is_box(box):
            if box not in (None, []):
                problems.append(("malformed box", f"{_BOX_MUST}, got {str(box)[:60]}"))
            box = None
        if self._scored:
            area = None  # finds are as large as their masks, whatever a file says
            segmentation = [_box_ring(box)] if segmentation is None else segmentation
        rings, runs = _outline(segmentation, height, width, problems)
        if box is None or area is None:
            own_box, own_area = _extent(rings, runs, height, width, box=box)
            box, area = box or own_box, own_area if area is None else area
        return (row, label, area, bool(annotation.iscrowd), *box, score), rings, runs

    def _label(self, annotation: AnnotationRecord, *, known: bool) -> int:
        if not known:
            raise _UnusableError("missing image", f"no image has id {annotation.image_id}")
        label = self._label_of.get(annotation.category_id)
        if label is None:
            message = f"no category has id {annotation.category_id}"
            raise _UnusableError("missing category", message)
        return label


_BOX_MUST = "bbox must be [left, top, width, height] in pixels"
_EMPTY: dict[str, NDArray[Any]] = {
    "ids": np.zeros(0, np.int64),
    "rows": np.zeros((0, COLUMNS)),
    "rings": np.zeros(0, np.int64),
    "lengths": np.zeros(0, np.int64),
    "xy": np.zeros((0, 2), np.float32),
    "count_bytes": np.zeros(0, np.int64),
    "counts": np.zeros(0, np.uint8),
}


def _outline(
    segmentation: list[list[float]] | _Runs | None,
    height: int,
    width: int,
    problems: list[tuple[str, str]],
) -> tuple[list[list[float]], bytes]:
    """Return an outline's rings or its runs; malformed rings beside sound ones are problems."""
    if segmentation is None:
        return [], b""
    if isinstance(segmentation, _Runs):
        if segmentation.size != [height, width]:
            raise FormatError(f"runs must be of {height}x{width} px, got {segmentation.size[:4]}")
        counts = segmentation.counts
        if isinstance(counts, list):
            return [], pack_runs(counts, height, width)
        check_runs(counts.encode(), height, width)
        return [], counts.encode()
    faults = [_ring_fault(ring) for ring in segmentation]
    rings = [ring for ring, fault in zip(segmentation, faults, strict=True) if fault is None]
    bad = [fault for fault in faults if fault is not None]
    if bad and not rings:
        raise FormatError(bad[0])
    problems += [("malformed polygon", fault) for fault in bad]
    return rings, b""


def _ring_fault(ring: list[float]) -> str | None:
    if len(ring) % 2 or len(ring) < 2:
        return f"a polygon must be x, y, x, y ..., got {len(ring)} numbers"
    if not math.isfinite(sum(ring)) or max(map(abs, ring)) > MAX_SIDE_PX:
        return "a polygon's numbers must be finite pixels"
    return None


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, int | float) and abs(v) <= MAX_SIDE_PX for v in box)
    )


def _box_ring(box: list[float] | None) -> list[float]:
    if box is None:
        raise FormatError("a result must have a segmentation or a bbox")
    left, top, width, height = box
    right, bottom = left + width, top + height
    return [left, top, left, bottom, right, bottom, right, top]


def _extent(
    rings: list[list[float]], runs: bytes, height: int, width: int, *, box: list[float] | None
) -> tuple[list[float], float]:
    """Return the box (xywh) and the area of an outline; where there is none, what the box says."""
    if runs:
        boxes, areas = rle_extents([{"size": [height, width], "counts": runs}])
        return boxes[0].tolist(), float(areas[0])
    if not rings:
        return [0.0] * 4, box[2] * box[3] if box else 0.0
    xs = [x for ring in rings for x in ring[::2]]
    ys = [y for ring in rings for y in ring[1::2]]
    sides = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return sides, sum(map(_ring_area, rings))


def _ring_area(ring: list[float]) -> float:
    xs, ys = ring[::2], ring[1::2]
    following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return abs(sum(x * v - u * y for x, y, (u, v) in zip(xs, ys, following, strict=True))) / 2


def _score(score: float | None) -> float:
    if score is None or not 0 <= score <= 1:
        raise FormatError(f"score must be in [0, 1], got {score}")
    return score


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.r_[0, np.cumsum(lengths)], np.int64)
