from __future__ import annotations

import math

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import rotate, translate
from shapely.geometry import Polygon, box

from geoseg.chips import plan_chips
from geoseg.errors import ConfigError, VectorError
from geoseg.evaluate import evaluate_footprints
from geoseg.evaluate.seams import chip_borders, seam_gap
from geoseg.evaluate.shapes import (
    boundary_ious,
    max_tangent_angle_errors_deg,
    measure_shapes,
    n_corners,
    polis,
    rotation_errors_deg,
)
from tests.builders import make_grid

UTM = "EPSG:32633"


def frame(*shapes: shapely.Geometry) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=list(shapes), crs=UTM)


def array(*shapes: shapely.Geometry) -> np.ndarray:
    return np.array(shapes, object)


def test_the_same_outline_fits_perfectly():
    court = box(0, 0, 20, 20).difference(box(5, 5, 15, 15))
    measures = measure_shapes(frame(court, box(40, 0, 50, 8)), frame(court, box(40, 0, 50, 8)))
    assert measures.n_pairs == 2
    assert measures.boundary_iou == measures.boundary_f1 == measures.c_iou == 1
    assert measures.vertex_ratio == 1
    assert measures.polis_m == measures.hausdorff_m == measures.area_bias == 0
    assert measures.rotation_error_deg == measures.max_tangent_angle_error_deg == 0


def test_corners_are_counted_once_and_holes_too():
    court = box(0, 0, 20, 20).difference(box(5, 5, 15, 15))
    assert n_corners(array(box(0, 0, 1, 1), court)).tolist() == [4, 8]


def test_boundary_iou_of_a_shifted_square():
    """Squares of 10 m with bands of 0.3 m, shifted by 0.1 m: bands share 9.8 x 9.8 less corners."""
    one, other = box(0, 0, 10, 10), box(0.1, 0, 10.1, 10)
    band = 10 * 10 - 9.4 * 9.4
    shared = (
        shapely.box(0.1, 0, 10, 10)
        .difference(shapely.box(0.3, 0.3, 9.7, 9.7))
        .difference(shapely.box(0.4, 0.3, 9.8, 9.7))
    )
    expected = shared.area / (2 * band - shared.area)
    assert boundary_ious(array(one), array(other))[0] == pytest.approx(expected)


def test_c_iou_punishes_needless_corners():
    rough = Polygon([(0, 0), (5, 0), (10, 0), (10, 10), (5, 10), (0, 10)])
    measures = measure_shapes(frame(rough), frame(box(0, 0, 10, 10)))
    assert measures.vertex_ratio == pytest.approx(6 / 4)
    assert measures.c_iou == pytest.approx(1 - 2 / 10)


def test_polis_of_a_shifted_square():
    """Shifted by 1 m in x: every corner is 0 m or 1 m from the other outline.

    Left corners of the left square are 1 m away, right ones lie on the other's edges; and the
    reverse: the means are .5 and .5.
    """
    one, other = box(0, 0, 10, 10), box(1, 0, 11, 10)
    assert polis(array(one), array(other))[0] == pytest.approx(0.5)


@settings(max_examples=25)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 40))
def test_polis_is_what_the_paper_says(dx, dy, angle):
    one = rotate(translate(box(0, 0, 12, 7), dx, dy), angle)
    other = Polygon([(0, 0), (12, 0), (12, 4), (6, 4), (6, 7), (0, 7)])

    def half(a: Polygon, b: Polygon) -> float:
        points = [shapely.Point(p) for p in a.exterior.coords[:-1]]
        return sum(b.boundary.distance(p) for p in points) / (2 * len(points))

    expected = half(one, other) + half(other, one)
    assert polis(array(one), array(other))[0] == pytest.approx(expected)


@pytest.mark.parametrize("angle", [0, 3, 20, 44, 46, 90, 137, 180])
def test_turned_rectangles_are_apart_by_their_angle(angle):
    base = box(0, 0, 20, 8)
    expected = min(angle % 90, 90 - angle % 90)
    turned = array(rotate(base, angle))
    assert rotation_errors_deg(turned, array(base))[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("angle", [0, 2, 10, 25])
def test_tangents_of_a_turned_square_are_apart_by_its_angle(angle):
    base = box(0, 0, 20, 20)
    found = max_tangent_angle_errors_deg(array(rotate(base, angle)), array(base))
    assert found[0] == pytest.approx(angle, abs=0.1)


def test_a_cut_corner_is_45_degrees_off():
    cut = Polygon([(0, 0), (15, 0), (20, 5), (20, 20), (0, 20)])
    found = max_tangent_angle_errors_deg(array(cut), array(box(0, 0, 20, 20)))
    assert found[0] == pytest.approx(45, abs=0.1)


def test_measures_of_many_are_those_of_each():
    rng = np.random.default_rng(0)
    truths = [rotate(box(0, 0, 8 + i % 5, 6), 7 * i) for i in range(20)]
    preds = [rotate(translate(t, *rng.normal(0, 0.3, 2)), rng.normal(0, 5)) for t in truths]
    preds[3] = preds[3].buffer(0.5)
    for function in (boundary_ious, polis, max_tangent_angle_errors_deg, rotation_errors_deg):
        together = function(array(*preds), array(*truths))
        alone = [function(array(p), array(t))[0] for p, t in zip(preds, truths, strict=True)]
        np.testing.assert_allclose(together, alone, atol=1e-9)


def test_boundary_f1_counts_what_was_missed():
    truth = frame(box(0, 0, 10, 10), box(50, 0, 60, 10))
    assert measure_shapes(truth.iloc[:1], truth).boundary_f1 == pytest.approx(2 / 3)


def test_what_is_no_area_is_not_missed():
    truth = frame(box(0, 0, 10, 10), shapely.Point(50, 5), shapely.LineString([(0, 20), (9, 20)]))
    assert measure_shapes(truth.iloc[:1], truth).boundary_f1 == 1


def test_nothing_matched_is_undefined():
    measures = measure_shapes(frame(box(0, 0, 1, 1)), frame(box(90, 90, 99, 99)))
    assert measures.n_pairs == 0
    assert measures.boundary_f1 == 0
    assert all(math.isnan(v) for k, v in measures.as_dict().items()
               if k not in {"n_pairs", "boundary_f1"})  # fmt: skip


@pytest.mark.parametrize(
    ("crs", "lon", "lat"),
    [
        ("EPSG:4326", 25, 60),
        ("EPSG:3857", 25, 60),
        ("EPSG:3857", 85.5, 27.6),
        ("EPSG:3857", 30, 0),
        ("EPSG:32635", 25, 60),
        ("EPSG:2263", -74, 40.7),
        ("EPSG:3413", -45, 89),
    ],
)
def test_figures_are_those_of_the_ground_in_any_crs(crs, lon, lat):
    ground = f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84"
    houses = [rotate(box(x, y, x + 12, y + 10), x) for x in (-60, 0, 60) for y in (-50, 30)]
    shifted = [translate(house, 1) for house in houses]
    truth, pred = (gpd.GeoDataFrame(geometry=side, crs=ground) for side in (houses, shifted))
    pred = pred.assign(score=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    given = (pred.to_crs(crs), truth.to_crs(crs))
    expected = measure_shapes(pred, truth).as_dict() | evaluate_footprints(pred, truth).as_dict()
    found = measure_shapes(*given).as_dict() | evaluate_footprints(*given).as_dict()
    assert found.pop("max_tangent_angle_error_deg") < 0.5
    assert found.pop("rotation_error_deg") < 0.1
    assert {k: expected[k] for k in found} == pytest.approx(found, rel=5e-3, abs=1e-4)


def test_a_side_without_crs_is_refused():
    with pytest.raises(VectorError, match="must have a CRS"):
        measure_shapes(frame(box(0, 0, 1, 1)), gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)]))


# --- seams -------------------------------------------------------------------------------------

GRID = make_grid(height=500, width=500)
CHIPS = plan_chips("s", GRID, size_px=300, overlap_px=60)


def px(x0: float, y0: float, x1: float, y1: float) -> shapely.Polygon:
    x, y = GRID.xy([y1, y0], [x0, x1])
    return box(x[0], y[0], x[1], y[1])


def test_borders_are_those_inside_the_scene():
    borders = chip_borders(CHIPS, GRID)
    assert shapely.length(shapely.union_all(borders)) == pytest.approx(4 * 500 * 0.5)


def test_a_seam_that_costs_shows_as_a_gap():
    inside = [px(20, 20, 60, 60), px(400, 400, 440, 440)]
    crossing = [px(180, 20, 240, 60), px(280, 400, 340, 440)]
    truth = frame(*inside, *crossing)
    found = seam_gap(frame(*inside, crossing[0]), truth, chips=CHIPS, grid=GRID)
    assert (found.n_crossing, found.n_inside) == (2, 2)
    assert found.f1_inside == 1
    assert found.gap == pytest.approx(2 / 3 - 1)
    halves = [px(280, 400, 300, 440), px(300, 400, 340, 440)]
    torn = seam_gap(frame(*inside, crossing[0], *halves), truth, chips=CHIPS, grid=GRID)
    assert torn.f1_crossing == pytest.approx(4 / 5)  # one half has IoU 2/3, the other is too many
    assert torn.f1_inside == 1


def test_what_is_no_area_crosses_no_seam():
    buildings = frame(px(20, 20, 60, 60), px(180, 20, 240, 60))
    points = frame(*shapely.centroid(buildings.geometry.to_numpy()))
    both = pd.concat([buildings, points], ignore_index=True)
    alone = seam_gap(buildings, buildings, chips=CHIPS, grid=GRID)
    assert seam_gap(both, both, chips=CHIPS, grid=GRID) == alone
    assert (alone.n_crossing, alone.n_inside, alone.gap) == (1, 1, 0)


def test_no_chips_are_refused():
    with pytest.raises(ConfigError, match="chips must be"):
        seam_gap(frame(box(0, 0, 1, 1)), frame(box(0, 0, 1, 1)), chips=[], grid=GRID)
