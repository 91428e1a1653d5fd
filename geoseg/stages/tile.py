"""Tile: a scene becomes a plan of chips, and on request a folder of chip images.

The folder holds `index.parquet` (GeoParquet: where each chip lies), `images/` and a COCO
`annotation.json`. It appears whole or not at all; `ChipFolder` reads it back.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from geoseg.chips import CHIP_SIZE_PX, Chip, plan_chips
from geoseg.coco import coco_annotations, coco_document, coco_images
from geoseg.errors import OutputError
from geoseg.files import check_parent, hidden_folder, output_errors
from geoseg.raster import Scene, read_batches, write_chip_image
from geoseg.stages.base import Progress, Silence, Tally
from geoseg.stages.chipfolder import IMAGES, INDEX, file_name, write_index
from geoseg.vector import chips_touching, read_aoi, read_vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd

    from geoseg.config import Config
    from geoseg.grid import Grid
    from geoseg.models import ModelSpec

COCO = "annotation.json"
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
    return limit_to_aoi(chips, grid, config)


def limit_to_aoi(chips: Sequence[Chip], grid: Grid, config: Config) -> list[Chip]:
    """Return the chips that touch the config's area of interest: all without one."""
    if config.scene.aoi is None:
        return list(chips)
    return chips_touching(chips, grid, read_aoi(config.scene.aoi, grid))


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
    check_folder(folder, overwrite=overwrite)
    folder = folder.resolve()
    progress = progress or Silence()
    tally = Tally()
    with open_scene(scene_path, config, None) as scene:
        chips = plan_scene(scene.scene_id, scene.grid, config, default_size_px=CHIP_SIZE_PX)
        buildings = None if labels is None else read_vector(labels, crs=scene.grid.crs)
        tally.chips = len(chips)
        progress.start("tile", len(chips))
        with output_errors(folder, pa.ArrowException), hidden_folder(folder) as work:
            new = work / folder.name
            (new / IMAGES).mkdir(parents=True)
            written = _write_images(
                scene,
                chips,
                new,
                suffix=image_format,
                tally=tally,
                progress=progress,
                config=config,
            )
            tally.check()
            size_px, overlap_px = config.chips.size_px or CHIP_SIZE_PX, config.chips.overlap_px
            cut = {"size_px": size_px, "overlap_px": overlap_px}
            write_index(new / INDEX, scene, written, image_format, cut=cut)
            _write_coco(new / COCO, scene, written, image_format, buildings)
            _move(new, folder)
    return tally


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError, before any work, if chips cannot be written to a folder.

    Only what `tile` wrote is ever replaced: a folder that holds anything else is refused.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: must be a folder, is a file")
    check_parent(folder)
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if foreign := sorted(held - {INDEX, COCO, IMAGES}):
        raise OutputError(
            f"{folder}: must be new, empty or a former folder of chips; it holds {foreign[0]!r}"
        )
    if held and INDEX not in held:
        raise OutputError(f"{folder}: must be new or empty; it holds other files")
    if held and not overwrite:
        raise OutputError(f"{folder}: holds chips already; give --overwrite to replace them")


def _write_images(
    scene: Scene,
    chips: Sequence[Chip],
    new: Path,
    *,
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
    with closing(batches), ThreadPoolExecutor(WRITE_THREADS) as pool:
        for batch in batches:
            jobs = []
            for chip, image, valid in zip(batch.chips, batch.images, batch.valid, strict=True):
                h, w = chip.window.height, chip.window.width
                path = new / file_name(chip, suffix)
                grid = scene.grid.window_grid(chip.window)
                args = (path, image[:, :h, :w], grid, valid[:h, :w])
                jobs.append(pool.submit(write_chip_image, *args))
                written.append((chip, float(valid[:h, :w].mean())))
            for job in jobs:
                job.result()
            tally.inferred += len(batch)
            tally.area_m2 += sum(owned_area_m2(chip, scene.grid) for chip in batch.chips)
            progress.advance(len(batch))
    progress.advance(len(chips) - len(written))
    return written


def owned_area_m2(chip: Chip, grid: Grid) -> float:
    """Return the ground area of a chip's core, square metres."""
    core = chip.core
    centre = core.row_off + core.height / 2, core.col_off + core.width / 2
    return float(grid.pixel_area_m2(*centre)) * core.height * core.width


def _write_coco(
    path: Path,
    scene: Scene,
    written: Sequence[tuple[Chip, float]],
    suffix: str,
    buildings: gpd.GeoDataFrame | None,
) -> None:
    chips = [chip for chip, _ in written]
    images = coco_images(chips, [Path(file_name(chip, suffix)).name for chip in chips])
    annotations = [] if buildings is None else coco_annotations(buildings, chips, scene.grid)
    document = coco_document(images, annotations, description=f"chips of {scene.scene_id}")
    path.write_text(json.dumps(document), encoding="utf-8")


def _move(new: Path, folder: Path) -> None:
    if folder.is_dir():
        old = new.with_name("old" if new.name == "new" else "new")
        folder.replace(old)
        try:
            new.replace(folder)
        except BaseException:
            old.replace(folder)
            raise
        shutil.rmtree(old)
    else:
        new.replace(folder)
