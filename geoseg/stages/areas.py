"""Areas that count: a file of polygons, or a part of a map's own scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import shapely

from geoseg.errors import ConfigError
from geoseg.vector import read_vector

if TYPE_CHECKING:
    from geoseg.grid import Grid

EVERYWHERE = "all"


def read_area(text: str, *, crs: object, grid: Grid | None) -> shapely.Geometry | None:
    """Return the area that a word names, in a CRS; None for everything.

    Args:
        text: `all`; the part LEFT,TOP,RIGHT,BOTTOM of a scene, each from 0 to 1; or the path of a
            vector file in any CRS.
        crs: Of the area.
        grid: Of the scene, in that CRS; None where it is not known.

    Raises:
        ConfigError: The part is none, or is asked for where the scene is not known.
        GeosegError: The file is not there or is not what it should be.
    """
    if text == EVERYWHERE:
        return None
    try:
        sides = tuple(float(word) for word in text.split(","))
    except ValueError:
        outlines = read_vector(text, crs=crs).geometry.to_numpy()
        return shapely.union_all(outlines)
    if len(sides) != 4 or not (0 <= sides[0] < sides[2] <= 1 and 0 <= sides[1] < sides[3] <= 1):
        raise ConfigError(
            f"a part must be LEFT,TOP,RIGHT,BOTTOM, shares of the scene from 0 to 1, got {text}"
        )
    if grid is None:
        raise ConfigError(f"the part {text} needs footprints that say which scene they are of")
    left, top, right, bottom = sides
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon([grid.transform * (x * grid.width, y * grid.height) for x, y in corners])
