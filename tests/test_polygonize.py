"""Outlines from soft masks: exact rectangles, areas, rasterio and geodesics are the oracles."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from builders import make_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from scipy import ndimage
from shapely.geometry import box

from geoseg.errors import ConfigError
from geoseg.grid import Grid
from geoseg.polygonize import PolygonizeOptions, contour, to_ground

EXACT = PolygonizeOptions(tolerance_m=0, min_area_m2=0, min_hole_m2=0)

GRIDS = {
    "utm": make_grid(),
    "lonlat, unequal degrees": make_grid(
        crs="EPSG:4326", transform=Affine(5e-6, 0, 11.12345, 0, -2e-6, 60.2)
    ),
    "web mercator": make_grid(crs="EPSG:3857", transform=Affine(0.6, 0, 1e6, 0, -0.6, 8_400_000)),
    "rotated": make_grid(
        transform=Affine.translation(500_000, 5_000_000)
        @ Affine.rotation(33)
        @ Affine.scale(0.4, -0.4)
    ),
    "south up": make_grid(transform=Affine(0.5, 0, 500_000, 0, 0.5, 5_000_000)),
    "mirrored": make_grid(transform=Affine(-0.5, 0, 500_000, 0, -0.5, 5_000_000)),
    "feet": make_grid(crs="EPSG:2263", transform=Affine(1, 0, 990_000, 0, -1, 200_000)),
}


def outline(mask: np.ndarray, *, x: int = 0, y: int = 0) -> shapely.MultiPolygon:
    """Trace one mask, bool or uint8."""
    soft = np.where(mask, np.uint8(255), np.uint8(0)) if mask.dtype == bool else mask
    return contour([soft], [(x, y)])[0]


def coverage(shape: shapely.Polygon, *, side: int = 80, fine: int = 8) -> np.ndarray:
    """Paint a shape with anti-aliased edges: each pixel's share of sub-pixels inside."""
    points = (np.arange(side * fine) + 0.5) / fine
    inside = shapely.contains_xy(shape, *np.meshgrid(points, points))
    share = inside.reshape(side, fine, side, fine).mean(axis=(1, 3))
    return np.rint(share * 255).astype(np.uint8)


def rotated_rectangle(
    x: float, y: float, width: float, height: float, angle_deg: float
) -> shapely.Polygon:
    shape = box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return shapely.affinity.rotate(shape, angle_deg)


def iou(a: shapely.Geometry, b: shapely.Geometry) -> float:
    return a.intersection(b).area / a.union(b).area


@given(
    x=st.integers(0, 30),
    y=st.integers(0, 30),
    width=st.integers(3, 40),
    height=st.integers(3, 40),
    margin=st.integers(0, 3),
    origin=st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)),
)
def test_a_painted_rectangle_comes_back_exactly(
    x: int, y: int, width: int, height: int, margin: int, origin: tuple[int, int]
) -> None:
    mask = np.zeros((y + height + margin, x + width + margin), bool)
    mask[y : y + height, x : x + width] = True
    found = outline(mask, x=origin[0], y=origin[1])
    x0, y0 = origin[0] + x, origin[1] + y
    truth = box(x0, y0, x0 + width, y0 + height)
    assert found.hausdorff_distance(truth) < 0.1
    assert found.equals(truth)
    assert len(shapely.get_coordinates(found)) == 5, "corners only"


@pytest.mark.parametrize("shape_hw", [(1, 1), (1, 9), (2, 2), (9, 1), (2, 7)])
def test_masks_of_a_pixel_or_two_are_small_valid_outlines(shape_hw: tuple[int, int]) -> None:
    found = outline(np.ones(shape_hw, bool), x=5, y=6)
    pixels = box(5, 6, 5 + shape_hw[1], 6 + shape_hw[0])
    assert found.is_valid
    assert pixels.covers(found)
    assert found.centroid.distance(pixels.centroid) < 1e-9
    assert found.area >= pixels.area - 4 * 0.125


@settings(max_examples=60)
@given(
    x=st.floats(5, 15),
    y=st.floats(5, 15),
    width=st.floats(4, 50),
    height=st.floats(4, 50),
)
def test_an_antialiased_rectangle_is_within_a_tenth_of_a_pixel_on_every_edge(
    x: float, y: float, width: float, height: float
) -> None:
    edges = np.arange(80)

    def cover(low: float, high: float) -> np.ndarray:
        return np.clip(np.minimum(edges + 1, high) - np.maximum(edges, low), 0, 1)

    share = np.outer(cover(y, y + height), cover(x, x + width))
    found = outline(np.rint(share * 255).astype(np.uint8))
    assert np.abs(np.array(found.bounds) - (x, y, x + width, y + height)).max() < 0.1
    inner = box(x + 0.1, y + 0.1, x + width - 0.1, y + height - 0.1)
    assert inner.difference(found).area < 4, "only corners are cut"


@settings(max_examples=40)
@given(
    width=st.floats(22, 50), height=st.floats(22, 50), angle=st.floats(0, 90), dx=st.floats(0, 1)
)
def test_rotated_rectangles_agree_with_the_exact_polygon(
    width: float, height: float, angle: float, dx: float
) -> None:
    truth = rotated_rectangle(40 + dx, 40 - dx, width, height, angle)
    assert iou(outline(coverage(truth)), truth) > 0.975


@pytest.mark.parametrize("hard", [False, True])
def test_areas_have_no_bias(hard: bool) -> None:
    rng = np.random.default_rng(7)
    ratios = []
    for _ in range(150):
        centre, size = rng.uniform(38, 42, 2), rng.uniform(14, 45, 2)
        truth = rotated_rectangle(*centre, *size, rng.uniform(0, 90))
        mask = coverage(truth, fine=1 if hard else 8)
        ratios.append(outline(mask).area / truth.area)
    assert np.mean(ratios) == pytest.approx(1, abs=0.005)


def test_centres_have_no_shift() -> None:
    rng = np.random.default_rng(8)
    shifts = []
    for _ in range(100):
        truth = rotated_rectangle(
            *rng.uniform(38, 42, 2), *rng.uniform(14, 45, 2), rng.uniform(0, 90)
        )
        centre = outline(coverage(truth, fine=8)).centroid
        shifts.append((centre.x - truth.centroid.x, centre.y - truth.centroid.y))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.01
    assert np.abs(shifts).max() < 0.1


def test_courtyards_stay_holes_and_a_house_in_one_is_a_part() -> None:
    mask = np.zeros((60, 70), bool)
    mask[5:55, 5:65] = True
    mask[15:45, 15:55] = False
    mask[25:35, 30:40] = True
    found = outline(mask)
    assert found.equals(box(5, 5, 65, 55) - box(15, 15, 55, 45) | box(30, 25, 40, 35))
    assert sorted(len(part.interiors) for part in found.geoms) == [0, 1]
    ground, area_m2 = to_ground(np.array([found]), GRIDS["utm"], options=EXACT)
    assert ground[0].geom_type == "MultiPolygon"
    assert area_m2[0] == pytest.approx((50 * 60 - 30 * 40 + 100) / 4, rel=1e-3)


def rasterio_polygons(mask: np.ndarray, connectivity: int) -> list[shapely.Polygon]:
    found = rasterio.features.shapes(mask.astype(np.uint8), mask=mask, connectivity=connectivity)
    return [shapely.geometry.shape(shape) for shape, _ in found]


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    share=st.floats(0, 1),
)
def test_random_masks_have_the_pixels_areas_parts_and_holes(
    seed: int, height: int, width: int, share: float
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    found = outline(mask)
    assert found.is_valid
    four, eight = (rasterio_polygons(mask, c) for c in (4, 8))
    corners = sum(len(shapely.get_coordinates(part)) for part in four)
    assert abs(found.area - mask.sum()) <= 0.125 * corners + 1e-6
    assert len(eight) <= len(found.geoms) <= len(four)
    holes = sum(len(part.interiors) for part in found.geoms)
    background = np.pad(~mask, 1, constant_values=True)
    fewest, most = (
        ndimage.label(background, structure=np.ones((3, 3)) if diagonal else None)[1] - 1
        for diagonal in (True, False)
    )
    assert fewest <= holes <= most
    pixels = shapely.union_all(four) if four else shapely.Polygon()
    assert found.hausdorff_distance(pixels) < 0.8 if mask.any() else found.is_empty


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("tolerance_m", [0.0, 0.1, 0.7, 3.0])
def test_noise_gives_valid_outlines_wound_counter_clockwise(grid: Grid, tolerance_m: float) -> None:
    rng = np.random.default_rng(3)
    masks = [rng.integers(0, 256, tuple(rng.integers(1, 40, 2)), np.uint8) for _ in range(30)]
    masks += [255 * (rng.random((25, 25)) < 0.5).astype(np.uint8) for _ in range(30)]
    masks += [rng.choice(np.array([0, 127, 128, 255], np.uint8), (20, 20)) for _ in range(20)]
    shapes = contour(masks, [(7, 9)] * len(masks))
    assert shapely.is_valid(shapes).all()
    options = PolygonizeOptions(tolerance_m=tolerance_m, min_area_m2=0)
    ground, area_m2 = to_ground(shapes, grid, options=options)
    assert shapely.is_valid(ground).all()
    assert np.array_equal(area_m2 > 0, ~shapely.is_empty(ground))
    parts = shapely.get_parts(ground)
    assert set(shapely.get_type_id(parts)) <= {3}
    assert shapely.is_ccw(shapely.get_exterior_ring(parts)).all()
    rings = [ring for part in parts for ring in part.interiors]
    assert not any(shapely.is_ccw(rings))


def _metres(ground: np.ndarray, grid: Grid) -> np.ndarray:
    """Project onto a plane that is true to scale around the scene's centre."""
    x, y = grid.xy(grid.height / 2, grid.width / 2)
    lon, lat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y)
    plane = f"+proj=aeqd +lon_0={lon} +lat_0={lat} +ellps=WGS84 +units=m"
    move = Transformer.from_crs(grid.crs, plane, always_xy=True)
    return shapely.transform(ground, lambda xy: np.column_stack(move.transform(*xy.T)))


def blobs(n: int = 30) -> np.ndarray:
    """Trace round soft shapes, which simplify a lot."""
    rng = np.random.default_rng(2)
    masks = []
    for _ in range(n):
        mask = cv2.resize(rng.random((6, 6)).astype(np.float32), (70, 70))
        masks.append(np.rint(np.clip(mask, 0, 1) * 255).astype(np.uint8))
    return contour(masks, [(100, 120)] * n)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("tolerance_m", [0.1, 0.5, 2.0])
def test_simplification_stays_within_its_tolerance_in_metres(
    grid: Grid, tolerance_m: float
) -> None:
    shapes = blobs()
    exact, _ = to_ground(shapes, grid, options=EXACT)
    simpler = PolygonizeOptions(tolerance_m=tolerance_m, min_area_m2=0, min_hole_m2=0)
    simple, _ = to_ground(shapes, grid, options=simpler)
    before, after = (_metres(shapely.boundary(g), grid) for g in (exact, simple))
    distance = shapely.hausdorff_distance(after, before)
    assert (distance <= tolerance_m * 1.002).mean() > 0.95
    assert distance.max() <= tolerance_m * 1.5, "where a ring starts"
    assert shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(exact).sum()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_areas_are_ground_square_metres(grid: Grid) -> None:
    shapes = np.array([outline(np.ones((40, 25), bool), x=200 * i, y=130 * i) for i in range(2)])
    ground, area_m2 = to_ground(shapes, grid, options=EXACT)
    to_lonlat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    for shape, area in zip(ground, area_m2, strict=True):
        lonlat = shapely.transform(shape, lambda xy: np.column_stack(to_lonlat.transform(*xy.T)))
        geodesic, _ = Geod(ellps="WGS84").geometry_area_perimeter(lonlat)
        assert area == pytest.approx(abs(geodesic), rel=1e-3)


def test_ground_geometries_are_the_affine_images() -> None:
    for grid in GRIDS.values():
        (ground,), _ = to_ground(
            np.array([outline(np.ones((12, 20), bool), x=30, y=40)]), grid, options=EXACT
        )
        corners = [grid.transform @ at for at in itertools.product((30, 50), (40, 52))]
        truth = shapely.MultiPoint(corners).convex_hull
        assert ground.symmetric_difference(truth).area < 1e-6 * truth.area
        assert ground.geom_type == "Polygon"


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_parts_below_the_least_area_are_dropped(grid: Grid) -> None:
    mask = np.zeros((40, 60), bool)
    mask[2:32, 2:32] = True
    mask[5:11, 40:46] = True  # 36 px
    pixel_m2 = float(grid.pixel_area_m2(100, 100))
    for least, n_parts in ((30, 2), (40, 1), (899, 1), (901, 0)):
        options = PolygonizeOptions(tolerance_m=0, min_area_m2=least * pixel_m2)
        (ground,), (area_m2,) = to_ground(
            np.array([outline(mask, x=90, y=90)]), grid, options=options
        )
        assert len(shapely.get_parts(ground)) * (not ground.is_empty) == n_parts
        expected = {2: 936, 1: 900, 0: 0}[n_parts]
        assert area_m2 == pytest.approx(expected * pixel_m2, rel=1e-3)


def test_nothing_gives_nothing() -> None:
    assert contour([], []).shape == (0,)
    ground, area_m2 = to_ground(contour([], []), make_grid(), options=PolygonizeOptions())
    assert ground.shape == area_m2.shape == (0,)


def test_masks_below_one_half_are_empty_in_their_place() -> None:
    masks = [
        np.full((3, 3), 127, np.uint8),
        np.full((9, 9), 255, np.uint8),
        np.zeros((1, 1), np.uint8),
    ]
    shapes = contour(masks, [(0, 0)] * 3)
    assert shapely.is_empty(shapes).tolist() == [True, False, True]
    ground, area_m2 = to_ground(shapes, make_grid(), options=EXACT)
    assert shapely.is_empty(ground).tolist() == [True, False, True]
    assert (area_m2 > 0).tolist() == [False, True, False]
    assert shapely.is_empty(contour(masks[:1], [(0, 0)])).all()


def test_level_128_is_on() -> None:
    assert outline(np.full((8, 8), 128, np.uint8)).area > 7 * 7 - 1
    assert outline(np.full((8, 8), 127, np.uint8)).is_empty


def test_each_mask_needs_an_origin() -> None:
    with pytest.raises(ValueError, match="zip"):
        contour([np.zeros((3, 3), np.uint8)], [])


@pytest.mark.parametrize("name", ["tolerance_m", "min_area_m2"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_options_are_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be 0 or more"):
        PolygonizeOptions(**{name: value})


def test_a_mask_that_fills_the_scene_is_outlined_by_its_borders() -> None:
    soft = np.full((20, 30), 178, np.uint8)  # 0.7
    assert contour([soft], [(0, 0)], shape_hw=(20, 30))[0].equals(box(0, 0, 30, 20))
    assert contour([soft], [(0, 0)])[0].bounds != (0, 0, 30, 20), "where the scene may go on"


@pytest.mark.parametrize(
    ("x", "y", "sides"),
    [(0, 40, [0]), (40, 0, [1]), (80, 40, [2]), (40, 80, [3]), (0, 80, [0, 3]), (40, 40, [])],
)
def test_outlines_run_along_the_scenes_borders_alone(x: int, y: int, sides: list[int]) -> None:
    soft = np.full((20, 20), 178, np.uint8)
    (outer,) = contour([soft], [(x, y)], shape_hw=(100, 100))
    (inner,) = contour([soft], [(x, y)])
    edges = np.array([x, y, x + 20, y + 20])
    on = np.isin(np.arange(4), sides)
    assert np.array_equal(np.array(outer.bounds) == edges, on)
    assert np.array_equal(np.array(outer.bounds)[~on], np.array(inner.bounds)[~on])
    assert inner.difference(outer).area < 1e-9


@settings(max_examples=100)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 15), width=st.integers(1, 15))
def test_at_the_scenes_borders_masks_are_as_if_they_went_on_beyond(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    soft = rng.integers(0, 256, (height, width), np.uint8)
    (found,) = contour([soft], [(0, 0)], shape_hw=(height, width))
    beyond = contour([np.pad(soft, 3, mode="edge")], [(-3, -3)])[0]
    truth = beyond.intersection(box(0, 0, width, height))
    assert found.is_valid
    assert found.symmetric_difference(truth).area < 1e-6


def test_holes_below_the_least_area_are_filled() -> None:
    block = shapely.box(0, 0, 100, 100)  # 0.5 m a pixel: holes of 2.25 and 25 square metres
    for hole in (shapely.box(10, 10, 13, 13), shapely.box(40, 40, 50, 50)):
        block = block.difference(hole)
    for least, holes in ((0.0, 2), (2.3, 1), (25.1, 0)):
        options = PolygonizeOptions(min_hole_m2=least, tolerance_m=0)
        ground, area_m2 = to_ground(np.array([block]), GRIDS["utm"], options=options)
        assert shapely.get_num_interior_rings(ground[0]) == holes
        assert shapely.area(ground[0]) == pytest.approx(area_m2[0], rel=1e-2)
