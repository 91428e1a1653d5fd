"""Checks that any set of footprints must pass, worded for a test's failure message.

Frame: whatever CRS the footprints are in; areas are in square metres of a projected frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    import geopandas as gpd

COLUMNS = ("id", "scene", "label", "score", "area_m2", "n_chips", "touches_edge")


def assert_footprints_valid(footprints: gpd.GeoDataFrame) -> None:
    """Assert that footprints have every column, unique ids and valid, counter-clockwise polygons.

    Args:
        footprints: What a footprints stage returned.

    Raises:
        AssertionError: The first promise that is broken, in words.

    Example:
        >>> import geopandas as gpd
        >>> from shapely.geometry import box
        >>> row = {"id": "0" * 16, "scene": "a", "label": "building", "score": 0.5, "area_m2": 1.0}
        >>> row |= {"n_chips": 1, "touches_edge": False, "geometry": box(0, 0, 1, 1)}
        >>> assert_footprints_valid(gpd.GeoDataFrame([row], crs="EPSG:32736"))
    """
    missing = [name for name in COLUMNS if name not in footprints.columns]
    assert not missing, f"columns are missing: {missing}"
    assert footprints.crs is not None, "footprints must have a CRS"
    assert footprints["id"].is_unique, "ids must be unique"
    assert footprints["score"].between(0, 1).all(), "scores must lie in [0, 1]"
    assert (footprints["area_m2"] > 0).all(), "areas must be positive"
    assert (footprints["n_chips"] >= 1).all(), "every footprint was seen by a chip"
    _assert_polygons(footprints)


def _assert_polygons(footprints: gpd.GeoDataFrame) -> None:
    geometry = footprints.geometry.to_numpy()
    assert not (shapely.is_missing(geometry) | shapely.is_empty(geometry)).any(), "empty geometry"
    kinds = set(footprints.geom_type)
    assert kinds <= {"Polygon", "MultiPolygon"}, f"only polygons are footprints, got {kinds}"
    invalid = ~shapely.is_valid(geometry)
    assert not invalid.any(), f"invalid: {shapely.is_valid_reason(geometry[invalid])[:3].tolist()}"
    shells = shapely.get_exterior_ring(shapely.get_parts(geometry))
    assert shapely.is_ccw(shells).all(), "exteriors must run counter-clockwise"


def assert_no_overlaps(footprints: gpd.GeoDataFrame, tolerance_m2: float = 1e-6) -> None:
    """Assert that no two footprints share more ground than a tolerance; shared walls are fine.

    Args:
        footprints: Polygons in any CRS; a geographic one is projected to UTM first.
        tolerance_m2: Largest shared area of a pair, square metres.

    Raises:
        AssertionError: Names the worst pair and its shared area.

    Example:
        >>> import geopandas as gpd
        >>> from shapely.geometry import box
        >>> houses = gpd.GeoSeries([box(0, 0, 1, 1), box(1, 0, 2, 1)], crs="EPSG:32736")
        >>> assert_no_overlaps(houses.to_frame("geometry"))
    """
    if len(footprints) < 2:
        return
    if footprints.crs is not None and not footprints.crs.is_projected:
        footprints = footprints.to_crs(footprints.estimate_utm_crs())
    geometry = footprints.geometry.to_numpy()
    first, second = shapely.STRtree(geometry).query(geometry, predicate="intersects")
    first, second = first[first < second], second[first < second]
    shared_m2 = shapely.area(shapely.intersection(geometry[first], geometry[second]))
    worst = int(np.argmax(shared_m2)) if len(shared_m2) else None
    assert worst is None or shared_m2[worst] <= tolerance_m2, (
        f"rows {first[worst]} and {second[worst]} overlap by {shared_m2[worst]:.3g} m2"
    )
