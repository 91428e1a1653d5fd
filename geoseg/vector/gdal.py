"""Everything that goes through GDAL: safe paths, one-line errors, and its writers, checked.

GDAL's drivers may report a full disk late or not at all, so what was written is read back and
counted before it counts as written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyogrio
import shapely

from geoseg.errors import OutputError
from geoseg.vector.geojson import WGS84, to_lonlat
from geoseg.vector.spool import BATCH_ROWS, with_geometries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from pyproj import CRS

    from geoseg.vector.spool import Spool

GDAL_ERRORS: Final = (RuntimeError, ValueError, OSError, pa.ArrowException)
INDEXED: Final = frozenset({"GPKG", "FlatGeobuf"})
SHORT_NAMES: Final = {
    "touches_edge": "touch_edge",
    "regularized": "regularize",
    "osm_overlap": "osm_overla",
}  # a Shapefile has 10 characters
TILE_ZOOMS: Final = {"MINZOOM": "13", "MAXZOOM": "15"}  # houses show from 13; 15 has a 0.3 m grid
_LOG = logging.getLogger(__name__)


def write_gdal(
    spool: Spool,
    path: Path,
    *,
    driver: str,
    layer: str,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write the spool with one of GDAL's drivers, then read the rows back and count them.

    Args:
        spool: The footprints.
        path: A new file.
        driver: "GPKG", "FlatGeobuf", "ESRI Shapefile" or "PMTiles".
        layer: Name of the layer.
        metadata: Kept by GeoPackage only, as the layer's item `geoseg`: a dataset's would make GDAL
            leave an .aux.xml beside the file when it is read.

    Raises:
        OutputError: GDAL failed or wrote less than it was given.
    """
    options: dict[str, Any] = {"crs": crs_text(spool.crs), "geometry_type": _kind(spool)}
    batches = _batches(spool, promote=options["geometry_type"] == "MultiPolygon")
    schema = spool.schema
    if driver == "PMTiles":
        options = {"crs": WGS84, "geometry_type": "Unknown", "dataset_options": TILE_ZOOMS}
        batches = _lonlat_batches(spool)
    elif driver == "ESRI Shapefile":
        schema = _renamed(schema)
        batches = (batch.rename_columns(schema.names) for batch in batches)
        options["layer_options"] = {"ENCODING": "UTF-8"}
    elif driver == "GPKG" and metadata:
        options["layer_metadata"] = {"geoseg": json.dumps(metadata, sort_keys=True)}
    _write(batches, schema, path, driver=driver, layer=layer, **options)
    _check_written(path, spool.count, driver)


@contextlib.contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """Give a path that GDAL takes literally, through links in a scratch folder where need be.

    Its reader splits paths at `!`, `;` and `?` and wants UTF-8. Files beside it that share the stem
    (a Shapefile's other parts) are linked too.
    """
    path = path.absolute()
    if str(path).isprintable() and not set("!;?") & set(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="geoseg-") as scratch:
        for part in [path, *(p for p in path.parent.iterdir() if p.stem == path.stem)]:
            link = Path(scratch, "in" + part.suffix)
            if not link.is_symlink():
                link.symlink_to(part)
        yield Path(scratch, "in" + path.suffix)


@contextlib.contextmanager
def quiet_gdal() -> Iterator[None]:
    """Send GDAL's warnings to the log instead of the user's screen."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        _LOG.debug("GDAL: %s", one_line(warning.message))


def one_line(message: object, *, limit: int = 300) -> str:
    r"""Return a message as one line without a full stop, cut at `limit` characters.

    Example:
        >>> one_line("cannot write.\n  disk full.")
        'cannot write. disk full'
    """
    return " ".join(str(message).split())[:limit].rstrip(". ")


def crs_text(crs: CRS) -> str:
    """Return the CRS as GDAL best reads it: its code if that says all, else WKT."""
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else str(crs.to_wkt())


def _write(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, **options: Any
) -> None:
    failure: list[BaseException] = []

    def source() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as err:  # crosses C as a mere status code, Ctrl-C included
            failure.append(err)
            raise

    reader = pa.RecordBatchReader.from_batches(schema, source())
    try:
        with plain_path(path.parent) as folder, quiet_gdal():
            pyogrio.write_arrow(reader, folder / path.name, geometry_name="geometry", **options)
    except GDAL_ERRORS as err:
        if failure:
            raise failure[0] from None
        raise OutputError(f"GDAL: {one_line(err)}") from err


def _check_written(path: Path, expected: int, driver: str) -> None:
    try:
        with plain_path(path.parent) as folder, quiet_gdal():
            got = _count(folder / path.name)
            indexed = pyogrio.read_info(folder / path.name)["capabilities"]["fast_spatial_filter"]
    except GDAL_ERRORS as err:
        raise OutputError(f"what was written does not open again: {one_line(err)}") from err
    if got != expected and (driver != "PMTiles" or not got):
        raise OutputError(f"{got} of {expected} footprints were written: is the disk full?")
    if expected and driver in INDEXED and not indexed:
        # Made when the file is closed, where GDAL reports nothing.
        raise OutputError("the spatial index was not written: is the disk full?")


def _count(path: Path) -> int:
    with pyogrio.open_arrow(path, columns=[], batch_size=BATCH_ROWS, use_pyarrow=True) as (
        _,
        reader,
    ):
        return sum(batch.num_rows for batch in reader)


def _kind(spool: Spool) -> str:
    return "MultiPolygon" if "MultiPolygon" in spool.kinds else "Polygon"


def _batches(spool: Spool, *, promote: bool) -> Iterator[pa.RecordBatch]:
    for batch in spool.batches():
        yield with_geometries(batch, _multi(_geometries(batch))) if promote else batch


def _lonlat_batches(spool: Spool) -> Iterator[pa.RecordBatch]:
    for batch in spool.batches():
        yield with_geometries(batch, to_lonlat(_geometries(batch), spool.crs))


def _geometries(batch: pa.RecordBatch) -> NDArray[Any]:
    wkb = batch.column("geometry").to_numpy(zero_copy_only=False)
    return np.asarray(shapely.from_wkb(wkb), object)


def _multi(geometries: NDArray[Any]) -> NDArray[Any]:
    parts, owner = shapely.get_parts(geometries, return_index=True)
    return np.asarray(shapely.multipolygons(parts, indices=owner), object)


def _renamed(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_name(SHORT_NAMES.get(field.name, field.name)) for field in schema])
