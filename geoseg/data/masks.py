"""Objects given as pictures: instance ids, classes, or one picture an object.

Frame: pixels of each chip. Must not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from geoseg.data.collect import Collector
from geoseg.data.samples import boxes_of
from geoseg.errors import FormatError, InputNotFoundError, ReadError
from geoseg.files import check_apart, check_output, output_errors, replacing
from geoseg.models.spec import BUILDING
from geoseg.raster.images import image_size, is_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.data.annotations import Annotations

MASK_SUFFIXES = (".png", ".tif", ".tiff")
MAX_SIDE_PX = 16_384
MAX_OBJECTS = 65_535  # ids of 16 bits


def read_instance_masks(masks: Path, images: Path) -> Annotations:
    """Read one mask a chip, of the same stem, whose values are ids of objects; 0 is ground.

    Args:
        masks: Folder of masks, 8, 16 or 32 bits, or with a palette, whose indices are the ids.
        images: Folder of the chips.

    Raises:
        InputNotFoundError: A folder, or the mask of a chip, is not there.
        ReadError: A chip or a mask cannot be read.
        FormatError: A mask has several bands, another size than its chip, or values that are not
            whole or below 0.
    """
    return _collected(images, masks, _split_ids)


def read_semantic_masks(masks: Path, images: Path) -> Annotations:
    """Read one mask a chip, of the same stem; each connected region above 0 is an object.

    Buildings that touch become one: instance masks or outlines tell them apart.

    Raises:
        As `read_instance_masks`.
    """
    return _collected(images, masks, _regions)


def read_mask_folders(root: Path) -> Annotations:
    """Read `ID/ID.jpg` with `ID/ID-class-n.png` beside it, one mask an object.

    As matterport's Mask R-CNN, GRASS's i.ann.maskrcnn and images-to-osm keep them; all classes
    are buildings.

    Raises:
        As `read_instance_masks`.
    """
    folders = sorted(p for p in _folder(root).iterdir() if p.is_dir() and p.name[0] != ".")
    collector = Collector((BUILDING,))
    for folder in folders:
        image = next((p for p in _images(folder) if p.stem == folder.name), None)
        if image is None:
            raise InputNotFoundError(f"{folder} must hold an image {folder.name}.jpg or .png")
        beside = folder.glob(f"{folder.name}-*")
        found = sorted(p for p in beside if p.suffix.lower() in MASK_SUFFIXES)
        _add(collector, image, f"{folder.name}/{image.name}", found, _one)
    return collector.finish()


def write_instance_masks(
    annotations: Annotations, folder: Path, *, inputs: Iterable[Path] = ()
) -> None:
    """Write one 16-bit PNG a chip, named as it, whose values are 1, 2, ... for its objects.

    Where objects overlap, a pixel has the later one's number. Crowds are no objects and left out.
    All is checked before the first file is written.

    Args:
        annotations: The chips and their objects.
        folder: Where the masks go; it is made.
        inputs: Files that no mask may replace, such as the chips themselves.

    Raises:
        OutputError: A file cannot be written.
        FormatError: A chip has more than 65,535 objects, or two chips' masks would be one file.
        ConfigError: A mask would replace an input.
    """
    annotations = annotations.where(~annotations.crowd)
    targets = _targets(annotations, folder, inputs)
    for row, path in enumerate(targets):
        objects = annotations.of_image(row)
        ids = np.zeros(tuple(annotations.images.sizes_hw[row]), np.uint16)
        for number, i in enumerate(range(objects.start, objects.stop), 1):
            ids[annotations.object_mask(i)] = number
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(check_output(path, (".png",)), sync=False) as temporary:
            Image.fromarray(ids).save(temporary, format="PNG")


def read_mask(path: Path) -> NDArray[np.int64]:
    """Read a mask's values (H, W), of one with a palette the indices.

    Raises:
        ReadError: It cannot be read.
        FormatError: It has several bands, or values that are not whole or below 0.
    """
    try:
        with Image.open(path) as image:
            if max(image.size) > MAX_SIDE_PX:
                raise FormatError(f"{path}: must be at most {MAX_SIDE_PX} px a side")
            values = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, FormatError):
            raise
        raise ReadError(f"{path}: must be a readable mask, got: {str(error)[:100]}") from error
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2:
        raise FormatError(f"{path}: a mask must have one band, got {values.shape[-1]}")
    with np.errstate(invalid="ignore"):  # NaN and what is beyond 64 bits become another number
        whole = values.astype(np.int64)
    wrong = values[(whole != values) | (whole < 0)]
    if len(wrong):
        raise FormatError(f"{path}: a mask's values must be whole, 0 or more, got {wrong[0]:g}")
    return whole


def _targets(annotations: Annotations, folder: Path, inputs: Iterable[Path]) -> list[Path]:
    """Return where each chip's mask goes."""
    counts = np.bincount(annotations.image_index, minlength=len(annotations.images))
    chip_of: dict[Path, str] = {}
    for name, count in zip(annotations.images.file_names, counts.tolist(), strict=True):
        if count > MAX_OBJECTS:
            raise FormatError(f"{name}: must have at most {MAX_OBJECTS} objects")
        path = (folder / name).with_suffix(".png")
        if path in chip_of:
            raise FormatError(f"the masks of {chip_of[path]} and {name} would both be {path}")
        chip_of[path] = name
    check_apart(chip_of, inputs)
    return list(chip_of)


def _collected(
    images: Path, masks: Path, split: Callable[[NDArray[np.int64]], Iterator[NDArray[np.bool_]]]
) -> Annotations:
    collector = Collector((BUILDING,))
    for path in _images(images):
        _add(collector, path, path.name, [_mask_of(path, masks)], split)
    return collector.finish()


def _add(
    collector: Collector,
    image: Path,
    name: str,
    masks: Iterable[Path],
    split: Callable[[NDArray[np.int64]], Iterator[NDArray[np.bool_]]],
) -> None:
    """Add a chip, and the objects that each of its masks is split into."""
    shape = image_size(image)
    collector.add_image(name, shape)
    for path in masks:
        values = read_mask(path)
        if values.shape != shape:
            raise FormatError(
                f"{path}: must be {shape[0]}x{shape[1]} px as {image}, "
                f"got {values.shape[0]}x{values.shape[1]}"
            )
        for mask in split(values):
            collector.add_object(mask, boxes_of(mask[None])[0], 1)


def _split_ids(ids: NDArray[Any]) -> Iterator[NDArray[np.bool_]]:
    for ident in np.unique(ids):
        if ident > 0:
            yield ids == ident


def _regions(values: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    _, labels = cv2.connectedComponents((values > 0).astype(np.uint8), connectivity=4)
    return _split_ids(np.asarray(labels))


def _one(values: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    return _split_ids(values > 0)


def _mask_of(image: Path, masks: Path) -> Path:
    for suffix in MASK_SUFFIXES:
        path = masks / f"{image.stem}{suffix}"
        if path.is_file():
            return path
    raise InputNotFoundError(f"no mask of {image.name}: {masks} must hold {image.stem}.png or .tif")


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in _folder(folder).iterdir() if is_picture(p.name))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputNotFoundError(f"no folder {path}: check the path")
    return path
