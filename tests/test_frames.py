from __future__ import annotations

import numpy as np
import pytest
import rasterio.transform
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg.frames import from_px, to_px
from geoseg.grid import Grid
from tests.builders import make_grid

TURNED = Affine.translation(400_000, 3_060_000) @ Affine.rotation(17) @ Affine.scale(0.25, -0.3)


def turned() -> Grid:
    return make_grid(transform=TURNED, height=900, width=700)


def test_a_point_lies_where_rasterio_puts_it():
    grid = turned()
    x, y = rasterio.transform.xy(grid.transform, [40.0], [7.5], offset="ul")
    (found,) = to_px(np.array([shapely.Point(x[0], y[0])], object), grid)
    assert (found.x, found.y) == pytest.approx((7.5, 40.0), abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 700), st.floats(0, 900)), min_size=3, max_size=8))
def test_there_and_back_is_where_it_was(corners):
    grid = turned()
    shapes = np.array([shapely.LineString(corners), shapely.MultiPoint(corners)], object)
    back = to_px(from_px(shapes, grid), grid)
    assert shapely.get_type_id(back).tolist() == shapely.get_type_id(shapes).tolist()
    np.testing.assert_allclose(
        shapely.get_coordinates(back), shapely.get_coordinates(shapes), atol=1e-6
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5]))
def test_corners_that_neighbours_share_stay_the_same_to_the_bit(seed, count):
    """Whatever lies before them in the array: matrix products round by place."""
    rng = np.random.default_rng(seed)
    wall = from_px(shapely.points(rng.random((count, 2)) * 700), turned())
    others = from_px(shapely.points(rng.random((int(rng.integers(1, 40)), 2)) * 700), turned())
    alone, after = to_px(wall, turned()), to_px(np.concatenate([others, wall]), turned())[-count:]
    assert (shapely.get_coordinates(alone) == shapely.get_coordinates(after)).all()


def test_nothing_moves_to_nothing():
    none = np.zeros(0, object)
    assert to_px(none, turned()).shape == from_px(none, turned()).shape == (0,)
