"""Compare two maps of one scene: what a step changed, in numbers and in a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from affine import Affine
from pyproj import CRS

from geoseg.errors import ConfigError, InputNotFoundError, ReadError, SceneError
from geoseg.evaluate.changes import building_gains, find_changes, measure_gain
from geoseg.evaluate.gallery import Panel, draw_gallery
from geoseg.evaluate.sides import metric_crs
from geoseg.files import check_output, replacing
from geoseg.frames import to_px
from geoseg.grid import Grid, Window
from geoseg.stages.maps import EVERYWHERE, centred_in, read_area, read_map
from geoseg.stages.outputs import open_origin
from geoseg.vector import read_vector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.evaluate.changes import Changes
    from geoseg.raster import Scene
    from geoseg.stages.origin import Origin

    Shapes = NDArray[np.object_]

PANELS: Final = 12
MARGIN: Final = 0.35  # of a change's longer side, around it
LEAST_WINDOW_M: Final = 12.0
BLANK: Final = 236  # grey where there is no imagery
CANVAS_PX_M: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapChanges:
    """Two maps of one scene, in the CRS of the second."""

    before: gpd.GeoDataFrame
    after: gpd.GeoDataFrame
    truth: gpd.GeoDataFrame | None
    changes: Changes
    origin: Origin | None
    """Where they come from, where one of them says so: a picture shows its imagery."""

    def as_dict(self) -> dict[str, Any]:
        """Return counts and figures by name, for tables and JSON."""
        values: dict[str, Any] = {"changes": self.changes.as_dict()}
        if self.truth is not None:
            values["against the truth"] = measure_gain(self.before, self.after, self.truth)
        return values


def compare_maps(
    before: Path, after: Path, *, truth: Path | None = None, within: str = EVERYWHERE
) -> MapChanges:
    """Say what became of each footprint of a map in another map.

    Args:
        before: Footprints of ours, or any vector file.
        after: The same scene's, made otherwise.
        truth: Outlines in any CRS, to say whether it is better.
        within: Area, see `read_area`: what has its centroid inside counts.

    Raises:
        ConfigError: The maps lie apart.
        GeosegError: A file is not there or not what it should be.
    """
    new, origin = read_map(after, may_be_empty=True)
    old, known = read_map(before, may_be_empty=True)
    old, origin = old.to_crs(new.crs), origin or known
    if len(old) and len(new) and not _meet(old, new):
        raise ConfigError(f"{before} and {after} must show the same ground, they lie apart")
    outlines = None if truth is None else read_vector(truth).to_crs(new.crs)
    area = read_area(within, crs=new.crs, origin=origin)
    old, new = centred_in(area, old), centred_in(area, new)
    return MapChanges(
        before=old,
        after=new,
        truth=None if outlines is None else centred_in(area, outlines),
        changes=find_changes(old, new),
        origin=origin,
    )


def _meet(old: gpd.GeoDataFrame, new: gpd.GeoDataFrame) -> bool:
    one, other = (shapely.box(*frame.total_bounds) for frame in (old, new))
    return bool(shapely.intersects(one, other))


def draw_changes(path: Path, found: MapChanges, *, panels: int = PANELS) -> None:
    """Draw the places that changed most: those where a building lost most, if the truth is known.

    Over the scene's imagery, or over grey where that is not at hand. Where nothing changed, the
    picture says so.

    Args:
        path: The `.png` file.
        found: What changed.
        panels: How many places, at most.

    Raises:
        OutputError: The picture cannot be written.
    """
    check_output(path, (".png",))
    places, captions = _worst(found)
    drawn, title = list[Panel](), "nothing changed"
    if len(places):  # two empty maps have no ground that panels could be drawn on
        drawn = list(_panels(found, places[:panels], captions[:panels]))
        title = f"{len(drawn)} of {len(places)} places that changed, the most first"
    with replacing(path) as temporary:
        draw_gallery(drawn, title=title).save(temporary, format="PNG")


def _worst(found: MapChanges) -> tuple[Shapes, list[str]]:
    """Return the places of changes, in the maps' CRS, most first, and a line on each."""
    if found.truth is not None:
        return _by_gain(found, found.truth)
    changes = found.changes
    old, new = (frame.geometry.to_numpy() for frame in (found.before, found.after))
    moved = np.flatnonzero(changes.changed)
    pairs = shapely.union(old[changes.before[moved]], new[changes.after[moved]])
    places = np.concatenate([old[changes.removed], new[changes.added], pairs])
    lines = ["removed"] * len(changes.removed) + ["added"] * len(changes.added)
    lines += [f"IoU {iou:.2f}" for iou in changes.iou[moved].tolist()]
    alone = np.ones(len(changes.removed) + len(changes.added))
    amount = np.r_[alone, 1 - changes.iou[moved]]
    order = np.lexsort((-shapely.area(places), -amount))
    return np.asarray(places[order], object), [lines[i] for i in order.tolist()]


def _by_gain(found: MapChanges, truth: gpd.GeoDataFrame) -> tuple[Shapes, list[str]]:
    gains = building_gains(found.before, found.after, truth)
    order = np.argsort(gains, kind="stable")
    order = order[np.abs(gains[order]) > 1e-6]
    lines = [f"IoU with truth {gains[i]:+.2f}" for i in order.tolist()]
    return np.asarray(truth.geometry.to_numpy()[order], object), lines


def _panels(found: MapChanges, places: Shapes, captions: list[str]) -> Iterator[Panel]:
    scene = _scene_of(found.origin)
    grid = _canvas(found) if scene is None else scene.grid
    frames = (found.before, found.after, found.truth)
    layers = [_in_pixels(frame, grid) for frame in frames if frame is not None]
    here = _in_pixels(gpd.GeoDataFrame(geometry=places, crs=found.after.crs), grid)
    trees = [shapely.STRtree(layer) for layer in layers]
    try:
        for place, caption in zip(here, captions, strict=True):
            window = _window(place, grid)
            shown = [_near(tree, layer, window) for tree, layer in zip(trees, layers, strict=True)]
            yield Panel(
                image=_picture(scene, window),
                before=shown[0],
                after=shown[1],
                truth=shown[2] if len(shown) > 2 else [],
                caption=caption,
            )
    finally:
        if scene is not None:
            scene.close()


def _scene_of(origin: Origin | None) -> Scene | None:
    """Open the imagery of a map; None where it is not known or not at hand."""
    if origin is None:
        return None
    try:
        return open_origin(origin)
    except (InputNotFoundError, SceneError, ReadError):
        return None


def _canvas(found: MapChanges) -> Grid:
    """Return a grid to draw on where there is no scene: the map's own, or a metric one around."""
    if found.origin is not None:
        return found.origin.grid
    every = pd.concat([found.before.geometry, found.after.geometry])
    metric = every.to_crs(metric_crs(every.to_frame("geometry")))
    left, bottom, right, top = metric.total_bounds.tolist()
    return Grid(
        crs=CRS.from_user_input(metric.crs),
        transform=Affine(CANVAS_PX_M, 0, left, 0, -CANVAS_PX_M, top),
        height=max(1, math.ceil((top - bottom) / CANVAS_PX_M)),
        width=max(1, math.ceil((right - left) / CANVAS_PX_M)),
    )


def _window(place: shapely.Geometry, grid: Grid) -> Window:
    """Return a square around a place, inside the grid where that is large enough."""
    x0, y0, x1, y1 = shapely.bounds(place).tolist()
    side = max(x1 - x0, y1 - y0) * (1 + 2 * MARGIN)
    side_px = math.ceil(max(side, LEAST_WINDOW_M / grid.gsd_m))
    height, width = min(side_px, grid.height), min(side_px, grid.width)
    row = math.floor((y0 + y1) / 2 - height / 2)
    col = math.floor((x0 + x1) / 2 - width / 2)
    return Window(
        row_off=min(max(row, 0), grid.height - height),
        col_off=min(max(col, 0), grid.width - width),
        height=height,
        width=width,
    )


def _picture(scene: Scene | None, window: Window) -> NDArray[np.uint8]:
    blank = np.full((window.height, window.width, 3), BLANK, np.uint8)
    if scene is None:
        return blank
    try:
        image, valid = scene.read(window)
    except ReadError:
        return blank
    return np.where(valid[..., None], image.transpose(1, 2, 0), blank)


def _near(tree: shapely.STRtree, shapes: Shapes, window: Window) -> list[shapely.Geometry]:
    """Return the shapes that touch a window, in its pixels."""
    box = shapely.box(window.col_off, window.row_off, window.col_stop, window.row_stop)
    rows = np.sort(tree.query(box, predicate="intersects"))
    shift = np.array([window.col_off, window.row_off])
    return list(shapely.transform(shapes[rows], lambda xy: xy - shift))


def _in_pixels(frame: gpd.GeoDataFrame, grid: Grid) -> Shapes:
    return to_px(frame.to_crs(grid.crs).geometry.to_numpy(), grid)
