"""Opening what is to be mapped, a scene or a folder of chips, and planning its chips; no torch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.chips import ChipPlan, ListedPlan
from geoseg.errors import GeosegWarning
from geoseg.models import find_model
from geoseg.raster.resolution import working_grid
from geoseg.stages.chipfolder import ChipFolder
from geoseg.stages.origin import Origin
from geoseg.stages.scores import settled
from geoseg.stages.tile import open_scene

if TYPE_CHECKING:
    from contextlib import ExitStack

    from geoseg.config import Config
    from geoseg.models import ModelSpec
    from geoseg.raster import ChipSource, Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planned:
    """A source of chips, how it is cut, and what is known about both."""

    source: ChipSource
    plan: ChipPlan | ListedPlan
    origin: Origin
    size_px: int
    """Side of a batch's frame."""
    scene: Scene | None = None
    """The source itself where it is a scene, not a folder of chips."""
    config: Config
    """What was asked for, with the least score settled."""


def open_planned(path: str, config: Config, stack: ExitStack) -> Planned:
    """Open a scene or a folder of chips and plan its chips; `stack` closes what was opened.

    Raises:
        GeosegError: The scene, the folder or the model does not serve.
    """
    spec = find_model(config.model.name).spec
    config = settled(config, spec)
    scene = None
    source: ChipSource
    plan: ChipPlan | ListedPlan
    if Path(path).is_dir():
        folder = ChipFolder.open(Path(path))
        source, scene_id, scene_path, grid = folder, folder.scene_id, folder.scene_path, folder.grid
        plan, cut = ListedPlan(folder.chips), folder.cut
        sides = [max(chip.window.height, chip.window.width) for chip in folder.chips]
        _check_cut(folder, config, spec)
    else:
        scene = stack.enter_context(open_scene(path, config, spec))
        source, scene_id, scene_path, grid = scene, scene.scene_id, scene.path, scene.grid
        plan = ChipPlan(
            scene_id=scene_id,
            shape_hw=(grid.height, grid.width),
            size_px=config.chips.size_px or spec.chip_size_px,
            overlap_px=config.chips.overlap_px,
        )
        cut = {"size_px": plan.size_px, "overlap_px": plan.overlap_px}
        sides = [min(plan.size_px, max(plan.shape_hw))]
    origin = Origin(
        scene_id=scene_id,
        scene_path=scene_path,
        grid=grid,
        labels={category.label: category.name for category in spec.categories},
        model=_about(spec),
        config={**config.recorded(), "chips": cut or {}},
    )
    return Planned(
        source=source,
        plan=plan,
        origin=origin,
        size_px=max(sides, default=1),
        scene=scene,
        config=config,
    )


def _check_cut(folder: ChipFolder, config: Config, spec: ModelSpec) -> None:
    """Warn of what was settled when the chips were cut and does not fit what is asked now."""
    asked = config.scene
    if asked.bands is not None or asked.rescale != "auto" or asked.gsd != "auto":
        warnings.warn(
            f"{folder.folder}: bands, rescale and gsd were settled when the chips were cut; "
            "give them to `geoseg tile`",
            GeosegWarning,
            stacklevel=3,
        )
    working_grid(folder.grid, "native", spec.gsd_range_m, name=str(folder.folder))


def _about(spec: ModelSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "version": spec.version,
        "sha256": spec.sha256,
        "licence": spec.licence,
        "attribution": list(spec.attribution),
        "calibration": None if spec.calibration is None else spec.calibration.to_dict(),
        "mask_scores": spec.mask_scores,
    }
