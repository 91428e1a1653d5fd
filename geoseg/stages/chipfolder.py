"""A folder of chips on disk: its index, GeoParquet of where each chip lies, and the images by chip.

Read back, it is a source of chips for inference. Frame: windows in pixels of the scene's working
grid, outlines in its CRS.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geoseg.chips import Chip
from geoseg.errors import FormatError, InputNotFoundError, ReadError
from geoseg.grid import Grid, Window
from geoseg.raster import Scene, read_chip_image
from geoseg.stages.base import cut_from, grid_from, grid_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

INDEX = "index.parquet"
IMAGES = "images"
_KEY = b"geoseg"
_WINDOW = ("row_off", "col_off", "height", "width")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What reading a foreign or torn index raises; pyproj's errors are RuntimeErrors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipFolder:
    """A folder written by `tile`, as a source of chips."""

    folder: Path
    scene_id: str
    scene_path: str
    grid: Grid
    chips: tuple[Chip, ...]
    files: dict[str, str]
    """Image path in the folder by chip name."""
    cut: dict[str, int] | None
    """Side and least overlap of the chips, px; None where the index does not say."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a folder's index.

        Raises:
            InputNotFoundError: There is no index in it.
            FormatError: The index is torn or not ours.
        """
        path = folder / INDEX
        if not path.is_file():
            raise InputNotFoundError(
                f"{folder}: no {INDEX} in it; `geoseg tile SCENE -o {folder}` writes one"
            )
        try:
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[_KEY])
            rows = table.drop_columns(["geometry", "bbox"]).to_pylist()
            grid = grid_from(about["grid"])
            named = sorted(((_chip_from(row), row["file_name"]) for row in rows), key=_place)
            for _, file in named:
                _check_inside(file)
            names = {name: str(about[name]) for name in ("scene_id", "scene_path")}
            cut = cut_from(about.get("chips", {}))
        except (*_DAMAGE, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:160]
            raise FormatError(f"{path}: not an index of chips, or torn: {reason}") from error
        return cls(
            folder=folder,
            grid=grid,
            chips=tuple(chip for chip, _ in named),
            files={chip.name: str(file) for chip, file in named},
            cut=cut,
            **names,
        )

    def read_chip(self, chip: Chip) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a chip's image (3, h, w) and valid (h, w)."""
        path = self.folder / self.files[chip.name]
        try:
            image, valid = read_chip_image(path)
        except InputNotFoundError as error:  # one chip is missing, the others are not
            raise ReadError(str(error)) from error
        if valid.shape != (chip.window.height, chip.window.width):
            raise ReadError(
                f"{path}: must be {chip.window.height}x{chip.window.width} px as in the index, "
                f"got {valid.shape[0]}x{valid.shape[1]}"
            )
        return image, valid


def _check_inside(name: str) -> None:
    """Refuse images outside the folder: an index may come from strangers."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"images must lie in the folder, got {name[:60]!r}")


def file_name(chip: Chip, suffix: str) -> str:
    """Return the image path of a chip in its folder."""
    return f"{IMAGES}/{chip.name}.{suffix}"


def write_index(
    path: Path,
    scene: Scene,
    written: Sequence[tuple[Chip, float]],
    suffix: str,
    *,
    cut: dict[str, int],
) -> None:
    """Write the index of the chips written, each with the fraction of it that is valid."""
    grid = scene.grid
    frame = gpd.GeoDataFrame(
        [_index_row(chip, fraction, grid, suffix) for chip, fraction in written],
        geometry=[_polygon(chip.window, grid) for chip, _ in written],
        crs=grid.crs,
    )
    frame.to_parquet(path, schema_version="1.1.0", write_covering_bbox=True, compression="zstd")
    about = {
        "scene_id": scene.scene_id,
        "scene_path": scene.path,
        "grid": grid_values(grid),
        "chips": cut,
    }
    table = pq.read_table(path)
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(about).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def _index_row(chip: Chip, fraction: float, grid: Grid, suffix: str) -> dict[str, Any]:
    return {
        "scene_id": chip.scene_id,
        "row": chip.row,
        "col": chip.col,
        **asdict(chip.window),
        **{f"core_{name}": value for name, value in asdict(chip.core).items()},
        "transform": list(grid.window_grid(chip.window).transform)[:6],
        "crs": grid.crs.to_string(),
        "valid_fraction": fraction,
        "file_name": file_name(chip, suffix),
    }


def _chip_from(row: dict[str, Any]) -> Chip:
    return Chip(
        scene_id=row["scene_id"],
        row=row["row"],
        col=row["col"],
        window=Window(**{name: row[name] for name in _WINDOW}),
        core=Window(**{name: row[f"core_{name}"] for name in _WINDOW}),
    )


def _place(item: tuple[Chip, Any]) -> tuple[int, int]:
    return item[0].row, item[0].col


def _polygon(window: Window, grid: Grid) -> shapely.Polygon:
    top, bottom, left, right = window.row_off, window.row_stop, window.col_off, window.col_stop
    x, y = grid.xy([top, bottom, bottom, top], [left, left, right, right])
    return shapely.Polygon(np.column_stack([x, y]))
