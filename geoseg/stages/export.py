"""Export: where footprints go: a vector file, and on request a mask raster and a picture."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import geopandas as gpd
import pandas as pd

from geoseg import __version__
from geoseg.errors import ConfigError, FormatError, InputNotFoundError, OutputError
from geoseg.footprints import empty_footprints
from geoseg.preview import draw_preview
from geoseg.raster import MaskWriter, Scene, rasterize_footprints
from geoseg.stages.base import Tally
from geoseg.stages.store import Origin
from geoseg.vector import FootprintWriter, check_output, footprints_info, read_footprints

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from geoseg.stitch import Instance

MaskKind = Literal["ids", "probability"]

PREVIEW_PX = 1600
"""Longest side of a preview: readable on a screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """What a run writes."""

    vector: Path
    mask: Path | None = None
    mask_kind: MaskKind = "ids"
    preview: Path | None = None

    def check(self) -> None:
        """Raise OutputError, before any work, if one of the outputs cannot be written."""
        check_output(self.vector)
        for path, suffixes in ((self.mask, (".tif", ".tiff")), (self.preview, (".png",))):
            if path is not None:
                _check_path(path, suffixes)
        if len({path.resolve() for path in self.paths}) < len(self.paths):
            raise OutputError(f"outputs must be different files, got {self.paths}")

    @property
    def paths(self) -> list[Path]:
        """The files that will be there."""
        return [path for path in (self.vector, self.mask, self.preview) if path is not None]


class Outputs:
    """Footprints in, files out, all at a clean exit; a context manager.

    Args:
        plan: What is to be written.
        origin: Where the footprints come from.
        scene: The open scene, for the picture; by default opened from the origin's path.
    """

    def __init__(self, plan: OutputPlan, origin: Origin, *, scene: Scene | None) -> None:
        self._plan = plan
        self._origin = origin
        self._scene = scene
        self._drawn: list[gpd.GeoDataFrame] = []
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        metadata = {"version": __version__, "origin": self._origin.to_json()}
        with ExitStack() as stack:
            self._writer = stack.enter_context(
                FootprintWriter(self._plan.vector, crs=self._origin.grid.crs, metadata=metadata)
            )
            self._mask = None
            if self._plan.mask is not None:
                mask = MaskWriter(self._plan.mask, self._origin.grid, self._plan.mask_kind)
                self._mask = stack.enter_context(mask)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None and self._plan.preview is not None:
            drawn = _concat(self._drawn, self._origin)
            draw(self._plan.preview, drawn, self._origin, scene=self._scene)

    def add(self, footprints: gpd.GeoDataFrame, instances: Sequence[Instance]) -> None:
        """Write some footprints.

        Args:
            footprints: In the CRS of the origin's grid; the index holds each one's position in
                `instances`.
            instances: What they were made of.
        """
        self._writer.write(footprints)
        if self._mask is not None:
            for number, i in enumerate(footprints.index, start=self._count + 1):
                self._mask.burn(instances[i].window, instances[i].soft, number)
        if self._plan.preview is not None:
            self._drawn.append(footprints[["score", footprints.geometry.name]])
        self._count += len(footprints)


def draw(
    path: Path, footprints: gpd.GeoDataFrame, origin: Origin, *, scene: Scene | None
) -> None:
    """Draw footprints over their scene's imagery."""
    with ExitStack() as stack:
        if scene is None:
            scene = stack.enter_context(Scene.open(origin.scene_path, gsd="native"))
        image, _, grid = scene.overview(PREVIEW_PX)
        if footprints.crs != grid.crs:
            footprints = footprints.to_crs(grid.crs)
        draw_preview(image, grid, footprints, path=path)


def export(footprints: Path, plan: OutputPlan, *, scene_path: str | None = None) -> Tally:
    """Write a footprints file in another format, with a mask and a picture on request.

    Args:
        footprints: A file of footprints.
        plan: What is to be written.
        scene_path: The scene for mask and picture, where the file does not name it.

    Raises:
        GeosegError: The input is damaged, the scene is needed and not known, or an output cannot
            be written; nothing is left behind.
    """
    plan.check()
    if plan.mask is not None and plan.mask_kind != "ids":
        raise ConfigError("a mask of probability needs detections: use run or footprints")
    info = footprints_info(footprints)
    origin = _origin_of(info.metadata, footprints, scene_path) if _needs_scene(plan) else None
    tally = Tally()
    kept: list[gpd.GeoDataFrame] = []
    with FootprintWriter(plan.vector, crs=info.crs, metadata=info.metadata or None) as writer:
        for frame in read_footprints(footprints):
            writer.write(frame)
            tally.footprints += len(frame)
            if origin is not None:
                kept.append(frame[["score", frame.geometry.name]])
    if origin is not None:
        _write_rasters(plan, _concat(kept, origin).to_crs(origin.grid.crs), origin)
    return tally


def _write_rasters(plan: OutputPlan, footprints: gpd.GeoDataFrame, origin: Origin) -> None:
    if plan.mask is not None:
        ids = range(1, len(footprints) + 1)
        rasterize_footprints(plan.mask, origin.grid, footprints.geometry.to_numpy(), ids)
    if plan.preview is not None:
        draw(plan.preview, footprints, origin, scene=None)


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


def _concat(frames: list[gpd.GeoDataFrame], origin: Origin) -> gpd.GeoDataFrame:
    if not frames:
        return empty_footprints(origin.grid.crs)
    return gpd.GeoDataFrame(pd.concat(frames, ignore_index=True))


def _check_path(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} is read-only")


