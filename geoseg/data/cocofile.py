"""COCO documents as columns: a third of a million chips in a minute and little memory.

Frame: boxes and polygons in pixels of their own chip. The document is decoded in blocks, so that
no Python object per annotation stays. Files come from strangers: sizes are bounded, and what is
malformed is named by file and record. Must not import torch.
"""

from __future__ import annotations

import codecs
import gc
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np

from geoseg.data.annotations import Images
from geoseg.data.cocorecords import MAX_SIDE_PX, AnnotationRecord, Columns, Id
from geoseg.data.findings import Finding
from geoseg.data.layout import escapes
from geoseg.errors import ConfigError, FormatError, InputNotFoundError
from geoseg.models.spec import Category

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from geoseg.data.annotations import Annotations


MAX_DOCUMENT_BYTES = 8 << 30
BLOCK = 20_000  # annotations decoded at once


class _Image(msgspec.Struct):
    id: Id
    file_name: str
    width: int
    height: int


class _Category(msgspec.Struct):
    id: int
    name: Any = None


class _Document(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[_Category]
    annotations: list[msgspec.Raw] = []


def read_coco(path: Path, *, findings: list[Finding] | None = None) -> Annotations:
    """Read a COCO document: polygons, compressed and plain runs, crowds.

    Args:
        path: The JSON file.
        findings: Where given, records that cannot be used are left out and told here, and so is
            what can be put right in others: a malformed box, a malformed polygon beside a sound
            one, an id that comes twice, a category without a name. Otherwise the first one is an
            error.

    Returns:
        Its chips and objects, sorted by chip.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is too large, no JSON, no COCO, or a record is malformed; the message names
            the file and the record.
    """
    with _without_collector():
        tell = _fail_of(path, hint=" (geoseg data check lists all)")
        tell = tell if findings is None else findings.append
        document = _decode(path, _Document, "a COCO document")
        images = _images(document.images, tell)
        categories, label_of = _categories(document.categories, tell)
        row_of = {int(v): i for i, v in enumerate(images.ids)}
        columns = Columns(images, row_of, label_of, tell)
        for block in _blocks(document.annotations, tell):
            columns.add(block)
        del document
        return columns.finish(categories, images)


def read_results(path: Path, truth: Annotations) -> Annotations:
    """Read results in COCO's form: a list of image_id, category_id, segmentation and score.

    As in pycocotools, a `bbox` gives the mask where there is no segmentation, and without one the
    box is that of the mask. Areas are those of the masks. Ids and areas are not read.

    Args:
        path: The JSON file.
        truth: Says which chips and categories there are.

    Returns:
        The objects found, in all of the truth's chips.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: As for `read_coco`; or a chip or category is not the truth's.
    """
    tell = _fail_of(path)
    raw = _decode(path, list[msgspec.Raw], "a list of COCO results")
    label_of = {c.id: c.label for c in truth.categories}
    row_of = {int(v): i for i, v in enumerate(truth.images.ids)}
    columns = Columns(truth.images, row_of, label_of, tell, scored=True)
    for block in _blocks(raw, tell):
        columns.add(block)
    return columns.finish(truth.categories, truth.images)


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
    data = b""
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)  # which Windows' editors write
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise FormatError(f"{path}: must be {what}, got: {_reason(error, data)}") from error


def _reason(error: Exception, data: bytes) -> str:
    """Return what is wrong with JSON; say so where it is a number that Python's json writes."""
    at = re.search(r"\(byte (\d+)\)", str(error))
    start = int(at[1]) if at else 0
    word = re.match(rb"NaN|Infinity", data[start : start + 8])
    if at and word:
        return f"{word[0].decode()} at byte {at[1]}, which JSON does not have"
    return str(error)[:160]


def _fail_of(path: Path, *, hint: str = "") -> Callable[[Finding], None]:
    def fail(finding: Finding) -> NoReturn:
        raise FormatError(f"{path}: {finding}{hint}")

    return fail


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
        elif escapes(image.file_name):
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


def _categories(
    raw: list[_Category], tell: Callable[[Finding], None]
) -> tuple[tuple[Category, ...], dict[int, int]]:
    by_id: dict[int, Any] = {}
    for category in raw:
        if category.id in by_id:
            tell(Finding(kind="duplicate category", message=f"id {category.id} comes twice"))
        by_id[category.id] = category.name
    if not by_id:
        tell(Finding(kind="no category", message="a document must have at least one category"))
    taken = {name for name in by_id.values() if isinstance(name, str)}
    categories = list[Category]()
    for key in sorted(by_id):
        spare = _spare_name(key, taken)
        try:
            categories.append(_category(len(categories) + 1, key, by_id[key], spare, tell))
        except ConfigError as error:
            tell(Finding(kind="bad category", message=str(error)))
    return tuple(categories), {c.id: c.label for c in categories}


def _spare_name(ident: int, taken: set[str]) -> str:
    """Return what a category is called by its id, unlike any name of the document."""
    name = f"category {ident}"
    while name in taken:
        name += "_"
    return name


def _category(
    label: int, ident: int, name: Any, spare: str, tell: Callable[[Finding], None]
) -> Category:
    """Return a category; one without a usable name is told and called by the spare one."""
    by_id = Category(label=label, id=ident, name=spare)
    try:
        return Category(label=label, id=ident, name=name)
    except ConfigError as error:
        tell(Finding(kind="bad category", message=f"id {ident}: {error}"))
    return by_id


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


def _blocks(
    raw: list[msgspec.Raw], tell: Callable[[Finding], None]
) -> Iterator[list[AnnotationRecord]]:
    block: list[AnnotationRecord] = []
    for annotation in _typed(raw, AnnotationRecord, "annotation", tell):
        if annotation is not None:
            block.append(annotation)
        if len(block) == BLOCK:
            yield block
            block = []
    yield block
