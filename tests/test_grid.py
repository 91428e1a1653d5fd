"""Windows, grids and their ground sizes, against affine, pyproj's geodesics and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from affine import Affine
from builders import make_grid, make_window
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from geoseg.errors import ConfigError, SceneError
from geoseg.grid import Grid, Window, split_axis

WGS84 = Geod(ellps="WGS84")
LENGTHS = st.integers(1, 700)


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, 320))
    return size, draw(st.integers(0, size - 1))


@given(length=st.integers(1, 3000), split=splits())
def test_spans_of_an_axis_cover_it_and_cores_partition_it(
    length: int, split: tuple[int, int]
) -> None:
    size, overlap = split
    spans = split_axis(length, size, overlap)
    starts = [start for start, *_ in spans]
    assert starts == sorted(set(starts)), "no span is equal to another"
    assert starts[0] == 0
    assert spans[-1][0] + spans[-1][1] == length
    assert {n for _, n, *_ in spans} == {min(size, length)}, "nothing is padded"
    assert all(a + size - b >= overlap for a, b in itertools.pairwise(starts))
    owned = np.concatenate([np.arange(lo, lo + n) for _, _, lo, n in spans])
    assert np.array_equal(owned, np.arange(length))
    assert all(s <= lo and lo + n <= s + w and n > 0 for s, w, lo, n in spans)


@given(length=st.integers(1, 3000), split=splits())
def test_no_span_could_be_left_out(length: int, split: tuple[int, int]) -> None:
    size, overlap = split
    stride = size - overlap
    fewest = 1 if length <= size else 1 + math.ceil((length - size) / stride)
    assert len(split_axis(length, size, overlap)) == fewest


@settings(max_examples=40)
@given(height=LENGTHS, width=LENGTHS, split=splits())
def test_cores_partition_the_scene_and_lie_in_their_windows(
    height: int, width: int, split: tuple[int, int]
) -> None:
    size, overlap = (max(split[0], 24), min(split[1], 20))
    owned = np.zeros((height, width), np.uint8)
    windows = []
    for r, c, window, core in make_grid(height=height, width=width).split(size, overlap):
        owned[core.slices] += 1
        windows.append(window)
        assert window.intersection(core) == core
        assert window.row_off >= 0
        assert window.col_off >= 0
        assert window.row_stop <= height
        assert window.col_stop <= width
        assert (window.height, window.width) == (min(size, height), min(size, width))
        assert min(r, c) >= 0
    assert (owned == 1).all()
    assert len(set(windows)) == len(windows), "no window is inferred twice"


def test_last_row_and_column_shift_inward() -> None:
    windows = [w for _, _, w, _ in make_grid(height=310, width=541).split(300, 60)]
    assert sorted({w.row_off for w in windows}) == [0, 10]
    assert sorted({w.col_off for w in windows}) == [0, 240, 241]
    assert {(w.height, w.width) for w in windows} == {(300, 300)}


def test_a_scene_smaller_than_a_chip_is_one_short_window() -> None:
    ((r, c, window, core),) = make_grid(height=1, width=120).split(300, 60)
    assert (r, c) == (0, 0)
    assert window == core == make_window(height=1, width=120)


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        (0, 0, "size_px must be at least 1"),
        (-3, 0, "size_px must be at least 1"),
        (300, 300, r"overlap_px must be in \[0, size_px=300\), got 300"),
        (300, -1, "overlap_px must be in"),
    ],
)
def test_a_bad_size_or_overlap_is_refused(size: int, overlap: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_axis(1000, size, overlap)


WINDOWS = st.builds(
    make_window, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 12), st.integers(1, 12)
)


@given(a=WINDOWS, b=WINDOWS)
def test_intersection_is_the_shared_pixels(a: Window, b: Window) -> None:
    def pixels(w: Window) -> set[tuple[int, int]]:
        rows, cols = range(w.row_off, w.row_stop), range(w.col_off, w.col_stop)
        return {(r, c) for r in rows for c in cols}

    shared = a.intersection(b)
    assert (pixels(shared) if shared else set()) == pixels(a) & pixels(b)
    assert shared == b.intersection(a)


def test_slices_cut_the_window_out_of_a_scene() -> None:
    scene = np.arange(20 * 30).reshape(20, 30)
    part = scene[make_window(3, 5, 4, 6).slices]
    assert part.shape == (4, 6)
    assert part[0, 0] == 3 * 30 + 5


@pytest.mark.parametrize(("height", "width"), [(0, 3), (3, 0), (-1, 3)])
def test_an_empty_window_is_refused(height: int, width: int) -> None:
    with pytest.raises(ConfigError, match="at least 1x1 px"):
        make_window(height=height, width=width)


TRANSFORMS = st.builds(
    lambda x, y, angle, sx, sy, shear: (
        Affine.translation(x, y)
        @ Affine.rotation(angle)
        @ Affine.shear(shear)
        @ Affine.scale(sx, sy)
    ),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.floats(-180, 180),
    st.floats(0.05, 5),
    st.sampled_from([-5.0, -0.3, 0.3, 2.0]),
    st.floats(-30, 30),
)


@given(transform=TRANSFORMS, window=WINDOWS, row=st.floats(0, 50), col=st.floats(0, 50))
def test_window_grid_shifts_the_frame(
    transform: Affine, window: Window, row: float, col: float
) -> None:
    grid = make_grid(transform=transform)
    part = grid.window_grid(window)
    assert (part.height, part.width) == (window.height, window.width)
    x, y = part.xy(row, col)
    expected = transform @ (col + window.col_off, row + window.row_off)
    assert np.allclose((x, y), expected, rtol=0, atol=1e-6)


@given(transform=TRANSFORMS, height=st.integers(1, 999), width=st.integers(1, 999))
def test_scaled_keeps_the_corners_on_the_ground(transform: Affine, height: int, width: int) -> None:
    grid = make_grid(transform=transform, height=217, width=431)
    scaled = grid.scaled(height=height, width=width)
    assert (scaled.height, scaled.width) == (height, width)
    for r, c in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.25)):
        there = scaled.xy(r * height, c * width)
        assert np.allclose(there, transform @ (c * 431, r * 217), rtol=0, atol=1e-6)


@given(transform=TRANSFORMS)
def test_bounds_enclose_the_corners_tightly(transform: Affine) -> None:
    grid = make_grid(transform=transform, height=70, width=40)
    corners = np.array([transform @ (c, r) for r in (0, 70) for c in (0, 40)])
    assert np.allclose(grid.bounds, [*corners.min(axis=0), *corners.max(axis=0)], atol=1e-6)


def test_xy_broadcasts_rows_against_columns() -> None:
    x, y = make_grid().xy(np.arange(3)[:, None], np.arange(4)[None])
    assert x.shape == y.shape == (3, 4)
    assert (x[2, 1], y[2, 1]) == (500_000.5, 4_999_999)


def _steps_m(grid: Grid) -> tuple[float, float]:
    """Measure the pixel at the centre by geodesics on WGS84, with pyproj's own longitudes."""
    to_lonlat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    row, col = grid.height / 2, grid.width / 2
    ends = [(col - 0.5, row), (col + 0.5, row), (col, row - 0.5), (col, row + 0.5)]
    lon, lat = to_lonlat.transform(*np.array([grid.transform @ end for end in ends]).T)
    _, _, along_row = WGS84.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, along_col = WGS84.inv(lon[2], lat[2], lon[3], lat[3])
    return along_row, along_col


GROUND = {
    "lonlat at the equator": ("EPSG:4326", Affine(1e-6, 0, 30, 0, -1e-6, 0)),
    "lonlat, unequal degrees": ("EPSG:4326", Affine(4e-6, 0, 11, 0, -2e-6, 60)),
    "lonlat at the antimeridian": ("EPSG:4326", Affine(1e-5, 0, 179.999, 0, -1e-5, -17)),
    "web mercator at 0": ("EPSG:3857", Affine(0.3, 0, 3e6, 0, -0.3, 0)),
    "web mercator at 48": ("EPSG:3857", Affine(0.3, 0, 1e6, 0, -0.3, 6_100_000)),
    "web mercator at 70": ("EPSG:3857", Affine(0.3, 0, 1e6, 0, -0.3, 11_000_000)),
    "utm": ("EPSG:32633", Affine(0.2, 0, 400_000, 0, -0.2, 5_300_000)),
    "utm, rotated": (
        "EPSG:32633",
        Affine.translation(400_000, 5_300_000) @ Affine.rotation(31) @ Affine.scale(0.2, -0.4),
    ),
    "feet": ("EPSG:2263", Affine(0.5, 0, 990_000, 0, -0.5, 200_000)),
    "grads from Paris, projected": ("EPSG:27572", Affine(0.5, 0, 600_000, 0, -0.5, 2_400_000)),
    "grads from Paris": ("EPSG:4807", Affine(4e-6, 0, 2, 0, -4e-6, 53)),
    "with heights": ("EPSG:32633+5773", Affine(0.2, 0, 400_000, 0, -0.2, 5_300_000)),
    "polar": ("EPSG:3413", Affine(1, 0, -300_000, 0, -1, -600_000)),
    "south up": ("EPSG:32733", Affine(0.2, 0, 400_000, 0, 0.2, 8_300_000)),
}


@pytest.mark.parametrize("name", GROUND)
def test_pixel_size_is_the_geodesic_length(name: str) -> None:
    crs, transform = GROUND[name]
    grid = make_grid(crs=crs, transform=transform, height=1200, width=800)
    assert grid.pixel_size_m == pytest.approx(_steps_m(grid), rel=1e-4)
    assert grid.gsd_m == pytest.approx(math.sqrt(math.prod(_steps_m(grid))), rel=1e-4)


@pytest.mark.parametrize("name", GROUND)
def test_pixel_area_is_the_geodesic_polygons(name: str) -> None:
    crs, transform = GROUND[name]
    grid = make_grid(crs=crs, transform=transform)
    to_lonlat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    for row, col in ((0, 0), (250, 10), (150.5, 299)):
        ring = [(col + 10 * i, row + 10 * j) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        lon, lat = to_lonlat.transform(*np.array([transform @ corner for corner in ring]).T)
        expected = abs(WGS84.polygon_area_perimeter(lon, lat)[0]) / 400
        assert grid.pixel_area_m2(row, col) == pytest.approx(expected, rel=1e-3)


def test_pixel_area_holds_at_the_pole_itself() -> None:
    grid = make_grid(crs="EPSG:3413", transform=Affine(1, 0, -50, 0, -1, 50))
    at, beside = grid.pixel_area_m2([50, 40], [50, 40])
    assert at == pytest.approx(beside, rel=1e-4)


def test_pixel_area_follows_the_shape_of_the_positions() -> None:
    grid = make_grid(crs="EPSG:4326", transform=Affine(1e-5, 0, 10, 0, -1e-5, 50))
    assert grid.pixel_area_m2(np.zeros((2, 3)), np.zeros((2, 3))).shape == (2, 3)
    assert grid.pixel_area_m2([], []).shape == (0,)


LOCAL = (
    'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],'
    'AXIS["e",east],AXIS["n",north],LENGTHUNIT["metre",1]]'
)


@pytest.mark.parametrize("crs", [LOCAL, "EPSG:5773"])
def test_a_crs_not_tied_to_the_earth_is_a_clear_error(crs: str) -> None:
    grid = make_grid(crs=crs)
    with pytest.raises(SceneError, match="tied to the Earth"):
        _ = grid.gsd_m
    with pytest.raises(SceneError, match="tied to the Earth"):
        grid.pixel_area_m2(0, 0)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(1, 0, 500_000, 0, -1, 5_000_000)),
        ("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 95)),
        ("EPSG:32633", Affine(1, 0, 1e12, 0, -1, 5e12)),
        ("EPSG:4978", Affine(1, 0, 500_000, 0, -1, 5_000_000)),
    ],
)
def test_an_absurd_position_is_a_clear_error(crs: str, transform: Affine) -> None:
    with pytest.raises(SceneError, match="check"):
        _ = make_grid(crs=crs, transform=transform).gsd_m


@pytest.mark.parametrize(
    "transform",
    [Affine(1, 0, 0, 2, 0, 0), Affine(0, 0, 0, 0, -1, 0), Affine(math.nan, 0, 0, 0, -1, 0)],
)
def test_a_transform_without_an_inverse_is_refused(transform: Affine) -> None:
    with pytest.raises(SceneError, match="invertible"):
        make_grid(transform=transform)


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(SceneError, match="at least 1x1 px"):
        Grid(crs=CRS(32633), transform=Affine.identity(), height=0, width=5)
