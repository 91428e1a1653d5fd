"""A run in blocks, from scenes to files: detect, stitch level by level, settle overlaps, write.

Every stage ends before the next begins; what is done is on disk, so a run that ended at any point
goes on from there.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from geoseg.chips import ChipPlan
from geoseg.errors import ConfigError, ReadError
from geoseg.files import check_apart
from geoseg.morphology import warn_of_nothing
from geoseg.stages.base import Tally
from geoseg.stages.blocks import units
from geoseg.stages.blocks.detections import write_block
from geoseg.stages.blocks.merged import merged_detections, merged_footprints
from geoseg.stages.blocks.outcome import Outcome
from geoseg.stages.blocks.overlaps import Settled, settle_overlaps
from geoseg.stages.blocks.plan import Region, SceneJob, levels, regions
from geoseg.stages.blocks.rundir import RunDir
from geoseg.stages.blocks.shards import file_identity
from geoseg.stages.executors import Dask, Executor, Serial, UnitLostError
from geoseg.stages.outputs import OutputPlan, Outputs
from geoseg.stages.planning import open_planned
from geoseg.stages.store import DetectionWriter, check_detections_output
from geoseg.vector import read_aoi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from geoseg.config import Config
    from geoseg.stages.base import Progress


def run_blocks(
    paths: Sequence[str],
    plans: Sequence[OutputPlan],
    config: Config,
    *,
    progress: Progress,
    executor: Executor | None = None,
) -> Tally:
    """Map scenes block by block.

    Args:
        paths: Scenes, or folders of chips written by `tile`.
        plans: What is to be written, one for each scene.
        config: All options; `scale` says who works.
        progress: Told about chips, stage by stage.
        executor: Who works, instead of what `config.scale` says.

    Returns:
        Counts; `failed` names the chips that could not be read and the blocks that were lost.

    Raises:
        GeosegError: An input, the model, an output or the cluster does not serve. What was done
            stays in the run's folder.
    """
    for plan in plans:
        plan.check()
        check_apart(plan.paths, [*paths, config.scene.aoi])
    outputs = [str(path) for plan in plans for path in plan.paths]
    with _job(paths, config, outputs, progress, executor=executor, plans=plans) as job:
        job.detect()
        job.stitch()
        job.tally.check()
        with job.tally.timed("write"):
            _write(job, plans)
    return job.tally


def infer_blocks(
    path: str,
    output: Path,
    config: Config,
    *,
    progress: Progress,
    executor: Executor | None = None,
) -> Tally:
    """Run the model over a scene or a folder of chips block by block and write the detections.

    Raises:
        GeosegError: As `run_blocks`.
    """
    check_detections_output(output)
    check_apart([output], [path, config.scene.aoi])
    with _job([path], config, [str(output)], progress, executor=executor) as job:
        job.detect()
        job.tally.check()
        scene = job.scenes[0]
        with job.tally.timed("write"), DetectionWriter(output, scene.origin) as writer:
            for chip, found in merged_detections(scene):
                writer.write(chip, found)
    return job.tally


INFER: Final = "infer"


class _Job:
    """The stages of a run, with what they share."""

    def __init__(
        self,
        scenes: Sequence[SceneJob],
        executor: Executor,
        run: RunDir,
        progress: Progress,
        *,
        strict: bool,
    ) -> None:
        self.scenes = scenes
        self.executor = executor
        self.run = run
        self.progress = progress
        self.strict = strict
        self.places = sum(scene.shape_chips[0] * scene.shape_chips[1] for scene in scenes)
        """Chips, or gaps between them where there is an area of interest: what progress counts."""
        self.tally = Tally()

    def detect(self) -> None:
        """Run the model over every block."""
        self._stage(INFER, units.detect, 0, needs="model", read=units.read)

    def stitch(self) -> None:
        """Stitch regions, from blocks up to whole scenes."""
        for level in range(max(levels(scene) for scene in self.scenes)):
            name = "stitch" if level == 0 else f"stitch {level + 1}"
            self._stage(name, units.stitch, level, needs="cpu")

    def _stage(
        self,
        name: str,
        function: Callable[[Region, Any], Outcome],
        level: int,
        *,
        needs: Any,
        read: Callable[[Region], Any] | None = None,
    ) -> None:
        work = list(self._regions(level))
        self.run.begin(name, units=len(work), chips=self.places)
        self.progress.start(name, self.places)
        done = 0
        ended = self.executor.map(function, work, needs=needs, read=read)
        with closing(ended):  # type: ignore[type-var] # a generator, in every executor
            for region, result in ended:
                size = len(region.rows) * len(region.cols)
                outcome = self._outcome(region, result, size)
                if name == INFER:
                    outcome.add_to(self.tally)
                self.run.note(name, region.name, outcome, chips=size)
                self.progress.advance(size)
                done += size
        self.progress.advance(self.places - done)
        self.run.end(name)
        stage = self.run.manifest.stages[name]
        self.tally.seconds[name] = (stage.ended or 0.0) - stage.started

    def _regions(self, level: int) -> Iterator[Region]:
        for scene in self.scenes:
            if level < levels(scene):
                yield from regions(scene, level)

    def _outcome(self, region: Region, result: Outcome | UnitLostError, size: int) -> Outcome:
        if isinstance(result, UnitLostError):
            if self.strict or INFER in self.tally.seconds:  # without it nothing can be stitched
                raise UnitLostError(f"{region.name}: {result}")
            result = Outcome.lost(f"block {region.name}", str(result), chips=size)
            write_block(region, [], result)  # of nothing, so that the others can be stitched
        if result.failed and self.strict:
            name, reason = result.failed[0]
            raise ReadError(f"{name}: {reason}")
        return result


@contextmanager
def _job(
    paths: Sequence[str],
    config: Config,
    outputs: list[str],
    progress: Progress,
    *,
    executor: Executor | None,
    plans: Sequence[OutputPlan] = (),
) -> Iterator[_Job]:
    """Open the scenes, the run's folder and the workers."""
    folder = Path(config.scale.run_dir or _beside(outputs[0]))
    masks = [plan.mask is not None for plan in plans] or [False]
    scenes = [
        describe(path, config, folder.absolute(), keep_masks=mask)
        for path, mask in zip(paths, masks, strict=True)
    ]
    ids = [scene.scene_id for scene in scenes]
    if doubled := sorted({name for name in ids if ids.count(name) > 1}):
        raise ConfigError(f"scenes must have different file names, got {doubled[0]!r} twice")
    is_new = not folder.exists()
    with ExitStack() as stack:
        if is_new and config.scale.run_dir is None:
            stack.callback(_remove_unless_begun, folder)
        run = stack.enter_context(RunDir(folder, config, outputs=outputs))
        if executor is None:
            executor = _executor(config, scenes, run, stack, progress)
        job = _Job(scenes, executor, run, progress, strict=config.scale.strict)
        try:
            yield job
        except KeyboardInterrupt as error:
            kept = f"what is done is kept in {folder}: the same command again goes on from there"
            raise KeyboardInterrupt(kept) from error
    if config.scale.run_dir is None and not job.tally.failed:
        run.remove()


def _remove_unless_begun(folder: Path) -> None:
    """Remove a folder in which no unit has been done: there is nothing to go on from."""
    if not any(folder.rglob("*.parquet")):
        shutil.rmtree(folder, ignore_errors=True)


def describe(path: str, config: Config, folder: Path, *, keep_masks: bool = False) -> SceneJob:
    """Open a scene or a folder of chips for a moment and return what its workers must know."""
    with ExitStack() as stack:
        planned = open_planned(path, config, stack)
        if config.scene.aoi is not None:
            read_aoi(config.scene.aoi, planned.origin.grid)  # raises where it misses the scene
    plan = planned.plan
    warn_of_nothing(config.morphology, gsd_m=planned.origin.grid.gsd_m)
    return SceneJob(
        path=str(Path(path).absolute()) if Path(path).exists() else path,
        identity=file_identity(path),
        origin=planned.origin,
        plan=plan if isinstance(plan, ChipPlan) else None,
        shape_chips=(plan.rows, plan.cols),
        size_px=planned.size_px,
        config=_wherever(planned.config),
        folder=folder,
        keep_masks=keep_masks,
    )


def _wherever(config: Config) -> Config:
    """Return a config whose paths hold in workers with another working directory."""
    scene, model = config.scene, config.model
    if scene.aoi is not None and Path(scene.aoi).exists():
        scene = replace(scene, aoi=str(Path(scene.aoi).absolute()))
    if Path(model.name).is_file():
        model = replace(model, name=str(Path(model.name).absolute()))
    return replace(config, scene=scene, model=model)


def _executor(
    config: Config, scenes: Sequence[SceneJob], run: RunDir, stack: ExitStack, progress: Progress
) -> Executor:
    scale = config.scale
    if not (scale.workers or scale.gpus or scale.devices or scale.scheduler):
        stack.callback(units.release)
        return Serial()
    first = scenes[0]
    key = f"{first.origin.network_id}-{first.least_raw:.6f}"
    cluster = stack.enter_context(Dask(scale, setup=units.Setup(scene=first), plugin_key=key))
    cluster.check_folder(run.folder)
    progress.say(f"dashboard: {cluster.dashboard_link}")
    return cluster


def _beside(output: str) -> str:
    """Return the run's folder that lies beside an output and is found by the same command."""
    path = Path(output)
    return str(path.with_name(f"{path.name}.run"))


def _write(job: _Job, plans: Sequence[OutputPlan]) -> None:
    merge = job.scenes[0].config.scale.overlapping_scenes == "merge"
    settled = settle_overlaps(job.scenes) if merge else [Settled() for _ in job.scenes]
    with ExitStack() as stack:
        for scene, plan, rule in zip(job.scenes, plans, settled, strict=True):
            outputs = stack.enter_context(Outputs(plan, scene.origin, config=scene.config))
            for frame, masks in merged_footprints(scene):
                outputs.add(rule.apply(frame), masks)
            job.tally.footprints += outputs.finish()
