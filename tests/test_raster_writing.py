"""Chip images and mask rasters: what is written is what comes back, whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import zlib

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.testing import assert_array_equal
from PIL import Image
from pyproj import CRS
from rasterio.features import rasterize

from geoseg.errors import ConfigError, InputNotFoundError, OutputError, ReadError
from geoseg.grid import Grid, Window
from geoseg.raster import MaskWriter, rasterize_footprints, read_chip_image, write_chip_image

ROTATED = Affine.translation(300000, 3000000) @ Affine.rotation(30) @ Affine.scale(0.2, -0.2)


def make_grid(height=40, width=60, transform=ROTATED):
    return Grid(crs=CRS.from_epsg(32645), transform=transform, height=height, width=width)


def make_image(height=40, width=60, *, holes=True):
    rng = np.random.default_rng(0)
    valid = rng.random((height, width)) > 0.2 if holes else np.ones((height, width), bool)
    image = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    image[:, ~valid] = 0
    return image, valid


@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_chip_image_comes_back(tmp_path, suffix, holes):
    image, valid = make_image(holes=holes)
    path = tmp_path / f"chip{suffix}"
    write_chip_image(path, image, make_grid(), valid)
    got_image, got_valid = read_chip_image(path)
    assert_array_equal(got_image, image)
    assert_array_equal(got_valid, valid)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_chip_png_is_plain_rgb_where_all_is_valid(tmp_path):
    image, valid = make_image(holes=False)
    write_chip_image(tmp_path / "a.png", image, make_grid(), valid)
    with Image.open(tmp_path / "a.png") as png:
        assert png.mode == "RGB"
        assert_array_equal(np.asarray(png).transpose(2, 0, 1), image)


def test_chip_tiff_knows_its_place(tmp_path):
    image, valid = make_image()
    write_chip_image(tmp_path / "a.tif", image, make_grid(), valid)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert np.allclose(dataset.transform, ROTATED)
        assert dataset.crs.to_epsg() == 32645
        assert_array_equal(dataset.dataset_mask() > 0, valid)


def test_unreadable_chip_image_is_one_line(tmp_path):
    image, valid = make_image(holes=False)
    write_chip_image(tmp_path / "a.png", image, make_grid(), valid)
    os.truncate(tmp_path / "a.png", 2000)
    (tmp_path / "b.png").write_text("no")
    (tmp_path / "b.tif").write_text("no")
    for name in ("a.png", "b.png", "b.tif"):
        with pytest.raises(ReadError, match=name) as caught:
            read_chip_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputNotFoundError):
        read_chip_image(tmp_path / "c.png")


def test_wrong_shapes_are_told(tmp_path):
    image, valid = make_image()
    with pytest.raises(ConfigError, match=r"\(3, 40, 60\)"):
        write_chip_image(tmp_path / "a.png", image[:, 1:], make_grid(), valid)
    with MaskWriter(tmp_path / "m.tif", make_grid()) as writer:
        window = Window(row_off=0, col_off=0, height=3, width=3)
        with pytest.raises(ConfigError, match=r"uint8 \(3, 3\)"):
            writer.burn(window, np.zeros((3, 2), np.uint8), 1)
        with pytest.raises(ConfigError, match="ids"):
            writer.burn(window, np.zeros((3, 3), np.uint8), 0)


@pytest.mark.parametrize("name", ["none/a.tif", "a.jpg", "a"])
def test_impossible_outputs_are_told_at_once(tmp_path, name):
    image, valid = make_image()
    with pytest.raises(OutputError):
        write_chip_image(tmp_path / name, image, make_grid(), valid)
    with pytest.raises(OutputError):
        MaskWriter(tmp_path / name, make_grid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["ids", "probability"])
def test_mask_is_what_plain_arrays_would_hold(tmp_path, kind):
    grid = make_grid(1300, 1100)
    rng = np.random.default_rng(1)
    want = np.zeros((1300, 1100), np.int32 if kind == "ids" else np.uint8)
    with MaskWriter(tmp_path / "m.tif", grid, kind) as writer:
        for value in range(1, 60):
            row, col = int(rng.integers(-30, 1290)), int(rng.integers(-30, 1090))
            height, width = rng.integers(1, 200, 2)
            soft = rng.integers(0, 256, (height, width), dtype=np.uint8)
            window = Window(row_off=row, col_off=col, height=int(height), width=int(width))
            writer.burn(window, soft, value)
            seen = soft[max(0, -row) : 1300 - row, max(0, -col) : 1100 - col]
            part = want[max(0, row) : row + height, max(0, col) : col + width]
            if kind == "ids":
                part[seen >= 128] = value
            else:
                np.maximum(part, seen, out=part)
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert_array_equal(dataset.read(1), want)
        assert np.allclose(dataset.transform, ROTATED)
        assert dataset.overviews(1) == [2, 4] or dataset.overviews(1)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        small = dataset.read(1, out_shape=(650, 550))
        if kind == "ids":
            assert set(np.unique(small)) <= set(np.unique(want))
    assert [p.name for p in tmp_path.iterdir()] == ["m.tif"]


def test_mask_far_outside_the_grid_burns_nothing(tmp_path):
    with MaskWriter(tmp_path / "m.tif", make_grid()) as writer:
        window = Window(row_off=100, col_off=0, height=2, width=2)
        writer.burn(window, np.full((2, 2), 255, np.uint8), 5)
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert not dataset.read(1).any()


def test_a_failed_run_leaves_the_old_mask_and_nothing_else(tmp_path):
    (tmp_path / "m.tif").write_bytes(b"old")

    def interrupted():
        with MaskWriter(tmp_path / "m.tif", make_grid()) as writer:
            window = Window(row_off=0, col_off=0, height=2, width=2)
            writer.burn(window, np.full((2, 2), 255, np.uint8), 5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "m.tif").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.tif"]


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


@pytest.mark.parametrize("kind", ["mask", "chip.tif", "chip.png"])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, kind):
    code = """
import sys
import numpy as np
from affine import Affine
from pyproj import CRS
from geoseg.errors import OutputError
from geoseg.grid import Grid
from geoseg.raster import MaskWriter, write_chip_image
path, kind = sys.argv[1:]
grid = Grid(crs=CRS.from_epsg(32645), transform=Affine(1, 0, 9, 0, -1, 9), height=999, width=999)
noise = np.random.default_rng(0).integers(0, 256, (3, 999, 999), dtype=np.uint8)
try:
    if kind == "mask":
        with MaskWriter(path + "/m.tif", grid, "probability") as writer:
            writer.burn(grid.window, noise[0])
    else:
        write_chip_image(path + "/" + kind, noise, grid, np.ones((999, 999), bool))
except OutputError as error:
    assert "\\n" not in str(error)
    sys.exit(7)
"""
    command = [sys.executable, "-c", code, str(tmp_path), kind]
    done = subprocess.run(command, preexec_fn=limit_file_size, check=False)
    assert done.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_footprints_are_rasterized_as_rasterio_does_in_one_piece(tmp_path):
    grid = make_grid(2500, 2300)
    rng = np.random.default_rng(2)
    shapes = []
    for _ in range(200):
        x, y = rng.uniform(-20, 2500, 2)
        ring = shapely.Point(x, y).buffer(rng.uniform(2, 90), quad_segs=2)
        shapes.append(ring.difference(shapely.Point(x, y).buffer(1.5)))
    on_ground = shapely.transform(shapes, lambda p: np.stack(ROTATED @ (p[:, 0], p[:, 1]), axis=1))
    ids = rng.permutation(200) + 1
    rasterize_footprints(tmp_path / "m.tif", grid, on_ground, ids)
    want = rasterize(zip(shapes, ids, strict=True), out_shape=(2500, 2300), dtype="int32")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        got = dataset.read(1)
    assert (got != want).mean() < 1e-6  # centres that lie on an edge to the last bit
    assert dataset.nodata == 0


def test_no_footprints_make_an_empty_raster(tmp_path):
    rasterize_footprints(tmp_path / "m.tif", make_grid(), [], [])
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert not dataset.read(1).any()
    with pytest.raises(ConfigError, match="one per geometry"):
        rasterize_footprints(tmp_path / "m.tif", make_grid(), [shapely.box(0, 0, 1, 1)], [])


def test_a_chip_image_that_claims_a_huge_size_is_a_read_error(tmp_path):
    for side in (9000, 30000):
        ihdr = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
        crc = zlib.crc32(ihdr).to_bytes(4, "big")
        header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + ihdr + crc
        (tmp_path / "a.png").write_bytes(header + bytes(4) + b"IDAT" + bytes(4))
        with pytest.raises(ReadError, match="readable JPEG, PNG or TIFF"):
            read_chip_image(tmp_path / "a.png")
