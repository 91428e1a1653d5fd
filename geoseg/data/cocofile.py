"""COCO documents in and out, as columns: a third of a million chips in a minute and little memory.

Frame: boxes and polygons in pixels of their own chip. The document is decoded in blocks, so that
no Python object per annotation stays. Files come from strangers: sizes are bounded, and what is
malformed is named by file and record. Must not import torch.
"""

from __future__ import annotations

import gc
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np

from geoseg.coco import check_runs, pack_runs
from geoseg.data.annotations import Annotations, Images, Segments
from geoseg.data.findings import Finding
from geoseg.errors import ConfigError, FormatError, InputNotFoundError
from geoseg.models.spec import Category
from geoseg.raster.atomic import check_output, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAX_DOCUMENT_BYTES = 8 << 30
BLOCK = 20_000  # annotations decoded at once
COLUMNS = 10  # chip, id, label, area, crowd, box, score
MAX_SIDE_PX = 65_536
MAX_RESULTS_PER_IMAGE = 100  # the challenge's limit
JSON_SUFFIXES = (".json",)


class _Runs(msgspec.Struct):
    size: list[int]
    counts: str | list[int]


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    id: int | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: int = 0
    score: float | None = None
    segmentation: list[list[float]] | _Runs | None = None


class _Document(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[_Category]
    annotations: list[msgspec.Raw] = []


def read_coco(path: Path, *, findings: list[Finding] | None = None) -> Annotations:
    """Read a COCO document: polygons, compressed and plain runs, crowds.

    Args:
        path: The JSON file.
        findings: Where given, records that cannot be used are left out and told here; otherwise
            the first one is an error.

    Returns:
        Its chips and objects, sorted by chip.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is too large, no JSON, no COCO, or a record is malformed; the message names
            the file and the record.
    """
    with _without_collector():
        tell = _teller(path, findings)
        document = _decode(path, _Document, "a COCO document")
        images = _images(document.images, tell)
        categories, label_of = _categories(document.categories, tell)
        row_of = {int(v): i for i, v in enumerate(images.ids)}
        columns = _Columns(images, row_of, label_of, tell)
        for block in _blocks(document.annotations, tell):
            columns.add(block)
        del document
        return columns.finish(categories, images)


def read_results(path: Path, truth: Annotations) -> Annotations:
    """Read results in COCO's form: a list of image_id, category_id, segmentation and score.

    Args:
        path: The JSON file.
        truth: Says which chips and categories there are.

    Returns:
        The objects found, in all of the truth's chips.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: As for `read_coco`; or a chip or category is not the truth's.
    """
    tell = _teller(path, None)
    raw = _decode(path, list[msgspec.Raw], "a list of COCO results")
    label_of = {c.id: c.label for c in truth.categories}
    row_of = {int(v): i for i, v in enumerate(truth.images.ids)}
    columns = _Columns(truth.images, row_of, label_of, tell, scored=True)
    for block in _blocks(raw, tell):
        columns.add(block)
    return columns.finish(truth.categories, truth.images)


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
    with replacing(check_output(path, JSON_SUFFIXES)) as temporary, temporary.open("w") as file:
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
    with replacing(check_output(path, JSON_SUFFIXES)) as temporary, temporary.open("w") as file:
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


# --- reading -----------------------------------------------------------------------------------


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector from walking millions of records, none of which is in a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decode(path: Path, kind: Any, what: str) -> Any:
    if not path.is_file():
        raise InputNotFoundError(f"no annotations {path}: check the path")
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise FormatError(f"{path}: must be at most {MAX_DOCUMENT_BYTES} bytes")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise FormatError(f"{path}: must be {what}, got: {str(error)[:160]}") from error


def _teller(path: Path, findings: list[Finding] | None) -> Callable[[Finding], None]:
    def fail(finding: Finding) -> NoReturn:
        raise FormatError(f"{path}: {finding} (geoseg data check lists all)")

    return fail if findings is None else findings.append


def _images(raw: list[msgspec.Raw], tell: Callable[[Finding], None]) -> Images:
    ids, names, sizes = list[int](), list[str](), list[tuple[int, int]]()
    known_ids, known_names = set[int](), set[str]()
    for at, image in enumerate(_typed(raw, _Image, "image", tell)):
        if image is None:
            continue
        if image.id in known_ids:
            tell(Finding(kind="duplicate image id", message=f"{image.id}", image=image.file_name))
        elif image.file_name in known_names:
            tell(Finding(kind="duplicate file name", message=f"image {at}", image=image.file_name))
        elif not (0 < image.height <= MAX_SIDE_PX and 0 < image.width <= MAX_SIDE_PX):
            message = f"sides must be in [1, {MAX_SIDE_PX}], got {image.height}x{image.width}"
            tell(Finding(kind="bad size", message=message, image=image.file_name))
        elif _escapes(image.file_name):
            message = "must be a path inside the folder of images"
            tell(Finding(kind="bad file name", message=message, image=image.file_name[:80]))
        else:
            ids.append(image.id)
            names.append(image.file_name)
            sizes.append((image.height, image.width))
            known_ids.add(image.id)
            known_names.add(image.file_name)
    return Images(
        ids=np.array(ids, np.int64),
        file_names=tuple(names),
        sizes_hw=np.array(sizes, np.int32).reshape(-1, 2),
    )


def _escapes(name: str) -> bool:
    return not name.isprintable() or name.startswith(("/", "\\")) or ".." in name.split("/")


def _categories(
    raw: list[_Category], tell: Callable[[Finding], None]
) -> tuple[tuple[Category, ...], dict[int, int]]:
    by_id: dict[int, str] = {}
    for category in raw:
        if category.id in by_id:
            tell(Finding(kind="duplicate category", message=f"id {category.id} comes twice"))
        by_id[category.id] = category.name
    if not by_id:
        tell(Finding(kind="no category", message="a document must have at least one category"))
    try:
        categories = tuple(
            Category(label=label, id=key, name=by_id[key])
            for label, key in enumerate(sorted(by_id), 1)
        )
    except ConfigError as error:
        tell(Finding(kind="bad category", message=str(error)))
        return (), {}
    return categories, {c.id: c.label for c in categories}


def _typed(
    raw: Iterable[msgspec.Raw], kind: Any, what: str, tell: Callable[[Finding], None]
) -> Iterator[Any]:
    """Yield records, None for one that is malformed."""
    decoder = msgspec.json.Decoder(kind)
    for at, record in enumerate(raw):
        try:
            yield decoder.decode(record)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            tell(Finding(kind=f"malformed {what}", message=f"record {at}: {str(error)[:120]}"))
            yield None


def _blocks(raw: list[msgspec.Raw], tell: Callable[[Finding], None]) -> Iterator[list[_Annotation]]:
    block: list[_Annotation] = []
    for annotation in _typed(raw, _Annotation, "annotation", tell):
        if annotation is not None:
            block.append(annotation)
        if len(block) == BLOCK:
            yield block
            block = []
    yield block


class _UnusableError(Exception):
    """A record that says nothing that could be used."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Columns:
    """Gathers annotations, block by block, into arrays."""

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

    def add(self, block: list[_Annotation]) -> None:
        """Add a block; records that cannot be used are told and left out."""
        rows: list[tuple[Any, ...]] = []
        rings, points, counts = list[int](), list[float](), list[bytes]()
        lengths = list[int]()
        for annotation in block:
            self._seen += 1
            checked = self._checked(annotation)
            if checked is None:
                continue
            row, outline, runs = checked
            rows.append(row)
            rings.append(len(outline))
            lengths.extend(len(ring) // 2 for ring in outline)
            for ring in outline:
                points.extend(ring)
            counts.append(runs)
        self._parts.append(
            {
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
            ids=rows[:, 1].astype(np.int64),
            image_index=np.zeros(len(rows), np.int32),
            labels=rows[:, 2].astype(np.int16),
            boxes_xywh=rows[:, 5:9].astype(np.float32),
            areas_px2=rows[:, 3].astype(np.float64),
            crowd=rows[:, 4] > 0,
            segments=Segments(
                xy=joined["xy"],
                ring_offsets=_offsets(joined["lengths"]),
                object_rings=_offsets(joined["rings"]),
                runs=joined["counts"],
                run_offsets=_offsets(joined["count_bytes"]),
            ),
            scores=rows[:, 9].astype(np.float32) if self._scored else None,
        )
        return annotations.sorted_by(rows[:, 0].astype(np.int32))

    def _checked(
        self, annotation: _Annotation
    ) -> tuple[tuple[Any, ...], list[list[float]], bytes] | None:
        """Return a record's numbers, its rings and its runs; None where it cannot be used."""
        ident = self._seen if annotation.id is None else annotation.id
        row = self._row_of.get(annotation.image_id)
        name = None if row is None else self._images.file_names[row]
        try:
            label = self._label(annotation, ident, known=row is not None)
            height, width = self._images.sizes_hw[row].tolist()
            rings, runs = _outline(annotation.segmentation, height, width)
            box = _box(annotation.bbox, rings)
            score = _score(annotation.score) if self._scored else math.nan
        except (_UnusableError, FormatError) as error:
            kind = getattr(error, "kind", "malformed annotation")
            self._tell(Finding(kind=kind, message=str(error), image=name, annotation=ident))
            return None
        area = annotation.area
        area = box[2] * box[3] if area is None or not math.isfinite(area) else area
        numbers = (row, ident, label, area, bool(annotation.iscrowd), *box, score)
        return numbers, rings, runs

    def _label(self, annotation: _Annotation, ident: int, *, known: bool) -> int:
        if not known:
            raise _UnusableError("missing image", f"no image has id {annotation.image_id}")
        label = self._label_of.get(annotation.category_id)
        if label is None:
            message = f"no category has id {annotation.category_id}"
            raise _UnusableError("missing category", message)
        if ident in self._ids:
            raise _UnusableError("duplicate annotation id", f"{ident} comes twice")
        self._ids.add(ident)
        return label


_EMPTY: dict[str, NDArray[Any]] = {
    "rows": np.zeros((0, COLUMNS)),
    "rings": np.zeros(0, np.int64),
    "lengths": np.zeros(0, np.int64),
    "xy": np.zeros((0, 2), np.float32),
    "count_bytes": np.zeros(0, np.int64),
    "counts": np.zeros(0, np.uint8),
}


def _outline(
    segmentation: list[list[float]] | _Runs | None, height: int, width: int
) -> tuple[list[list[float]], bytes]:
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
    for ring in segmentation:
        if len(ring) % 2 or len(ring) < 2:
            raise FormatError(f"a polygon must be x, y, x, y ..., got {len(ring)} numbers")
        if not math.isfinite(sum(ring)) or max(map(abs, ring)) > MAX_SIDE_PX:
            raise FormatError("a polygon's numbers must be finite pixels")
    return [ring for ring in segmentation if ring], b""


def _box(box: list[float] | None, rings: list[list[float]]) -> tuple[float, float, float, float]:
    if box is None and rings:
        xs = [x for ring in rings for x in ring[::2]]
        ys = [y for ring in rings for y in ring[1::2]]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    if box is None:
        return 0.0, 0.0, 0.0, 0.0
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise FormatError(f"bbox must be [left, top, width, height], got {str(box)[:60]}")
    return box[0], box[1], box[2], box[3]


def _score(score: float | None) -> float:
    if score is None or not 0 <= score <= 1:
        raise FormatError(f"score must be in [0, 1], got {score}")
    return score


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.r_[0, np.cumsum(lengths)], np.int64)


# --- writing -----------------------------------------------------------------------------------


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
