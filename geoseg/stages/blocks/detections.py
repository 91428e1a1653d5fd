"""The shard of a block's detections: what it depends on, when it can be used, how it is written."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from geoseg.stages.base import grid_values
from geoseg.stages.blocks.outcome import Outcome
from geoseg.stages.blocks.shards import ShardWriter, file_identity, make_key, read_seal
from geoseg.stages.store import ROW_GROUP, detections_batch, detections_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from geoseg.chips import Chip
    from geoseg.detections import Detections
    from geoseg.stages.blocks.plan import Region

VERSION: Final = 1
"""Of what this stage does: shards of another version are made again."""


def detections_key(region: Region) -> str:
    """Return the digest of what a block's detections depend on, but for the least score.

    Detections of a lower score hold those of a higher, so that is compared, not hashed. With
    several views they do not: what few views found is scored by it.
    """
    scene, config = region.scene, region.scene.config
    plain = config.tta.views == "none"
    return make_key(
        stage="infer",
        version=VERSION,
        scene=[scene.scene_id, scene.identity, grid_values(scene.grid)],
        read=[config.scene.bands, config.scene.rescale],
        aoi=None if config.scene.aoi is None else file_identity(config.scene.aoi),
        chips=[scene.size_px, config.chips.overlap_px],
        tta=None if plain else [asdict(config.tta), scene.least_raw],
        model=scene.origin.network_id,
        block=[*_ends(region.rows), *_ends(region.cols)],
    )


def done_block(region: Region) -> Outcome | None:
    """Return how a block ended whose shard can be used; one with failures is tried again."""
    seal = read_seal(region.detections_path)
    if seal is None or seal.key != detections_key(region):
        return None
    try:
        outcome = Outcome.from_dict(seal.about["outcome"], reused=True)
        enough = seal.about["score"] <= region.scene.least_raw
    except (KeyError, TypeError, ValueError):
        return None
    return outcome if enough and not outcome.failed else None


def write_block(region: Region, found: Iterable[tuple[Chip, Detections]], outcome: Outcome) -> None:
    """Write a block's shard.

    Raises:
        OutputError: It cannot be written.
    """
    schema = detections_schema(region.scene.origin)
    with ShardWriter(region.detections_path, schema, key=detections_key(region)) as shard:
        for batches in _row_groups(found, schema):
            shard.write(pa.Table.from_batches(batches))
        shard.about.update(outcome=outcome.to_dict(), score=region.scene.least_raw)


def _row_groups(
    found: Iterable[tuple[Chip, Detections]], schema: pa.Schema
) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = 0
    for chip, detections in found:
        batch = detections_batch(chip, detections, schema)
        group.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _ends(span: range) -> tuple[int, int]:
    return span.start, span.stop
