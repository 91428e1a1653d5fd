"""The spool: footprints on their way to a file, held on disk as Arrow record batches.

Rows are appended as they are found and read back in batches of a fixed size, so memory does not
grow with their number, and what is written does not depend on how they were handed in. The spool
has no name in the folder: it is gone when it is closed or when the process dies.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Final, Self

import geopandas
import numpy as np
import pyarrow as pa
import shapely

from geoseg import footprints
from geoseg.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from geopandas import GeoDataFrame
    from pyproj import CRS

BATCH_ROWS: Final = 16_384  # about 4 MB of houses

ATTRIBUTES: Final = tuple(footprints.SCHEMA)


def schema_of(optional: Iterable[str] = ()) -> pa.Schema:
    """Return the schema of a record batch: attributes, some of the optional ones, then WKB."""
    extra = {name: footprints.OPTIONAL[name] for name in footprints.optional_columns(optional)}
    kinds = {**footprints.SCHEMA, **extra}
    named = [(name, pa.type_for_alias(kind)) for name, kind in kinds.items()]
    return pa.schema([*named, ("geometry", pa.binary())])


class Spool:
    """Footprints appended one frame at a time and read back as record batches, any number of times.

    Args:
        folder: Where its unnamed file lies: the disk that the output goes to.
        crs: CRS of every footprint.
        optional: Columns of `footprints.OPTIONAL` that every frame has and that are kept.
    """

    def __init__(self, folder: Path, crs: CRS, optional: Iterable[str] = ()) -> None:
        self.crs = crs
        self.schema = schema_of(optional)
        self.count = 0
        self.kinds: set[str] = set()
        """Geometry types seen: "Polygon", "MultiPolygon"."""
        self.bounds: tuple[float, float, float, float] | None = None
        """(min x, min y, max x, max y) of all rows; None where there are none."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._file, mode="w"), self.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, frame: GeoDataFrame) -> None:
        """Add the rows of `frame`; only the columns of `schema` are kept.

        Raises:
            FormatError: A column is missing, the CRS differs or a geometry is not a polygon.
        """
        if not len(frame):
            return
        self._check(frame)
        geometries = shapely.orient_polygons(shapely.force_2d(frame.geometry.to_numpy()))
        self._stream.write_batch(_to_batch(frame, geometries, self.schema))
        self.count += len(frame)
        self.kinds.update(str(kind) for kind in frame.geom_type.unique())
        self._grow(shapely.total_bounds(geometries))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, `BATCH_ROWS` at a time (the last batch may be shorter)."""
        if not self.count:
            return iter(())
        self._file.flush()
        self._file.seek(0)
        reader = pa.ipc.open_stream(pa.PythonFile(self._file, mode="r"))
        return rechunk(reader, BATCH_ROWS)

    def frames(self) -> Iterator[GeoDataFrame]:
        """Yield all rows in order as frames, as `batches` does."""
        return (to_frame(batch, self.schema, self.crs) for batch in self.batches())

    def _check(self, frame: GeoDataFrame) -> None:
        wanted = tuple(self.schema.names[:-1])
        missing = [name for name in wanted if name not in frame.columns]
        if missing:
            raise FormatError(f"footprints must have the columns {wanted}, missing {missing}")
        if frame.crs is not None and not self.crs.equals(frame.crs, ignore_axis_order=True):
            raise FormatError(
                f"footprints must be in the writer's CRS {self.crs.name!r}, got {frame.crs.name!r}"
            )
        foreign = set(map(str, frame.geom_type.unique())) - {"Polygon", "MultiPolygon"}
        if foreign or frame.geometry.is_empty.any():
            kinds = ", ".join(sorted(foreign)) or "an empty geometry"
            raise FormatError(f"footprints must be polygons or multipolygons, got {kinds}")

    def _grow(self, bounds: Any) -> None:
        low, high = bounds[:2], bounds[2:]
        if self.bounds is not None:
            low = np.minimum(low, self.bounds[:2])
            high = np.maximum(high, self.bounds[2:])
        self.bounds = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


def rechunk(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of exactly `rows`, the last one shorter."""
    pending: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        pending.append(batch)
        held += batch.num_rows
        while held >= rows:
            table = pa.Table.from_batches(pending)
            yield _one_batch(table.slice(0, rows))
            pending, held = table.slice(rows).to_batches(), held - rows
    if held:
        yield _one_batch(pa.Table.from_batches(pending))


def to_frame(batch: pa.RecordBatch, schema: pa.Schema, crs: CRS) -> GeoDataFrame:
    """Return a batch whose last column is WKB as a frame, its columns brought to the schema's."""
    columns: dict[str, Any] = {}
    for name in schema.names[:-1]:
        kind = schema.field(name).type
        columns[name] = batch.column(name).cast(kind).to_numpy(zero_copy_only=False)
    wkb = batch.column(batch.num_columns - 1).to_numpy(zero_copy_only=False)
    return geopandas.GeoDataFrame(columns, geometry=shapely.from_wkb(wkb), crs=crs)


def with_geometries(batch: pa.RecordBatch, geometries: Any) -> pa.RecordBatch:
    """Return the batch with other geometries, an (N,) object array."""
    wkb = pa.array(shapely.to_wkb(geometries), pa.binary())
    return batch.set_column(batch.num_columns - 1, "geometry", wkb)


def _to_batch(frame: GeoDataFrame, geometries: Any, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_column(frame[name], schema.field(name).type) for name in schema.names[:-1]]
    columns.append(pa.array(shapely.to_wkb(geometries), pa.binary()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array(values.astype(str).to_numpy(), kind, from_pandas=True)
    return pa.array(np.asarray(values), kind, from_pandas=True)  # NaN is no value, JSON has none


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
