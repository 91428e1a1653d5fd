"""Outputs of a run: a vector file, and on request a mask raster and a picture, all or none."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from geoseg import __version__
from geoseg.config import load_config
from geoseg.errors import GeosegWarning, InputNotFoundError, OutputError, ReadError
from geoseg.files import check_output, output_errors, staged
from geoseg.footprints import concat_footprints
from geoseg.osm.formats import osm_suffix
from geoseg.preview import draw_preview
from geoseg.raster import MaskWriter, Scene
from geoseg.stages.neighbours import settled_footprints
from geoseg.vector import FootprintWriter, Spool, check_footprints_output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    import geopandas as gpd
    from numpy.typing import NDArray

    from geoseg.config import Config
    from geoseg.grid import Window
    from geoseg.stages.origin import Origin

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
        if osm_suffix(self.vector):
            raise OutputError(f"{self.vector}: write a .parquet, then export that to OSM files")
        check_footprints_output(self.vector)
        for path, suffixes in ((self.mask, (".tif", ".tiff")), (self.preview, (".png",))):
            if path is not None:
                check_output(path, suffixes)
        if len({path.resolve() for path in self.paths}) < len(self.paths):
            raise OutputError(f"outputs must be different files, got {self._names}")

    @property
    def paths(self) -> list[Path]:
        """The files that will be there."""
        return [path for path in (self.vector, self.mask, self.preview) if path is not None]

    @property
    def _names(self) -> str:
        return ", ".join(str(path) for path in self.paths)


class Masked(Protocol):
    """What a mask raster needs of an instance."""

    @property
    def window(self) -> Window:
        """Where the mask lies, pixels of the scene's grid."""
        ...

    @property
    def soft(self) -> NDArray[np.uint8]:
        """(h, w) probability, 255 = 1."""
        ...


class Outputs:
    """Footprints in, files out, all together at a clean exit or none; a context manager.

    Args:
        plan: What is to be written.
        origin: Where the footprints come from.
        config: What neighbours may do to each other; without, they keep what they are.
        scene: The open scene, for the picture; by default opened from the origin's path.
    """

    def __init__(
        self,
        plan: OutputPlan,
        origin: Origin,
        *,
        config: Config | None = None,
        scene: Scene | None = None,
    ) -> None:
        self._plan = plan
        self._origin = origin
        self._config = config
        regular = config is not None and config.regularize.enabled
        self._optional = ("regularized", "iou_raw") if regular else ()
        self._scene = scene
        self._drawn: list[gpd.GeoDataFrame] = []
        self._spool: Spool | None = None
        self._added = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # Left in reverse: mask and picture are finished out of sight, the vector file is moved into
        # place, and they after it.
        plan, origin = self._plan, self._origin
        metadata = {"version": __version__, "origin": origin.to_json()}
        with ExitStack() as stack:
            places = {path: stack.enter_context(staged(path)) for path in plan.paths[1:]}
            self._writer = stack.enter_context(
                FootprintWriter(
                    plan.vector, crs=origin.grid.crs, metadata=metadata, optional=self._optional
                )
            )
            if plan.preview is not None:
                self._picture = places[plan.preview]
                if self._scene is None:
                    self._scene = stack.enter_context(open_origin(origin))
                stack.push(self._draw)
            if self._config is not None and self._config.topology.overlaps == "settle":
                self._spool = stack.enter_context(_spool(plan.vector, origin, self._optional))
            self._mask = None
            if plan.mask is not None:
                mask = MaskWriter(places[plan.mask], origin.grid, plan.mask_kind)
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

    def _draw(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            assert self._scene is not None, "entering opened the scene of a picture"
            draw(self._picture, concat_footprints(self._drawn, self._origin.grid.crs), self._scene)

    def add(self, footprints: gpd.GeoDataFrame, instances: Sequence[Masked]) -> None:
        """Write some footprints.

        Args:
            footprints: In the CRS of the origin's grid; the index holds each one's position in
                `instances`.
            instances: What they were made of; may be empty where no mask is written.
        """
        if self._mask is not None:
            for number, i in enumerate(footprints.index, start=self._added + 1):
                self._mask.burn(instances[i].window, instances[i].soft, number)
        self._added += len(footprints)
        if self._spool is not None:
            with output_errors(self._plan.vector):
                self._spool.append(footprints)
        else:
            self._write(footprints)

    def finish(self) -> int:
        """Settle neighbours, when all footprints are there; return how many there are.

        Raises:
            OutputError: The disk is full.
        """
        if self._spool is None or self._config is None:
            return self._writer.count
        numbers = np.zeros(self._added + 1, np.int32)  # of each burnt number in the file, 0 if gone
        for frame, rows in settled_footprints(self._spool, self._origin.grid, self._config):
            numbers[rows + 1] = self._writer.count + 1 + np.arange(len(frame))
            self._write(frame)
        if self._mask is not None and self._plan.mask_kind == "ids":
            self._mask.renumber(numbers)
        return self._writer.count

    def _write(self, footprints: gpd.GeoDataFrame) -> None:
        self._writer.write(footprints)
        if self._plan.preview is not None:
            self._drawn.append(footprints[["score", footprints.geometry.name]])


def _spool(vector: Path, origin: Origin, optional: Sequence[str]) -> Spool:
    with output_errors(vector):
        return Spool(vector.resolve().parent, origin.grid.crs, optional)


def open_origin(origin: Origin) -> Scene:
    """Open the scene that footprints or detections come from, for a picture.

    Raises:
        InputNotFoundError: It is not where it was.
    """
    recorded = origin.config.get("scene")
    look = recorded if isinstance(recorded, dict) else {}
    chosen = {f"scene.{key}": look.get(key) for key in ("bands", "rescale")}
    options = load_config(options=chosen).scene
    try:
        return Scene.open(
            origin.scene_path, bands=options.bands, rescale=options.rescale, gsd="native"
        )
    except InputNotFoundError as error:
        raise InputNotFoundError(
            f"the picture needs the scene {origin.scene_path}, which is not there: "
            "put it back, or export with --scene"
        ) from error


def draw(path: Path, footprints: gpd.GeoDataFrame, scene: Scene) -> None:
    """Draw footprints over their scene's imagery, or over black where that is damaged."""
    try:
        image, _, grid = scene.overview(PREVIEW_PX)
    except ReadError as error:
        warnings.warn(f"picture without imagery: {error}", GeosegWarning, stacklevel=2)
        factor = min(1.0, PREVIEW_PX / max(scene.grid.height, scene.grid.width))
        sides = (scene.grid.height, scene.grid.width)
        height, width = (max(1, round(side * factor)) for side in sides)
        grid = scene.grid.scaled(height=height, width=width)
        image = np.zeros((height, width, 3), np.uint8)
    if footprints.crs != grid.crs:
        footprints = footprints.to_crs(grid.crs)
    draw_preview(image, grid, footprints, path=path)
