"""Any of the forms that annotations come in, as any that geoseg writes. Must not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from geoseg.data.cocofile import read_coco
from geoseg.data.cocowrite import write_coco
from geoseg.data.layout import images_beside
from geoseg.data.masks import (
    MASK_SUFFIXES,
    read_instance_masks,
    read_mask_folders,
    read_semantic_masks,
    write_instance_masks,
)
from geoseg.data.via import read_via
from geoseg.errors import ConfigError
from geoseg.files import check_apart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from geoseg.data.annotations import Annotations

SourceKind = Literal["coco", "via", "instance-masks", "semantic-masks", "mask-folders"]
TargetKind = Literal["coco", "instance-masks"]


def read_annotations(source: Path, *, kind: SourceKind, images: Path | None) -> Annotations:
    """Read annotations of any form.

    Args:
        source: A file (`coco`, `via`) or a folder.
        kind: Its form.
        images: Folder of the chips; not needed for `coco` and `mask-folders`.

    Raises:
        ConfigError: The form is unknown, or needs the images.
        InputNotFoundError: Something is not there.
        FormatError: It is not of that form.
        ReadError: An image or mask cannot be read.
    """
    if kind == "coco":
        return read_coco(source)
    if kind == "mask-folders":
        return read_mask_folders(source)
    if kind not in get_args(SourceKind):
        raise ConfigError(f"kind must be one of {', '.join(get_args(SourceKind))}, got {kind!r}")
    if images is None:
        raise ConfigError(f"{kind} needs the folder of images: give --images")
    if kind == "via":
        return read_via(source, images)
    read = read_instance_masks if kind == "instance-masks" else read_semantic_masks
    return read(source, images)


def files_read(
    source: Path, annotations: Annotations, *, kind: SourceKind, images: Path | None
) -> Iterator[Path]:
    """Yield the files that annotations come from, and their chips.

    Args:
        source: As `read_annotations` was given it.
        annotations: What it returned.
        kind: As it was given it.
        images: As it was given it.
    """
    names = annotations.images.file_names
    if kind == "mask-folders":
        images = source
    elif images is None:
        images = images_beside(source)
    if kind in {"coco", "via"}:
        yield source
    else:
        masks = (source / name for name in names)
        yield from (path.with_suffix(end) for path in masks for end in MASK_SUFFIXES)
    yield from (images / name for name in names)


def write_annotations(
    output: Path, annotations: Annotations, *, kind: TargetKind, inputs: Iterable[Path] = ()
) -> None:
    """Write annotations as a COCO document or as a folder of instance masks.

    Args:
        output: The file, or the folder.
        annotations: What to write.
        kind: As what.
        inputs: Files that are not to be replaced.

    Raises:
        OutputError: It cannot be written.
        ConfigError: The form is unknown, or a file would replace an input.
        FormatError: Two chips' masks would be one file.
    """
    if kind == "coco":
        check_apart([output], inputs)
        write_coco(output, annotations)
    elif kind == "instance-masks":
        write_instance_masks(annotations, output, inputs=inputs)
    else:
        raise ConfigError(f"to must be one of {', '.join(get_args(TargetKind))}, got {kind!r}")
