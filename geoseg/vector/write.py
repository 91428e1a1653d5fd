"""`FootprintWriter`: footprints in, as they are found; one whole vector file out, or none.

Rows wait in a spool beside the output. A clean exit turns the spool into the final format in a
hidden folder and moves it into place; any other exit leaves the folder as it was.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pyarrow as pa

from geoseg.errors import FormatWarning, OutputError
from geoseg.files import hidden_folder, output_errors, sync_file
from geoseg.vector.formats import check_footprints_output, format_of
from geoseg.vector.gdal import TILE_ZOOMS, one_line, write_gdal
from geoseg.vector.geojson import write_geojson, write_geojsonl
from geoseg.vector.geoparquet import write_geoparquet
from geoseg.vector.pmtiles import write_empty_pmtiles
from geoseg.vector.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from geopandas import GeoDataFrame
    from pyproj import CRS

LAYER: Final = "footprints"
OWN_WRITERS: Final[dict[str, Callable[..., None]]] = {
    ".geojson": write_geojson,
    ".geojsonl": write_geojsonl,
    ".parquet": write_geoparquet,
}
# Files that belong to a former file of the same name and would be read with the new one.
STALE: Final = {
    ".gpkg": (".gpkg-wal", ".gpkg-shm", ".gpkg-journal"),
    ".shp": (".qix", ".sbn", ".sbx", ".qpj", ".shp.xml"),
}


class FootprintWriter:
    """Write footprints to one vector file, in bounded memory, all or nothing.

    The extension chooses the format: .geojson and .geojsonl (RFC 7946, WGS 84), .gpkg, .fgb,
    .parquet (GeoParquet 1.1), .shp, .pmtiles. All but GeoJSON and PMTiles keep the CRS. A file of
    the same name is replaced. Equal rows in equal order give equal bytes in .geojson, .geojsonl,
    .fgb and .parquet, however they are split over calls of `write`.

    Args:
        path: The file to write.
        crs: CRS of the footprints.
        metadata: Facts about the run, kept by .parquet, .gpkg and .geojson under `geoseg`.
        layer: Name of the layer, for formats that have one.
        optional: Columns of `footprints.OPTIONAL` that the footprints have and that are kept.

    Raises:
        OutputError: See `files.check_output`; on leaving the context: the disk is full or GDAL
            failed.

    Example:
        >>> import geopandas, shapely, tempfile
        >>> from pyproj import CRS
        >>> town = geopandas.GeoDataFrame(
        ...     dict(id=["00ff"], score=[0.9], label=["building"], area_m2=[100.0], n_chips=[1],
        ...          scene=["town"], touches_edge=[False]),
        ...     geometry=[shapely.box(0, 0, 10, 10)], crs="EPSG:32645")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with FootprintWriter(f"{folder}/town.parquet", crs=CRS("EPSG:32645")) as out:
        ...         out.write(town)
        ...     len(geopandas.read_parquet(f"{folder}/town.parquet"))
        1
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        crs: CRS,
        metadata: dict[str, str] | None = None,
        layer: str | None = None,
        optional: Iterable[str] = (),
    ) -> None:
        check_footprints_output(path)
        self.path = Path(path)
        self.format = format_of(path)
        self._target = Path(os.path.realpath(path))
        self._crs = crs
        self._metadata = metadata
        self._layer = layer or LAYER
        self._optional = tuple(optional)
        self._spool: Spool | None = None
        if self.format.warning:
            warnings.warn(self.format.warning, FormatWarning, stacklevel=2)

    @property
    def count(self) -> int:
        """Footprints written so far."""
        return self._spool.count if self._spool else 0

    def __enter__(self) -> Self:
        with _as_output_error(self.path):
            self._spool = Spool(self._target.parent, self._crs, self._optional)
        return self

    def write(self, footprints: GeoDataFrame) -> None:
        """Add footprints; any number of times.

        Args:
            footprints: Polygons in the writer's CRS. Columns that neither the format of footprints
                nor `optional` names are left out; holes and the order of rows are kept.

        Raises:
            FormatError: A column is missing, the CRS differs or a geometry is not a polygon.
            OutputError: The disk is full.
        """
        assert self._spool is not None, "a FootprintWriter writes inside its `with` block"
        with _as_output_error(self.path):
            self._spool.append(footprints)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._spool is not None, "__enter__ made the spool"
        with self._spool as spool:
            if kind is None:
                self._finish(spool)

    def _finish(self, spool: Spool) -> None:
        with hidden_folder(self._target) as folder, _as_output_error(self.path):
            # A fixed name inside: drivers derive options and layers from names.
            new = folder / f"out{self._target.suffix.lower()}"
            self._convert(spool, new)
            _move_into_place(new, self._target)

    def _convert(self, spool: Spool, new: Path) -> None:
        options: dict[str, Any] = {"layer": self._layer, "metadata": self._metadata}
        if own := OWN_WRITERS.get(new.suffix):
            own(spool, new, **options)
        elif new.suffix == ".pmtiles" and not spool.count:
            zooms = int(TILE_ZOOMS["MINZOOM"]), int(TILE_ZOOMS["MAXZOOM"])
            write_empty_pmtiles(spool, new, layer=self._layer, zooms=zooms)
        else:
            assert self.format.driver is not None, "formats without a driver have our own writer"
            write_gdal(spool, new, driver=self.format.driver, **options)


def _move_into_place(new: Path, target: Path) -> None:
    parts = sorted(new.parent.iterdir(), key=lambda part: part == new)  # the named file last
    for part in parts:
        sync_file(part)
    for part in parts:
        beside = target.stem + part.name.removeprefix(new.stem)
        part.replace(target if part == new else target.with_name(beside))
    for suffix in STALE.get(new.suffix, ()):
        target.with_suffix(suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    with output_errors(path, pa.ArrowException):
        try:
            yield
        except OutputError as err:
            raise OutputError(f"{path}: cannot be written ({one_line(err)})") from err
