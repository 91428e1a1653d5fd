"""Outlines drawn with VGG Image Annotator, as annotations.

Frame: pixels of each image. Reads the export of regions (a dict of files), whole projects and both
forms of regions, list and dict. Must not import torch.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import shapely

from geoseg.data.annotations import Annotations, Images, Segments
from geoseg.data.cocorecords import MAX_SIDE_PX
from geoseg.data.layout import escapes
from geoseg.errors import FormatError, InputNotFoundError
from geoseg.models.spec import BUILDING
from geoseg.raster.images import image_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_VIA_BYTES = 1 << 30
_POINTS = ("all_points_x", "all_points_y")
_ATTRIBUTES = {
    "polygon": _POINTS,
    "polyline": _POINTS,
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
}


def read_via(path: Path, images: Path) -> Annotations:
    """Read polygons, rectangles and circles of a VIA file; every region is a building.

    Args:
        path: The JSON file.
        images: Folder of the images, which give the sizes.

    Raises:
        InputNotFoundError: The file or an image is not there.
        FormatError: It is no VIA file, or a region is malformed; the message names it.
        ReadError: An image cannot be read.
    """
    rings: list[np.ndarray] = []
    index, names, sizes = list[int](), list[str](), list[tuple[int, int]]()
    for name, regions in _files(path):
        if escapes(name):
            raise FormatError(
                f"{path}: filename {name[:80]!r} must be a path inside the folder of images"
            )
        if name in names:
            raise FormatError(f"{path}: file {name!r} comes twice")
        sizes.append(image_size(images / name))
        for at, region in enumerate(regions):
            ring = _ring(region, f"{path}: {name}: region {at}")
            rings.append(ring)
            index.append(len(names))
        names.append(name)
    return outlined(names, sizes, index, rings)


def outlined(
    names: list[str], sizes_hw: list[tuple[int, int]], index: list[int], rings: list[np.ndarray]
) -> Annotations:
    """Return annotations of one ring (n, 2) an object, all buildings.

    Args:
        names: File names of the images.
        sizes_hw: Their sizes.
        index: Row of each object's image.
        rings: Each object's points.
    """
    count = len(rings)
    bounds = np.array([[*r.min(axis=0), *np.ptp(r, axis=0)] for r in rings]).reshape(-1, 4)
    areas = [shapely.area(shapely.polygons(r)) for r in rings]
    return Annotations(
        categories=(BUILDING,),
        images=Images(
            ids=np.arange(1, len(names) + 1, dtype=np.int64),
            file_names=tuple(names),
            sizes_hw=np.array(sizes_hw, np.int32).reshape(-1, 2),
        ),
        ids=np.arange(1, count + 1, dtype=np.int64),
        image_index=np.array(index, np.int32),
        labels=np.ones(count, np.int16),
        boxes_xywh=bounds.astype(np.float32),
        areas_px2=np.array(areas, np.float64),
        crowd=np.zeros(count, np.bool_),
        segments=Segments(
            xy=np.concatenate([*rings, np.zeros((0, 2))]).astype(np.float32),
            ring_offsets=np.cumsum([0, *map(len, rings)], dtype=np.int64),
            object_rings=np.arange(count + 1, dtype=np.int64),
            runs=np.zeros(0, np.uint8),
            run_offsets=np.zeros(count + 1, np.int64),
        ),
    )


def _files(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield each file's name and regions."""
    if not path.is_file():
        raise InputNotFoundError(f"no VIA file {path}: check the path")
    if path.stat().st_size > MAX_VIA_BYTES:
        raise FormatError(f"{path}: must be at most {MAX_VIA_BYTES} bytes")
    try:
        tree = msgspec.json.decode(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise FormatError(f"{path}: must be a VIA file, got: {str(error)[:120]}") from error
    if isinstance(tree, dict):
        tree = tree.get("_via_img_metadata", tree)
    if not isinstance(tree, dict):
        raise FormatError(f"{path}: must be a VIA file, an object of files; got a list or a value")
    for key, entry in tree.items():
        name = entry.get("filename") if isinstance(entry, dict) else None
        regions = entry.get("regions", []) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(regions, dict | list):
            raise FormatError(f"{path}: entry {str(key)[:60]!r} must have a filename and regions")
        yield name, list(regions.values()) if isinstance(regions, dict) else regions


def _ring(region: Any, where: str) -> np.ndarray:
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        raise FormatError(f"{where}: must have shape_attributes")
    kind = str(shape.get("name"))
    if kind not in _ATTRIBUTES:
        raise FormatError(f"{where}: shape must be a polygon, rect or circle, got {kind[:60]!r}")
    numbers = _numbers(shape, kind, where)
    if kind == "rect":
        ((x,), (y,), (w,), (h,)) = numbers
        ring = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    elif kind == "circle":
        ((x,), (y,), (radius,)) = numbers
        ring = shapely.get_coordinates(shapely.Point(x, y).buffer(radius))[:-1]
    else:
        ring = np.array(numbers).T
    if len(ring) < 3:
        raise FormatError(f"{where}: must have at least 3 points, got {len(ring)}")
    if np.abs(ring).max() > MAX_SIDE_PX:
        raise FormatError(f"{where}: must lie within {MAX_SIDE_PX} px")
    return ring


def _numbers(shape: dict[str, Any], kind: str, where: str) -> list[list[float]]:
    """Return the attributes of a shape, each a list: of one number, or of a polygon's many."""
    keys = _ATTRIBUTES[kind]
    values: list[Any] = [shape.get(key) if keys == _POINTS else [shape.get(key)] for key in keys]
    for key, value in zip(keys, values, strict=True):
        if not isinstance(value, list) or not all(map(_is_px, value)):
            raise FormatError(f"{where}: {key} of a {kind} must be pixels within {MAX_SIDE_PX}")
    if len({len(value) for value in values}) > 1:
        counts = " and ".join(str(len(value)) for value in values)
        raise FormatError(f"{where}: must have as many {' as '.join(keys)}, got {counts}")
    return [[float(v) for v in value] for value in values]


def _is_px(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= MAX_SIDE_PX
