"""The picture of footprints: what is painted where, and that it reads at any size."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyproj import CRS

from geoseg.errors import OutputError, SceneError
from geoseg.grid import Grid
from geoseg.preview import RAMP, STRIPE_PX, draw_preview, nice_length_m

UTM = CRS("EPSG:32645")


def make_grid(height, width, *, angle_deg=0.0, gsd=0.5):
    transform = Affine.translation(5e5, 3e6) @ Affine.rotation(angle_deg) @ Affine.scale(gsd, -gsd)
    return Grid(crs=UTM, transform=transform, height=height, width=width)


def make_image(height, width, value=128):
    return np.full((height, width, 3), value, np.uint8)


def on_grid(grid, shapes_px, scores):
    """Footprints from polygons in pixels of the grid."""
    to_crs = grid.transform
    geometries = [
        shapely.transform(s, lambda xy: np.array([to_crs @ tuple(p) for p in xy]))
        for s in shapes_px
    ]
    return geopandas.GeoDataFrame({"score": scores}, geometry=geometries, crs=grid.crs)


def changed(picture, grid):
    plain = draw_preview(make_image(grid.height, grid.width), grid, on_grid(grid, [], []))
    return (np.asarray(picture) != np.asarray(plain)).any(axis=-1)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0])
def test_a_footprint_is_painted_where_it_lies_and_its_courtyard_is_not(angle_deg):
    grid = make_grid(120, 160, angle_deg=angle_deg)
    block = shapely.box(40, 30, 100, 90).difference(shapely.box(60, 50, 80, 70))
    painted = changed(draw_preview(make_image(120, 160), grid, on_grid(grid, [block], [0.8])), grid)
    assert painted[32:48, 42:98].all()
    assert not painted[56:64, 66:74].any()
    rows, cols = np.nonzero(painted)
    assert 26 <= rows.min() <= 30
    assert 89 <= rows.max() <= 93
    assert 36 <= cols.min() <= 40
    assert 99 <= cols.max() <= 103


def test_a_house_in_a_courtyard_is_painted():
    grid = make_grid(100, 100)
    block = shapely.box(10, 10, 90, 90).difference(shapely.box(30, 30, 70, 70))
    shed = shapely.box(42, 42, 58, 58)
    for shapes in ([block, shed], [shed, block]):
        picture = draw_preview(make_image(100, 100), grid, on_grid(grid, shapes, [0.9, 0.9]))
        assert changed(picture, grid)[44:56, 44:56].all()


def test_colour_tells_the_score_and_gets_lighter_with_it():
    grid = make_grid(100, 300)
    boxes = [shapely.box(x, 20, x + 60, 80) for x in (10, 110, 210)]
    picture = draw_preview(make_image(100, 300), grid, on_grid(grid, boxes, [0.5, 0.75, 1.0]))
    inside = [np.asarray(picture.convert("L"))[50, x + 30] for x in (10, 110, 210)]
    assert inside == sorted(inside)
    assert len(set(inside)) == 3
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in RAMP]
    assert light == sorted(light)


def test_stripes_leave_no_seams():
    grid = make_grid(3 * STRIPE_PX // 2, 60)
    tall = on_grid(grid, [shapely.box(20, 5, 40, grid.height - 5)], [0.9])
    picture = np.asarray(draw_preview(make_image(grid.height, 60), grid, tall))
    assert (picture[20 : grid.height - 20] == picture[30]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 2), (219, 900), (221, 221), (400, 2000)])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_scenes_of_any_size_give_a_picture_of_that_size(shape, count, tmp_path):
    grid = make_grid(*shape)
    boxes = [shapely.box(k, k, k + 9, k + 9) for k in range(count)]
    scores = np.linspace(0.31, 1, count)
    path = tmp_path / "p.png"
    drawn = draw_preview(make_image(*shape), grid, on_grid(grid, boxes, scores), path=path)
    assert drawn.size == shape[::-1]
    with Image.open(path) as read:
        assert np.array_equal(np.asarray(read), np.asarray(drawn))
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_scale_bar_has_the_length_it_states():
    grid = make_grid(600, 600, gsd=0.5)
    picture = np.asarray(draw_preview(make_image(600, 600, 0), grid, on_grid(grid, [], [])))
    white = (picture[540:] > 235).all(axis=-1)
    bar = white[white.sum(axis=1).argmax()].sum()
    assert bar * grid.pixel_size_m[0] == pytest.approx(50, abs=0.5)


@given(st.floats(1e-3, 1e7))
def test_nice_lengths_are_round_and_near(most_m):
    length = nice_length_m(most_m)
    assert most_m / 2.5001 <= length <= most_m * 1.0001
    assert f"{length:e}"[0] in "125"


def test_misfits_are_refused_in_one_line(tmp_path):
    grid = make_grid(20, 30)
    none = on_grid(grid, [], [])
    with pytest.raises(SceneError, match=r"uint8 of shape \(20, 30, 3\), got uint8 \(30, 20, 3\)"):
        draw_preview(make_image(30, 20), grid, none)
    with pytest.raises(SceneError, match="grid's CRS"):
        draw_preview(make_image(20, 30), grid, none.to_crs(3857))
    with pytest.raises(OutputError, match="cannot be written"):
        draw_preview(make_image(20, 30), grid, none, path=tmp_path / "no" / "p.png")
    (tmp_path / "p.png").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        draw_preview(make_image(20, 30), grid, none, path=tmp_path / "p.png")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
