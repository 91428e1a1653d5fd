"""A scene's results read back from all its shards, in the order one process would give them.

Footprints come in ascending order of their instances, detections in row-major order of chips, both
with as much in memory as one row of blocks leaves open.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geoseg.errors import FormatError
from geoseg.footprints import settle_ids
from geoseg.grid import Window
from geoseg.stages.blocks.plan import Region, levels, region_counts, regions
from geoseg.stages.blocks.region import ORDER, SCHEMA
from geoseg.stages.blocks.shards import read_seal
from geoseg.stages.store import read_detections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.chips import Chip
    from geoseg.detections import Detections
    from geoseg.stages.blocks.plan import SceneJob

BATCH_ROWS: Final = 16_384
"""Footprints of a frame, at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoftMask:
    """Where an instance's mask lies, and the mask."""

    window: Window
    soft: NDArray[np.uint8]
    """(h, w), 255 = 1."""


def merged_footprints(scene: SceneJob) -> Iterator[tuple[gpd.GeoDataFrame, list[SoftMask]]]:
    """Yield a scene's footprints in order, with unique ids, and their masks where they were kept.

    Raises:
        FormatError: A shard is missing or damaged.
    """
    taken: dict[str, int] = {}
    repeated = _repeated_ids(scene)
    for table in _in_order(scene):
        for start in range(0, table.num_rows, BATCH_ROWS):
            part = table.slice(start, BATCH_ROWS)
            yield _frame(part, scene, taken, repeated), _masks(part) if scene.keep_masks else []


def merged_detections(scene: SceneJob) -> Iterator[tuple[Chip, Detections]]:
    """Yield a scene's detections in row-major chip order, those of the asked score or more.

    Raises:
        FormatError: A shard is missing or damaged.
    """
    rows, cols = region_counts(scene, 0)
    for row in range(rows):
        blocks = [Region(scene=scene, level=0, row=row, col=col) for col in range(cols)]
        parts = [
            read_detections(block.detections_path)
            for block in blocks
            if block.detections_path.exists()
        ]
        for chip, found in heapq.merge(*parts, key=lambda item: (item[0].row, item[0].col)):
            yield chip, found.take(found.scores >= scene.least_raw)


def _in_order(scene: SceneJob) -> Iterator[pa.Table]:
    """Yield tables that follow each other in the instances' order.

    A shard is read when the rows before its first have been given out.
    """
    shards = sorted(
        (first, str(path), path) for path in _shards(scene) if (first := _first(path)) is not None
    )
    pending = SCHEMA.empty_table()
    for i, (_, _, path) in enumerate(shards):
        pending = pa.concat_tables([pending, pq.read_table(path)])
        limit = shards[i + 1][0] if i + 1 < len(shards) else None
        if limit == shards[i][0]:
            continue
        order = _orders(pending)
        ready = np.lexsort(order.T[::-1])
        if limit is not None:
            ready = ready[order[ready, 0] < limit]
        yield pending.take(pa.array(ready))
        rest = np.setdiff1d(np.arange(pending.num_rows), ready)
        pending = pending.take(pa.array(rest))


def _shards(scene: SceneJob) -> Iterator[Path]:
    for level in range(levels(scene)):
        for region in regions(scene, level):
            yield region.footprints_path


def _first(path: Path) -> int | None:
    """Return the first number of a shard's first instance; None where it holds none."""
    seal = read_seal(path)
    if seal is None:
        raise FormatError(f"{path}: missing or damaged since it was written; run again")
    first: int | None = seal.about.get("first")
    return first


def _orders(table: pa.Table) -> NDArray[np.int64]:
    column = table.column("order").combine_chunks()
    return np.asarray(column.flatten(), np.int64).reshape(-1, ORDER)


def _repeated_ids(scene: SceneJob) -> set[str]:
    """Return the ids that come more than once: 8 bytes each are in memory, not every id."""
    parts = [np.zeros(0, np.uint64)]
    for path in _shards(scene):
        ids = pq.read_table(path, columns=["id"]).column("id").to_pylist()
        parts.append(np.array([int(name, 16) for name in ids], np.uint64))
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    return {f"{value:016x}" for value in values[counts > 1].tolist()}


def _frame(
    table: pa.Table, scene: SceneJob, taken: dict[str, int], repeated: set[str]
) -> gpd.GeoDataFrame:
    columns = {
        name: table.column(name).to_numpy()
        for name in ("label", "score", "area_m2", "n_chips", "touches_edge")
    }
    if scene.config.regularize.enabled:
        columns |= {name: table.column(name).to_numpy() for name in ("regularized", "iou_raw")}
    ids = settle_ids(table.column("id").to_pylist(), taken, repeated=repeated)
    shapes = shapely.from_wkb(table.column("geometry").to_numpy())
    return gpd.GeoDataFrame(
        {"id": ids, **columns, "scene": scene.scene_id},
        geometry=gpd.GeoSeries(shapes, crs=scene.grid.crs),
        crs=scene.grid.crs,
    )


def _masks(table: pa.Table) -> list[SoftMask]:
    windows = np.asarray(table.column("window").combine_chunks().flatten()).reshape(-1, 4)
    masks = []
    for (row_off, col_off, h, w), soft in zip(windows.tolist(), table.column("soft"), strict=True):
        window = Window(row_off=row_off, col_off=col_off, height=h, width=w)
        pixels = np.frombuffer(soft.as_buffer(), np.uint8).reshape(h, w)
        masks.append(SoftMask(window=window, soft=pixels))
    return masks
