"""Finished maps read whole, with where they come from, and the areas of them that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely

from geoseg.errors import ConfigError, FormatError, VectorError
from geoseg.evaluate.sides import are_areas, scores_of
from geoseg.footprints import concat_footprints
from geoseg.stages.origin import Origin
from geoseg.vector import footprints_info, read_footprints, read_vector

if TYPE_CHECKING:
    from pathlib import Path

    from pyproj import CRS

    from geoseg.grid import Grid

EVERYWHERE = "all"


def read_table(path: Path) -> gpd.GeoDataFrame:
    """Return all rows of a footprints file.

    Raises:
        GeosegError: It is missing or damaged.
    """
    frames = list(read_footprints(path))
    return concat_footprints(frames, frames[0].crs if frames else footprints_info(path).crs)


def footprints_origin(path: Path) -> Origin | None:
    """Return where a file of footprints comes from; None where it does not say.

    Raises:
        FormatError: Its description is damaged.
    """
    metadata = footprints_info(path).metadata
    return Origin.from_json(metadata["origin"]) if "origin" in metadata else None


def read_map(path: Path, *, may_be_empty: bool = False) -> tuple[gpd.GeoDataFrame, Origin | None]:
    """Read footprints of ours, or any vector file.

    Args:
        path: In any format and CRS.
        may_be_empty: Whether footprints of ours may be none: a step can drop all there are.

    Returns:
        Footprints, at least one unless told otherwise; and where they come from, where the file
        says so.

    Raises:
        ConfigError: It is empty.
        GeosegError: It is not there or not what it should be.
    """
    try:
        frame = read_table(path)
    except (FormatError, VectorError):
        return _with_scores(read_vector(path), path), None
    if frame.empty and not may_be_empty:
        raise ConfigError(f"{path} must hold at least one footprint, it is empty")
    return frame, footprints_origin(path)


def _with_scores(frame: gpd.GeoDataFrame, path: Path) -> gpd.GeoDataFrame:
    """Return anyone's rows with their scores, if there are any, as numbers."""
    try:
        scores = scores_of(frame)
    except VectorError as error:
        raise VectorError(f"{path}: {error}") from error
    return frame if scores is None else frame.assign(score=scores)


def read_area(text: str, *, crs: CRS, origin: Origin | None) -> shapely.Geometry | None:
    """Return the area that a word names; None for everything.

    Args:
        text: `all`; the part LEFT,TOP,RIGHT,BOTTOM of a map's scene, each from 0 to 1; or the path
            of a vector file in any CRS.
        crs: Of the area.
        origin: Where the map comes from; None where that is not known.

    Raises:
        ConfigError: The part is none, or is asked for where the scene is not known.
        GeosegError: The file is not there or is not what it should be.
    """
    if text == EVERYWHERE:
        return None
    try:
        sides = tuple(float(word) for word in text.split(","))
    except ValueError:
        return shapely.union_all(read_vector(text, crs=crs).geometry.to_numpy())
    if len(sides) != 4 or not (0 <= sides[0] < sides[2] <= 1 and 0 <= sides[1] < sides[3] <= 1):
        raise ConfigError(
            f"a part must be LEFT,TOP,RIGHT,BOTTOM, shares of the scene from 0 to 1, got {text}"
        )
    if origin is None:
        raise ConfigError(f"the part {text} needs footprints that say which scene they are of")
    return gpd.GeoSeries([part_of(origin.grid, sides)], crs=origin.grid.crs).to_crs(crs).iloc[0]


def part_of(grid: Grid, sides: tuple[float, ...]) -> shapely.Polygon:
    """Return a part (left, top, right, bottom) of a grid, shares of its sides, in its CRS."""
    left, top, right, bottom = sides
    rows = np.array([top, top, bottom, bottom]) * grid.height
    cols = np.array([left, right, right, left]) * grid.width
    return shapely.Polygon(np.column_stack(grid.xy(rows, cols)))


def centred_in(area: shapely.Geometry | None, frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return the rows that are areas, with centroids in one in their CRS where that is given."""
    return frame[are_areas(frame.geometry.to_numpy(), within=area)].reset_index(drop=True)
