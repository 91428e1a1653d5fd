"""Shapes of both sides of an evaluation, in one metric frame."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.affinity import rotate
from shapely.geometry import LineString, MultiPoint, Point, Polygon, box

from geoseg.errors import VectorError
from geoseg.evaluate.sides import are_areas, metric_crs, metric_shapes, sides

UTM = "EPSG:32736"


def frame(*shapes: object, crs: str | None = UTM) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=list(shapes), crs=crs)


def test_only_what_has_an_area_counts() -> None:
    bow_tie = Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    flat = Polygon([(0, 0), (4, 0), (2, 0)])
    shapes = [box(0, 0, 9, 9), bow_tie, Point(5, 5), LineString([(0, 0), (1, 1)]), Polygon(), flat]
    shapes += [MultiPoint([(0, 0), (1, 1)]), None]
    counted = are_areas(np.array(shapes, object))
    assert counted.tolist() == [True, True, False, False, False, False, False, False]


def test_within_asks_for_the_centroid() -> None:
    shapes = np.array([box(0, 0, 4, 4), box(7, 0, 13, 4), box(9, 0, 15, 4)], object)
    assert are_areas(shapes, within=box(0, 0, 10, 10)).tolist() == [True, True, False]


def test_rows_and_scores_are_those_of_what_counts() -> None:
    pred = frame(Point(1, 1), box(0, 0, 4, 4), box(90, 0, 94, 4)).assign(score=[0.9, 0.8, 0.7])
    found, true = sides(pred, frame(box(0, 0, 4, 4), Point(2, 2)), within=box(0, 0, 10, 10))
    assert (found.rows.tolist(), found.scores.tolist()) == ([1], [0.8])
    assert (true.rows.tolist(), true.scores) == ([0], None)


@pytest.mark.parametrize("crs", ["EPSG:4326", UTM])
def test_shapes_are_measured_in_metres(crs: str) -> None:
    house = frame(box(500_000, 9_500_000, 500_010, 9_500_020))
    one, other = metric_shapes(house.to_crs(crs), house)
    assert shapely.area(one).tolist() == pytest.approx([200], rel=2e-3)
    assert shapely.area(other).tolist() == pytest.approx([200], rel=2e-3)


def test_a_side_without_a_crs_is_named() -> None:
    with pytest.raises(VectorError, match="the truth must have a CRS"):
        metric_shapes(frame(box(0, 0, 1, 1)), frame(box(0, 0, 1, 1), crs=None))


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [(UTM, 500_000, 9_500_000), ("EPSG:32633", 300_000, 6_650_000), ("EPSG:2056", 2.6e6, 1.2e6)],
)
def test_a_crs_of_metres_is_kept(crs: str, x: float, y: float) -> None:
    house = frame(box(x, y, x + 10, y + 10), crs=crs)
    assert metric_crs(house) == house.crs


@pytest.mark.parametrize(
    ("crs", "lon", "lat"),
    [
        ("EPSG:4326", 15, 60),
        ("EPSG:3857", 15, 60),
        ("EPSG:3857", 30, 0.5),  # 0.7% too short from north to south
        ("EPSG:2263", -74, 40.7),  # feet
        ("EPSG:3035", 25, 60),  # equal in area, not in length
        ("EPSG:3413", -45, 89.5),
        ("EPSG:4326", 20, -88),
    ],
)
def test_a_house_has_its_size_on_the_ground_in_any_crs(crs: str, lon: float, lat: float) -> None:
    ground = f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84"
    house = frame(rotate(box(-10, -6, 10, 6), 30), crs=ground)
    given = house.to_crs(crs)
    (shape,), _ = metric_shapes(given, given)
    corners = shapely.get_coordinates(shape)
    walls = np.hypot(*np.diff(corners, axis=0).T)
    assert sorted(walls) == pytest.approx([12, 12, 20, 20], rel=3e-3)
    assert metric_shapes(frame(crs=crs), given)[1][0].area == pytest.approx(240, rel=5e-3)


def test_a_stray_row_changes_nothing_for_the_others() -> None:
    houses = [box(500_000 + 30 * i, 9_500_000, 500_010 + 30 * i, 9_500_020) for i in range(3)]
    stray = frame(*houses, box(1e8, 1e8, 1e8 + 10, 1e8 + 10))
    assert metric_crs(stray) == UTM
    found, _ = sides(stray, frame(*houses), within=None)
    assert shapely.area(found.shapes[:3]).tolist() == pytest.approx([200] * 3)
    degrees = frame(*houses).to_crs("EPSG:4326")
    endless = frame(*degrees.geometry, box(0, 0, np.inf, 1), crs="EPSG:4326")
    found, _ = sides(endless, degrees, within=None)
    assert shapely.area(found.shapes).tolist() == pytest.approx([200] * 3, rel=2e-3)


def test_what_lies_nowhere_on_the_earth_is_refused() -> None:
    lost = frame(box(1e12, 1e12, 2e12, 2e12))
    with pytest.raises(VectorError, match="lie nowhere on the Earth"):
        metric_shapes(lost, lost)


def test_within_is_asked_for_in_the_crs_of_the_footprints() -> None:
    area = box(0, 8_000_000, 600_000, 8_000_010)  # its long edges bend by kilometres in UTM
    house = frame(box(300_000, 8_000_002, 300_006, 8_000_008), crs="EPSG:3857")
    assert [len(side.rows) for side in sides(house, house, within=area)] == [1, 1]


def test_scores_are_the_footprints_and_must_be_numbers() -> None:
    house = frame(box(0, 0, 4, 4))
    found, true = sides(house.assign(score=["0.5"]), house.assign(score=["good"]), within=None)
    assert (found.scores.tolist(), true.scores) == ([0.5], None)
    with pytest.raises(VectorError, match="score must be a number, got 'good'"):
        sides(house.assign(score=["good"]), house, within=None)
