"""Detections on disk: one Parquet file, a row per detection, in chip order.

A chip in which nothing was found has one row without a mask: that it was looked at matters where
its neighbours saw something at their borders.

The file's metadata says which grid the windows count in, so that `footprints` needs neither the
scene nor the model. Masks are kept as raw bytes and compressed by the file. Writes are atomic: the
file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import itertools
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoseg.chips import Chip
from geoseg.detections import Detections
from geoseg.errors import FormatError, InputNotFoundError
from geoseg.files import check_output, hidden_folder, move, output_errors
from geoseg.grid import Window
from geoseg.stages.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType


FORMAT = "geoseg-detections-1"
_KEY = b"geoseg"
_WINDOW = ("row_off", "col_off", "height", "width")
_INTS = ("row", "col", *_WINDOW, *(f"core_{name}" for name in _WINDOW))
SCHEMA = pa.schema(
    [(name, pa.int32()) for name in _INTS]
    + [
        ("box", pa.list_(pa.float32(), 4)),
        ("score", pa.float32()),
        ("label", pa.int16()),
        ("mask_box", pa.list_(pa.int32(), 4)),
        ("mask", pa.large_binary()),
    ]
)
_FOUND = ("box", "score", "label", "mask_box", "mask")


class DetectionWriter:
    """Write detections chip by chip; the file appears at a clean exit.

    Args:
        path: The `.parquet` file to write.
        origin: Where the detections come from.

    Raises:
        OutputError: The file cannot be written; nothing is left behind.
    """

    def __init__(self, path: Path, origin: Origin) -> None:
        check_detections_output(path)
        self._path = path.resolve()
        self._schema = detections_schema(origin)
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack, output_errors(self._path):
            self._new = stack.enter_context(hidden_folder(self._path)) / self._path.name
            self._writer = pq.ParquetWriter(
                self._new,
                self._schema,
                compression="zstd",
                use_dictionary=False,
                write_page_checksum=True,
            )
            self._stack = stack.pop_all()
        return self

    def write(self, chip: Chip, detections: Detections) -> None:
        """Add one chip's detections."""
        batch = detections_batch(chip, detections, self._schema)
        self._pending.append(batch)
        self._rows += batch.num_rows
        if self._rows >= ROW_GROUP:
            self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._flush()
                with output_errors(self._path):
                    self._writer.close()
                    move(self._new, self._path)
            else:
                with contextlib.suppress(OSError):  # a full disk, most likely reported already
                    self._writer.close()

    def _flush(self) -> None:
        if self._pending:
            with output_errors(self._path):
                self._writer.write_table(pa.Table.from_batches(self._pending))
        self._pending, self._rows = [], 0


ROW_GROUP = 4096
"""Rows of a row group: some megabytes of masks."""


def check_detections_output(path: Path) -> None:
    """Raise OutputError, before any work, if a detections file cannot be written there."""
    check_output(path, (".parquet",))


def detections_origin(path: Path) -> Origin:
    """Return where a detections file's contents come from, without reading them.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is torn, or not a file of detections.
    """
    if not path.is_file():
        raise InputNotFoundError(f"no file {path}: check the path")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: not a Parquet file, or torn: {_line(error)}") from error
    metadata = schema.metadata or {}
    if metadata.get(b"format") != FORMAT.encode() or _KEY not in metadata:
        raise FormatError(f"{path}: not a detections file; `geoseg infer` writes them")
    if not schema.equals(SCHEMA):
        raise FormatError(f"{path}: its columns are not those of detections; infer again")
    try:
        return Origin.from_json(metadata[_KEY])
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def count_detections(path: Path) -> int:
    """Return the number of detections in a file."""
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(columns=["score"])
        return sum(batch.num_rows - batch.column(0).null_count for batch in batches)


def read_detections(path: Path) -> Iterator[tuple[Chip, Detections]]:
    """Read a detections file chip by chip, in its order, a row group in memory at a time.

    Raises:
        FormatError: It is torn, or not a file of detections.
    """
    scene_id = detections_origin(path).scene_id
    rest: pa.Table | None = None
    for table in _row_groups(path):
        whole = table if rest is None else pa.concat_tables([rest, table])
        *done, last = _by_chip(whole)
        rest = last
        yield from (_from_table(part, scene_id, path) for part in done)
    if rest is not None:
        yield _from_table(rest, scene_id, path)


def _row_groups(path: Path) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for i in range(file.num_row_groups):
                table = file.read_row_group(i)
                if table.num_rows:
                    yield table
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: torn: {_line(error)}; run `geoseg infer` again") from error


def _by_chip(table: pa.Table) -> list[pa.Table]:
    keys = np.column_stack([table.column(name).to_numpy() for name in ("row", "col")])
    cuts = np.flatnonzero((np.diff(keys, axis=0) != 0).any(axis=1)) + 1
    edges = [0, *cuts.tolist(), len(keys)]
    return [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]


def detections_schema(origin: Origin) -> pa.Schema:
    """Return the schema of a file of detections, with where they come from."""
    return SCHEMA.with_metadata({_KEY: origin.to_json().encode(), b"format": FORMAT})


def detections_batch(chip: Chip, detections: Detections, schema: pa.Schema) -> pa.RecordBatch:
    """Return one chip's detections as rows; one row without a mask where there are none."""
    n = len(detections)
    core = {f"core_{name}": value for name, value in asdict(chip.core).items()}
    ints = {"row": chip.row, "col": chip.col, **asdict(chip.window), **core}
    columns = {name: pa.array(np.full(max(n, 1), ints[name], np.int32)) for name in _INTS}
    if n == 0:
        columns |= {name: pa.nulls(1, schema.field(name).type) for name in _FOUND}
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
    columns["box"] = _fixed(detections.boxes, pa.float32())
    columns["score"] = pa.array(detections.scores)
    columns["label"] = pa.array(detections.labels)
    columns["mask_box"] = _fixed(detections.mask_boxes, pa.int32())
    columns["mask"] = pa.Array.from_buffers(
        pa.large_binary(),
        n,
        [None, pa.py_buffer(detections.mask_offsets), pa.py_buffer(detections.mask_data)],
    )
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _fixed(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind), 4)


def _from_table(table: pa.Table, scene_id: str, path: Path) -> tuple[Chip, Detections]:
    table = table.combine_chunks()
    missing = {name for name in table.column_names if table.column(name).null_count}
    is_empty = table.num_rows == 1 and missing == set(_FOUND)
    if missing and not is_empty:
        raise FormatError(f"{path}: damaged: values are missing; run `geoseg infer` again")
    first = {name: table.column(name)[0].as_py() for name in _INTS}
    try:
        chip = Chip(
            scene_id=scene_id,
            row=first["row"],
            col=first["col"],
            window=Window(**{name: first[name] for name in _WINDOW}),
            core=Window(**{name: first[f"core_{name}"] for name in _WINDOW}),
        )
        if is_empty:
            return chip, Detections.empty(scene_id, chip.window)
        boxes, masks = (_rows_of_4(table, name) for name in ("box", "mask_box"))
        data = [np.frombuffer(value.as_buffer(), np.uint8) for value in table.column("mask")]
        shapes = masks[:, [3, 2]] - masks[:, [1, 0]]
        return chip, Detections.from_masks(
            scene_id,
            chip.window,
            boxes=boxes,
            scores=table.column("score").to_numpy(),
            labels=table.column("label").to_numpy(),
            mask_boxes=masks,
            masks=[part.reshape(h, w) for part, (h, w) in zip(data, shapes.tolist(), strict=True)],
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: damaged at chip {first['row']}, {first['col']}: {error}"
        ) from error


def _rows_of_4(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name).combine_chunks()
    return np.asarray(column.flatten()).reshape(-1, 4)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def chips_in_rows(
    found: Iterable[tuple[Chip, Detections]],
) -> Iterator[list[tuple[Chip, Detections]]]:
    """Group chips that come in row-major order into rows."""
    for _, row in itertools.groupby(found, key=lambda item: item[0].row):
        yield list(row)
