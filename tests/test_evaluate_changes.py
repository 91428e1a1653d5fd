"""What became of footprints, against maps whose changes are known."""

from __future__ import annotations

import math

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from geoseg.evaluate.changes import best_ious, building_gains, find_changes, measure_gain
from geoseg.evaluate.gallery import AFTER, BEFORE, PANEL_PX, TRUTH, Panel, draw_gallery

CRS = "EPSG:32736"


def frame(*shapes: shapely.Geometry, **columns: object) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=CRS)


def house(x: float, y: float = 0.0, size: float = 10.0) -> shapely.Polygon:
    return box(x, y, x + size, y + size)


def test_each_kind_of_change_is_counted():
    before = frame(house(0), house(100), house(200), house(300), score=[0.9, 0.8, 0.7, 0.6])
    after = frame(house(400), house(0), house(100, 1), house(200), score=[0.1, 0.2, 0.3, 0.4])
    found = find_changes(before, after)
    assert found.removed.tolist() == [3]
    assert found.added.tolist() == [0]
    pairs = dict(zip(found.before.tolist(), found.after.tolist(), strict=True))
    assert pairs == {0: 1, 1: 2, 2: 3}
    told = found.as_dict()
    assert (told["n_before"], told["n_after"]) == (4, 4)
    assert (told["n_same"], told["n_changed"], told["n_removed"], told["n_added"]) == (2, 1, 1, 1)
    assert told["mean_iou_of_changed"] == told["least_iou_of_changed"] == pytest.approx(90 / 110)
    assert told["area_ratio"] == pytest.approx(1)
    assert told["mean_corners_before"] == told["mean_corners_after"] == 4


def test_another_crs_and_another_order_change_nothing():
    before = frame(house(0), house(100), house(200))
    turned = before.iloc[::-1].to_crs("EPSG:4326")
    told = find_changes(before, turned).as_dict()
    assert told["n_changed"] in (0, 3)  # rounding of the projection is no change to speak of
    assert told["n_removed"] == told["n_added"] == 0
    assert not told["least_iou_of_changed"] < 1 - 1e-5


def test_maps_of_nothing_are_compared_too():
    told = find_changes(frame(), frame(house(0))).as_dict()
    assert (told["n_before"], told["n_added"]) == (0, 1)
    assert math.isnan(told["area_ratio"])
    assert math.isnan(told["mean_iou_of_changed"])


def test_a_footprint_cut_in_two_keeps_the_larger_part_as_its_own():
    before, after = frame(box(0, 0, 30, 10)), frame(box(0, 0, 10, 10), box(10, 0, 30, 10))
    found = find_changes(before, after)
    assert (found.after.tolist(), found.added.tolist()) == ([1], [0])


places = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(2, 12)), min_size=1, max_size=8
)


@given(places, places)
def test_best_ious_are_those_of_a_loop(found, there):
    pred, truth = (frame(*(house(x, y, s) for x, y, s in side)) for side in (found, there))
    expected = [
        max(t.intersection(p).area / t.union(p).area for p in pred.geometry) for t in truth.geometry
    ]
    assert best_ious(pred, truth) == pytest.approx(expected)


def test_gains_are_of_buildings_not_of_footprints():
    truth = frame(house(0), house(100), house(200))
    before = frame(house(1), house(100), house(205), score=[0.9] * 3)
    after = frame(house(0), house(102), house(300), score=[0.9] * 3)
    gains = building_gains(before, after, truth)
    assert gains == pytest.approx([1 - 90 / 110, 80 / 120 - 1, -50 / 150])
    told = measure_gain(before, after, truth)
    assert told["buildings"]["n_better"] == 1
    assert told["buildings"]["n_worse"] == 2
    assert told["before"]["f1@.5"] == told["after"]["f1@.5"] == pytest.approx(2 / 3)


def test_a_panel_shows_all_three_outlines():
    side = 100
    panel = Panel(
        image=np.zeros((side, side, 3), np.uint8),
        before=[box(10, 10, 30, 90)],
        after=[box(40, 10, 60, 90)],
        truth=[shapely.MultiPolygon([box(70, 10, 90, 40), box(70, 60, 90, 90)])],
        caption="IoU 0.00",
    )
    sheet = np.asarray(draw_gallery([panel] * 5, title="t")).astype(int)
    place = sheet[-2 * PANEL_PX :]
    for colour, x in ((BEFORE, 0.2), (AFTER, 0.5), (TRUTH, 0.8)):
        near = np.abs(place - np.array(colour)).max(axis=-1) < 60
        columns = np.flatnonzero(near.any(axis=0))
        assert len(columns), colour
        assert np.abs(columns % (PANEL_PX + 10) - (10 + x * PANEL_PX)).min() < 0.15 * PANEL_PX
    assert draw_gallery([], title="nothing changed").size[0] == sheet.shape[1]
