"""Shapes of both sides of an evaluation, in one metric frame."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, MultiPoint, Point, Polygon, box

from geoseg.errors import VectorError
from geoseg.evaluate.sides import are_areas, metric_shapes, sides

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
