"""Shared walls: terraces close up, nothing else moves, and the order of rows decides nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import rotate, scale, translate
from shapely.geometry import Polygon, box

from geoseg.polygonize import contour
from geoseg.regularize import RegularizeOptions, regularize, share_walls
from geoseg.testing import Wear, make_town, worn_masks

CLOSE = RegularizeOptions(gap_m=0.75)


def shared_m2(shapes: np.ndarray) -> float:
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = one < other
    return float(shapely.area(shapely.intersection(shapes[one[pairs]], shapes[other[pairs]])).sum())


def gaps_m2(shapes: np.ndarray, width_m: float = 0.7) -> float:
    """Return the area of what lies between shapes less than a width apart."""
    union = shapely.union_all(shapes)
    with np.errstate(invalid="ignore"):  # GEOS: corners of less than rounding
        grown = shapely.buffer(union, width_m / 2, join_style="mitre")
        closed = shapely.buffer(grown, -width_m / 2 - 1e-9, join_style="mitre")
    return float(shapely.area(shapely.difference(closed, union)))


def terrace(rng: np.random.Generator, n: int, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Return houses that share walls exactly, and the same houses turned, moved and resized."""
    cuts = np.cumsum(rng.uniform(5, 9, n + 1))
    exact = [box(cuts[i], 0, cuts[i + 1], 11) for i in range(n)]
    loose = [
        translate(
            rotate(scale(house, *rng.uniform(0.97, 1.03, 2)), rng.normal(0, 0.7)),
            *rng.normal(0, 0.1, 2),
        )
        for house in exact
    ]
    origin = (0, 0)
    turn = [[rotate(h, angle_deg, origin=origin) for h in houses] for houses in (exact, loose)]
    return np.array(turn[0]), np.array(turn[1])


@given(seed=st.integers(0, 10**6), n=st.integers(2, 9), angle=st.floats(0, 180))
@settings(max_examples=60)
def test_terraces_close_up(seed, n, angle):
    exact, loose = terrace(np.random.default_rng(seed), n, angle)
    found = share_walls(loose, options=CLOSE)
    assert shapely.is_valid(found).all()
    assert shared_m2(found) < 1e-6
    assert gaps_m2(found) < 0.02 * shapely.area(exact).sum()
    off = [shapely.area(shapely.symmetric_difference(s, exact)).sum() for s in (loose, found)]
    assert off[1] < 1.25 * off[0]
    assert (shapely.get_num_coordinates(found) == 5).all()


@given(seed=st.integers(0, 10**6), angle=st.floats(0, 180))
@settings(max_examples=60)
def test_flush_houses_have_the_same_corners_to_the_bit(seed, angle):
    """GEOS finds one polygon all inside the other where corners differ in the last digit."""
    rng = np.random.default_rng(seed)
    houses = [translate(box(8 * i, 0, 8 * i + 7.8, 11), *rng.normal(0, 0.05, 2)) for i in range(5)]
    turned = np.array([rotate(house, angle, origin=(0, 0)) for house in houses])
    found = share_walls(turned, options=CLOSE)
    points = [set(map(tuple, np.asarray(shape.exterior.coords))) for shape in found]
    assert [len(a & b) for a, b in itertools.pairwise(points)] == [2] * 4
    assert shared_m2(found) < 1e-9


@given(seed=st.integers(0, 10**6), angle=st.floats(0, 180))
@settings(max_examples=30)
def test_the_order_of_rows_changes_no_bit(seed, angle):
    rng = np.random.default_rng(seed)
    _, loose = terrace(rng, 6, angle)
    order = rng.permutation(len(loose))
    one, other = share_walls(loose, options=CLOSE), share_walls(loose[order], options=CLOSE)
    assert (shapely.to_wkb(one[order]) == shapely.to_wkb(other)).all()


def test_other_groups_change_no_bit():
    _, one = terrace(np.random.default_rng(1), 5, 20)
    _, other = terrace(np.random.default_rng(2), 4, 70)
    far = np.array([translate(house, 300, 100) for house in other])
    both = share_walls(np.concatenate([far, one]), options=CLOSE)
    assert (shapely.to_wkb(both[4:]) == shapely.to_wkb(share_walls(one, options=CLOSE))).all()


def test_houses_further_apart_are_the_same_objects():
    houses = np.array([box(0, 0, 8, 8), box(9, 0, 15, 8), box(0, 8.8, 8, 15), box(30, 30, 40, 40)])
    found = share_walls(houses, options=CLOSE)
    assert all(a is b for a, b in zip(found, houses, strict=True))
    near = np.array([box(0, 0, 8, 8), box(8.5, 0, 15, 8)])
    off = share_walls(near, options=RegularizeOptions(gap_m=0))
    assert all(a is b for a, b in zip(off, near, strict=True))


def test_a_corner_near_a_wall_is_no_shared_wall():
    houses = np.array([box(0, 0, 8, 8), rotate(box(8.9, 2, 14, 7), 45)])
    found = share_walls(houses, options=CLOSE)
    assert all(a is b for a, b in zip(found, houses, strict=True))


def test_a_long_wall_is_shared_with_all_that_stand_along_it():
    hall = box(0, 0, 40, 12)
    sheds = [box(1 + 9 * i, 12.2 + 0.1 * i, 8 + 9 * i, 17) for i in range(4)]
    found = share_walls(np.array([hall, *sheds]), options=CLOSE)
    assert shapely.distance(found[0], found[1:]).max() < 1e-9
    assert shared_m2(found) < 1e-9


def test_steps_of_a_terrace_stay_where_they_are_more_than_noise():
    houses = np.array([box(0, 0, 7, 10), box(7.2, 1.2, 14, 11.2)])
    found = share_walls(houses, options=CLOSE)
    np.testing.assert_allclose(shapely.bounds(found)[:, 1], [0, 1.2], atol=1e-9)
    flush = share_walls(np.array([box(0, 0, 7, 10), box(7.2, 0.2, 14, 10.2)]), options=CLOSE)
    low = shapely.bounds(flush)[:, 1]
    assert low[0] == pytest.approx(low[1], abs=1e-9)


def test_curved_rows_keep_their_bends():
    houses = np.array(
        [rotate(box(60, -3.6, 70, 3.6), 6.5 * i, origin=(0, 0)) for i in range(8)], object
    )
    found = share_walls(houses, options=CLOSE)
    assert shapely.is_valid(found).all()
    assert shapely.hausdorff_distance(found, houses).max() < 1.2
    assert shared_m2(found) < shared_m2(houses)


def test_courtyard_walls_meet_the_house_inside():
    block = Polygon(box(0, 0, 40, 40).exterior, [box(10, 10, 30, 30).exterior])
    house = box(10.4, 15, 20, 22)
    found = share_walls(np.array([block, house]), options=CLOSE)
    assert shapely.is_valid(found).all()
    assert shapely.get_num_interior_rings(found[0]) == 1
    assert shapely.distance(*found) == pytest.approx(0, abs=1e-9)
    assert shared_m2(found) < 1e-9


def test_multipolygons_stay_multipolygons():
    two = shapely.MultiPolygon([box(0, 0, 8, 8), box(20, 0, 28, 8)])
    found = share_walls(np.array([two, box(8.3, 0, 15, 8)]), options=CLOSE)
    assert [shape.geom_type for shape in found] == ["MultiPolygon", "Polygon"]
    assert shapely.get_num_geometries(found[0]) == 2
    assert shapely.distance(*found) == pytest.approx(0, abs=1e-9)


@given(
    boxes=st.lists(
        st.tuples(*(st.floats(0, 20) for _ in range(2)), *(st.floats(0.2, 9) for _ in range(2))),
        max_size=12,
    ),
    turn=st.floats(0, 90),
)
@settings(max_examples=60)
def test_any_neighbours_stay_valid_and_much_as_they_were(boxes, turn):
    shapes = np.array([box(x, y, x + w, y + h) for x, y, w, h in boxes], object)
    shapes = np.array([rotate(s, turn * (i % 3) / 9) for i, s in enumerate(shapes)], object)
    found = share_walls(shapes, options=CLOSE)
    assert shapely.is_valid(found).all()
    shared = shapely.area(shapely.intersection(found, shapes))
    assert (shared >= 0.7 * shapely.area(shapely.union(found, shapes)) - 1e-9).all()


def test_a_town_of_worn_masks_gets_nearer_to_the_truth():
    town = make_town(size_px=700, seed=2)
    to = town.grid.transform
    truth = shapely.transform(
        town.truth.geometry.to_numpy(), lambda xy: (xy - (to.c, to.f)) / (to.a, to.e) * 0.3
    )
    shapes = shapely.transform(truth, lambda xy: xy / 0.3)
    masks = worn_masks(shapes.tolist(), wear=Wear(merged_share=0))
    made = regularize(contour(*masks), scale_xy=(0.3, 0.3), options=CLOSE)
    before = shapely.transform(made.shapes, lambda xy: xy * 0.3)
    after = share_walls(before, options=CLOSE)
    assert shapely.is_valid(after).all()
    assert shared_m2(after) < 0.35 * shared_m2(before)
    shared, union = (
        np.array([shapely.area(of(s, truth)) for s in (before, after)])
        for of in (shapely.intersection, shapely.union)
    )
    ious = shared / union
    assert ious[1].mean() > ious[0].mean()
