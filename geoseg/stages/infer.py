"""Infer: chips in, detections out, streamed in chip order."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoseg.files import check_apart
from geoseg.models import find_model, load_model
from geoseg.predict import Predictor
from geoseg.raster import read_batches
from geoseg.stages.base import Progress, Silence, Tally
from geoseg.stages.planning import open_planned
from geoseg.stages.scores import least_raw, settled
from geoseg.stages.store import DetectionWriter, check_detections_output
from geoseg.stages.tile import limit_to_aoi, owned_area_m2
from geoseg.tta import ViewsPredictor

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from geoseg.chips import Chip
    from geoseg.config import Config
    from geoseg.detections import Detections
    from geoseg.grid import Grid
    from geoseg.raster import ChipSource, Scene
    from geoseg.stages.origin import Origin
    from geoseg.tta import ChipPredictor


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
    planned = open_planned(path, config, stack)
    chips = limit_to_aoi(list(planned.plan.chips()), planned.origin.grid, config)
    return Work(
        source=planned.source,
        chips=chips,
        origin=planned.origin,
        size_px=planned.size_px,
        scene=planned.scene,
    )


def load_predictor(config: Config, *, size_px: int, least: float | None = None) -> ChipPredictor:
    """Load the model that the config names, for chips of `size_px`, with the views it asks for.

    Args:
        config: Of the run.
        size_px: Side of the chips.
        least: Of the network's own scores that may pass; by default what the config and the
            model's spec say.
    """
    spec = find_model(config.model.name).spec
    options = settled(config, spec).model
    least = least_raw(options, spec.calibration) if least is None else least
    model = load_model(
        options.name, device=options.device, score_threshold=least, chip_size_px=size_px
    )
    predictor = Predictor(model, score_threshold=least, batch_size=options.batch_size)
    if config.tta.views == "none":
        return predictor
    return ViewsPredictor(predictor, config.tta, score_threshold=least)


def detect(
    work: Work, predictor: ChipPredictor, config: Config, tally: Tally, progress: Progress
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
        tally.check()
    return tally
