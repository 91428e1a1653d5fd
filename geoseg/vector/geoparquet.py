"""GeoParquet 1.1 with a bounding-box column, written one row group at a time.

Specification: https://geoparquet.org/releases/v1.1.0/. Geometries keep their CRS.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.vector.spool import Spool

METADATA_KEY: Final = b"geoseg"
BBOX: Final = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])


def write_geoparquet(
    spool: Spool, path: Path, *, layer: str, metadata: dict[str, str] | None = None
) -> None:
    """Write the spool; `metadata` goes into the file's key `geoseg` as JSON.

    Raises:
        OSError: The disk is full or the file cannot be written.
    """
    del layer
    extra = {b"geo": json.dumps(_geo(spool)).encode()}
    if metadata:
        extra[METADATA_KEY] = json.dumps(metadata, sort_keys=True).encode()
    schema = spool.schema.append(pa.field("bbox", BBOX)).with_metadata(extra)
    with (
        path.open("wb") as file,
        pq.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=["label", "scene"]
        ) as writer,
    ):
        for batch in spool.batches():
            writer.write_batch(_with_bbox(batch).replace_schema_metadata(extra))


def _with_bbox(batch: pa.RecordBatch) -> pa.RecordBatch:
    geometries = shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
    sides = [pa.array(np.ascontiguousarray(side)) for side in shapely.bounds(geometries).T]
    return batch.append_column(
        pa.field("bbox", BBOX), pa.StructArray.from_arrays(sides, fields=list(BBOX))
    )


def _geo(spool: Spool) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(spool.kinds),
        "crs": spool.crs.to_json_dict(),
        "orientation": "counterclockwise",
        "edges": "planar",
        "covering": {"bbox": {side.name: ["bbox", side.name] for side in BBOX}},
    }
    if spool.bounds is not None:
        column["bbox"] = list(spool.bounds)
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
