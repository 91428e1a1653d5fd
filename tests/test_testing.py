import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely.geometry import box

from geoseg.errors import ConfigError, ModelError
from geoseg.testing import (
    Wear,
    assert_footprints_valid,
    assert_no_overlaps,
    blank,
    ids_to_rgb,
    make_town,
    mosaic_truth,
    noisy_oracle,
    oracle,
    soft_oracle,
    worn_masks,
    write_town,
    write_town_mosaic,
)

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def town():
    return make_town(size_px=600, seed=1)


@pytest.fixture(scope="module")
def city():
    return make_town(seed=0)


def make_chip(ids):
    return torch.from_numpy(ids_to_rgb(np.asarray(ids, np.int32))).permute(2, 0, 1) / 255


def make_footprints(*shapes, crs="EPSG:32736", **columns):
    n = len(shapes)
    frame = {
        "id": [f"{k:016x}" for k in range(n)],
        "scene": "a",
        "label": "building",
        "score": 0.5,
        "area_m2": [shape.area for shape in shapes],
        "n_chips": 1,
        "touches_edge": False,
    } | columns
    return gpd.GeoDataFrame(frame, geometry=list(shapes), crs=crs, index=range(n))


def rings_px(town):
    """Truth polygons in the town's pixel frame, through the inverse transform."""
    inverse = ~town.grid.transform
    return shapely.transform(
        town.truth.geometry.to_numpy(),
        lambda xy: np.stack(inverse @ (xy[:, 0], xy[:, 1]), axis=1),
    )


def test_same_seed_gives_same_town_and_another_seed_does_not(town):
    again, other = make_town(size_px=600, seed=1), make_town(size_px=600, seed=2)
    assert np.array_equal(town.image, again.image)
    assert np.array_equal(town.ids, again.ids)
    assert town.truth.geom_equals_exact(again.truth, 0).all()
    assert not np.array_equal(town.ids, other.ids)


def test_city_has_about_900_buildings_of_every_kind(city):
    assert 880 <= len(city.truth) <= 920
    counts = city.truth["kind"].value_counts()
    assert set(counts.index) == {
        "block", "courtyard_block", "terrace", "l_shape", "house", "courtyard_house"
    }  # fmt: skip
    assert counts["terrace"] > 100
    assert counts["house"] > 400


def test_city_has_several_blocks_larger_than_a_chip(city):
    spans = [np.subtract(shape.bounds[2:], shape.bounds[:2]).max() for shape in rings_px(city)]
    assert sum(span > 300 for span in spans) >= 3


@pytest.mark.parametrize("seed", range(4))
def test_small_town_has_a_block_larger_than_a_chip_and_a_courtyard(seed):
    town = make_town(size_px=600, seed=seed)
    spans = [np.subtract(shape.bounds[2:], shape.bounds[:2]).max() for shape in rings_px(town)]
    assert max(spans) > 300
    assert any(shape.interiors for shape in town.truth.geometry)


def test_each_building_is_painted_as_one_connected_instance(city):
    assert set(np.unique(city.ids)) == {0, *city.truth["ident"]}
    for ident, window in enumerate(ndimage.find_objects(city.ids), start=1):
        _, n_parts = ndimage.label(city.ids[window] == ident)
        assert n_parts == 1, f"building {ident} is painted in {n_parts} parts"


def test_pixels_are_painted_where_their_centre_lies_in_the_polygon(town):
    x, y = np.meshgrid(np.arange(600) + 0.5, np.arange(600) + 0.5)
    expected = np.zeros((600, 600), np.int32)
    for ident, shape in zip(town.truth["ident"], rings_px(town), strict=True):
        expected[shapely.contains_xy(shape, x, y)] = ident
    differs = expected != town.ids
    assert differs.sum() == 0


def test_painted_area_matches_the_exact_area(city):
    areas_px = shapely.area(rings_px(city))
    painted = np.bincount(city.ids.ravel())[1:]
    assert painted.sum() == pytest.approx(areas_px.sum(), rel=0.001)


def test_buildings_never_overlap_and_keep_off_the_edge(city):
    assert_no_overlaps(city.truth, tolerance_m2=1e-6)
    bounds = shapely.total_bounds(rings_px(city))
    assert bounds.min() >= 5
    assert bounds.max() <= 2095


def test_terraced_houses_share_a_wall_exactly(city):
    terraces = city.truth[city.truth["kind"] == "terrace"].geometry.to_numpy()
    a, b = shapely.STRtree(terraces).query(terraces, predicate="touches")
    walls = shapely.length(shapely.intersection(terraces[a], terraces[b]))
    assert (walls > 8).sum() >= len(terraces)  # metres; each pair is counted twice


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:25832", "EPSG:32736", "EPSG:2263"])
def test_any_crs_keeps_the_ground_resolution(crs):
    town = make_town(size_px=300, gsd_m=0.5, crs=crs)
    assert town.truth.crs == crs
    assert town.grid.gsd_m == pytest.approx(0.5, rel=0.01)
    assert box(*town.grid.bounds).contains(town.truth.union_all())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size_px": 255}, "at least 256"), ({"gsd_m": 0}, "gsd_m"), ({"gsd_m": np.nan}, "gsd_m")],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_town(**options)


def test_picture_is_textured_and_roofs_stand_out(city):
    grey = city.image.mean(axis=2)
    assert grey[city.ids == 0].std() > 10
    assert grey[city.ids > 0].mean() > grey[city.ids == 0].mean() + 10


def test_written_town_reads_back(town, tmp_path):
    files = write_town(town, tmp_path / "new" / "folder")
    with rasterio.open(files.image) as raster:
        assert np.array_equal(raster.read().transpose(1, 2, 0), town.image)
        assert raster.transform == town.grid.transform
        assert raster.crs.to_epsg() == 32736
        assert raster.block_shapes[0] == (512, 512)
    with rasterio.open(files.ids) as raster:
        r, g, b = raster.read().astype(np.int32)
    assert np.array_equal(r + 256 * g + 65536 * b, town.ids)
    truth = gpd.read_file(files.truth)
    assert truth.crs == "EPSG:4326"
    back = truth.to_crs(town.truth.crs).geometry
    gaps = shapely.hausdorff_distance(back.to_numpy(), town.truth.geometry.to_numpy())
    assert gaps.max() < 0.001
    assert truth["ident"].tolist() == town.truth["ident"].tolist()
    assert sorted(p.name for p in files.image.parent.iterdir()) == sorted(
        p.name for p in (files.image, files.ids, files.truth)
    )


def test_failed_write_leaves_nothing(town, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("geoseg.testing.files._geotiff", fail)
    with pytest.raises(OSError, match="disk full"):
        write_town(town, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mosaic_repeats_the_town_with_new_ids(town, tmp_path, monkeypatch):
    monkeypatch.setattr("geoseg.testing.files.STEP_PX", 512)
    grid = write_town_mosaic(tmp_path / "m.tif", size_px=1500, tile=town, compress="lzw")
    with rasterio.open(tmp_path / "m.tif") as raster:
        r, g, b = raster.read().astype(np.int32)
    ids = r + 256 * g + 65536 * b
    n = len(town.truth)
    for row in range(3):
        for col in range(3):
            part = ids[row * 600 : row * 600 + 600, col * 600 : col * 600 + 600]
            tile = town.ids[: part.shape[0], : part.shape[1]]
            assert np.array_equal(part, np.where(tile > 0, tile + (3 * row + col) * n, 0))
    truth = mosaic_truth(town, size_px=1500)
    painted = np.bincount(ids.ravel(), minlength=truth["ident"].max() + 1)
    assert set(np.flatnonzero(painted)) - {0} <= set(truth["ident"])
    px_m2 = abs(grid.transform.determinant)
    assert truth.area.sum() == pytest.approx(painted[1:].sum() * px_m2, rel=0.003)
    assert box(*grid.bounds).buffer(1e-6).contains(truth.union_all())
    assert_no_overlaps(truth)


def test_mosaic_truth_lies_where_the_ids_are(town):
    truth = mosaic_truth(town, size_px=1200).set_index("ident")
    n = len(town.truth)
    shift = truth.geometry[1 + n].centroid.x - truth.geometry[1].centroid.x
    drop = truth.geometry[1 + 2 * n].centroid.y - truth.geometry[1].centroid.y
    assert (shift, drop) == pytest.approx((180.0, -180.0))


@pytest.mark.parametrize(("size_px", "message"), [(0, "at least 1"), (10**6, "24 bits")])
def test_impossible_mosaic_is_refused(town, tmp_path, size_px, message):
    with pytest.raises(ConfigError, match=message):
        write_town_mosaic(tmp_path / "m.tif", size_px=size_px, tile=town)
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, (1 << 24) - 1))
@settings(max_examples=50)
def test_every_24_bit_id_is_read_back(ident):
    found = oracle()([make_chip([[0, ident], [0, ident]])])[0]
    assert len(found["boxes"]) == (ident > 0)
    if ident:
        assert found["masks"][0, 0].tolist() == [[0, 1], [0, 1]]
        assert found["boxes"].tolist() == [[1, 0, 2, 2]]


@pytest.mark.parametrize("ids", [[[-1]], [[1 << 24]]])
def test_ids_outside_24_bits_cannot_be_painted(ids):
    with pytest.raises(ValueError, match="ids must be in"):
        ids_to_rgb(np.array(ids, np.int32))


def test_oracle_returns_each_visible_id_exactly(city):
    ids = city.ids[300:600, 700:1000]
    found = oracle()([make_chip(ids)])[0]
    visible = np.unique(ids[ids > 0])
    assert len(found["masks"]) == len(visible)
    for k, ident in enumerate(visible):
        assert np.array_equal(found["masks"][k, 0].numpy() == 1, ids == ident)
        rows, cols = np.nonzero(ids == ident)
        edges = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
        assert found["boxes"][k].tolist() == edges


@pytest.mark.parametrize("factory", [oracle, noisy_oracle, soft_oracle, blank])
def test_models_honour_the_detection_contract(factory, city):
    chips = [make_chip(city.ids[:300, :300]), torch.zeros(3, 40, 50)]
    found = factory()(chips)
    for chip, item in zip(chips, found, strict=True):
        n = len(item["boxes"])
        assert item["boxes"].shape == (n, 4)
        assert item["boxes"].dtype == torch.float32
        assert item["labels"].tolist() == [1] * n
        assert item["labels"].dtype == torch.int64
        assert torch.equal(item["scores"], torch.full((n,), 0.9))
        assert item["masks"].shape == (n, 1, *chip.shape[1:])
        assert item["masks"].dtype == torch.float32
        assert ((item["masks"] >= 0) & (item["masks"] <= 1)).all()
    assert len(found[1]["boxes"]) == 0
    assert (len(found[0]["boxes"]) == 0) == (factory is blank)


def test_oracle_reads_half_precision_chips(city):
    chip = make_chip(city.ids[:300, :300])
    exact, half = oracle()([chip])[0], oracle()([chip.half()])[0]
    assert torch.equal(exact["masks"], half["masks"])


def test_noise_moves_every_edge_by_at_most_one_pixel_and_repeats(city):
    ids = city.ids[300:600, 700:1000]
    exact, noisy = oracle()([make_chip(ids)])[0], noisy_oracle()([make_chip(ids)])[0]
    again = noisy_oracle()([make_chip(ids)])[0]
    assert torch.equal(noisy["masks"], again["masks"])
    kernel = np.ones((3, 3), bool)
    outcomes = set()
    for hard, mask in zip(exact["masks"][:, 0].numpy(), noisy["masks"][:, 0].numpy(), strict=True):
        options = {
            "same": hard > 0,
            "grown": ndimage.binary_dilation(hard > 0, kernel),
            "shrunk": ndimage.binary_erosion(hard > 0, kernel, border_value=1),
        }
        fits = [name for name, option in options.items() if np.array_equal(option, mask > 0)]
        assert fits
        outcomes.add(fits[0])
    assert outcomes == {"same", "grown", "shrunk"}


def test_noise_differs_between_chips_that_see_the_same_building():
    ids = np.zeros((80, 80), np.int32)
    ids[20:60, 20:60] = 5
    sizes = {int(noisy_oracle()([make_chip(ids[k:])])[0]["masks"].sum()) for k in range(12)}
    assert sizes == {38 * 38, 40 * 40, 42 * 42}


def test_instances_that_noise_erases_are_not_returned():
    ids = np.diag(np.arange(1, 41)).astype(np.int32)
    found = noisy_oracle()([make_chip(ids)])[0]
    assert 0 < len(found["boxes"]) < 40
    assert found["masks"].flatten(1).any(dim=1).all()


def test_soft_mask_is_half_on_a_straight_edge_and_whole_inside():
    ids = np.zeros((40, 40), np.int32)
    ids[:, 20:] = 3
    mask = soft_oracle(sigma_px=1.5)([make_chip(ids)])[0]["masks"][0, 0].numpy()
    assert mask[20, 19] + mask[20, 20] == pytest.approx(1, abs=1e-5)
    assert np.diff(mask[20]).min() >= 0
    assert mask[0, 39] == pytest.approx(1, abs=1e-5)


def test_oracle_refuses_chips_without_three_bands():
    with pytest.raises(ModelError, match="3, H, W"):
        oracle()([torch.zeros(1, 8, 8)])


def test_importing_testing_does_not_import_torch():
    code = "import sys, geoseg.testing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_valid_footprints_pass():
    yard = shapely.Polygon([(0, 0), (9, 0), (9, 9), (0, 9)], [[(3, 3), (3, 6), (6, 6), (6, 3)]])
    assert_footprints_valid(make_footprints(yard, box(10, 0, 11, 1)))
    assert_footprints_valid(make_footprints())


@pytest.mark.parametrize(
    ("footprints", "message"),
    [
        (make_footprints(box(0, 0, 1, 1)).drop(columns="n_chips"), "n_chips"),
        (make_footprints(box(0, 0, 1, 1), crs=None), "CRS"),
        (make_footprints(box(0, 0, 1, 1), box(2, 0, 3, 1), id="same"), "unique"),
        (make_footprints(box(0, 0, 1, 1), score=1.2), "scores"),
        (make_footprints(box(0, 0, 1, 1), score=np.nan), "scores"),
        (make_footprints(box(0, 0, 1, 1), area_m2=0.0), "areas"),
        (make_footprints(box(0, 0, 1, 1), n_chips=0), "chip"),
        (make_footprints(shapely.Polygon(), area_m2=1.0), "empty"),
        (make_footprints(shapely.Point(0, 0), area_m2=1.0), "polygons"),
        (
            make_footprints(shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)]), area_m2=1.0),
            "invalid",
        ),
        (make_footprints(box(0, 0, 1, 1, ccw=False)), "counter-clockwise"),
    ],
)
def test_broken_footprints_are_named(footprints, message):
    with pytest.raises(AssertionError, match=message):
        assert_footprints_valid(footprints)


def test_overlap_is_found_and_shared_walls_are_not():
    houses = make_footprints(box(0, 0, 2, 2), box(2, 0, 4, 2), box(9, 9, 10, 10))
    assert_no_overlaps(houses)
    overlapping = make_footprints(box(0, 0, 2, 2), box(1, 0, 3, 2))
    assert_no_overlaps(overlapping, tolerance_m2=2.001)
    with pytest.raises(AssertionError, match=r"rows 0 and 1 overlap by 2 m2"):
        assert_no_overlaps(overlapping, tolerance_m2=1.9)


def test_overlaps_of_geographic_footprints_are_measured_in_metres():
    size = 1e-4  # about 11 m
    shapes = box(35, -6, 35 + size, -6 + size), box(35 + size / 2, -6, 35 + 2 * size, -6 + size)
    overlapping = make_footprints(*shapes, crs="EPSG:4326")
    with pytest.raises(AssertionError, match="overlap by 61"):
        assert_no_overlaps(overlapping)


def test_worn_masks_are_near_the_truth_and_repeat():
    shapes = [box(10, 10, 40, 30), box(40, 10, 60, 30), box(100, 100, 250, 190)]
    masks, origins = worn_masks(shapes, seed=5)
    again, _ = worn_masks(shapes, seed=5)
    assert all((a == b).all() for a, b in zip(masks, again, strict=True))
    assert not all((a == b).all() for a, b in zip(masks, worn_masks(shapes)[0], strict=True))
    for shape, mask, (x, y) in zip(shapes, masks, origins, strict=True):
        assert mask.dtype == np.uint8
        assert (x, y) == (shape.bounds[0] - 4, shape.bounds[1] - 4)
        assert (mask >= 128).sum() == pytest.approx(shape.area, rel=0.12)


def test_masks_that_wear_nothing_cover_exactly():
    shape = box(3.25, 4.5, 20.75, 15)
    wear = Wear(blur_px=1e-3, noise=0, shift_px=0, merged_share=0)
    (mask,), (origin,) = worn_masks([shape], wear=wear)
    assert mask.sum() / 255 == pytest.approx(shape.area, rel=0.01)
    assert origin == (-1, 0)
    assert mask[8, 10] == 255


def test_some_masks_run_on_into_neighbours():
    row = [box(30 * k, 0, 30 * k + 30, 40) for k in range(12)]
    plain = Wear(noise=0, shift_px=0, merged_share=0)
    merged = Wear(noise=0, shift_px=0, merged_share=1)
    one, other = (
        [int((mask >= 128).sum()) for mask in worn_masks(row, wear=wear)[0]]
        for wear in (plain, merged)
    )
    assert np.mean(np.array(other) > np.array(one) + 10) > 0.5
