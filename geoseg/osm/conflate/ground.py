"""A metric frame around footprints: metres east and north of their middle.

Lambert's equal-area azimuthal projection: areas are exact, lengths to 0.1% within 500 km, no zone
ends in the middle of a town, and longitude 180 is nothing special.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS, Transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ground_frame(lonlat: NDArray[Any]) -> CRS:
    """Return the frame around the middle of some geometries.

    Args:
        lonlat: (N,) geometries in longitude and latitude; at least one.

    Example:
        >>> frame = ground_frame(np.array([shapely.Point(179, 10), shapely.Point(-179, 10)]))
        >>> frame.to_json_dict()["conversion"]["parameters"][1]["value"]
        180
    """
    lon, lat = np.radians(shapely.get_coordinates(shapely.centroid(lonlat))).T
    x, y, z = (np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean(), np.sin(lat)
    middle_lon = np.degrees(np.arctan2(y, x))
    middle_lat = np.degrees(np.arctan2(z.mean(), np.hypot(x, y)))
    return CRS.from_dict(
        {
            "proj": "laea",
            "lon_0": round(float(middle_lon), 3),
            "lat_0": round(float(middle_lat), 3),
            "datum": "WGS84",
            "units": "m",
        }
    )


def moved(shapes: NDArray[Any], source: CRS, target: CRS) -> NDArray[Any]:
    """Return (N,) geometries in another frame, corner by corner: what is short stays straight."""
    transformer = Transformer.from_crs(source, target, always_xy=True)
    return np.asarray(
        shapely.transform(
            shapes, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
        ),
        object,
    )
