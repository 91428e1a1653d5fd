"""Builders shared by tests: small, keyword-only, with defaults for all a test need not say."""

from __future__ import annotations

import numpy as np
from affine import Affine
from pyproj import CRS

from geoseg.chips import Chip, plan_chips
from geoseg.detections import Detections, crop_masks
from geoseg.grid import Grid, Window
from geoseg.stitch import Instance


def make_grid(
    *,
    height: int = 300,
    width: int = 300,
    crs: object = "EPSG:32633",
    transform: Affine | None = None,
) -> Grid:
    """Build a grid; by default 0.5 m pixels in the middle of a UTM zone."""
    if transform is None:
        transform = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    return Grid(crs=CRS.from_user_input(crs), transform=transform, height=height, width=width)


def make_window(row: int = 0, col: int = 0, height: int = 300, width: int = 300) -> Window:
    """Build a window from positions."""
    return Window(row_off=row, col_off=col, height=height, width=width)


def make_chip(
    *, row: int = 0, col: int = 0, window: Window | None = None, scene_id: str = "s"
) -> Chip:
    """Build a chip that owns all of its window."""
    window = window or make_window()
    return Chip(scene_id=scene_id, row=row, col=col, window=window, core=window)


def make_detections(
    *,
    boxes: list[tuple[int, int, int, int]] | None = None,
    masks: list[np.ndarray] | None = None,
    scores: list[float] | None = None,
    labels: list[int] | None = None,
    window: Window | None = None,
    scene_id: str = "s",
) -> Detections:
    """Build detections of whole-pixel xyxy boxes, full unless soft masks are given."""
    if boxes is None:
        boxes = [(10, 20, 30, 50)]
    if masks is None:
        masks = [np.full((y1 - y0, x1 - x0), 255, np.uint8) for x0, y0, x1, y1 in boxes]
    return Detections.from_masks(
        scene_id,
        window or make_window(),
        boxes=np.array(boxes, np.float32),
        scores=np.array(scores or [0.9] * len(boxes), np.float32),
        labels=np.array(labels or [1] * len(boxes)),
        mask_boxes=np.array(boxes, np.int32),
        masks=masks,
    )


def make_instance(
    soft: np.ndarray, *, x: int = 0, y: int = 0, score: float = 0.9, scene_id: str = "s"
) -> Instance:
    """Build an instance whose soft mask's top-left pixel is (x, y)."""
    height, width = soft.shape
    return Instance(
        scene_id=scene_id,
        window=Window(row_off=y, col_off=x, height=height, width=width),
        soft=soft,
        score=score,
        label=1,
        n_chips=1,
        touches_edge=False,
    )


def plan(ids: np.ndarray, *, size_px: int, overlap_px: int) -> list[Chip]:
    """Plan the chips of a painted scene."""
    height, width = ids.shape
    grid = make_grid(height=height, width=width)
    return plan_chips("s", grid, size_px=size_px, overlap_px=overlap_px)


def rows_of(chips: list[Chip]) -> list[list[Chip]]:
    """Group chips by their row, rows ascending, order within a row kept."""
    rows: dict[int, list[Chip]] = {}
    for chip in chips:
        rows.setdefault(chip.row, []).append(chip)
    return [rows[r] for r in sorted(rows)]


def see(chip: Chip, masks: list[np.ndarray], scores: list[float] | None = None) -> Detections:
    """Return what a chip finds: full-scene masks (bool or soft in [0, 1]) cut by its window."""
    window = chip.window
    if not masks:
        return Detections.empty(chip.scene_id, window)
    seen = np.stack([np.asarray(mask, np.float32)[window.slices] for mask in masks])
    n = len(masks)
    return crop_masks(
        chip.scene_id,
        window,
        boxes=np.zeros((n, 4), np.float32),
        scores=np.array(scores or [0.9] * n, np.float32),
        labels=np.ones(n, np.int64),
        masks=seen,
    )


def see_ids(chip: Chip, ids: np.ndarray) -> Detections:
    """Return what a perfect network finds in a scene painted with ids."""
    part = ids[chip.window.slices]
    return see(chip, [ids == k for k in np.unique(part[part > 0]).tolist()])


def instance_masks(instances: list[Instance], shape_hw: tuple[int, int]) -> np.ndarray:
    """Paint each instance's on-pixels into its own full scene, (N, H, W) bool."""
    masks = np.zeros((len(instances), *shape_hw), bool)
    for mask, instance in zip(masks, instances, strict=True):
        mask[instance.window.slices] = instance.soft >= 128
    return masks
