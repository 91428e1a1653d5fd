"""Geometries between frames: a CRS, the pixels of a grid, a metric frame around what there is.

Pixels are points (x = col, y = row) at pixel edges. Every point moves by itself, so corners that
neighbours share stay shared to the bit. The metric frame is metres east and north of the middle in
Lambert's equal-area azimuthal projection: areas are exact, lengths to 0.1% within 500 km, no zone
ends in the middle of a town, and longitude 180 is nothing special. Imports numpy, pyproj, shapely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from pyproj import CRS, Transformer

from geoseg.grid import apply_transform

if TYPE_CHECKING:
    from geoseg.grid import Grid

Geometries = np.ndarray
"""1-d object array of shapely geometries."""


def to_px(geometries: Geometries, grid: Grid) -> Geometries:
    """Return geometries (N,) of a grid's CRS in its pixels.

    Example:
        >>> from geoseg.testing import make_town
        >>> town = make_town(size_px=300)
        >>> outlines = to_px(town.truth.geometry.to_numpy(), town.grid)
        >>> bool((shapely.total_bounds(outlines) < 300).all())
        True
    """
    to_pixels = ~grid.transform
    moved = shapely.transform(geometries, lambda xy: apply_transform(to_pixels, xy))
    return np.asarray(moved, object)


def from_px(geometries: Geometries, grid: Grid) -> Geometries:
    """Return geometries (N,) of a grid's pixels in its CRS; rings turn where the rows go south."""
    moved = shapely.transform(geometries, lambda xy: apply_transform(grid.transform, xy))
    return np.asarray(moved, object)


def ground_frame(lonlat: Geometries) -> CRS:
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


def moved(shapes: Geometries, source: CRS, target: CRS) -> Geometries:
    """Return (N,) geometries in another frame, corner by corner: what is short stays straight."""
    transformer = Transformer.from_crs(source, target, always_xy=True)
    return np.asarray(
        shapely.transform(
            shapes, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
        ),
        object,
    )
