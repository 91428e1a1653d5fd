"""Annotations and results as COCO documents, written record by record, whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
import numpy as np

from geoseg.errors import ConfigError
from geoseg.files import check_output, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from geoseg.data.annotations import Annotations, Images

MAX_RESULTS_PER_IMAGE = 100  # the challenge's limit
JSON_SUFFIXES = (".json",)


def write_coco(path: Path, annotations: Annotations, *, description: str = "") -> None:
    """Write annotations as a COCO document, record by record.

    Raises:
        OutputError: It cannot be written; nothing is left behind.
    """
    head = {
        "info": {"description": description, "contributor": "geoseg", "version": "1.0"},
        "licenses": [],
        "categories": [
            {"id": c.id, "name": c.name, "supercategory": c.name} for c in annotations.categories
        ],
    }
    text = msgspec.json.encode(head).decode()[:-1]
    with _new_text(path) as file:
        file.write(text + ', "images": [\n')
        _join(file.write, map(_image_record, *_image_columns(annotations.images)))
        file.write('\n], "annotations": [\n')
        _join(file.write, (_record(annotations, i) for i in range(len(annotations))))
        file.write("\n]}\n")


def write_results(
    path: Path, annotations: Annotations, *, most_per_image: int = MAX_RESULTS_PER_IMAGE
) -> None:
    """Write results in the challenge's form, the best of each chip.

    Raises:
        OutputError: It cannot be written; nothing is left behind.
        ConfigError: They have no scores.
    """
    if annotations.scores is None and len(annotations):
        raise ConfigError("results must have scores")
    with _new_text(path) as file:
        file.write("[\n")
        _join(file.write, _results(annotations, most_per_image))
        file.write("\n]\n")


def result_record(
    *, image_id: int, category_id: int, score: float, box_xywh: Sequence[float], rle: dict[str, Any]
) -> str:
    """Return one result as JSON."""
    counts = rle["counts"]
    record = {
        "image_id": image_id,
        "category_id": category_id,
        "score": round(score, 5),
        "segmentation": {
            "size": rle["size"],
            "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
        },
        "bbox": [round(float(v), 2) for v in box_xywh],
    }
    return msgspec.json.encode(record).decode()


@contextmanager
def _new_text(path: Path) -> Iterator[TextIO]:
    """Lend a file for JSON's encoding, whatever the locale's is; it appears whole or not at all."""
    with (
        replacing(check_output(path, JSON_SUFFIXES)) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        yield file


def _join(write: Callable[[str], Any], records: Iterable[str]) -> None:
    for at, record in enumerate(records):
        write((",\n" if at else "") + record)


def _image_columns(images: Images) -> tuple[list[int], tuple[str, ...], list[list[int]]]:
    return images.ids.tolist(), images.file_names, images.sizes_hw.tolist()


def _image_record(ident: int, name: str, size_hw: list[int]) -> str:
    height, width = size_hw
    record = {"id": ident, "file_name": name, "width": width, "height": height}
    return msgspec.json.encode(record).decode()


def _record(annotations: Annotations, i: int) -> str:
    counts, rings = annotations.segments.counts(i), annotations.segments.rings(i)
    height, width = annotations.images.sizes_hw[annotations.image_index[i]].tolist()
    segmentation: Any = [np.round(ring.astype(float), 3).ravel().tolist() for ring in rings]
    if counts:
        segmentation = {"size": [height, width], "counts": counts.decode("ascii")}
    record = {
        "id": int(annotations.ids[i]),
        "image_id": int(annotations.images.ids[annotations.image_index[i]]),
        "category_id": annotations.categories[annotations.labels[i] - 1].id,
        "iscrowd": int(annotations.crowd[i]),
        "area": round(float(annotations.areas_px2[i]), 3),
        "bbox": [round(float(v), 3) for v in annotations.boxes_xywh[i]],
        "segmentation": segmentation,
    }
    return msgspec.json.encode(record).decode()


def _results(annotations: Annotations, most_per_image: int) -> Iterator[str]:
    for row in range(len(annotations.images)):
        objects = annotations.of_image(row)
        if objects.start == objects.stop:
            continue
        assert annotations.scores is not None, "checked before"
        order = np.argsort(-annotations.scores[objects], kind="stable")[:most_per_image]
        height, width = annotations.images.sizes_hw[row].tolist()
        for i in (objects.start + order).tolist():
            yield result_record(
                image_id=int(annotations.images.ids[row]),
                category_id=annotations.categories[annotations.labels[i] - 1].id,
                score=float(annotations.scores[i]),
                box_xywh=annotations.boxes_xywh[i].tolist(),
                rle=annotations.rle(i, height, width),
            )
