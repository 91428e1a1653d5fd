"""Gather objects chip by chip into `Annotations`. Must not import torch.

Frame: pixels of each chip; masks become run-length encodings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geoseg.coco import encode_rle
from geoseg.data.annotations import Annotations, Images, Segments
from geoseg.data.samples import boxes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.data.samples import Sample
    from geoseg.detections import Detections
    from geoseg.models.spec import Category


class Collector:
    """Takes chips with their objects, in order.

    Args:
        categories: The classes, ordered by label.
    """

    def __init__(self, categories: tuple[Category, ...]) -> None:
        self._categories = categories
        self._ids: list[int] = []
        self._names: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._counts: list[bytes] = []
        self._image_index: list[int] = []
        self._labels: list[int] = []
        self._boxes: list[NDArray[np.float32]] = []
        self._areas: list[float] = []
        self._scores: list[float] = []

    def add_image(
        self, name: str, shape_hw: tuple[int, int], *, image_id: int | None = None
    ) -> None:
        """Begin a chip; what is added next lies in it. Its id is a running number by default."""
        self._ids.append(len(self._ids) + 1 if image_id is None else image_id)
        self._names.append(name)
        self._sizes.append(shape_hw)

    def add_object(
        self,
        mask: NDArray[np.bool_],
        box_xyxy: NDArray[np.float32],
        label: int,
        score: float | None = None,
    ) -> None:
        """Add an object to the chip begun last, its mask (H, W) in the chip's frame."""
        rle = encode_rle(mask)
        self._counts.append(rle["counts"].encode("ascii"))
        self._image_index.append(len(self._names) - 1)
        self._labels.append(label)
        self._boxes.append(np.r_[box_xyxy[:2], box_xyxy[2:] - box_xyxy[:2]].astype(np.float32))
        self._areas.append(float(mask.sum()))
        if score is not None:
            self._scores.append(score)

    def add_sample(self, name: str, sample: Sample) -> None:
        """Add a chip with the objects that are true of it."""
        _, height, width = sample.image.shape
        self.add_image(name, (height, width))
        boxes = boxes_of(sample.masks) if len(sample) else ()
        for mask, box, label in zip(sample.masks, boxes, sample.labels.tolist(), strict=True):
            self.add_object(mask, box, label)

    def add_detections(
        self, name: str, detections: Detections, *, image_id: int | None = None
    ) -> None:
        """Add a chip, which is the window of what a network found in it.

        Masks without a pixel are left out.
        """
        window = detections.window
        self.add_image(name, (window.height, window.width), image_id=image_id)
        for i in range(len(detections)):
            mask = detections.window_mask(i)
            if mask.any():
                label, score = int(detections.labels[i]), float(detections.scores[i])
                self.add_object(mask, detections.boxes[i], label, score)

    def finish(self) -> Annotations:
        """Return all that was added; with scores where every object has one."""
        count = len(self._labels)
        scored = bool(self._scores) and len(self._scores) == count
        lengths = np.array([len(c) for c in self._counts], np.int64)
        return Annotations(
            categories=self._categories,
            images=Images(
                ids=np.array(self._ids, np.int64),
                file_names=tuple(self._names),
                sizes_hw=np.array(self._sizes, np.int32).reshape(-1, 2),
            ),
            ids=np.arange(1, count + 1, dtype=np.int64),
            image_index=np.array(self._image_index, np.int32),
            labels=np.array(self._labels, np.int16),
            boxes_xywh=np.array(self._boxes, np.float32).reshape(-1, 4),
            areas_px2=np.array(self._areas, np.float64),
            crowd=np.zeros(count, np.bool_),
            segments=Segments(
                xy=np.zeros((0, 2), np.float32),
                ring_offsets=np.zeros(1, np.int64),
                object_rings=np.zeros(count + 1, np.int64),
                runs=np.frombuffer(b"".join(self._counts), np.uint8),
                run_offsets=np.r_[0, np.cumsum(lengths)].astype(np.int64),
            ),
            scores=np.array(self._scores, np.float32) if scored else None,
        )
