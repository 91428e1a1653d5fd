"""Tile: a scene becomes a plan of chips, and on request a folder of chip images.

The folder holds `index.parquet` (GeoParquet: where each chip lies), `images/` and a COCO
`annotation.json`. It appears whole or not at all, and `ChipFolder` reads it back as a source of
chips for inference.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from affine import Affine
from pyproj import CRS

from geoseg.chips import CHIP_SIZE_PX, Chip, plan_chips
from geoseg.coco import coco_annotations, coco_document, coco_images
from geoseg.errors import FormatError, InputNotFoundError, OutputError, ReadError
from geoseg.grid import Grid, Window
from geoseg.raster import Scene, read_batches, read_chip_image, write_chip_image
from geoseg.stages.base import Progress, Silence, Tally
from geoseg.vector import chips_touching, read_aoi, read_vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.config import Config
    from geoseg.models import ModelSpec

INDEX = "index.parquet"
_KEY = b"geoseg"
_WINDOW = ("row_off", "col_off", "height", "width")
WRITE_THREADS = 2


def open_scene(path: str, config: Config, spec: ModelSpec | None) -> Scene:
    """Open a scene as the config says, at a resolution the model knows."""
    options = config.scene
    return Scene.open(
        path,
        bands=options.bands,
        rescale=options.rescale,
        gsd=options.gsd,
        gsd_range_m=spec.gsd_range_m if spec else None,
    )


def plan_scene(scene_id: str, grid: Grid, config: Config, *, default_size_px: int) -> list[Chip]:
    """Cut a scene's working grid into the chips that touch the area of interest."""
    chips = plan_chips(
        scene_id,
        grid,
        size_px=config.chips.size_px or default_size_px,
        overlap_px=config.chips.overlap_px,
    )
    if config.scene.aoi is None:
        return chips
    return chips_touching(chips, grid, read_aoi(config.scene.aoi, grid))


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
            grid = _grid_from(about["grid"])
            chips = tuple(_chip_from(row) for row in rows)
            files = {chip.name: row["file_name"] for chip, row in zip(chips, rows, strict=True)}
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise FormatError(f"{path}: not an index of chips, or torn: {reason}") from error
        return cls(
            folder=folder,
            scene_id=about["scene_id"],
            scene_path=about["scene_path"],
            grid=grid,
            chips=chips,
            files=files,
        )

    def read_chip(self, chip: Chip) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a chip's image (3, h, w) and valid (h, w)."""
        path = self.folder / self.files[chip.name]
        image, valid = read_chip_image(path)
        if valid.shape != (chip.window.height, chip.window.width):
            raise ReadError(
                f"{path}: must be {chip.window.height}x{chip.window.width} px as in the index, "
                f"got {valid.shape[0]}x{valid.shape[1]}"
            )
        return image, valid


def tile(
    scene_path: str,
    folder: Path,
    config: Config,
    *,
    image_format: Literal["png", "tif"] = "png",
    labels: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Tally:
    """Write a scene's chips to a folder.

    Args:
        scene_path: The scene; opened at its native resolution unless the config gives one.
        folder: Where the chips go: new, empty, or with `overwrite` a former one.
        config: Scene and chip options.
        image_format: Plain PNG, or GeoTIFF with transform and CRS.
        labels: Vector file of buildings, written as COCO annotations.
        overwrite: Replace a folder that `tile` wrote before.
        progress: Told about chips written.

    Returns:
        Counts; `failed` names the chips that could not be read.

    Raises:
        GeosegError: The scene, labels or folder do not serve; the folder is left as it was.
    """
    _check_folder(folder, overwrite=overwrite)
    progress = progress or Silence()
    tally = Tally()
    with open_scene(scene_path, config, None) as scene:
        chips = plan_scene(scene.scene_id, scene.grid, config, default_size_px=CHIP_SIZE_PX)
        buildings = None if labels is None else read_vector(labels, crs=scene.grid.crs)
        tally.chips = len(chips)
        progress.start("tile", len(chips))
        with tempfile.TemporaryDirectory(prefix=".geoseg-", dir=folder.resolve().parent) as work:
            new = Path(work, "chips")
            (new / "images").mkdir(parents=True)
            try:
                written = _write_images(scene, chips, new, image_format, tally, progress, config)
                tally.check()
                _write_index(new / INDEX, scene, written, image_format)
                _write_coco(new / "annotation.json", scene, written, image_format, buildings)
                _move(new, folder)
            except OSError as error:
                if isinstance(error, ReadError | OutputError):
                    raise
                raise OutputError(f"{folder}: cannot be written: {error}") from error
    return tally


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    parent = folder.resolve().parent
    if not parent.is_dir():
        raise OutputError(f"{folder}: the folder {parent} does not exist; make it first")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{folder}: the folder {parent} is read-only")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: must be a folder, is a file")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / INDEX).is_file():
            raise OutputError(f"{folder}: must be new or empty; it holds other files")
        if not overwrite:
            raise OutputError(f"{folder}: holds chips already; give --overwrite to replace them")


def _write_images(
    scene: Scene,
    chips: Sequence[Chip],
    new: Path,
    suffix: str,
    tally: Tally,
    progress: Progress,
    config: Config,
) -> list[tuple[Chip, float]]:
    """Return the chips written with the fraction of each that is valid."""
    written: list[tuple[Chip, float]] = []
    size_px = config.chips.size_px or CHIP_SIZE_PX
    batches = read_batches(
        scene,
        chips,
        batch_size=16,
        size_px=size_px,
        threads=config.model.readers,
        on_error=tally.fail,
        on_empty=tally.skip,
    )
    with ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="geoseg-write") as pool:
        for batch in batches:
            jobs = []
            for chip, image, valid in zip(batch.chips, batch.images, batch.valid, strict=True):
                h, w = chip.window.height, chip.window.width
                path = new / _file_name(chip, suffix)
                grid = scene.grid.window_grid(chip.window)
                args = (path, image[:, :h, :w], grid, valid[:h, :w])
                jobs.append(pool.submit(write_chip_image, *args))
                written.append((chip, float(valid[:h, :w].mean())))
            for job in jobs:
                job.result()
            tally.inferred += len(batch)
            tally.area_m2 += sum(owned_area_m2(chip, scene.grid) for chip in batch.chips)
            progress.advance(len(batch))
    return written


def owned_area_m2(chip: Chip, grid: Grid) -> float:
    """Return the ground area of a chip's core, square metres."""
    core = chip.core
    centre = core.row_off + core.height / 2, core.col_off + core.width / 2
    return float(grid.pixel_area_m2(*centre)) * core.height * core.width


def _file_name(chip: Chip, suffix: str) -> str:
    return f"images/{chip.name}.{suffix}"


def _write_index(
    path: Path, scene: Scene, written: Sequence[tuple[Chip, float]], suffix: str
) -> None:
    grid = scene.grid
    frame = gpd.GeoDataFrame(
        [_index_row(chip, fraction, grid, suffix) for chip, fraction in written],
        geometry=[_polygon(chip.window, grid) for chip, _ in written],
        crs=grid.crs,
    )
    frame.to_parquet(path, schema_version="1.1.0", write_covering_bbox=True, compression="zstd")
    about = {"scene_id": scene.scene_id, "scene_path": scene.path, "grid": _grid_values(grid)}
    table = pq.read_table(path)
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(about).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def _index_row(chip: Chip, fraction: float, grid: Grid, suffix: str) -> dict[str, Any]:
    return {
        "scene_id": chip.scene_id,
        "row": chip.row,
        "col": chip.col,
        **{name: value for name, value in asdict(chip.window).items()},
        **{f"core_{name}": value for name, value in asdict(chip.core).items()},
        "transform": list(grid.window_grid(chip.window).transform)[:6],
        "crs": grid.crs.to_string(),
        "valid_fraction": fraction,
        "file_name": _file_name(chip, suffix),
    }


def _chip_from(row: dict[str, Any]) -> Chip:
    return Chip(
        scene_id=row["scene_id"],
        row=row["row"],
        col=row["col"],
        window=Window(**{name: row[name] for name in _WINDOW}),
        core=Window(**{name: row[f"core_{name}"] for name in _WINDOW}),
    )


def _polygon(window: Window, grid: Grid) -> shapely.Polygon:
    top, bottom, left, right = window.row_off, window.row_stop, window.col_off, window.col_stop
    x, y = grid.xy([top, bottom, bottom, top], [left, left, right, right])
    return shapely.Polygon(np.column_stack([x, y]))


def _grid_values(grid: Grid) -> dict[str, Any]:
    return {
        "crs": grid.crs.to_wkt(),
        "transform": list(grid.transform)[:6],
        "height": grid.height,
        "width": grid.width,
    }


def _grid_from(values: dict[str, Any]) -> Grid:
    return Grid(
        crs=CRS.from_wkt(values["crs"]),
        transform=Affine(*values["transform"]),
        height=values["height"],
        width=values["width"],
    )


def _write_coco(
    path: Path,
    scene: Scene,
    written: Sequence[tuple[Chip, float]],
    suffix: str,
    buildings: gpd.GeoDataFrame | None,
) -> None:
    chips = [chip for chip, _ in written]
    images = coco_images(chips, [Path(_file_name(chip, suffix)).name for chip in chips])
    annotations = [] if buildings is None else coco_annotations(buildings, chips, scene.grid)
    document = coco_document(images, annotations, description=f"chips of {scene.scene_id}")
    path.write_text(json.dumps(document), encoding="utf-8")


def _move(new: Path, folder: Path) -> None:
    if folder.is_dir():
        old = new.parent / "old"
        os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old)
    else:
        os.replace(new, folder)
