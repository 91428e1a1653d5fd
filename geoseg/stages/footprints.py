"""Footprints: detections in chip order become footprints, a chip row at a time.

Stitching and polygonizing run in a thread of their own, so that the network goes on meanwhile.
"""

from __future__ import annotations

import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from geoseg.errors import GeosegWarning
from geoseg.files import check_apart
from geoseg.footprints import make_footprints
from geoseg.morphology import refine_chips, warn_of_nothing
from geoseg.stages.base import Tally
from geoseg.stages.outputs import OutputPlan, Outputs
from geoseg.stages.scores import least_raw, score_map
from geoseg.stages.store import chips_in_rows, detections_origin, read_detections
from geoseg.stitch import Stitcher

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from geoseg.chips import Chip
    from geoseg.config import Config
    from geoseg.detections import Detections
    from geoseg.stages.origin import Origin
    from geoseg.stitch import Instance

ROWS_AHEAD = 2
"""Chip rows that may wait for stitching before the network waits for them."""
ROUNDING: Final = 1e-6
"""Of a score that went through a calibration and back, or was typed from what a file says."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FootprintMaker:
    """Rows of detections in, footprints into the outputs."""

    origin: Origin
    config: Config
    outputs: Outputs
    tally: Tally
    stitcher: Stitcher
    ids: dict[str, int] = field(default_factory=dict)
    """Ids given so far: rows are polygonized apart, ids must differ over the whole file."""

    def push(self, row: list[tuple[Chip, Detections]]) -> None:
        """Add one chip row."""
        morphology, gsd_m = self.config.morphology, self.origin.grid.gsd_m
        with self.tally.timed("stitch"):
            refined = list(refine_chips(row, morphology, gsd_m=gsd_m))
            instances = self.stitcher.push_row(refined)
        self._write(instances)

    def finish(self) -> None:
        """Write what is still open."""
        with self.tally.timed("stitch"):
            instances = self.stitcher.finish()
        self._write(instances)

    def _write(self, instances: list[Instance]) -> None:
        if not instances:
            return
        with self.tally.timed("polygonize"):
            footprints = make_footprints(
                instances,
                self.origin.grid,
                labels=self.origin.labels,
                options=self.config.polygonize,
                regular=self.config.regularize,
                calibration=score_map(self.config, self.origin.calibration),
                taken=self.ids,
            )
        with self.tally.timed("write"):
            self.outputs.add(footprints, instances)


def make_all(
    found: Iterable[tuple[Chip, Detections]],
    origin: Origin,
    config: Config,
    outputs: Outputs,
    tally: Tally,
) -> None:
    """Refine, stitch, polygonize and write detections that come in row-major chip order."""
    grid = origin.grid
    warn_of_nothing(config.morphology, gsd_m=grid.gsd_m)
    stitcher = Stitcher(shape_hw=(grid.height, grid.width), options=config.stitch)
    maker = FootprintMaker(
        origin=origin, config=config, outputs=outputs, tally=tally, stitcher=stitcher
    )
    with ThreadPoolExecutor(1, thread_name_prefix="geoseg-stitch") as pool:
        pending: deque[Future[None]] = deque()
        for row in chips_in_rows(found):
            pending.append(pool.submit(maker.push, row))
            if len(pending) > ROWS_AHEAD:
                pending.popleft().result()
        for job in pending:
            job.result()
    maker.finish()
    with tally.timed("neighbours"):
        tally.footprints = outputs.finish()


def footprints(detections: Path, plan: OutputPlan, config: Config) -> Tally:
    """Make footprints from a detections file; neither the scene nor the model is needed.

    Args:
        detections: A file written by `infer`.
        plan: What is to be written.
        config: Morphology, stitch and polygonize options, and the least score: by default that of
            `infer`, which is also the least that can be had.

    Raises:
        GeosegError: The input is damaged or an output cannot be written; nothing is left behind.
    """
    plan.check()
    check_apart(plan.paths, [detections])
    found_in = detections_origin(detections)
    config = _settled(config, found_in, detections)
    origin = _as_made(found_in, config)
    check_apart(plan.paths, [origin.scene_path])
    tally = Tally()
    with ExitStack() as stack:
        outputs = stack.enter_context(Outputs(plan, origin, config=config))
        make_all(
            _counted(read_detections(detections), origin.least_raw, tally),
            origin,
            config,
            outputs,
            tally,
        )
    return tally


def _settled(config: Config, origin: Origin, path: Path) -> Config:
    """Return a config that says its least score: that of the detections, or a higher one."""
    options = config.model
    chosen = origin.calibration if options.calibrate else None
    asked = None if options.score is None else least_raw(options, origin.calibration)
    if asked is not None and asked >= origin.least_raw - ROUNDING:
        return config
    score = origin.least_raw if chosen is None else float(chosen.apply(origin.least_raw))
    if asked is not None:
        warnings.warn(
            f"{path} holds detections of score {score:.3g} or more, nothing lower: for --score "
            f"{options.score:g}, run geoseg infer again with it",
            GeosegWarning,
            stacklevel=3,
        )
    return replace(config, model=replace(options, score=score))


def _as_made(origin: Origin, config: Config) -> Origin:
    """Record the options that these footprints are made with beside those of their detections."""
    now = config.to_dict()
    chosen = {"score": config.model.score, "calibrate": config.model.calibrate}
    model = {**origin.config.get("model", {}), **chosen}
    names = ("morphology", "stitch", "polygonize", "regularize", "topology")
    shapes = {name: now[name] for name in names}
    return replace(origin, config={**origin.config, **shapes, "model": model})


def _counted(
    found: Iterable[tuple[Chip, Detections]], least: float, tally: Tally
) -> Iterable[tuple[Chip, Detections]]:
    for chip, detections in found:
        kept = detections.take(detections.scores >= least)
        tally.chips += 1
        tally.inferred += 1
        tally.detections += len(kept)
        yield chip, kept
