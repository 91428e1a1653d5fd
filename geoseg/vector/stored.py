"""Footprints read back from a file, in batches: our GeoParquet, or any format GDAL reads."""

from __future__ import annotations

import contextlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from geoseg.errors import FormatError, GeosegWarning, InputNotFoundError
from geoseg.footprints import optional_columns
from geoseg.vector.gdal import GDAL_ERRORS, one_line, plain_path, quiet_gdal
from geoseg.vector.geoparquet import METADATA_KEY
from geoseg.vector.spool import ATTRIBUTES, BATCH_ROWS, schema_of, to_frame

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from geopandas import GeoDataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintsInfo:
    """What a footprints file says about itself."""

    crs: CRS
    count: int
    bounds: tuple[float, float, float, float] | None
    """(min x, min y, max x, max y) in the CRS; None where there are no rows."""
    metadata: dict[str, str]
    """What the writer was given; empty for formats that keep none."""
    optional: tuple[str, ...] = ()
    """Its columns that not all footprints have, of `footprints.OPTIONAL`."""


def footprints_info(path: str | os.PathLike[str]) -> FootprintsInfo:
    """Describe a footprints file without reading its rows.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is torn, or not a file of footprints.
    """
    source = _existing(path)
    with _as_format_error(source):
        return _parquet_info(source) if _is_parquet(source) else _gdal_info(source)


def read_footprints(
    path: str | os.PathLike[str], *, batch_rows: int = BATCH_ROWS
) -> Iterator[GeoDataFrame]:
    """Read a footprints file, batch by batch.

    The file's columns are checked at once, before the first batch is asked for.

    Args:
        path: A .parquet file of ours, or the same in .gpkg, .fgb, .geojson or .geojsonl.
        batch_rows: Most rows of a batch: bounds the memory.

    Returns:
        An iterator of frames with the columns of footprints, in the file's CRS and order; none
        where the file has no rows. Rows without a geometry, as editors leave them, are left out
        with a warning that counts them.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is torn, or not a file of footprints; torn data may show only on the way.
    """
    info = footprints_info(path)
    source = _existing(path)
    batches = _parquet_batches if _is_parquet(source) else _gdal_batches
    names = schema_of(info.optional).names
    return _frames(source, batches(source, batch_rows, names), info)


def _frames(
    source: Path, batches: Iterator[pa.RecordBatch], info: FootprintsInfo
) -> Iterator[GeoDataFrame]:
    schema = schema_of(info.optional)
    without = 0
    with _as_format_error(source):
        for batch in batches:
            frame = to_frame(batch, schema, info.crs)
            known = ~(frame.geometry.isna() | frame.geometry.is_empty)
            without += int((~known).sum())
            yield frame if known.all() else frame[known]
    if without:
        text = f"{source}: rows without a geometry were left out: {without}"
        warnings.warn(text, GeosegWarning, stacklevel=2)


def _parquet_batches(source: Path, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(source) as file:
        for batch in file.iter_batches(batch_size=rows, columns=names):
            yield batch.select(names)


def _gdal_batches(source: Path, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(plain_path(source))
        with quiet_gdal():
            opened = pyogrio.open_arrow(
                plain, columns=names[:-1], batch_size=rows, use_pyarrow=True
            )
            meta, reader = stack.enter_context(opened)
        geometry = meta["geometry_name"] or "wkb_geometry"
        for batch in reader:
            yield batch.select([*names[:-1], geometry])


def _parquet_info(source: Path) -> FootprintsInfo:
    with pq.ParquetFile(source) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
    extra = schema.metadata or {}
    _check_columns(source, schema.names, schema_of().names)
    geo = json.loads(extra.get(b"geo", b"{}")).get("columns", {}).get("geometry")
    if geo is None:
        raise FormatError(f"{source} must be GeoParquet, it has no key 'geo': write it again")
    return FootprintsInfo(
        crs=_crs(source, geo.get("crs", "OGC:CRS84")),
        count=count,
        bounds=tuple(geo["bbox"]) if "bbox" in geo else None,
        metadata=_metadata(extra.get(METADATA_KEY)),
        optional=optional_columns(schema.names),
    )


def _gdal_info(source: Path) -> FootprintsInfo:
    if source.suffix.lower() == ".pmtiles":
        raise FormatError(f"{source} is cut into tiles for viewing: give the file it was made from")
    with plain_path(source) as plain, quiet_gdal():
        info = pyogrio.read_info(plain, force_feature_count=True, force_total_bounds=True)
    if info["driver"] == "OSM":
        raise FormatError(
            f"{source} is OpenStreetMap data, not footprints: give the file it was exported from"
        )
    if source.suffix.lower() == ".shp":
        raise FormatError(
            f"{source}: a Shapefile has cut the columns' names: give the file it was made from"
        )
    if info["features"]:
        _check_columns(source, list(info["fields"]), ATTRIBUTES)
    bounds = info["total_bounds"] if info["features"] else None
    return FootprintsInfo(
        crs=_crs(source, info["crs"]),
        count=info["features"],
        bounds=tuple(bounds) if bounds is not None and np.isfinite(bounds).all() else None,
        metadata=_metadata((info["layer_metadata"] or {}).get("geoseg")),
        optional=optional_columns(info["fields"]),
    )


def _check_columns(source: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise FormatError(
            f"{source} is not a file of footprints: it has no column {', '.join(missing)}"
        )


def _crs(source: Path, value: Any) -> CRS:
    if value is None:
        raise FormatError(f"{source} has no CRS: write it again from the scene")
    return CRS.from_user_input(value)


def _metadata(text: str | bytes | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in json.loads(text or "{}").items()}


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).exists():
        raise InputNotFoundError(f"{path} does not exist: check the path")
    return Path(path)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


@contextlib.contextmanager
def _as_format_error(path: Path) -> Iterator[None]:
    try:
        yield
    except FormatError:
        raise
    except (
        *GDAL_ERRORS,
        CRSError,
        shapely.errors.ShapelyError,
        KeyError,
        AttributeError,
        TypeError,
    ) as err:
        raise FormatError(f"{path} is torn or not a file of footprints: {one_line(err)}") from err
