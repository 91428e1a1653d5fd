from __future__ import annotations

import math
import pickle

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geoseg.data.scenes import LabelledScene, Placement, WindowOptions, instance_masks
from geoseg.data.towns import make_towns
from geoseg.errors import ConfigError, VectorError
from geoseg.raster import Scene
from geoseg.testing import Town, make_town, write_town
from geoseg.testing.files import TownFiles


@pytest.fixture(scope="module")
def town() -> Town:
    return make_town(size_px=700, seed=3)


@pytest.fixture(scope="module")
def files(town: Town, tmp_path_factory: pytest.TempPathFactory) -> TownFiles:
    return write_town(town, tmp_path_factory.mktemp("town"))


def opened(files: TownFiles, **words) -> LabelledScene:
    size_px = words.pop("size_px", 128)
    part = words.pop("part", (0.0, 0.0, 1.0, 1.0))
    options = WindowOptions(size_px=size_px, **words)
    return LabelledScene.open(str(files.image), str(files.truth), part=part, options=options)


def at(x: float, y: float, *, scale: float = 1.0, angle: float = 0.0) -> Placement:
    return Placement(x=x, y=y, scale_x=scale, scale_y=scale, angle_rad=angle)


def test_an_upright_window_of_native_pixels_is_that_window(files, town):
    sample = opened(files).cut(at(164.0, 264.0))
    expected = town.image[200:328, 100:228].transpose(2, 0, 1)
    np.testing.assert_array_equal(sample.image, expected)


def test_masks_are_the_painted_instances(files, town):
    sample = opened(files).cut(at(164.0, 264.0))
    painted = town.ids[200:328, 100:228]
    areas = {i: (painted == i).sum() for i in np.unique(painted) if i}
    whole = {i: (town.ids == i).sum() for i in areas}
    expected = [i for i in areas if areas[i] >= max(12, 0.09 * whole[i])]
    assert len(sample) >= len(expected)
    for ident in expected:
        overlaps = (sample.masks & (painted == ident)).sum(axis=(1, 2))
        union = (sample.masks | (painted == ident)).sum(axis=(1, 2))
        assert (overlaps / union).max() > 0.97


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_window_turned_by_right_angles_is_the_window_turned(files, turns):
    scene = opened(files)
    upright = scene.cut(at(300.0, 300.0))
    turned = scene.cut(at(300.0, 300.0, angle=turns * math.pi / 2))
    expected = np.rot90(upright.image, turns, axes=(1, 2)).astype(int)
    assert np.abs(turned.image - expected).max() <= 1
    # Pixels whose centre lies on an edge may go either way.
    assert turned.masks.sum() == pytest.approx(upright.masks.sum(), rel=0.01)


def test_pixels_and_masks_turn_and_scale_together(town, tmp_path):
    painted = np.repeat(np.where(town.ids > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    files = write_town(
        Town(image=painted, ids=town.ids, truth=town.truth, grid=town.grid), tmp_path
    )
    scene = opened(files, size_px=200)
    for place in (at(350.0, 350.0, angle=0.7), at(350.0, 330.0, scale=1.7, angle=-2.0)):
        sample = scene.cut(place)
        seen, masked = sample.image[0] > 127, sample.masks.any(axis=0)
        assert (seen & masked).sum() / (seen | masked).sum() > 0.96


def test_reducing_averages_instead_of_skipping(files):
    scene = opened(files)
    fine = scene.cut(at(350.0, 350.0)).image.astype(float)
    coarse = scene.cut(at(350.0, 350.0, scale=2.0)).image.astype(float)
    inner = coarse[:, 32:96, 32:96]
    expected = fine.reshape(3, 64, 2, 64, 2).mean(axis=(2, 4))
    assert np.abs(inner - expected).mean() < 2


def test_samples_stay_inside_their_part(files, monkeypatch):
    scene = opened(files, part=(0.0, 0.0, 1.0, 0.6), gsd_range_m=(0.2, 0.6), near_object=0.5)
    lows, highs = [], []
    read = scene.pixels.read

    def watched(window):
        lows.append(window.row_off)
        highs.append(window.row_stop)
        return read(window)

    monkeypatch.setattr(scene.pixels, "read", watched)
    for i in range(60):
        scene.sample(0, np.random.default_rng(i))
    assert max(highs) <= 0.6 * 700 + 4  # two pixels beyond for the interpolation, and rounding
    assert min(lows) == 0


def test_tiles_cover_the_part_at_any_resolution(files):
    scene = opened(files, part=(0.1, 0.0, 0.9, 1.0))
    for gsd_m in (0.3, 0.37, 0.5):
        covered = shapely.union_all(
            [
                shapely.box(
                    t.x - 64 * t.scale_x, t.y - 64 * t.scale_y,
                    t.x + 64 * t.scale_x, t.y + 64 * t.scale_y,
                )
                for t in scene.tiles(gsd_m)
            ]
        )  # fmt: skip
        assert covered.symmetric_difference(shapely.box(70, 0, 630, 700)).area < 1e-3


def test_gsd_is_drawn_from_the_whole_range(files):
    scene = opened(files, gsd_range_m=(0.2, 0.8))
    seen = [scene.sample(0, np.random.default_rng(i)).gsd_m for i in range(150)]
    assert 0.2 <= min(seen) < 0.23
    assert 0.7 < max(seen) <= 0.8
    assert np.median(seen) == pytest.approx(0.4, abs=0.06)  # the middle of the logarithms


def test_windows_near_objects_hold_more_of_them(files):
    def share(near: float) -> float:
        scene = opened(files, size_px=64, near_object=near)
        samples = [scene.sample(0, np.random.default_rng(i)) for i in range(80)]
        return float(np.mean([len(s) > 0 for s in samples]))

    assert share(1.0) > max(0.95, share(0.0))


def test_a_source_can_be_sent_to_another_process(files):
    scene = opened(files)
    here = scene.sample(0, np.random.default_rng(1))
    sent = pickle.loads(pickle.dumps(scene))
    np.testing.assert_array_equal(sent.sample(0, np.random.default_rng(1)).image, here.image)


def test_objects_hardly_in_the_chip_are_no_targets():
    polygons = np.array([shapely.box(-50, 0, 1, 20), shapely.box(5, 5, 15, 15)])
    masks = instance_masks(polygons, (32, 32))
    assert masks.sum(axis=(1, 2)).tolist() == [100]


def test_a_scene_smaller_than_a_chip_is_padded(files):
    sample = opened(files, size_px=900).sample(0, np.random.default_rng(0))
    assert sample.image.shape == (3, 900, 900)
    assert (sample.image[:, :90] == 0).all()


@pytest.mark.parametrize("part", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 2)])
def test_a_part_that_is_none_is_refused(files, part):
    with pytest.raises(ConfigError, match="part must be left, top, right, bottom"):
        opened(files, part=part)


def test_labels_of_another_place_are_refused(files, tmp_path):
    far = tmp_path / "far.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(10, 50, 10.001, 50.001)], crs=4326).to_file(far)
    with pytest.raises(VectorError, match=r"far.geojson must hold outlines that touch"):
        LabelledScene.open(str(files.image), str(far))


def test_labels_without_areas_are_refused(files, tmp_path):
    points = tmp_path / "points.geojson"
    gpd.GeoDataFrame(geometry=[shapely.Point(34, -6)], crs=4326).to_file(points)
    with pytest.raises(VectorError, match="must hold polygons"):
        LabelledScene.open(str(files.image), str(points))


@pytest.mark.parametrize(
    "words",
    [
        {"size_px": 8},
        {"gsd_range_m": (0.4, 0.2)},
        {"gsd_range_m": (0.0, 0.2)},
        {"near_object": 1.5},
        {"rotate": -0.1},
    ],
)
def test_bad_window_options_are_refused(words):
    with pytest.raises(ConfigError, match=next(iter(words))):
        WindowOptions(**words)


def test_towns_differ_and_are_the_same_each_time():
    options = WindowOptions(size_px=64)
    first, second = make_towns(2, options=options)
    rng = np.random.default_rng
    assert (first.sample(0, rng(0)).image != second.sample(0, rng(0)).image).any()
    again = make_towns(1, options=options)[0]
    np.testing.assert_array_equal(again.sample(0, rng(0)).image, first.sample(0, rng(0)).image)


def test_a_scene_is_read_with_its_own_pixels(files, town):
    with Scene.open(str(files.image), gsd="native") as scene:
        assert opened(files).grid.gsd_m == scene.grid.gsd_m == pytest.approx(0.3, rel=1e-3)
