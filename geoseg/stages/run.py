"""Run: the whole job in one process, streaming, with no files in between."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from geoseg.files import check_apart
from geoseg.stages.base import Progress, Silence, Tally
from geoseg.stages.footprints import make_all
from geoseg.stages.infer import detect, load_predictor, open_work
from geoseg.stages.outputs import OutputPlan, Outputs

if TYPE_CHECKING:
    from geoseg.config import Config


def run(path: str, plan: OutputPlan, config: Config, *, progress: Progress | None = None) -> Tally:
    """Map a scene: chips, detections, instances, footprints, files.

    Args:
        path: A scene, or a folder of chips written by `tile`.
        plan: What is to be written.
        config: All options.
        progress: Told about chips inferred.

    Returns:
        Counts and seconds; `failed` names the chips that could not be read.

    Raises:
        GeosegError: An input, the model or an output does not serve; nothing is left behind.
    """
    plan.check()
    check_apart(plan.paths, [path, config.scene.aoi])
    tally = Tally()
    with ExitStack() as stack:
        work = open_work(path, config, stack)
        with tally.timed("load"):
            predictor = load_predictor(config, size_px=work.size_px)
        outputs = stack.enter_context(Outputs(plan, work.origin, config=config, scene=work.scene))
        found = detect(work, predictor, config, tally, progress or Silence())
        # Closed before the scene is: reader threads must not outlive its handles.
        with closing(found):
            make_all(found, work.origin, config, outputs, tally)
        tally.check()
    return tally
