"""Export: a finished footprints file in another format, with a mask and a picture on request."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING

from geoseg.errors import ConfigError, InputNotFoundError
from geoseg.files import check_apart, staged
from geoseg.footprints import concat_footprints
from geoseg.raster import Scene, rasterize_footprints
from geoseg.stages.base import Tally
from geoseg.stages.origin import Origin
from geoseg.stages.outputs import draw, open_origin
from geoseg.stages.selection import selected
from geoseg.vector import FootprintWriter, footprints_info, read_footprints

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd

    from geoseg.stages.outputs import OutputPlan
    from geoseg.stages.selection import Selection


def export(
    footprints: Path,
    plan: OutputPlan,
    *,
    scene_path: str | None = None,
    selection: Selection | None = None,
) -> Tally:
    """Write a footprints file in another format, with a mask and a picture on request.

    Args:
        footprints: A file of footprints.
        plan: What is to be written.
        scene_path: The scene for mask and picture, where the file does not name it.
        selection: Which footprints are written; by default all.

    Raises:
        GeosegError: The input is damaged, the scene is needed and not known, or an output cannot
            be written; nothing is left behind.
    """
    plan.check()
    check_apart(plan.paths, [footprints, scene_path])
    if plan.mask is not None and plan.mask_kind != "ids":
        raise ConfigError("a mask of probability needs detections: use run or footprints")
    info = footprints_info(footprints)
    origin = _origin_of(info.metadata, footprints, scene_path) if _needs_scene(plan) else None
    if origin is not None:
        check_apart(plan.paths, [origin.scene_path])
    tally = Tally()
    frames = read_footprints(footprints)
    if selection is not None:
        check_apart(plan.paths, selection.against)
        frames = selected(footprints, selection, left_out=Counter())
    kept: list[gpd.GeoDataFrame] = []
    metadata = info.metadata or None
    with (
        nullcontext() if plan.mask is None else staged(plan.mask) as mask,
        nullcontext() if plan.preview is None else staged(plan.preview) as preview,
        FootprintWriter(
            plan.vector, crs=info.crs, metadata=metadata, optional=info.optional
        ) as writer,
    ):
        for frame in frames:
            writer.write(frame)
            tally.footprints += len(frame)
            if origin is not None:
                kept.append(frame[["score", frame.geometry.name]])
        if origin is not None:
            found = concat_footprints(kept, info.crs).to_crs(origin.grid.crs)
            if mask is not None:
                ids = range(1, len(found) + 1)
                rasterize_footprints(mask, origin.grid, found.geometry.to_numpy(), ids)
            if preview is not None:
                with open_origin(origin) as scene:
                    draw(preview, found, scene)
    return tally


def _needs_scene(plan: OutputPlan) -> bool:
    return plan.mask is not None or plan.preview is not None


def _origin_of(metadata: dict[str, str], path: Path, scene_path: str | None) -> Origin:
    if "origin" in metadata and scene_path is None:
        return Origin.from_json(metadata["origin"])
    if scene_path is None:
        raise InputNotFoundError(f"{path}: does not say which scene it is of; give it with --scene")
    with Scene.open(scene_path, gsd="native") as scene:
        return Origin(
            scene_id=scene.scene_id,
            scene_path=scene_path,
            grid=scene.grid,
            labels={},
            model={},
            config={},
        )
