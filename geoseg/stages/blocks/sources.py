"""Where blocks' pixels come from: scenes and folders a process keeps open, or other workers."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from geoseg.chips import ListedPlan
from geoseg.errors import GeosegWarning, ReadError, SceneError
from geoseg.models import find_model
from geoseg.raster import read_batches
from geoseg.stages.blocks.detections import done_block
from geoseg.stages.blocks.plan import Plan, Region, SceneJob, block_chips
from geoseg.stages.chipfolder import ChipFolder
from geoseg.stages.tile import open_scene
from geoseg.vector import chips_touching, read_aoi

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from geoseg.chips import Chip
    from geoseg.raster import ChipSource

KEPT_OPEN: Final = 4
"""Scenes a process keeps open."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pixels:
    """A block's pixels, read elsewhere: a source of chips.

    Shapes: B chips that hold data, S side of a batch's frame.
    """

    chips: tuple[Chip, ...]
    """All that are to be looked at."""
    images: NDArray[np.uint8]
    """(B, 3, S, S)"""
    valid: NDArray[np.bool_]
    """(B, S, S)"""
    places: dict[str, int]
    """Position by chip name."""
    failed: dict[str, str]
    """Why a chip could not be read, by name."""

    def read_chip(self, chip: Chip) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a chip's image (3, h, w) and valid (h, w); nothing valid where it has no data."""
        if chip.name in self.failed:
            raise ReadError(self.failed[chip.name])
        h, w = chip.window.height, chip.window.width
        if chip.name not in self.places:
            return np.zeros((3, h, w), np.uint8), np.zeros((h, w), np.bool_)
        i = self.places[chip.name]
        return self.images[i, :, :h, :w], self.valid[i, :h, :w]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    source: ChipSource
    plan: Plan
    aoi: BaseGeometry | None
    stack: ExitStack
    """Closes the source."""


class _Sources:
    """Scenes and folders of chips that this process has open, the latest few."""

    def __init__(self) -> None:
        self._opened: OrderedDict[tuple[str, str, str], _Opened] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, region: Region) -> tuple[ChipSource, list[Chip]]:
        """Return the source of a block's chips, and those that touch the area of interest."""
        scene = region.scene
        with self._lock:
            key = _key(scene)
            if key not in self._opened:
                self._opened[key] = _open(scene)
            self._opened.move_to_end(key)
            while len(self._opened) > KEPT_OPEN:
                self._opened.popitem(last=False)[1].stack.close()
            opened = self._opened[key]
        chips = block_chips(region, scene.plan or opened.plan)
        if opened.aoi is not None:
            chips = chips_touching(chips, scene.grid, opened.aoi)
        return opened.source, chips

    def drop(self, scene: SceneJob) -> None:
        """Close a scene, to open it anew."""
        with self._lock:
            if (opened := self._opened.pop(_key(scene), None)) is not None:
                opened.stack.close()

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            for opened in self._opened.values():
                opened.stack.close()
            self._opened.clear()


SOURCES: Final = _Sources()


def _key(scene: SceneJob) -> tuple[str, str, str]:
    return scene.path, scene.identity, repr(scene.config.scene)


def _open(scene: SceneJob) -> _Opened:
    asked = scene.config.scene.aoi
    aoi = None if asked is None else read_aoi(asked, scene.grid)
    stack = ExitStack()
    if scene.plan is None:
        folder = ChipFolder.open(Path(scene.path))
        return _Opened(source=folder, plan=ListedPlan(folder.chips), aoi=aoi, stack=stack)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeosegWarning)  # given where the run was started
        spec = find_model(scene.config.model.name).spec
        source = stack.enter_context(open_scene(scene.path, scene.config, spec))
    if source.grid != scene.grid:
        stack.close()
        raise SceneError(f"{scene.path}: must be the file the run began with; start the run again")
    return _Opened(source=source, plan=scene.plan, aoi=aoi, stack=stack)


def read_block(region: Region) -> Pixels | None:
    """Read a block's pixels for a process that shall not; None where its shard is done already."""
    if done_block(region) is not None:
        return None
    source, chips = SOURCES.open(region)
    failed: dict[str, str] = {}
    batches = read_batches(
        source,
        chips,
        batch_size=max(1, len(chips)),
        size_px=region.scene.size_px,
        threads=region.scene.config.model.readers,
        on_error=lambda chip, error: failed.update({chip.name: str(error)}),
        on_empty=lambda chip: None,
    )
    side = region.scene.size_px
    images, valid = np.zeros((0, 3, side, side), np.uint8), np.zeros((0, side, side), np.bool_)
    names: list[str] = []
    with closing(batches):
        for batch in batches:  # one, as it holds all
            images, valid = batch.images, batch.valid
            names = [chip.name for chip in batch.chips]
    places = {name: i for i, name in enumerate(names)}
    return Pixels(chips=tuple(chips), images=images, valid=valid, places=places, failed=failed)
