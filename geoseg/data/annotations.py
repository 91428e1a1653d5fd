"""Annotations of many chips as columns: what a COCO document says, without a Python object each.

Frames: boxes and polygons are in pixels of their own chip, points (x, y), pixel edges; run-length
encodings are COCO's. Must not import torch, or read files.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.coco import decode_rle, polygons_rle

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from geoseg.models.spec import Category


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """The chips of a document, in its order."""

    ids: NDArray[np.int64]
    """(I,) unique."""
    file_names: tuple[str, ...]
    """One per chip, relative to the folder of images."""
    sizes_hw: NDArray[np.int32]
    """(I, 2)."""

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.file_names) == len(self.sizes_hw), "one row per chip"

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segments:
    """Outlines of N objects, each some polygons or one run-length encoding."""

    xy: NDArray[np.float32]
    """(P, 2) points of all polygons, one ring after the other, not closed."""
    ring_offsets: NDArray[np.int64]
    """(R + 1,) first point of each ring."""
    object_rings: NDArray[np.int64]
    """(N + 1,) first ring of each object; none for one given by runs."""
    runs: NDArray[np.uint8]
    """(B,) compressed counts of all encodings, ASCII, one after the other."""
    run_offsets: NDArray[np.int64]
    """(N + 1,) first byte of each object's counts; none for one given by polygons."""

    def __post_init__(self) -> None:
        assert len(self.object_rings) == len(self.run_offsets), "one row per object"

    def __len__(self) -> int:
        return len(self.object_rings) - 1

    def rings(self, i: int) -> list[NDArray[np.float32]]:
        """Return the polygons (n, 2) of object i; none where it is given by runs."""
        first, last = self.object_rings[i], self.object_rings[i + 1]
        at = self.ring_offsets[first : last + 1]
        return [self.xy[a:b] for a, b in itertools.pairwise(at)]

    def counts(self, i: int) -> bytes:
        """Return the compressed counts of object i; empty where it is given by polygons."""
        return self.runs[self.run_offsets[i] : self.run_offsets[i + 1]].tobytes()

    def take(self, objects: NDArray[np.int64]) -> Segments:
        """Return the outlines of some objects."""
        rings, object_rings = _ragged(self.object_rings, objects)
        points, ring_offsets = _ragged(self.ring_offsets, rings)
        run_bytes, run_offsets = _ragged(self.run_offsets, objects)
        return Segments(
            xy=self.xy[points],
            ring_offsets=ring_offsets,
            object_rings=object_rings,
            runs=self.runs[run_bytes],
            run_offsets=run_offsets,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotations:
    """Chips and the objects in them, objects sorted by chip."""

    categories: tuple[Category, ...]
    """Ordered by label, from 1."""
    images: Images
    ids: NDArray[np.int64]
    """(N,) as the document gives them."""
    image_index: NDArray[np.int32]
    """(N,) row of the object's chip in `images`, ascending."""
    labels: NDArray[np.int16]
    """(N,) from 1: the index of a category, plus one."""
    boxes_xywh: NDArray[np.float32]
    """(N, 4) left, top, width, height, px."""
    areas_px2: NDArray[np.float64]
    """(N,)."""
    crowd: NDArray[np.bool_]
    """(N,) True where COCO's `iscrowd` is set: a region, not an object."""
    segments: Segments
    scores: NDArray[np.float32] | None = None
    """(N,) in [0, 1] where these are results of a model."""

    def __post_init__(self) -> None:
        assert all(len(c) == len(self) for c in (self.ids, self.labels, self.boxes_xywh)), "one N"
        assert (np.diff(self.image_index) >= 0).all(), "objects are sorted by chip"

    def __len__(self) -> int:
        return len(self.image_index)

    def of_image(self, row: int) -> slice:
        """Return the rows of the objects in the chip with this row in `images`."""
        first, last = np.searchsorted(self.image_index, [row, row + 1])
        return slice(int(first), int(last))

    def object_mask(self, i: int) -> NDArray[np.bool_]:
        """Return the mask (H, W) of object i in its chip.

        Raises:
            FormatError: Its runs do not fill the chip.
        """
        height, width = (int(v) for v in self.images.sizes_hw[self.image_index[i]])
        return decode_rle(self.rle(i, height, width))

    def rle(self, i: int, height: int, width: int) -> dict[str, Any]:
        """Return the compressed run-length encoding of object i in a chip of this size."""
        if counts := self.segments.counts(i):
            return {"size": [height, width], "counts": counts}
        return polygons_rle(self.segments.rings(i), (height, width))

    def keep(self, file_names: Collection[str]) -> Annotations:
        """Return the chips with these names, in the order they have here, and their objects."""
        wanted = frozenset(file_names)
        return self.take([i for i, name in enumerate(self.images.file_names) if name in wanted])

    def take(self, rows: Sequence[int]) -> Annotations:
        """Return the chips in these rows of `images`, ascending, and their objects."""
        at = np.asarray(rows, np.int64)
        assert (np.diff(at) > 0).all(), "rows ascend"
        place = np.full(len(self.images), -1, np.int32)
        place[at] = np.arange(len(at), dtype=np.int32)
        objects = np.flatnonzero(place[self.image_index] >= 0)
        images = Images(
            ids=self.images.ids[at],
            file_names=tuple(self.images.file_names[i] for i in at),
            sizes_hw=self.images.sizes_hw[at],
        )
        return self._of(objects, images=images, image_index=place[self.image_index[objects]])

    def sorted_by(self, image_index: NDArray[np.int32]) -> Annotations:
        """Return the objects given other chips (N,), sorted by these."""
        order = np.argsort(image_index, kind="stable")
        return self._of(order, images=self.images, image_index=image_index[order])

    def where(self, kept: NDArray[np.bool_]) -> Annotations:
        """Return all chips with some of their objects."""
        objects = np.flatnonzero(kept)
        return self._of(objects, images=self.images, image_index=self.image_index[objects])

    def _of(
        self, objects: NDArray[np.int64], *, images: Images, image_index: NDArray[np.int32]
    ) -> Annotations:
        return Annotations(
            categories=self.categories,
            images=images,
            ids=self.ids[objects],
            image_index=image_index,
            labels=self.labels[objects],
            boxes_xywh=self.boxes_xywh[objects],
            areas_px2=self.areas_px2[objects],
            crowd=self.crowd[objects],
            segments=self.segments.take(objects),
            scores=None if self.scores is None else self.scores[objects],
        )


def _ragged(
    offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which items some rows of a ragged array hold, and the offsets of those rows."""
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    new = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    items = np.arange(new[-1]) + np.repeat(starts - new[:-1], lengths)
    return items, new
