"""Areas of interest: read one in a scene's CRS, and find the chips that touch it.

An area limits which chips are worked on; it clips nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from pyproj import CRS

from geoseg.errors import VectorError
from geoseg.vector.read import read_vector, reprojected

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from geoseg.chips import Chip
    from geoseg.grid import Grid

LONLAT: Final = "OGC:CRS84"
EDGE_POINTS: Final = 33  # per side of a scene, to find its extent in another CRS
MARGIN: Final = 0.5  # of the scene's extent, kept around it when a huge area is cut first


def read_aoi(path: str | os.PathLike[str], grid: Grid) -> BaseGeometry:
    """Read an area of interest.

    Areas far larger than the scene are cut to its surroundings before they are reprojected: a
    country or the whole world has no place in a UTM zone.

    Args:
        path: Any vector file in any CRS; polygons, lines and points alike.
        grid: The scene's grid.

    Returns:
        The union of the file's geometries around the scene, valid, in the grid's CRS.

    Raises:
        InputNotFoundError: There is no such file.
        VectorError: It is unreadable or empty, or does not touch the scene.
    """
    frame = read_vector(path)
    geometries = frame.geometry.to_numpy()
    flat = np.isin(shapely.get_type_id(geometries), (3, 6, 7))
    geometries[flat] = shapely.make_valid(geometries[flat])
    near = _near(geometries, frame.crs, grid)
    moved = reprojected(near, frame.crs, grid.crs) if len(near) else near
    moved = moved[np.isfinite(shapely.bounds(moved)).all(axis=1)]
    area = shapely.union_all(shapely.make_valid(moved))
    if area.is_empty or not shapely.intersects(area, grid_polygon(grid)):
        raise VectorError(
            f"{path} must touch the scene: it spans {_span(frame.total_bounds, frame.crs)}, "
            f"the scene {_span(grid.bounds, grid.crs)}"
        )
    return area


def chips_touching(chips: Sequence[Chip], grid: Grid, aoi: BaseGeometry) -> list[Chip]:
    """Return the chips whose window touches an area, in their order.

    Args:
        chips: Chips of one scene.
        grid: The scene's working grid, in whose pixels the windows are.
        aoi: A geometry in the grid's CRS.

    Example:
        >>> from affine import Affine
        >>> from pyproj import CRS
        >>> from geoseg.chips import plan_chips
        >>> from geoseg.grid import Grid
        >>> grid = Grid(crs=CRS("EPSG:32645"), transform=Affine(1, 0, 0, 0, -1, 0),
        ...             height=100, width=300)
        >>> chips = plan_chips("town", grid, size_px=100, overlap_px=0)
        >>> [chip.col for chip in chips_touching(chips, grid, shapely.Point(250, -50))]
        [2]
    """
    if not chips:
        return []
    windows = np.array(
        [(c.window.row_off, c.window.col_off, c.window.row_stop, c.window.col_stop) for c in chips]
    )
    shapely.prepare(aoi)
    touching = shapely.intersects(aoi, _window_polygons(windows, grid))
    return [chip for chip, touches in zip(chips, touching, strict=True) if touches]


def grid_polygon(grid: Grid) -> BaseGeometry:
    """Return the outline of a grid in its CRS: a parallelogram where the transform is rotated."""
    return _window_polygons(np.array([(0, 0, grid.height, grid.width)]), grid)[0]


def _window_polygons(windows: NDArray[np.int64], grid: Grid) -> NDArray[Any]:
    top, left, bottom, right = windows.T
    x, y = grid.xy([top, top, bottom, bottom], [left, right, right, left])  # each (4, N)
    return np.asarray(shapely.polygons(np.stack([x, y], axis=-1).transpose(1, 0, 2)), object)


def _near(geometries: NDArray[Any], crs: CRS, grid: Grid) -> NDArray[Any]:
    """Cut to a rectangle around the scene, in the geometries' CRS; empty ones are dropped."""
    if crs.is_geographic:
        geometries = _with_turns(geometries)
    steps = np.linspace(0, 1, EDGE_POINTS)
    rows, cols = np.meshgrid(steps * grid.height, steps * grid.width, indexing="ij")
    x, y = grid.xy(rows.ravel(), cols.ravel())
    points = shapely.get_coordinates(reprojected(shapely.points(x, y), grid.crs, crs))
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return geometries
    low, high = points.min(axis=0), points.max(axis=0)
    if crs.is_geographic and high[0] - low[0] > 180:  # the scene lies across the antimeridian
        low[0], high[0] = -540.0, 540.0
    margin = (high - low) * MARGIN + 1e-9
    near = shapely.clip_by_rect(geometries, *(low - margin), *(high + margin))
    return np.asarray(near[~shapely.is_empty(near)], object)


def _with_turns(geometries: NDArray[Any]) -> NDArray[Any]:
    """Repeat longitudes one turn east and west: 190 and -170 are one place."""
    turns = [
        shapely.transform(geometries, lambda xy, turn=turn: xy + np.array([turn, 0.0]))
        for turn in (0.0, 360.0, -360.0)
    ]
    return np.concatenate(turns)


def _span(bounds: Sequence[float], crs: CRS) -> str:
    box = np.array([shapely.box(*bounds)], object)
    lonlat = shapely.total_bounds(reprojected(box, crs, CRS(LONLAT)))
    if not np.isfinite(lonlat).all():
        return "no place on the Earth"
    west, south, east, north = lonlat
    return f"longitude {west:.5f} to {east:.5f} and latitude {south:.5f} to {north:.5f}"
