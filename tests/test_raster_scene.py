"""Scene: bands, validity, errors, threads. The oracle is rasterio itself, or arithmetic."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.env import get_gdal_config
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RioWindow

from geoseg.errors import ConfigError, InputNotFoundError, ReadError, SceneError
from geoseg.grid import Window
from geoseg.raster import Scene

UTM = "EPSG:32645"
NORTH_UP = Affine(0.2, 0, 300000, 0, -0.2, 3000000)
SCENES = Path(__file__).resolve().parents[2] / "shared" / "scenes"


def noise(bands=3, height=70, width=90, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 30, (bands, height, width)).astype(dtype)
    top = 256 if dtype == np.uint8 else 4000
    return rng.integers(1, top, (bands, height, width)).astype(dtype)


def make_raster(path, pixels, *, mask=None, alpha=False, colormap=None, gcps=None, **profile):
    profile = {"crs": UTM, "transform": NORTH_UP, **profile}
    profile = {k: v for k, v in profile.items() if v is not None}
    count, height, width = pixels.shape
    internal = profile.pop("internal", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=pixels.dtype,
                **profile,
            ) as dataset,
        ):
            dataset.write(pixels)
            if alpha:
                kinds = list(dataset.colorinterp)
                kinds[-1] = ColorInterp.alpha
                dataset.colorinterp = kinds
            if colormap:
                dataset.write_colormap(1, colormap)
            if mask is not None:
                dataset.write_mask(mask)
            if gcps:
                dataset.gcps = (gcps, "EPSG:4326")
    return str(path)


def part(row=0, col=0, height=70, width=90):
    return Window(row_off=row, col_off=col, height=height, width=width)


def test_uint8_is_untouched(tmp_path):
    pixels = noise()
    with Scene.open(make_raster(tmp_path / "a.tif", pixels)) as scene:
        image, valid = scene.read(part(3, 5, 40, 50))
        assert_array_equal(image, pixels[:, 3:43, 5:55])
        assert valid.all()
        assert (scene.scene_id, scene.bands, scene.dtype) == ("a", (1, 2, 3), np.uint8)
        assert scene.grid is scene.native_grid
        assert scene.grid.transform == NORTH_UP
        assert scene.grid.crs.to_epsg() == 32645


def test_vrt_reads_like_its_source(tmp_path):
    path = make_raster(tmp_path / "a.tif", noise())
    vrt = tmp_path / "a.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    with Scene.open(str(vrt)) as scene:
        assert_array_equal(scene.read(part())[0], noise())


def test_bands_are_chosen_and_may_repeat(tmp_path):
    path = make_raster(tmp_path / "a.tif", noise(bands=5))
    with Scene.open(path, bands=(4, 2, 4)) as scene:
        assert_array_equal(scene.read(part())[0], noise(bands=5)[[3, 1, 3]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.float32, np.float64])
def test_auto_rescale_is_the_percentile_line_of_each_band(tmp_path, dtype):
    pixels = noise(dtype=dtype) * np.array([1, 2, 3], dtype)[:, None, None]
    with Scene.open(make_raster(tmp_path / "a.tif", pixels)) as scene:
        image, _ = scene.read(part())
    for band, got in zip(pixels.astype(float), image, strict=True):
        low, high = np.percentile(band, [2, 98])
        want = np.clip((band - low) / (high - low), 0, 1) * 255
        assert np.abs(got - want).max() <= 0.51


def test_explicit_rescale_holds_for_all_bands_and_uint8_too(tmp_path):
    path = make_raster(tmp_path / "a.tif", noise())
    with Scene.open(path, rescale=(50, 100)) as scene:
        want = np.clip((noise().astype(float) - 50) * 5.1, 0, 255)
        assert np.abs(scene.read(part())[0] - want).max() <= 0.51


@pytest.mark.parametrize("gsd", ["native", 0.31])
def test_nan_and_inf_are_invalid_and_poison_nothing(tmp_path, gsd):
    pixels = noise(dtype=np.float32)
    pixels[0, 10:20, 10:20] = np.nan
    pixels[1, 40:50, 10:20] = np.inf
    pixels[2, 40:50, 40:50] = -np.inf
    clean = make_raster(tmp_path / "b.tif", np.nan_to_num(pixels, nan=0, posinf=0, neginf=0))
    with Scene.open(make_raster(tmp_path / "a.tif", pixels), gsd=gsd) as scene:
        image, valid = scene.read(scene.grid.window)
        line = scene.rescale
        assert np.isfinite([*line.low, *line.high]).all()
        assert abs(line.low[0] - np.nanpercentile(pixels[0], 2)) < 3
    assert (image[:, ~valid] == 0).all()
    assert 0 < (~valid).mean() < 0.1
    with Scene.open(clean, gsd=gsd, rescale=(line.low[0], line.high[0])) as scene:
        far = scene.read(scene.grid.window)[0][0, :, -10:]
    assert_array_equal(image[0, :, -10:], far)


def test_constant_band_and_all_invalid_scene_divide_nothing_by_zero(tmp_path):
    flat = np.full((3, 20, 20), 7, np.uint16)
    with Scene.open(make_raster(tmp_path / "a.tif", flat)) as scene:
        assert scene.read(scene.grid.window)[1].all()
    holes = np.full((3, 20, 20), np.nan, np.float32)
    with Scene.open(make_raster(tmp_path / "b.tif", holes)) as scene:
        image, valid = scene.read(scene.grid.window)
        assert not valid.any()
        assert not image.any()
        assert scene.valid_fraction(scene.grid.window) == 0


def test_nodata_denies_a_pixel_only_where_all_bands_have_it(tmp_path):
    pixels = noise()
    pixels[:, :10] = 0
    pixels[0, 20:30] = 0
    path = make_raster(tmp_path / "a.tif", pixels, nodata=0)
    with Scene.open(path) as scene, rasterio.open(path) as dataset:
        _, valid = scene.read(part())
        assert_array_equal(valid, dataset.dataset_mask() > 0)
    assert not valid[:10].any()
    assert valid[10:].all()


def test_nodata_outside_the_dtype_denies_nothing(tmp_path):
    vrt = tmp_path / "a.vrt"
    rasterio.shutil.copy(make_raster(tmp_path / "a.tif", noise()), vrt, driver="VRT")
    text = vrt.read_text().replace("<ColorInterp>", "<NoDataValue>-9999</NoDataValue><ColorInterp>")
    vrt.write_text(text)
    with Scene.open(str(vrt)) as scene:
        assert scene.read(part())[1].all()


def test_alpha_band_is_validity_and_never_colour(tmp_path):
    pixels = noise(bands=4)
    pixels[3] = 255
    pixels[3, :, :30] = 0
    path = make_raster(tmp_path / "a.tif", pixels, alpha=True)
    with Scene.open(path) as scene, rasterio.open(path) as dataset:
        image, valid = scene.read(part())
        assert_array_equal(valid, dataset.dataset_mask() > 0)
        assert scene.bands == (1, 2, 3)
    assert not image[:, :, :30].any()
    assert_array_equal(image[:, :, 30:], pixels[:3, :, 30:])


def test_alpha_and_nodata_are_combined(tmp_path):
    # GDAL's own mask would report the nodata value only.
    pixels = noise(bands=4)
    pixels[3] = 255
    pixels[3, :, :30] = 0
    pixels[:3, :10] = 0
    with Scene.open(make_raster(tmp_path / "a.tif", pixels, alpha=True, nodata=0)) as scene:
        _, valid = scene.read(part())
    want = np.ones((70, 90), bool)
    want[:10] = want[:, :30] = False
    assert_array_equal(valid, want)


@pytest.mark.parametrize("internal", [True, False])
def test_mask_band_inside_or_beside_the_file(tmp_path, internal, monkeypatch):
    # An option meant for remote files must not hide what lies beside local ones.
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    mask = np.tri(70, 90).astype(bool)
    path = make_raster(tmp_path / "a.tif", noise(), mask=mask, internal=internal)
    assert (tmp_path / "a.tif.msk").exists() is not internal
    with Scene.open(path) as scene:
        image, valid = scene.read(part())
    assert_array_equal(valid, mask)
    assert not image[:, ~mask].any()


def test_mask_band_and_nodata_are_combined(tmp_path):
    mask = np.tri(70, 90).astype(bool)
    pixels = noise()
    pixels[:, 50:] = 0
    with Scene.open(make_raster(tmp_path / "a.tif", pixels, mask=mask, nodata=0)) as scene:
        _, valid = scene.read(part())
    mask[50:] = False
    assert_array_equal(valid, mask)


def test_palette_is_expanded(tmp_path):
    index = noise(bands=1) % 3
    colours = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (1, 2, 3, 255)}
    path = make_raster(tmp_path / "a.tif", index, colormap=colours)
    with Scene.open(path) as scene:
        image, valid = scene.read(part())
    table = np.array([colours[i][:3] for i in range(3)], np.uint8)
    assert_array_equal(image, table[index[0]].transpose(2, 0, 1))
    assert valid.all()


def test_one_pixel_scene(tmp_path):
    with Scene.open(make_raster(tmp_path / "a.tif", noise(height=1, width=1))) as scene:
        image, valid = scene.read(Window(row_off=0, col_off=0, height=1, width=1))
        assert image.shape == (3, 1, 1)
        assert valid.shape == (1, 1)
        assert scene.overview(100)[0].shape == (1, 1, 3)


def test_overview_covers_the_same_ground(tmp_path):
    pixels = noise(height=400, width=600)
    with Scene.open(make_raster(tmp_path / "a.tif", pixels)) as scene:
        image, valid, grid = scene.overview(150)
        assert image.shape == (100, 150, 3)
        assert valid.all()
        assert np.allclose(grid.bounds, scene.grid.bounds)
        want = pixels.reshape(3, 100, 4, 150, 4).mean((2, 4)).transpose(1, 2, 0)
        assert np.abs(image - want).max() <= 1


def test_windows_agree_across_threads(tmp_path):
    pixels = noise(height=500, width=500)
    path = make_raster(tmp_path / "a.tif", pixels, tiled=True, blockxsize=64, blockysize=64)
    windows = [part(r, c, 77, 77) for r in range(0, 400, 50) for c in range(0, 400, 50)]
    with Scene.open(path) as scene, ThreadPoolExecutor(4) as pool:
        for window, (image, _) in zip(windows, pool.map(scene.read, windows), strict=True):
            assert_array_equal(image, pixels[:, window.slices[0], window.slices[1]])
        assert 1 <= len(scene._handles) <= 4
        handles = list(scene._handles)
    assert all(handle.closed for handle in handles)


def test_closed_scene_says_so(tmp_path):
    scene = Scene.open(make_raster(tmp_path / "a.tif", noise()))
    scene.close()
    scene.close()
    with pytest.raises(ConfigError, match="closed"):
        scene.read(part())


def test_window_outside_the_scene_is_an_error(tmp_path):
    with (
        Scene.open(make_raster(tmp_path / "a.tif", noise())) as scene,
        pytest.raises(ConfigError, match="inside the scene"),
    ):
        scene.read(part(1, 0))


def make_text(folder):
    (folder / "x.tif").write_text("not a raster")
    return str(folder / "x.tif")


def make_truncated_header(folder):
    path = make_raster(folder / "x.tif", noise())
    os.truncate(path, 100)
    return path


def make_gcps(folder):
    points = [
        GroundControlPoint(0, 0, 85, 27),
        GroundControlPoint(0, 90, 85.1, 27),
        GroundControlPoint(70, 0, 85, 26.9),
    ]
    return make_raster(folder / "x.tif", noise(), crs=None, transform=None, gcps=points)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda d: str(d / "none.tif"), InputNotFoundError, "no such file"),
        (lambda d: "/vsizip/none.zip/a.tif", SceneError, "not a raster"),
        (str, SceneError, "not a raster"),
        (make_text, SceneError, "not a raster"),
        (make_truncated_header, SceneError, "truncated"),
        (lambda d: make_raster(d / "x.tif", noise(), crs=None), SceneError, "gdal_edit.py -a_srs"),
        (lambda d: make_raster(d / "x.tif", noise(), transform=None), SceneError, "geotransform"),
        (make_gcps, SceneError, "ground control points only.*gdalwarp"),
        (lambda d: make_raster(d / "x.tif", noise(bands=1)), SceneError, "--bands 1,1,1"),
        (lambda d: make_raster(d / "x.tif", noise(bands=2)), SceneError, "--bands 1,1,1"),
        (
            lambda d: make_raster(d / "x.tif", noise().astype(np.complex64)),
            SceneError,
            "real numbers",
        ),
    ],
)
def test_bad_scene_gets_one_line(tmp_path, make, error, words):
    path = make(tmp_path)
    with pytest.raises(error, match=words) as caught:
        Scene.open(path)
    assert "\n" not in str(caught.value)
    assert Path(path).name in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bands": (1, 2)}, SceneError, "three numbers from 1 to 3, got 1,2"),
        ({"bands": (1, 2, 4)}, SceneError, "got 1,2,4"),
        ({"rescale": (5, 5)}, ConfigError, "MIN < MAX"),
        ({"rescale": "max"}, ConfigError, "auto or MIN,MAX"),
        ({"gsd": -1.0}, ConfigError, "more than 0"),
        ({"gsd": float("nan")}, ConfigError, "more than 0"),
        ({"gsd": "coarse"}, ConfigError, "auto, native"),
        ({"gsd": 1e-9}, SceneError, "1 to 1000000 px"),
        ({"gsd": 1e4}, SceneError, "1 to 1000000 px"),
        ({"gsd_range_m": (0.3, 0.1)}, ConfigError, "least, greatest"),
    ],
)
def test_bad_option_gets_one_line(tmp_path, options, error, words):
    path = make_raster(tmp_path / "a.tif", noise())
    with pytest.raises(error, match=words) as caught:
        Scene.open(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gsd", ["native", 0.3])
def test_truncated_pixels_are_a_read_error_with_the_window_and_the_reason(tmp_path, gsd):
    path = make_raster(
        tmp_path / "a.tif",
        noise(height=600, width=600),
        tiled=True,
        blockxsize=128,
        blockysize=128,
        compress="deflate",
    )
    os.truncate(path, Path(path).stat().st_size // 2)
    with Scene.open(path, gsd=gsd) as scene:
        height, width = scene.grid.height, scene.grid.width
        assert scene.read(part(0, 0, 50, 50))[1].all()
        with pytest.raises(ReadError, match=r"rows \d+-.*TIFF.*got 0 bytes") as caught:
            scene.read(part(height - 50, width - 50, 50, 50))
        assert "\n" not in str(caught.value)


def test_truncated_statistics_are_a_read_error(tmp_path):
    pixels = noise(height=600, width=600, dtype=np.uint16)
    path = make_raster(tmp_path / "a.tif", pixels, compress="deflate")
    os.truncate(path, Path(path).stat().st_size // 2)
    with pytest.raises(ReadError):
        Scene.open(path)


@pytest.mark.skipif(not SCENES.is_dir(), reason="the real scenes are not here")
@pytest.mark.parametrize("name", ["banepa_town", "zanzibar_c1"])
def test_real_scene_reads_like_rasterio(name):
    path = SCENES / f"{name}.tif"
    with Scene.open(str(path)) as scene, rasterio.open(path) as dataset:
        image, valid = scene.read(part(500, 700, 300, 300))
        assert_array_equal(image, dataset.read([1, 2, 3], window=RioWindow(700, 500, 300, 300)))
        assert valid.all()
        assert 0.12 < scene.grid.gsd_m < 0.16


def test_handles_are_reused_by_later_threads_and_the_cache_limit_is_given_back(tmp_path):
    before = get_gdal_config("GDAL_CACHEMAX")
    with Scene.open(make_raster(tmp_path / "a.tif", noise())) as scene:
        limit = get_gdal_config("GDAL_CACHEMAX")
        assert limit == 64 * 2**20
        for _ in range(6):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(scene.read, part()).result()
                assert get_gdal_config("GDAL_CACHEMAX") == limit
        assert len(scene._handles) == 1
    assert get_gdal_config("GDAL_CACHEMAX") == before


def test_dtype_is_that_of_the_chosen_bands(tmp_path):
    vrt = tmp_path / "a.vrt"
    path = make_raster(tmp_path / "a.tif", noise(bands=4, dtype=np.uint16))
    rasterio.shutil.copy(path, vrt, driver="VRT")
    vrt.write_text(
        vrt.read_text().replace('dataType="UInt16" band="1"', 'dataType="Byte" band="1"')
    )
    with rasterio.open(vrt) as dataset:
        assert dataset.dtypes[:2] == ("uint8", "uint16")
    with Scene.open(str(vrt), bands=(2, 3, 4)) as scene:
        assert scene.dtype == np.uint16
        assert scene.rescale is not None
