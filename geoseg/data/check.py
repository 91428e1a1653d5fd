"""Look at annotated chips before training on them: what would break it, and a clean copy.

Frame: pixels of each chip. The document given is never changed. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from PIL import Image

from geoseg.coco import keyholed, rle_extents
from geoseg.data.annotations import Annotations, Segments
from geoseg.data.cocofile import read_coco
from geoseg.data.cocowrite import write_coco
from geoseg.data.findings import Finding
from geoseg.errors import InputNotFoundError, ReadError
from geoseg.raster import read_chip_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

BOX_TOLERANCE_PX = 2.0  # boxes are often rounded to whole pixels, outward
LEAST_AREA_PX2 = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A document that was looked at."""

    annotations: Annotations
    """All that could be read of it."""
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """Return how often each kind was found, most frequent first."""
        kinds = [f.kind for f in self.findings]
        return {
            kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda k: -kinds.count(k))
        }


def check(document: Path, images: Path) -> Checked:
    """Find what breaks training in a COCO document and its images.

    Missing and unreadable images and sizes that disagree; doubled ids and names; annotations of
    chips and categories that are not there, or malformed; boxes malformed, without an area, outside
    their chip or away from their outline; outlines with fewer than three points, without an area or
    crossing themselves; categories that nothing belongs to, or without a name.

    Args:
        document: The COCO file.
        images: Folder that its file names begin in.

    Raises:
        InputNotFoundError: There is no such file or folder.
        FormatError: It is no COCO document at all.
    """
    if not images.is_dir():
        raise InputNotFoundError(f"no folder of images {images}: check the path")
    findings: list[Finding] = []
    annotations = read_coco(document, findings=findings)
    findings += _image_findings(annotations, images)
    findings += _category_findings(annotations)
    findings += _box_findings(annotations)
    findings += _outline_findings(annotations)
    return Checked(annotations=annotations, findings=tuple(findings))


def fix(document: Path, images: Path, output: Path) -> Checked:
    """Write a copy of a document that `check` finds nothing in but empty categories.

    Outlines are mended and cut at the border of their chip, boxes and areas computed anew, ids
    numbered from 1, nameless categories called by their id; what cannot be mended is left out, and
    so are chips without a readable image.
    Categories stay, empty ones too: labels are ranks among them, and must be those of other splits.

    Returns:
        What was wrong with the original.

    Raises:
        OutputError: The copy cannot be written, or would replace the original.
        Otherwise as `check`.
    """
    checked = check(document, images)
    annotations = checked.annotations
    bad = {f.image for f in checked.findings if f.kind in _IMAGE_KINDS}
    kept = annotations.keep([n for n in annotations.images.file_names if n not in bad])
    write_coco(output, mended(kept), description=f"clean copy of {document.name}")
    return checked


def mended(annotations: Annotations) -> Annotations:
    """Return annotations whose outlines are valid and inside their chips, numbered from 1."""
    outlines = [_mended_outline(annotations, i) for i in range(len(annotations))]
    kept = np.array([outline is not None for outline in outlines], bool)
    part = annotations.where(kept)
    shapes = [outline for outline in outlines if outline is not None]
    segments, boxes, areas = _columns(part, shapes)
    return Annotations(
        categories=part.categories,
        images=part.images,
        ids=np.arange(1, len(part) + 1, dtype=np.int64),
        image_index=part.image_index,
        labels=part.labels,
        boxes_xywh=boxes,
        areas_px2=areas,
        crowd=part.crowd,
        segments=segments,
        scores=part.scores,
    )


_IMAGE_KINDS = frozenset({"missing image file", "unreadable image", "size disagrees"})


def _image_findings(annotations: Annotations, images: Path) -> Iterator[Finding]:
    for name, size_hw in zip(
        annotations.images.file_names, annotations.images.sizes_hw.tolist(), strict=True
    ):
        path = images / name
        if not path.is_file():
            yield Finding(kind="missing image file", message=f"{path} must exist", image=name)
            continue
        try:
            found = _read_size(path)
        except ReadError as error:
            yield Finding(kind="unreadable image", message=str(error)[:160], image=name)
            continue
        if found != tuple(size_hw):
            message = f"must be {size_hw[0]}x{size_hw[1]} px, got {found[0]}x{found[1]}"
            yield Finding(kind="size disagrees", message=message, image=name)


def _read_size(path: Path) -> tuple[int, int]:
    """Decode an image whole, as only that tells whether it can be, and return its (h, w)."""
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        try:
            with Image.open(path) as image:
                width, height = image.size
                image.draft("RGB", (1, 1))  # an eighth of the work, and as telling
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ReadError(f"must be readable, got: {' '.join(str(error).split())}") from error
        return height, width
    pixels, _ = read_chip_image(path)
    return pixels.shape[1], pixels.shape[2]


def _category_findings(annotations: Annotations) -> Iterator[Finding]:
    counts = np.bincount(annotations.labels, minlength=len(annotations.categories) + 1)[1:]
    for category, count in zip(annotations.categories, counts, strict=False):
        if count == 0:
            message = f"{category.name!r} (id {category.id}) has no annotation"
            yield Finding(kind="empty category", message=message)


def _box_findings(annotations: Annotations) -> Iterator[Finding]:
    left, top, width, height = annotations.boxes_xywh.T.astype(float)
    sizes = annotations.images.sizes_hw[annotations.image_index].astype(float)
    flat = (width <= 0) | (height <= 0)
    outside = ~flat & (
        (left < -0.5)
        | (top < -0.5)
        | (left + width > sizes[:, 1] + 0.5)
        | (top + height > sizes[:, 0] + 0.5)
    )
    bounds = _outline_bounds(annotations)
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    apart = ~flat & (np.abs(bounds - boxes).max(axis=1, initial=0) > BOX_TOLERANCE_PX)
    for kind, rows, what in (
        ("box without area", flat, "must have a width and a height, got {}"),
        ("box outside", outside, "must lie inside its chip, got {}"),
        ("box disagrees", apart, "must be that of its outline, got {}"),
    ):
        for i in np.flatnonzero(rows).tolist():
            values = [round(float(v), 1) for v in annotations.boxes_xywh[i]]
            yield _finding(annotations, i, kind, what.format(values))


def _outline_bounds(annotations: Annotations) -> NDArray[np.float64]:
    """Return xyxy of each object's polygons or runs; NaN for one without either, or a pixel."""
    segments = annotations.segments
    bounds = np.full((len(annotations), 4), np.nan)
    points = segments.ring_offsets[segments.object_rings]
    some = np.flatnonzero(points[1:] > points[:-1])
    if len(some):
        bounds[some, :2] = np.minimum.reduceat(segments.xy, points[some], axis=0)
        bounds[some, 2:] = np.maximum.reduceat(segments.xy, points[some], axis=0)
    packed = np.flatnonzero(np.diff(segments.run_offsets))
    sizes = annotations.images.sizes_hw[annotations.image_index[packed]].tolist()
    rles = [annotations.rle(i, *size) for i, size in zip(packed.tolist(), sizes, strict=True)]
    boxes, areas = rle_extents(rles)
    boxes[areas == 0] = np.nan
    bounds[packed] = np.c_[boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]
    return bounds


def _outline_findings(annotations: Annotations) -> Iterator[Finding]:
    segments = annotations.segments
    for i in range(len(annotations)):
        if segments.counts(i):
            if not annotations.object_mask(i).any():
                yield _finding(annotations, i, "outline without area", "its runs hold no pixel")
            continue
        rings = segments.rings(i)
        if not rings or any(len(ring) < 3 for ring in rings):
            points = [len(ring) for ring in rings]
            message = f"a polygon must have at least 3 points, got {points}"
            yield _finding(annotations, i, "degenerate outline", message)
            continue
        shapes = shapely.polygons([shapely.linearrings(ring) for ring in rings])
        if _crosses(shapes):
            reason = str(shapely.is_valid_reason(shapes[~shapely.is_valid(shapes)][0]))
            yield _finding(annotations, i, "outline crosses itself", reason[:100])
        elif shapely.area(shapes).sum() < LEAST_AREA_PX2:
            message = f"must cover a pixel, got {shapely.area(shapes).sum():.2f} px2"
            yield _finding(annotations, i, "outline without area", message)


def _crosses(shapes: NDArray[np.object_]) -> bool:
    """Say whether a polygon crosses itself; a two-way cut to a hole only touches itself."""
    invalid = shapes[~shapely.is_valid(shapes)]
    if not len(invalid):
        return False
    # Where a ring crosses itself, part of its signed area is negative.
    lost = shapely.area(shapely.make_valid(invalid)) - shapely.area(invalid)
    return bool((np.abs(lost) > LEAST_AREA_PX2).any())


def _mended_outline(annotations: Annotations, i: int) -> shapely.Geometry | bytes | None:
    """Return an object's outline, valid and inside its chip; its runs; or None."""
    if counts := annotations.segments.counts(i):
        return counts if annotations.object_mask(i).any() else None
    rings = [ring for ring in annotations.segments.rings(i) if len(ring) >= 3]
    if not rings:
        return None
    height, width = annotations.images.sizes_hw[annotations.image_index[i]].tolist()
    shapes = shapely.polygons([shapely.linearrings(ring) for ring in rings])
    whole = shapely.union_all(shapely.make_valid(shapes))
    inside = shapely.intersection(whole, shapely.box(0, 0, width, height))
    parts = shapely.get_parts(shapely.get_parts(inside))
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    parts = parts[shapely.area(parts) >= LEAST_AREA_PX2]
    return shapely.multipolygons(parts) if len(parts) else None


def _columns(
    annotations: Annotations, outlines: list[shapely.Geometry | bytes]
) -> tuple[Segments, NDArray[np.float32], NDArray[np.float64]]:
    rings: list[NDArray[np.float64]] = []
    object_rings, counts = [0], list[bytes]()
    boxes, areas = annotations.boxes_xywh.copy(), annotations.areas_px2.copy()
    for i, outline in enumerate(outlines):
        packed = outline if isinstance(outline, bytes) else b""
        counts.append(packed)
        if packed:
            mask = annotations.object_mask(i)
            rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            corner, far = (cols[0], rows[0]), (cols[-1] + 1, rows[-1] + 1)
            areas[i] = mask.sum()
        else:
            rings += [keyholed(part)[:-1] for part in shapely.get_parts(outline)]
            bounds = shapely.bounds(outline)
            corner, far = bounds[:2], bounds[2:]
            areas[i] = shapely.area(outline)
        boxes[i] = [*corner, far[0] - corner[0], far[1] - corner[1]]
        object_rings.append(len(rings))
    segments = Segments(
        xy=np.concatenate([*rings, np.zeros((0, 2))]).astype(np.float32),
        ring_offsets=np.cumsum([0, *map(len, rings)], dtype=np.int64),
        object_rings=np.array(object_rings, np.int64),
        runs=np.frombuffer(b"".join(counts), np.uint8),
        run_offsets=np.cumsum([0, *map(len, counts)], dtype=np.int64),
    )
    return segments, boxes, areas


def _finding(annotations: Annotations, i: int, kind: str, message: str) -> Finding:
    name = annotations.images.file_names[annotations.image_index[i]]
    return Finding(kind=kind, message=message, image=name, annotation=int(annotations.ids[i]))
