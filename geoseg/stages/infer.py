"""Infer: chips in, detections out, streamed in chip order."""

from __future__ import annotations

import warnings
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import GeosegWarning
from geoseg.models import find_model, load_model
from geoseg.predict import Predictor
from geoseg.raster import read_batches
from geoseg.raster.resolution import working_grid
from geoseg.stages.base import Progress, Silence, Tally
from geoseg.stages.chipfolder import ChipFolder
from geoseg.stages.staging import check_apart
from geoseg.stages.store import DetectionWriter, Origin, check_detections_output
from geoseg.stages.tile import limit_to_aoi, open_scene, owned_area_m2, plan_scene

if TYPE_CHECKING:
    from collections.abc import Generator

    from geoseg.chips import Chip
    from geoseg.config import Config
    from geoseg.detections import Detections
    from geoseg.grid import Grid
    from geoseg.models import ModelSpec
    from geoseg.raster import ChipSource, Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What is to be inferred: a source of chips, the plan, and what is known about both."""

    source: ChipSource
    chips: list[Chip]
    origin: Origin
    size_px: int
    scene: Scene | None = None
    """The source itself where it is a scene, not a folder of chips."""

    @property
    def grid(self) -> Grid:
        """The scene's working grid."""
        return self.origin.grid


def open_work(path: str, config: Config, stack: ExitStack) -> Work:
    """Open a scene or a folder of chips and plan its chips; `stack` closes what was opened."""
    spec = find_model(config.model.name).spec
    scene = None
    source: ChipSource
    if Path(path).is_dir():
        folder = ChipFolder.open(Path(path))
        source, scene_id, scene_path, grid = folder, folder.scene_id, folder.scene_path, folder.grid
        chips = limit_to_aoi(folder.chips, grid, config)
        _check_cut(folder, config, spec)
    else:
        scene = stack.enter_context(open_scene(path, config, spec))
        source, scene_id, scene_path, grid = scene, scene.scene_id, scene.path, scene.grid
        chips = plan_scene(scene_id, grid, config, default_size_px=spec.chip_size_px)
    origin = Origin(
        scene_id=scene_id,
        scene_path=scene_path,
        grid=grid,
        labels={category.label: category.name for category in spec.categories},
        model=_about(spec),
        config=config.to_dict(),
    )
    return Work(source=source, chips=chips, origin=origin, size_px=_frame_px(chips), scene=scene)


def load_predictor(config: Config, *, size_px: int) -> Predictor:
    """Load the model that the config names, for chips of `size_px`."""
    options = config.model
    model = load_model(
        options.name, device=options.device, score_threshold=options.score, chip_size_px=size_px
    )
    return Predictor(model, score_threshold=options.score, batch_size=options.batch_size)


def detect(
    work: Work, predictor: Predictor, config: Config, tally: Tally, progress: Progress
) -> Generator[tuple[Chip, Detections], None, None]:
    """Yield each chip that holds data with what was found in it, counting as it goes."""
    tally.chips = len(work.chips)
    progress.start("infer", len(work.chips))
    batches = read_batches(
        work.source,
        work.chips,
        batch_size=predictor.batch_size,
        size_px=work.size_px,
        threads=config.model.readers,
        on_error=tally.fail,
        on_empty=tally.skip,
    )
    done = 0
    with closing(batches):
        waited = tally.timed_items("read", batches)
        for chip, detections in tally.timed_items("infer", predictor.stream(waited)):
            tally.inferred += 1
            tally.detections += len(detections)
            tally.area_m2 += owned_area_m2(chip, work.grid)
            count = tally.inferred + tally.skipped + len(tally.failed)
            progress.advance(count - done)
            done = count
            yield chip, detections
    progress.advance(len(work.chips) - done)
    tally.check()


def infer(path: str, output: Path, config: Config, *, progress: Progress | None = None) -> Tally:
    """Run the model over a scene or a folder of chips and write the detections.

    Args:
        path: A scene, or a folder written by `tile`.
        output: The `.parquet` file of detections.
        config: Scene, chip and model options.
        progress: Told about chips inferred.

    Raises:
        GeosegError: An input, the model or the output does not serve; nothing is written.
    """
    check_detections_output(output)
    check_apart([output], [path, config.scene.aoi])
    tally = Tally()
    with ExitStack() as stack:
        work = open_work(path, config, stack)
        with tally.timed("load"):
            predictor = load_predictor(config, size_px=work.size_px)
        writer = stack.enter_context(DetectionWriter(output, work.origin))
        with closing(detect(work, predictor, config, tally, progress or Silence())) as found:
            for chip, detections in found:
                writer.write(chip, detections)
    return tally


def _frame_px(chips: list[Chip]) -> int:
    return max((max(chip.window.height, chip.window.width) for chip in chips), default=1)


def _check_cut(folder: ChipFolder, config: Config, spec: ModelSpec) -> None:
    """Warn of what was settled when the chips were cut and does not fit what is asked now."""
    asked = config.scene
    if asked.bands is not None or asked.rescale != "auto" or asked.gsd != "auto":
        warnings.warn(
            f"{folder.folder}: bands, rescale and gsd were settled when the chips were cut; "
            "give them to `geoseg tile`",
            GeosegWarning,
            stacklevel=2,
        )
    working_grid(folder.grid, "native", spec.gsd_range_m, name=str(folder.folder))


def _about(spec: ModelSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "version": spec.version,
        "sha256": spec.sha256,
        "licence": spec.licence,
        "attribution": list(spec.attribution),
    }
