"""Regular outlines: exact shapes come back from their masks, and nothing else decides."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely.affinity import rotate, translate
from shapely.geometry import Polygon, box

from geoseg.errors import ConfigError
from geoseg.polygonize import contour
from geoseg.regularize import RegularizeOptions, regularize
from geoseg.testing import make_town, worn_masks
from geoseg.testing.worn import Wear

GSD_M = 0.3
CLEAN = Wear(blur_px=1.0, noise=0, shift_px=0, merged_share=0)
PLAIN = RegularizeOptions()

L_SHAPE = Polygon([(0, 0), (60, 0), (60, 25), (25, 25), (25, 60), (0, 60)])
T_SHAPE = Polygon([(0, 0), (70, 0), (70, 22), (47, 22), (47, 60), (23, 60), (23, 22), (0, 22)])
U_SHAPE = Polygon([(0, 0), (80, 0), (80, 60), (58, 60), (58, 22), (22, 22), (22, 60), (0, 60)])
COURTYARD = Polygon(box(0, 0, 90, 80).exterior, [box(25, 25, 65, 55).exterior])
STAIRS = Polygon([(0, 0), (20, 0), (20, 12), (40, 12), (40, 24), (60, 24), (60, 50), (0, 50)])
BENT = Polygon([(0, 0), (60, 0), (112, 30), (100, 51), (54, 24), (0, 24)])
TRAPEZOID = Polygon([(0, 0), (70, 0), (50, 40), (0, 40)])
TRIANGLE = Polygon([(0, 0), (70, 0), (0, 60)])
CHAMFERED = Polygon([(0, 0), (60, 0), (60, 33), (48, 45), (0, 45)])


def placed(shape: Polygon, angle_deg: float = 0.0) -> Polygon:
    turned = rotate(shape, angle_deg)
    return translate(turned, 20 - turned.bounds[0], 20 - turned.bounds[1])


def traced(shapes: list[Polygon], wear: Wear = CLEAN, seed: int = 0) -> np.ndarray:
    return contour(*worn_masks(shapes, seed=seed, wear=wear))


def made(shapes: np.ndarray, options: RegularizeOptions = PLAIN):
    return regularize(shapes, scale_xy=(GSD_M, GSD_M), options=options)


def corners(shape: shapely.Geometry) -> int:
    rings = shapely.get_rings(shapely.get_parts(shape))
    return int((shapely.get_num_coordinates(rings) - 1).sum())


def iou(one: shapely.Geometry, other: shapely.Geometry) -> float:
    return shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other))


def turns_deg(shape: shapely.Polygon) -> np.ndarray:
    """Return by how much an outline turns at each corner."""
    steps = np.diff(np.asarray(shape.exterior.coords), axis=0)
    angle = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    return (np.roll(angle, -1) - angle + 180) % 360 - 180


@given(
    width=st.floats(16, 120),
    height=st.floats(16, 120),
    angle=st.floats(0, 180),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
)
@example(width=30, height=30, angle=45, x=0, y=0)
@example(width=16, height=16, angle=0, x=0.5, y=0.5)
@settings(max_examples=60)
def test_rectangles_at_any_angle_come_back(width, height, angle, x, y):
    truth = translate(placed(box(0, 0, width, height), angle), x, y)
    found = made(traced([truth]))
    assert found.regularized.all()
    assert corners(found.shapes[0]) == 4
    np.testing.assert_allclose(np.abs(turns_deg(found.shapes[0].geoms[0])), 90, atol=1e-6)
    assert shapely.hausdorff_distance(found.shapes[0], truth) < 0.8  # px, of masks of whole ones
    assert iou(found.shapes[0], truth) > 0.94


@pytest.mark.parametrize("angle", [0, 17, 45, 71.3])
@pytest.mark.parametrize(
    ("shape", "count"),
    [(L_SHAPE, 6), (T_SHAPE, 8), (U_SHAPE, 8), (COURTYARD, 8), (STAIRS, 8)],
    ids=["L", "T", "U", "courtyard", "stairs"],
)
def test_right_angled_shapes_come_back(shape, count, angle):
    truth = placed(shape, angle)
    found = made(traced([truth]))
    assert corners(found.shapes[0]) == count
    assert shapely.get_num_interior_rings(found.shapes[0].geoms[0]) == len(shape.interiors)
    assert shapely.hausdorff_distance(found.shapes[0], truth) < 1
    for angles in (turns_deg(Polygon(ring)) for ring in shapely.get_rings(found.shapes[0].geoms)):
        np.testing.assert_allclose(np.abs(angles), 90, atol=1e-6)


@pytest.mark.parametrize("angle", [0, 23])
@pytest.mark.parametrize(("shape", "count"), [(BENT, 6), (TRAPEZOID, 4), (TRIANGLE, 3)])
def test_buildings_of_two_directions_come_back(shape, count, angle):
    truth = placed(shape, angle)
    found = made(traced([truth]))
    assert corners(found.shapes[0]) == count
    assert iou(found.shapes[0], truth) > 0.95
    alone = made(traced([truth]), RegularizeOptions(directions=1))
    assert iou(alone.shapes[0], truth) < iou(found.shapes[0], truth)


@pytest.mark.parametrize("angle", [0, 30])
def test_angles_of_45_degrees_only_on_request(angle):
    truth = placed(CHAMFERED, angle)
    assert corners(made(traced([truth])).shapes[0]) == 4
    found = made(traced([truth]), RegularizeOptions(angles=45))
    assert corners(found.shapes[0]) == 5
    assert shapely.hausdorff_distance(found.shapes[0], truth) < 1
    square = made(traced([placed(box(0, 0, 30, 30), angle)]), RegularizeOptions(angles=45))
    assert corners(square.shapes[0]) == 4


@given(radius=st.floats(8, 60), x=st.floats(0, 1), y=st.floats(0, 1))
@settings(max_examples=30)
def test_circles_become_circles_of_their_area(radius, x, y):
    truth = shapely.Point(70 + x, 70 + y).buffer(radius, quad_segs=64)
    raw = traced([truth])
    found = made(raw)
    assert corners(found.shapes[0]) in {16, 24, 32}
    assert shapely.area(found.shapes[0]) == pytest.approx(shapely.area(raw[0]), rel=1e-3)
    assert iou(found.shapes[0], truth) > 0.93
    assert corners(made(raw, RegularizeOptions(circles=False)).shapes[0]) != corners(
        found.shapes[0]
    )


def test_blurred_squares_are_no_circles():
    truth = [placed(box(0, 0, side, side), 5 * side) for side in range(14, 40)]
    found = made(traced(truth, Wear(blur_px=2.0, noise=0, merged_share=0)))
    assert [corners(shape) for shape in found.shapes] == [4] * len(truth)


@pytest.fixture(scope="module")
def town():
    """Return exact outlines of a town, px, and what worn masks of them are traced as."""
    town = make_town(size_px=700, seed=4)
    to = town.grid.transform
    truth = shapely.transform(
        town.truth.geometry.to_numpy(), lambda xy: (xy - (to.c, to.f)) / (to.a, to.e)
    )
    return truth, traced(truth.tolist(), Wear())


def test_worn_masks_of_a_town_become_more_like_the_truth(town):
    truth, raw = town
    found = made(raw)
    before = np.array([iou(*pair) for pair in zip(raw, truth, strict=True)])
    after = np.array([iou(*pair) for pair in zip(found.shapes, truth, strict=True)])
    assert after.mean() > before.mean() + 0.005
    assert found.regularized.mean() > 0.97
    ratio = np.array([corners(a) / corners(b) for a, b in zip(found.shapes, truth, strict=True)])
    assert 0.95 < ratio[found.regularized].mean() < 1.05


def test_outlines_do_not_depend_on_what_they_come_with(town):
    _, raw = town
    whole = made(raw)
    order = np.random.default_rng(0).permutation(len(raw))
    mixed = made(raw[order])
    assert (shapely.to_wkb(mixed.shapes) == shapely.to_wkb(whole.shapes[order])).all()
    assert (mixed.iou_raw == whole.iou_raw[order]).all()
    for at in range(0, len(raw), 17):
        one = made(raw[at : at + 1])
        assert shapely.to_wkb(one.shapes[0]) == shapely.to_wkb(whole.shapes[at])


def test_more_than_are_worked_on_at_once_change_nothing(town, monkeypatch):
    _, raw = town
    whole = made(raw)
    monkeypatch.setattr("geoseg.regularize.regular.AT_ONCE", 7)
    parts = made(raw)
    assert (shapely.to_wkb(parts.shapes) == shapely.to_wkb(whole.shapes)).all()
    assert (parts.regularized == whole.regularized).all()
    assert (parts.iou_raw == whole.iou_raw).all()


def test_everything_stays_valid_and_within_the_bounds(town):
    _, raw = town
    options = RegularizeOptions(least_iou=0.9, hausdorff_m=0.9)
    found = made(raw, options)
    assert shapely.is_valid(found.shapes).all()
    assert not found.regularized.all()
    kept = ~found.regularized
    assert (found.iou_raw[kept] == 1).all()
    assert all(a is b for a, b in zip(found.shapes[kept], raw[kept], strict=True))
    exact = [iou(*pair) for pair in zip(found.shapes, raw, strict=True)]
    np.testing.assert_allclose(found.iou_raw, exact, atol=0.005)
    regular = found.regularized
    assert (found.iou_raw[regular] >= 0.9).all()
    far = shapely.hausdorff_distance(found.shapes[regular], raw[regular]) * GSD_M
    box_ = shapely.bounds(raw[regular])
    diagonal = np.hypot(box_[:, 2] - box_[:, 0], box_[:, 3] - box_[:, 1]) * GSD_M
    assert (far <= np.maximum(0.9, 0.05 * diagonal) + 1e-9).all()


def test_regular_outlines_stay_what_they_are(town):
    truth, raw = town
    once = made(raw)
    regular = once.regularized
    again = made(shapely.segmentize(once.shapes[regular], 1.0))
    same = shapely.hausdorff_distance(again.shapes, once.shapes[regular]) < 0.3
    assert same.mean() > 0.98
    assert shapely.hausdorff_distance(made(truth).shapes, truth).max() < 1


def test_metres_are_those_of_each_axis():
    """Where pixels are not square, right angles are right on the ground."""
    truth = rotate(box(0, 0, 60, 30), 30)
    ground = translate(truth, 40, 40)
    raw = shapely.transform(shapely.segmentize(ground, 0.5), lambda xy: xy / (0.3, 0.6))
    found = regularize(np.array([raw]), scale_xy=(0.3, 0.6), options=PLAIN)
    back = shapely.transform(found.shapes, lambda xy: xy * (0.3, 0.6))
    assert shapely.hausdorff_distance(back[0], ground) < 0.05


def test_nothing_reaches_beyond_the_scene():
    cut = shapely.intersection(rotate(box(-20, 10, 40, 60), 20), box(0, 0, 200, 200))
    raw = np.array([shapely.segmentize(cut, 1.0)])
    found = regularize(raw, scale_xy=(GSD_M, GSD_M), options=PLAIN, shape_hw=(200, 200))
    assert found.regularized.all()
    assert shapely.bounds(found.shapes).min() >= 0
    assert found.iou_raw[0] == pytest.approx(iou(found.shapes[0], raw[0]), abs=0.003)


def test_specks_of_holes_are_filled_and_courtyards_stay():
    shape = Polygon(
        box(0, 0, 90, 80).exterior, [box(10, 10, 13, 13).exterior, box(30, 30, 60, 60).exterior]
    )
    found = made(traced([placed(shape)]))
    assert shapely.get_num_interior_rings(found.shapes[0].geoms[0]) == 1


def test_parts_stay_apart_or_as_they_were():
    two = shapely.MultiPolygon([box(0, 0, 40, 30), box(43, 2, 80, 30)])
    found = made(np.array([shapely.segmentize(two, 1.0)]))
    assert shapely.get_num_geometries(found.shapes[0]) == 2
    assert found.shapes[0].is_valid
    assert iou(found.shapes[0], two) > 0.98


@given(
    points=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 60)), min_size=3, max_size=12),
    angles=st.sampled_from([90, 45]),
    directions=st.integers(1, 3),
)
@settings(max_examples=80)
def test_any_polygon_gives_a_valid_one(points, angles, directions):
    shape = shapely.make_valid(Polygon(points))
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    raw = np.array([shapely.MultiPolygon(parts), shapely.MultiPolygon()])
    found = made(raw, RegularizeOptions(angles=angles, directions=directions))
    assert shapely.is_valid(found.shapes).all()
    assert shapely.is_empty(found.shapes).tolist() == [len(parts) == 0, True]
    assert ((found.iou_raw > 0) & (found.iou_raw <= 1)).all()


@pytest.mark.parametrize(
    "shape",
    [box(0, 0, 0.5, 0.5), box(0, 0, 200, 0.4), box(0, 0, 1e-9, 1e-9), box(0, 0, 4, 3)],
    ids=["tiny", "sliver", "nothing", "small"],
)
def test_tiny_shapes_and_slivers_do_no_harm(shape):
    found = made(np.array([shape, placed(L_SHAPE)]))
    assert shapely.is_valid(found.shapes).all()
    assert not shapely.is_empty(found.shapes).any()
    assert corners(found.shapes[1]) == 6


def test_nothing_in_nothing_out():
    found = made(np.zeros(0, object))
    assert len(found.shapes) == len(found.regularized) == len(found.iou_raw) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("angles", 60),
        ("directions", 0),
        ("directions", 4),
        ("least_wall_m", 0),
        ("least_wall_m", float("nan")),
        ("gap_m", -0.1),
        ("gap_m", float("inf")),
        ("least_iou", 1.5),
        ("hausdorff_m", -1),
    ],
)
def test_options_out_of_range_are_named(key, value):
    with pytest.raises(ConfigError, match=f"^{key} must be .*got {value}$"):
        RegularizeOptions(**{key: value})
