"""What a run in blocks consists of: scenes, their blocks, and the tree of regions above them.

A unit of work is described in about a kilobyte and holds no pixels; whoever works on it opens the
scene itself. Blocks are rectangles of chips; a region of level k covers FAN x FAN regions of level
k - 1, a region of level 0 is a block, and the last level is one region, the scene.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from geoseg.chips import Chip, ChipPlan, ListedPlan
from geoseg.stages.scores import least_raw, score_map

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geoseg.config import Config
    from geoseg.grid import Grid
    from geoseg.scores import ScoreMap
    from geoseg.stages.origin import Origin

Plan: TypeAlias = ChipPlan | ListedPlan

FAN = 4
"""Regions a side that the region above them unites: few levels, and few files open at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneJob:
    """What whoever works on a part of a scene must know."""

    path: str
    """A raster or a folder of chips."""
    identity: str
    """Changes when the file does."""
    origin: Origin
    plan: ChipPlan | None
    """None for a folder of chips: its index has them."""
    shape_chips: tuple[int, int]
    """Chip rows and columns."""
    size_px: int
    """Side of a batch's frame."""
    config: Config
    folder: Path
    """The run's folder."""
    keep_masks: bool = False
    """Keep the instances' soft masks beside their footprints, for a mask raster."""

    @property
    def scene_id(self) -> str:
        """Name of the scene."""
        return self.origin.scene_id

    @property
    def grid(self) -> Grid:
        """The scene's working grid."""
        return self.origin.grid

    @property
    def calibration(self) -> ScoreMap | None:
        """What scores become in footprints."""
        return score_map(self.config, self.origin.calibration)

    @property
    def least_raw(self) -> float:
        """Least of the network's own scores that is asked for."""
        return least_raw(self.config.model, self.origin.calibration)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """A rectangle of a scene's chips, the unit of work."""

    scene: SceneJob
    level: int
    row: int
    """Its place among the regions of its level."""
    col: int

    @property
    def name(self) -> str:
        """Unique in a run."""
        return f"{self.scene.scene_id}/{self.stem}"

    @property
    def stem(self) -> str:
        """Unique among the regions of its scene."""
        return f"{'b' if self.level == 0 else f'l{self.level}-'}{self.row:04d}-{self.col:04d}"

    @property
    def rows(self) -> range:
        """Chip rows."""
        return self._span(0, self.row)

    @property
    def cols(self) -> range:
        """Chip columns."""
        return self._span(1, self.col)

    def _span(self, axis: int, index: int) -> range:
        side = self.scene.config.scale.block_chips * FAN**self.level
        return range(index * side, min((index + 1) * side, self.scene.shape_chips[axis]))

    @property
    def detections_path(self) -> Path:
        """Shard of what the network found in a block."""
        return self.scene.folder / "infer" / self.scene.scene_id / f"{self.stem}.parquet"

    @property
    def footprints_path(self) -> Path:
        """Shard of the footprints that are settled in this region."""
        return self.scene.folder / "footprints" / self.scene.scene_id / f"{self.stem}.parquet"

    @property
    def open_path(self) -> Path:
        """Shard of detections that the region above has to settle."""
        return self.footprints_path.with_name(f"{self.stem}-open.parquet")

    def parts(self) -> Iterator[Region]:
        """Yield the regions that this one unites, in row-major order."""
        rows, cols = region_counts(self.scene, self.level - 1)
        for row, col in itertools.product(
            range(self.row * FAN, min((self.row + 1) * FAN, rows)),
            range(self.col * FAN, min((self.col + 1) * FAN, cols)),
        ):
            yield Region(scene=self.scene, level=self.level - 1, row=row, col=col)

    def inputs(self) -> list[Path]:
        """Return the shards of detections that this region is stitched from."""
        if self.level == 0:
            return [self.detections_path]
        return [part.open_path for part in self.parts()]


def region_counts(scene: SceneJob, level: int) -> tuple[int, int]:
    """Return how many rows and columns of regions a level has."""
    side = scene.config.scale.block_chips * FAN**level
    rows, cols = (-(-count // side) for count in scene.shape_chips)
    return rows, cols


def regions(scene: SceneJob, level: int) -> Iterator[Region]:
    """Yield the regions of a level in row-major order; those of level 0 are the blocks."""
    rows, cols = region_counts(scene, level)
    for row, col in itertools.product(range(rows), range(cols)):
        yield Region(scene=scene, level=level, row=row, col=col)


def levels(scene: SceneJob) -> int:
    """Return the number of levels: at least 1, and the last is one region."""
    level = 0
    while region_counts(scene, level) != (1, 1):
        level += 1
    return level + 1


def block_chips(region: Region, plan: Plan) -> list[Chip]:
    """Return the chips of a region."""
    return list(plan.chips(region.rows, region.cols))
