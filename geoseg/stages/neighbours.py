"""Neighbours: spooled footprints settled with those they meet, in order, a group at a time.

Only when all of a scene's footprints are there is it known who meets whom. In memory are the boxes
of all, 32 bytes each, and the footprints that wait for the rest of their group. What a group
becomes depends on its members alone, so the result is the same however a scene was worked through.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely

from geoseg.grid import apply_transform
from geoseg.polygonize import mend_rounding
from geoseg.regularize import share_walls
from geoseg.topology import neighbour_groups, settle_overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from geoseg.config import Config
    from geoseg.grid import Grid
    from geoseg.topology import Geometries
    from geoseg.vector import Spool

    Ints = NDArray[np.int64]


def settled_footprints(
    spool: Spool, grid: Grid, config: Config
) -> Iterator[tuple[gpd.GeoDataFrame, Ints]]:
    """Yield the footprints of a spool as neighbours leave them, in order.

    Args:
        spool: Footprints of one scene, in the CRS of `grid`.
        grid: The scene's working grid.
        config: What neighbours may do to each other, and the least area.

    Yields:
        Frames, and the row in the spool of each of their footprints.
    """
    regular = config.regularize
    reach = 2 * regular.gap_m if regular.enabled else 0.0  # walls of both may move by a gap
    groups = neighbour_groups(_bounds(spool, grid), within_m=reach)
    waiting = _Waiting(grid=grid, config=config, groups=groups, last=_last_rows(groups))
    for frame in spool.frames():
        waiting.add(frame)
        yield from waiting.released()


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    """Frames whose groups are not complete yet."""

    grid: Grid
    config: Config
    groups: Ints
    """(N,) the group of every row of the spool; -1 is alone."""
    last: Ints
    """The last row of every group."""
    frames: deque[tuple[int, gpd.GeoDataFrame]] = field(default_factory=deque)
    """First row and footprints."""
    changed: dict[int, tuple[shapely.Geometry, float]] = field(default_factory=dict)
    """New outline and factor of its area, by row."""
    rows: int = 0

    def add(self, frame: gpd.GeoDataFrame) -> None:
        """Take the next rows and settle the groups that they complete."""
        before = self.rows
        self.frames.append((before, frame))
        self.rows += len(frame)
        complete = (self.last >= before) & (self.last < self.rows)
        first = self.frames[0][0]
        grouped = first + np.flatnonzero(self.groups[first : self.rows] >= 0)
        members = grouped[complete[self.groups[grouped]]]
        if len(members):
            self._settle(members)

    def released(self) -> Iterator[tuple[gpd.GeoDataFrame, Ints]]:
        """Yield the frames from the first on that wait for nothing."""
        while self.frames:
            start, frame = self.frames[0]
            rows = np.arange(start, start + len(frame))
            here = self.groups[rows]
            if (self.last[here[here >= 0]] >= self.rows).any():
                return
            self.frames.popleft()
            yield self._as_settled(frame, rows)

    def _settle(self, members: Ints) -> None:
        shapes = np.concatenate([frame.geometry.to_numpy() for _, frame in self.frames])
        scores = np.concatenate([frame["score"].to_numpy() for _, frame in self.frames])
        at = members - self.frames[0][0]
        before = to_metres(shapes[at], self.grid)
        after = settle_overlaps(
            self._with_shared_walls(before, at),
            scores[at],
            options=self.config.topology,
            min_area_m2=self.config.polygonize.least_area_m2(self.grid.gsd_m),
        )
        moved = np.flatnonzero([a is not b for a, b in zip(after, before, strict=True)])
        ground = from_metres(after[moved], self.grid)
        factors = shapely.area(after[moved]) / shapely.area(before[moved])
        for row, shape, factor in zip(members[moved].tolist(), ground, factors, strict=True):
            self.changed[row] = (shape, float(factor))

    def _with_shared_walls(self, shapes: Geometries, at: Ints) -> Geometries:
        options = self.config.regularize
        if not options.enabled:
            return shapes
        flags = [frame["regularized"].to_numpy(bool) for _, frame in self.frames]
        regular = np.concatenate(flags)[at]
        shared = shapes.copy()
        shared[regular] = share_walls(shapes[regular], options=options)
        return shared

    def _as_settled(self, frame: gpd.GeoDataFrame, rows: Ints) -> tuple[gpd.GeoDataFrame, Ints]:
        mine = [row for row in rows.tolist() if row in self.changed]
        if not mine:
            return frame, rows
        shapes, area = frame.geometry.to_numpy().copy(), frame["area_m2"].to_numpy().copy()
        for row in mine:
            shapes[row - rows[0]], factor = self.changed.pop(row)
            area[row - rows[0]] *= factor
        stays = ~shapely.is_empty(shapes)
        frame = frame.assign(area_m2=area).set_geometry(gpd.GeoSeries(shapes, crs=frame.crs))
        return frame[stays].reset_index(drop=True), rows[stays]


def to_metres(shapes: Geometries, grid: Grid) -> Geometries:
    """Bring geometries from a grid's CRS to metres on the ground from its corner, y downwards."""
    inverse, scale = ~grid.transform, np.array(grid.pixel_size_m)
    moved = shapely.transform(shapes, lambda xy: apply_transform(inverse, xy) * scale)
    return np.asarray(moved, object)


def from_metres(shapes: Geometries, grid: Grid) -> Geometries:
    """Bring geometries back to the grid's CRS, valid there, exteriors counter-clockwise."""
    scale = np.array(grid.pixel_size_m)
    moved = shapely.transform(shapes, lambda xy: apply_transform(grid.transform, xy / scale))
    return mend_rounding(np.asarray(shapely.orient_polygons(moved), object))


def _bounds(spool: Spool, grid: Grid) -> NDArray[np.float64]:
    """Return (N, 4) boxes in metres."""
    bounds, row = np.empty((spool.count, 4)), 0
    for frame in spool.frames():
        here = slice(row, row + len(frame))
        bounds[here] = shapely.bounds(to_metres(frame.geometry.to_numpy(), grid))
        row = here.stop
    return bounds


def _last_rows(groups: Ints) -> Ints:
    last = np.full(int(groups.max(initial=-1)) + 1, -1, np.int64)
    rows = np.flatnonzero(groups >= 0)
    np.maximum.at(last, groups[rows], rows)
    return last
