"""The COCO door: chips and labels as a COCO document, masks as run-length encodings.

Frames: labels come in the scene's CRS; annotations are in pixels of their own chip, points (x, y),
pixel edges. The only module that imports pycocotools. Must not import torch or GDAL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pycocotools import mask as coco_mask
from pyproj import CRS

from geoseg.errors import ConfigError, FormatError, VectorError
from geoseg.frames import to_px

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import geopandas as gpd
    from numpy.typing import NDArray

    from geoseg.chips import Chip
    from geoseg.grid import Grid

CATEGORY_ID = 100  # "building" in the crowdAI mapping challenge
CATEGORY_NAME = "building"
MIN_AREA_PX2 = 1.0  # less is a sliver that clipping left over


def coco_images(
    chips: Sequence[Chip], file_names: Sequence[str], *, first_id: int = 1
) -> list[dict[str, Any]]:
    """Return the `images` list of a COCO document, in chip order.

    Args:
        chips: The chips.
        file_names: One per chip.
        first_id: Id of the first image; the others count up.

    Raises:
        ConfigError: The lengths differ.
    """
    if len(chips) != len(file_names):
        raise ConfigError(f"file_names must be one per chip ({len(chips)}), got {len(file_names)}")
    return [
        {
            "id": first_id + i,
            "file_name": name,
            "width": chip.window.width,
            "height": chip.window.height,
        }
        for i, (chip, name) in enumerate(zip(chips, file_names, strict=True))
    ]


def coco_annotations(
    labels: gpd.GeoDataFrame,
    chips: Sequence[Chip],
    grid: Grid,
    *,
    first_image_id: int = 1,
    first_id: int = 1,
) -> list[dict[str, Any]]:
    """Return the `annotations` of labels clipped to each chip that they touch.

    A label in several parts is one annotation with several polygons. A hole is kept by a cut from
    the outer ring to it and back, which encloses nothing and which COCO's even-odd filling undoes.
    Parts of less than one square pixel are dropped.

    Args:
        labels: Polygons in the grid's CRS.
        chips: Chips of the grid, in the order of their images.
        grid: The grid the chips count in.
        first_image_id: Id of the first chip's image, as in `coco_images`.
        first_id: Id of the first annotation; give the next free one for a further scene.

    Returns:
        Annotations sorted by image, then by label.

    Raises:
        VectorError: The labels are not in the grid's CRS.
    """
    if labels.crs is None or CRS(labels.crs) != grid.crs:
        raise VectorError(
            f"labels must be in the scene's CRS {grid.crs.name!r}, got {labels.crs}; reproject them"
        )
    annotations: list[dict[str, Any]] = []
    for index, parts in _clipped(to_px(labels.geometry.to_numpy(), grid), chips):
        window = chips[index].window
        origin = np.array([window.col_off, window.row_off], float)
        rings = [keyholed(part) - origin for part in parts]
        bounds = shapely.total_bounds(parts)
        corner, size = bounds[:2] - origin, bounds[2:] - bounds[:2]
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": first_image_id + index,
                "category_id": CATEGORY_ID,
                "iscrowd": 0,
                "area": round(float(shapely.area(parts).sum()), 3),
                "bbox": [round(float(v), 3) for v in (*corner, *size)],
                "segmentation": [ring.round(3).ravel().tolist() for ring in rings],
            }
        )
    return annotations


def coco_document(
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]] = (),
    *,
    description: str = "",
    licenses: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return a whole COCO document, ready for JSON.

    Example:
        >>> coco_document([])["categories"]
        [{'id': 100, 'name': 'building', 'supercategory': 'building'}]
    """
    return {
        "info": {"description": description, "contributor": "geoseg", "version": "1.0"},
        "licenses": list(licenses),
        "categories": [{"id": CATEGORY_ID, "name": CATEGORY_NAME, "supercategory": CATEGORY_NAME}],
        "images": list(images),
        "annotations": list(annotations),
    }


def keyholed(polygon: shapely.Polygon) -> NDArray[np.float64]:
    """Return a polygon as one closed ring (n, 2), with a two-way cut to each of its holes.

    Example:
        >>> square = shapely.box(0, 0, 9, 9).difference(shapely.box(3, 3, 6, 6))
        >>> len(keyholed(square)), len(keyholed(shapely.box(0, 0, 9, 9)))
        (11, 5)
    """
    ring: NDArray[np.float64] = shapely.get_coordinates(polygon.exterior)
    for interior in polygon.interiors:
        hole = shapely.get_coordinates(interior)
        nearest = int(np.square(ring - hole[0]).sum(axis=1).argmin())
        ring = np.concatenate([ring[: nearest + 1], hole, ring[nearest:]])
    return ring


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask (h, w) as COCO's compressed run-length encoding, ready for JSON.

    Example:
        >>> encode_rle(np.ones((2, 3), bool))
        {'size': [2, 3], 'counts': '06'}
    """
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """Decode a run-length encoding, compressed or not, to a mask (h, w).

    Raises:
        FormatError: Not a run-length encoding, or its runs do not fill its size.
    """
    try:
        height, width = (int(v) for v in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"an RLE must be {{size: [h, w], counts}}, got {str(rle)[:60]}"
        ) from error
    runs = decode_runs(counts, height, width)
    # The runs are checked first: pycocotools writes past its buffer when they are too long.
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def check_runs(counts: bytes, height: int, width: int) -> None:
    """Check that compressed runs fill a mask.

    Raises:
        FormatError: They are no runs, or fill more or less.
    """
    decode_runs(counts, height, width)


def pack_runs(runs: Sequence[int], height: int, width: int) -> bytes:
    """Return plain runs as compressed ones.

    Raises:
        FormatError: They do not fill height x width.
    """
    decode_runs(runs, height, width)
    packed: bytes = coco_mask.frPyObjects(
        {"size": [height, width], "counts": list(runs)}, height, width
    )["counts"]
    return packed


def decode_runs(counts: str | bytes | Sequence[int], height: int, width: int) -> list[int]:
    """Return runs, compressed or not, as lengths; background first, column by column.

    Raises:
        FormatError: They are no runs, or do not fill height x width.
    """
    try:
        packed = isinstance(counts, str | bytes)
        runs = _runs(counts) if packed else [int(v) for v in counts]  # type: ignore[arg-type] # narrowed
    except (TypeError, ValueError, IndexError) as error:
        raise FormatError(
            f"an RLE must be {{size: [h, w], counts}}, got {str(counts)[:60]}"
        ) from error
    if height < 0 or width < 0 or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise FormatError(
            f"an RLE's runs must fill its size {height}x{width}, got {sum(runs)} pixels"
        )
    return runs


def mask_ious(
    one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]
) -> NDArray[np.float64]:
    """Return IoU (N, M) of two lists of compressed run-length encodings of one size."""
    if not one or not other:
        return np.zeros((len(one), len(other)))
    return np.asarray(coco_mask.iou(list(one), list(other), [0] * len(other)), np.float64)


def rle_extents(
    rles: Sequence[dict[str, Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return boxes (N, 4), left, top, width, height in px, and areas (N,), px2, of masks.

    Args:
        rles: Compressed run-length encodings whose runs fill their size.

    Returns:
        The boxes, all 0 for a mask without a pixel, and the areas.

    Example:
        >>> runs = pack_runs([45, 3, 552], 20, 30)
        >>> boxes, areas = rle_extents([{"size": [20, 30], "counts": runs}])
        >>> boxes.tolist(), areas.tolist()
        ([[2.0, 5.0, 1.0, 3.0]], [3.0])
    """
    if not rles:
        return np.zeros((0, 4)), np.zeros(0)
    areas = np.asarray(coco_mask.area(list(rles)), np.float64)
    boxes = np.asarray(coco_mask.toBbox(list(rles)), np.float64)
    boxes[areas == 0] = 0  # pycocotools makes some billions of pixels wide
    return boxes, areas


def polygons_rle(rings: Sequence[NDArray[np.float32]], shape_hw: tuple[int, int]) -> dict[str, Any]:
    """Return the union of polygons (n, 2), as COCO rasterises them, as a run-length encoding.

    Example:
        >>> square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], np.float32)
        >>> decode_rle(polygons_rle([square], (2, 3))).astype(int).tolist()
        [[1, 1, 0], [1, 1, 0]]
    """
    usable = [ring.astype(np.float64).ravel().tolist() for ring in rings if len(ring) >= 3]
    if not usable:
        return encode_rle(np.zeros(shape_hw, np.bool_))
    parts = coco_mask.frPyObjects(usable, *shape_hw)
    merged: dict[str, Any] = coco_mask.merge(parts)
    return merged


def _runs(counts: str | bytes) -> list[int]:
    """Undo COCO's packing: 5 bits a character, low first, as differences to the run before last."""
    data = counts.encode("ascii") if isinstance(counts, str) else counts
    runs: list[int] = []
    at = 0
    while at < len(data):
        value = shift = 0
        more = True
        while more:
            bits = data[at] - 48
            if not 0 <= bits < 64:
                raise ValueError("not a character of an RLE")
            value |= (bits & 31) << shift
            more = bool(bits & 32)
            shift += 5
            at += 1
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _clipped(
    geometries: NDArray[np.object_], chips: Sequence[Chip]
) -> Iterator[tuple[int, NDArray[np.object_]]]:
    """Yield (chip index, polygon parts in scene px) of each label inside each chip."""
    edges = np.array(
        [(c.window.col_off, c.window.row_off, c.window.col_stop, c.window.row_stop) for c in chips],
        float,
    ).reshape(-1, 4)
    boxes = shapely.box(*edges.T)
    chip_index, label_index = shapely.STRtree(geometries).query(boxes, predicate="intersects")
    order = np.lexsort((label_index, chip_index))
    chip_index, label_index = chip_index[order], label_index[order]
    pieces = geometries[label_index].copy()
    bounds, limits = shapely.bounds(pieces), edges[chip_index]
    crosses = (bounds[:, :2] < limits[:, :2]).any(axis=1) | (bounds[:, 2:] > limits[:, 2:]).any(
        axis=1
    )
    pieces[crosses] = shapely.intersection(_valid(pieces[crosses]), boxes[chip_index[crosses]])
    parts, owner = shapely.get_parts(pieces, return_index=True)  # of collections and multipolygons
    parts, inner = shapely.get_parts(parts, return_index=True)
    owner = owner[inner]
    keep = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (
        shapely.area(parts) >= MIN_AREA_PX2
    )
    parts, owner = parts[keep], owner[keep]
    cuts = np.flatnonzero(owner[1:] != owner[:-1]) + 1
    for group, owners in zip(np.split(parts, cuts), np.split(owner, cuts), strict=True):
        if len(owners):
            yield int(chip_index[owners[0]]), group


def _valid(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    bad = ~shapely.is_valid(geometries)
    if bad.any():
        geometries = geometries.copy()
        geometries[bad] = shapely.make_valid(geometries[bad])
    return geometries
