"""The unit of stitching: detections of a region in, the footprints that are settled there out.

What a chip outside the region may have seen too is handed on: a second shard, which the region
above stitches with those of its neighbours. So every group of detections that belong together is
decided once, by the first region that holds all of it, and the answer does not depend on how the
scene was cut into blocks.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import shapely

from geoseg.chips import ListedPlan
from geoseg.detections import Detections
from geoseg.errors import FormatError
from geoseg.footprints import make_footprints
from geoseg.morphology import refine
from geoseg.stages.base import Tally, grid_values
from geoseg.stages.blocks.outcome import Outcome
from geoseg.stages.blocks.shards import ShardWriter, make_key, read_seal
from geoseg.stages.chipfolder import ChipFolder
from geoseg.stages.store import (
    chips_in_rows,
    detections_batch,
    detections_schema,
    read_detections,
)
from geoseg.stitch import Stitcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import geopandas as gpd

    from geoseg.chips import Chip
    from geoseg.stages.blocks.plan import Plan, Region
    from geoseg.stitch import Instance
    from geoseg.stitch.pieces import Piece

VERSION: Final = 2
"""Of what this stage does: shards of another version are made again."""
ORDER: Final = 8
"""Numbers of an instance's order."""
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("area_m2", pa.float64()),
        ("n_chips", pa.int32()),
        ("touches_edge", pa.bool_()),
        ("regularized", pa.bool_()),
        ("iou_raw", pa.float64()),
        ("geometry", pa.binary()),
        ("order", pa.list_(pa.int64(), ORDER)),
        ("window", pa.list_(pa.int32(), 4)),
        ("soft", pa.large_binary()),
    ]
)
"""`id` before it is made unique, `geometry` WKB in the scene's CRS, `window` where `soft` lies;
`regularized` and `iou_raw` are null where outlines are not made regular."""
_OPEN_ROWS: Final = 4096


def stitch_region(region: Region) -> Outcome:
    """Stitch and polygonize what can be settled in a region, unless that was done.

    Raises:
        FormatError: A shard that it needs is missing or damaged.
        OutputError: A shard cannot be written.
    """
    sums = [_sum_of_input(path) for path in region.inputs()]
    key = footprints_key(region, sums)
    if (done := _done(region, key)) is not None:
        return done
    start = time.perf_counter()
    tally = Tally()
    stitcher = Stitcher(
        shape_hw=(region.scene.grid.height, region.scene.grid.width),
        options=region.scene.config.stitch,
        unshared=_unshared(region),
    )
    looked: dict[tuple[int, int], Chip] = {}
    with ShardWriter(region.footprints_path, SCHEMA, key=key) as shard:
        for row in chips_in_rows(_detections(region)):
            looked.update(((chip.row, chip.col), chip) for chip, _ in row)
            with tally.timed("stitch"):
                instances = stitcher.push_row(row)
            _write(instances, region, shard, tally)
        with tally.timed("stitch"):
            instances = stitcher.finish()
        _write(instances, region, shard, tally)
        _hand_on(stitcher.handed_on, looked, region, key)
        tally.seconds["block"] = time.perf_counter() - start
        outcome = Outcome.of(tally)
        shard.about.setdefault("first", None)
        shard.about["outcome"] = outcome.to_dict()
    return outcome


def footprints_key(region: Region, sums: Sequence[str]) -> str:
    """Return the digest of what a region's footprints depend on.

    Args:
        region: The region.
        sums: SHA-256 of the shards it is stitched from.
    """
    config, calibration = region.scene.config, region.scene.calibration
    return make_key(
        stage="footprints",
        version=VERSION,
        inputs=list(sums),
        score=region.scene.least_raw,
        calibration=None if calibration is None else calibration.to_dict(),
        morphology=asdict(config.morphology),
        stitch=asdict(config.stitch),
        polygonize=asdict(config.polygonize),
        regularize=asdict(config.regularize),
        grid=grid_values(region.scene.grid),
        labels=sorted(region.scene.origin.labels.items()),
        masks=region.scene.keep_masks,
        unshared=_unshared(region),
    )


def _sum_of_input(path: Path) -> str:
    seal = read_seal(path)
    if seal is None:
        raise FormatError(f"{path}: missing or damaged since it was written; run again")
    return seal.sha256


def _done(region: Region, key: str) -> Outcome | None:
    seals = [read_seal(path) for path in (region.footprints_path, region.open_path)]
    if any(seal is None or seal.key != key for seal in seals) or seals[0] is None:
        return None
    try:
        return Outcome.from_dict(seals[0].about["outcome"], reused=True)
    except (KeyError, TypeError, ValueError):
        return None


def _unshared(region: Region) -> tuple[int, int, int, int]:
    plan: Plan | None = region.scene.plan
    if plan is None:
        plan = ListedPlan(ChipFolder.open(Path(region.scene.path)).chips)
    return plan.unshared(region.rows, region.cols)


def _detections(region: Region) -> Iterator[tuple[Chip, Detections]]:
    """Yield the detections of all inputs, in row-major order of the whole region.

    Masks are refined where they come from the network; what regions below handed on has been.
    """
    config, gsd_m = region.scene.config, region.scene.grid.gsd_m
    parts = [read_detections(path) for path in region.inputs()]
    for chip, found in heapq.merge(*parts, key=lambda item: (item[0].row, item[0].col)):
        if region.level > 0:
            yield chip, found
            continue
        kept = found.take(found.scores >= region.scene.least_raw)
        yield chip, refine(kept, config.morphology, gsd_m=gsd_m)


def _write(instances: list[Instance], region: Region, shard: ShardWriter, tally: Tally) -> None:
    if not instances:
        return
    scene = region.scene
    with tally.timed("polygonize"):
        frame = make_footprints(
            instances,
            scene.grid,
            labels=scene.origin.labels,
            options=scene.config.polygonize,
            calibration=scene.calibration,
            regular=scene.config.regularize,
            settled=False,
        )
    if len(frame):
        chosen = [instances[i] for i in frame.index]
        shard.about.setdefault("first", chosen[0].order[0])
        shard.write(_table(frame, chosen, keep_masks=scene.keep_masks))
        tally.footprints += len(frame)


def _table(frame: gpd.GeoDataFrame, instances: list[Instance], *, keep_masks: bool) -> pa.Table:
    windows = [
        (item.window.row_off, item.window.col_off, item.window.height, item.window.width)
        for item in instances
    ]
    masks = [item.soft.tobytes() if keep_masks else None for item in instances]
    plain = ("id", "label", "score", "area_m2", "n_chips", "touches_edge")
    columns = {name: pa.array(frame[name].to_numpy(), SCHEMA.field(name).type) for name in plain}
    for name in ("regularized", "iou_raw"):
        values = frame[name].to_numpy() if name in frame else [None] * len(frame)
        columns[name] = pa.array(values, SCHEMA.field(name).type)
    columns["geometry"] = pa.array(shapely.to_wkb(frame.geometry.to_numpy()), pa.binary())
    columns["order"] = _fixed([item.order for item in instances], pa.int64(), ORDER)
    columns["window"] = _fixed(windows, pa.int32(), 4)
    columns["soft"] = pa.array(masks, pa.large_binary())
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _fixed(rows: Sequence[tuple[int, ...]], kind: pa.DataType, width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(rows), kind), width)


def _hand_on(
    pieces: list[Piece], looked: dict[tuple[int, int], Chip], region: Region, key: str
) -> None:
    """Write the pieces for the region above, and that chips near them were looked at."""
    schema = detections_schema(region.scene.origin)
    by_chip: dict[tuple[int, int], list[Piece]] = {}
    for piece in sorted(pieces, key=lambda piece: piece.key):
        by_chip.setdefault((piece.chip.row, piece.chip.col), []).append(piece)
    near = _ring(region, looked) | _beside(by_chip)
    with ShardWriter(region.open_path, schema, key=key) as shard:
        group: list[pa.RecordBatch] = []
        for place in sorted(near & looked.keys()):
            chip = looked[place]
            group.append(detections_batch(chip, _as_detections(chip, by_chip.get(place)), schema))
            if len(group) == _OPEN_ROWS:
                shard.write(pa.Table.from_batches(group))
                group = []
        if group:
            shard.write(pa.Table.from_batches(group))


def _ring(region: Region, looked: dict[tuple[int, int], Chip]) -> set[tuple[int, int]]:
    """Return the chips at the region's border: those beyond ask whether they looked."""
    rows, cols = region.rows, region.cols
    last_row, last_col = rows.stop - 1, cols.stop - 1
    return {
        (row, col)
        for row, col in looked
        if row in {rows.start, last_row} or col in {cols.start, last_col}
    }


def _beside(places: dict[tuple[int, int], list[Piece]]) -> set[tuple[int, int]]:
    return {(row + i, col + j) for row, col in places for i in (-1, 0, 1) for j in (-1, 0, 1)}


def _as_detections(chip: Chip, pieces: list[Piece] | None) -> Detections:
    """Return pieces of one chip as its detections, in their order."""
    if not pieces:
        return Detections.empty(chip.scene_id, chip.window)
    left, top = chip.window.col_off, chip.window.row_off
    boxes = np.array([piece.box for piece in pieces], np.int32) - np.array(
        [left, top, left, top], np.int32
    )
    return Detections.from_masks(
        chip.scene_id,
        chip.window,
        boxes=boxes.astype(np.float32),
        scores=np.array([piece.score for piece in pieces], np.float32),
        labels=np.array([piece.label for piece in pieces], np.int16),
        mask_boxes=boxes,
        masks=[piece.soft for piece in pieces],
    )
