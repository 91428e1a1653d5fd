"""The working grid: no seams, right place, right weights. Oracles: Pillow, GDAL, centroids."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from geoseg.errors import ResolutionWarning
from geoseg.grid import Window
from geoseg.raster import Scene

UTM_TRANSFORM = Affine(0.2, 0, 300000, 0, -0.2, 3000000)
ROTATED = Affine.translation(300000, 3000000) @ Affine.rotation(30) @ Affine.scale(0.2, -0.2)
LATLON = Affine(2.0e-6, 0, 85.5, 0, -1.5e-6, 27.6)
MERCATOR = Affine(0.2, 0, 9520461, 0, -0.2, 3201259)


def write(path, pixels, *, crs="EPSG:32645", transform=UTM_TRANSFORM, mask=None, overviews=()):
    count, height, width = pixels.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=pixels.dtype,
            crs=crs,
            transform=transform,
            tiled=True,
            blockxsize=64,
            blockysize=64,
        ) as dataset,
    ):
        dataset.write(pixels)
        if mask is not None:
            dataset.write_mask(mask)
        if overviews:
            dataset.build_overviews(list(overviews), rasterio.enums.Resampling.average)
    return str(path)


def noise(height, width, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, (3, height, width)).astype(dtype)


def blobs(height, width):
    rows, cols = np.mgrid[:height, :width]
    return ((rows // 20 + cols // 25) % 5 > 0) & ((rows - 60) ** 2 + (cols - 60) ** 2 > 300)


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    path = tmp_path_factory.mktemp("seams") / "a.tif"
    return write(path, noise(230, 260), mask=blobs(230, 260), transform=ROTATED)


@settings(max_examples=25)
@given(data=st.data(), gsd=st.sampled_from([0.07, 0.13, 0.199, 0.21, 0.3, 0.77, 2.3]))
def test_a_pixel_has_one_value_whichever_window_reads_it(holed, data, gsd):
    with Scene.open(holed, gsd=gsd) as scene:
        height, width = scene.grid.height, scene.grid.width
        image, valid = scene.read(scene.grid.window)
        row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        window = Window(
            row_off=row,
            col_off=col,
            height=data.draw(st.integers(1, height - row)),
            width=data.draw(st.integers(1, width - col)),
        )
        part_image, part_valid = scene.read(window)
        assert_array_equal(part_image, image[:, window.slices[0], window.slices[1]])
        assert_array_equal(part_valid, valid[window.slices])
        assert not part_image[:, ~part_valid].any()


@pytest.mark.parametrize("gsd", [0.13, 0.27, 0.5, 1.4])
def test_resampling_is_antialiased_bilinear_as_pillow_does_it(tmp_path, gsd):
    pixels = noise(210, 240)
    with Scene.open(write(tmp_path / "a.tif", pixels), gsd=gsd) as scene:
        got, valid = scene.read(scene.grid.window)
    assert valid.all()
    for band, ours in zip(pixels, got, strict=True):
        want = Image.fromarray(band.astype(np.float32)).resize(ours.shape[::-1], Image.BILINEAR)
        assert np.abs(ours - np.asarray(want)).max() <= 0.51


@pytest.mark.parametrize("gsd", [0.09, 0.31, 0.85])
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32645", UTM_TRANSFORM),
        ("EPSG:32645", ROTATED),
        ("EPSG:4326", LATLON),
        ("EPSG:3857", MERCATOR),
    ],
)
def test_a_painted_square_stays_in_its_place(tmp_path, crs, transform, gsd):
    pixels = np.zeros((3, 300, 320), np.uint8)
    pixels[:, 101:151, 83:163] = 255  # centre (126, 123) px
    with Scene.open(write(tmp_path / "a.tif", pixels, crs=crs, transform=transform), gsd=gsd) as s:
        image, _ = s.read(s.grid.window)
        grid = s.grid
    weight = image[0].astype(float)
    row = (weight.sum(1) * (np.arange(grid.height) + 0.5)).sum() / weight.sum()
    col = (weight.sum(0) * (np.arange(grid.width) + 0.5)).sum() / weight.sum()
    back = ~grid.transform @ transform
    a, b, c, d, e, f = tuple(back)[:6]
    assert abs(a * 123 + b * 126 + c - col) < 0.05
    assert abs(d * 123 + e * 126 + f - row) < 0.05
    assert np.allclose(grid.pixel_size_m, gsd, rtol=0.01)


def test_gdal_warp_agrees_on_where_things_are(tmp_path):
    rows, cols = np.mgrid[:200, :220]
    smooth = (127 + 100 * np.sin(rows / 9) * np.cos(cols / 11)).astype(np.uint8)
    path = write(tmp_path / "a.tif", np.stack([smooth] * 3), transform=ROTATED)
    with Scene.open(path, gsd=0.15) as scene, rasterio.open(path) as dataset:
        got, _ = scene.read(scene.grid.window)
        want = np.zeros(got.shape[1:], np.uint8)
        rasterio.warp.reproject(
            dataset.read(1),
            want,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            dst_transform=scene.grid.transform,
            dst_crs=dataset.crs,
            resampling=rasterio.enums.Resampling.bilinear,
        )
    inner = np.s_[5:-5, 5:-5]
    assert np.abs(got[0][inner].astype(int) - want[inner]).max() <= 2


def test_a_working_pixel_is_valid_when_half_of_it_is(tmp_path):
    mask = np.ones((100, 100), bool)
    mask[:, :41] = False  # the working pixel of columns 40-44 lacks a fifth
    mask[:, 63:] = False  # that of columns 60-64 lacks two fifths
    path = write(tmp_path / "a.tif", noise(100, 100), mask=mask)
    with Scene.open(path, gsd=1.0) as scene:
        _, valid = scene.read(scene.grid.window)
    assert_array_equal(valid, np.tile((np.arange(20) >= 8) & (np.arange(20) <= 12), (20, 1)))


def test_overviews_serve_strong_reduction_without_seams_or_shift(tmp_path):
    pixels = np.zeros((3, 1024, 1024), np.uint8)
    pixels[:, 256:512, 384:640] = 200
    path = write(tmp_path / "a.tif", pixels, overviews=(2, 4, 8))
    with Scene.open(path, gsd=0.2 * 17) as scene:
        assert scene._source_grid.height == 256
        image, valid = scene.read(scene.grid.window)
        right = Window(row_off=0, col_off=31, height=scene.grid.height, width=20)
        assert_array_equal(scene.read(right)[0], image[:, :, 31:51])
        scale = scene.grid.height / 1024
    assert valid.all()
    weight = image[0].astype(float)
    centre = (weight.sum(0) * (np.arange(weight.shape[1]) + 0.5)).sum() / weight.sum()
    assert abs(centre - 512 * scale) < 0.05


@pytest.mark.parametrize(
    ("options", "want_m"),
    [
        ({}, None),
        ({"gsd": "native"}, None),
        ({"gsd_range_m": (0.1, 0.3)}, None),
        ({"gsd_range_m": (0.195, 0.195)}, None),
        ({"gsd_range_m": (0.25, 0.3)}, 0.25),
        ({"gsd_range_m": (0.1, 0.15)}, 0.15),
        ({"gsd": 0.4}, 0.4),
    ],
)
def test_auto_goes_to_the_nearest_resolution_the_model_knows(tmp_path, options, want_m):
    with Scene.open(write(tmp_path / "a.tif", noise(400, 500)), **options) as scene:
        if want_m is None:
            assert scene.grid is scene.native_grid
        else:
            assert np.allclose(scene.grid.pixel_size_m, want_m, rtol=0.005)
            assert np.allclose(scene.grid.bounds, scene.native_grid.bounds)


def test_auto_makes_pixels_square_on_the_ground(tmp_path):
    path = write(tmp_path / "a.tif", noise(400, 500), crs="EPSG:4326", transform=LATLON)
    with Scene.open(path, gsd_range_m=(0.1, 0.3)) as scene:
        x, y = scene.native_grid.pixel_size_m
        assert x / y > 1.15
        x, y = scene.grid.pixel_size_m
        assert abs(x / y - 1) < 0.005
        assert abs(scene.grid.gsd_m / scene.native_grid.gsd_m - 1) < 0.005


@pytest.mark.parametrize(("gsd", "warned"), [("native", 1), (0.5, 1), (0.31, 0), ("auto", 0)])
def test_a_mismatch_left_in_place_warns_once(tmp_path, gsd, warned):
    path = write(tmp_path / "a.tif", noise(100, 100))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Scene.open(path, gsd=gsd, gsd_range_m=(0.25, 0.3)) as scene:
            scene.read(Window(row_off=0, col_off=0, height=9, width=9))
    assert [w.category for w in caught] == [ResolutionWarning] * warned
