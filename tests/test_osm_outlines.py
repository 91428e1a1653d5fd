"""Outlines: polygons taken apart and put together again, with shapely as the judge."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.osm.objects.outlines import (
    NO_OUTLINES,
    concatenate,
    outlines_of,
    take_polygons,
    take_rings,
    with_rings,
    without_repeats,
    without_twins,
)


def yard(x: int, n_holes: int = 1) -> shapely.Polygon:
    """Build a square of 100 units with small courtyards."""
    holes = [shapely.box(x + 10 * i + 2, 40, x + 10 * i + 8, 50) for i in range(n_holes)]
    return shapely.Polygon(
        shapely.box(x, 0, x + 100, 100).exterior, [hole.exterior for hole in holes]
    )


def make(holes: list[int], rows: list[int] | None = None):
    """Return polygons with so many holes each, and their outlines."""
    polygons = np.array([yard(200 * i, n) for i, n in enumerate(holes)], object)
    return polygons, outlines_of(polygons, np.array(rows or range(len(holes))))


@settings(max_examples=30)
@given(holes=st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_polygons_come_back_as_they_were(holes):
    polygons, outlines = make(holes)
    assert shapely.equals(outlines.polygons(), polygons).all()
    assert outlines.is_outer.sum() == len(holes)
    assert outlines.ring_sizes.tolist() == [4] * (len(holes) + sum(holes))


@settings(max_examples=30)
@given(holes=st.lists(st.integers(0, 3), min_size=1, max_size=8), data=st.data())
def test_taking_polygons_takes_all_their_rings(holes, data):
    polygons, outlines = make(holes)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(holes) - 1), min_size=1)))
    taken = take_polygons(outlines, np.array(chosen))
    assert shapely.equals(taken.polygons(), polygons[chosen]).all()
    assert taken.polygon_row.tolist() == chosen


def test_a_polygon_goes_with_its_outer_ring():
    _, outlines = make([2, 1, 0])
    kept = take_rings(outlines, np.array([True, False, True, False, True, True]))
    assert kept.polygon_row.tolist() == [0, 2]
    assert len(kept.ring_polygon) == 3


def test_rings_are_replaced_in_any_order():
    polygons, outlines = make([1, 0])
    triangle = np.array([[0, 0], [100, 0], [0, 100]])
    changed = with_rings(
        outlines,
        np.array([2, 0]),
        np.array([3, 4]),
        np.concatenate([triangle + np.array([200, 0]), outlines.lonlat_e7[:4]]),
    )
    first, second = changed.polygons()
    assert first.equals(polygons[0])
    assert second.area == 5000


@pytest.mark.parametrize(
    "xy",
    [[[0, 0], [0, 0], [9, 0], [9, 9], [9, 9], [0, 9]], [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]],
)
def test_vertices_that_repeat_go(xy):
    _, outlines = make([0])
    doubled = with_rings(outlines, np.array([0]), np.array([len(xy)]), np.array(xy))
    assert without_repeats(doubled).ring_sizes.tolist() == [4]


def test_concatenation_keeps_count_of_footprints_without_outlines():
    _, one = make([0, 1], rows=[1, 3])
    both = concatenate([one, NO_OUTLINES, one], [4, 2, 5])
    assert both.polygon_row.tolist() == [1, 3, 7, 9]
    assert len(both.polygons()) == 4
    assert concatenate([], []) is NO_OUTLINES


def test_twins_go_and_the_first_stays():
    polygons = np.array([yard(0), yard(300), yard(0), yard(0, 0)], object)
    kept = without_twins(outlines_of(polygons, np.arange(4)))
    assert kept.polygon_row.tolist() == [0, 1, 3]
