"""Where footprints are: the area of interest that what is mapped is read for.

Frame: WGS84 degrees, longitudes in [-180, 180]. Footprints in two towns give two areas, not the
land between them, and one that crosses longitude 180 has a part on each side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from geoseg.grid import METRES_PER_DEGREE

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL_DEGREES: Final = 0.02
"""Areas are whole cells of this side: about 2 km, small against what a file holds."""
_MOST_LATITUDE: Final = 89.0  # nearer to a pole a degree of longitude has no length to speak of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Near:
    """The places near some geometries, as boxes."""

    tree: shapely.STRtree

    @classmethod
    def of(cls, lonlat: NDArray[Any], *, margin_m: float) -> Near:
        """Describe the places within a distance of geometries.

        Args:
            lonlat: (N,) geometries in longitude and latitude; any length, also none.
            margin_m: At least this far, on the ground.

        Example:
            >>> near = Near.of(np.array([shapely.Point(10.01, 50.01)]), margin_m=100)
            >>> near.touches(np.array([[10.0, 50, 10.001, 50.001], [10.1, 50, 10.2, 50.1]]))
            array([ True, False])
        """
        west, south, east, north = _bounds(lonlat).T
        lat_pad = margin_m / METRES_PER_DEGREE
        steepest = np.minimum(np.maximum(abs(south), abs(north)) + lat_pad, _MOST_LATITUDE)
        lon_pad = lat_pad / np.cos(np.radians(steepest))
        low = np.floor(np.c_[west - lon_pad, south - lat_pad] / CELL_DEGREES)
        high = np.ceil(np.c_[east + lon_pad, north + lat_pad] / CELL_DEGREES)
        boxes = np.unique(np.c_[low, high], axis=0) * CELL_DEGREES
        return cls(tree=shapely.STRtree(shapely.box(*_wrapped(boxes).T)))

    def touches(self, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of (N, 4) west, south, east, north are near; (N,).

        Bounds that are not numbers are nowhere.
        """
        finite = np.flatnonzero(np.isfinite(bounds).all(axis=1))
        found = np.zeros(len(bounds), np.bool_)
        hits, _ = self.tree.query(shapely.box(*bounds[finite].T))
        found[finite[hits]] = True
        return found


def _bounds(lonlat: NDArray[Any]) -> NDArray[np.float64]:
    """Return bounds with east beyond 180 where a geometry's parts lie on both sides of it."""
    bounds = np.asarray(shapely.bounds(lonlat), np.float64).reshape(-1, 4)
    for i in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
        lon = shapely.get_coordinates(lonlat[i])[:, 0]
        bounds[i, 0], bounds[i, 2] = lon[lon > 0].min(), lon[lon < 0].max() + 360
    return bounds[np.isfinite(bounds).all(axis=1)]


def _wrapped(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = np.array([360.0, 0, 360, 0])
    beyond, before = boxes[boxes[:, 2] >= 180], boxes[boxes[:, 0] <= -180]
    return np.concatenate([boxes, beyond - turn, before + turn])
