"""COCO documents: annotations against shapely's areas and pycocotools' own decoding."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pyproj import CRS

from geoseg.chips import plan_chips
from geoseg.coco import (
    coco_annotations,
    coco_document,
    coco_images,
    decode_rle,
    encode_rle,
    keyholed,
)
from geoseg.errors import ConfigError, FormatError, VectorError
from geoseg.grid import Grid

# pycocotools' compiled arrays do not take numpy 2's `copy` argument yet:
# https://numpy.org/devdocs/numpy_2_0_migration_guide.html
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRANSFORM = Affine.translation(300000, 3000000) @ Affine.rotation(20) @ Affine.scale(0.2, -0.2)


def make_grid(size=250):
    return Grid(crs=CRS.from_epsg(32645), transform=TRANSFORM, height=size, width=size)


def make_labels(shapes_px, crs="EPSG:32645"):
    on_ground = shapely.transform(
        np.asarray(shapes_px, object),
        lambda p: np.stack(TRANSFORM @ (p[:, 0], p[:, 1]), axis=1),
    )
    return gpd.GeoDataFrame(geometry=on_ground, crs=crs)


def make_town(n=60, size=250):
    rng = np.random.default_rng(0)
    shapes = []
    for _ in range(n):
        x, y = rng.uniform(0, size, 2)
        house = shapely.box(x - 14, y - 9, x + 14, y + 9)
        yard = shapely.box(x - 5, y - 4, x + 1, y + 3)
        shapes.append(shapely.affinity.rotate(house.difference(yard), rng.uniform(0, 90)))
    return shapes


def parts_of(annotation):
    return [np.reshape(ring, (-1, 2)) for ring in annotation["segmentation"]]


def test_annotations_are_the_labels_cut_by_each_chip():
    shapes, grid = make_town(), make_grid()
    chips = plan_chips("s", grid, size_px=100, overlap_px=20)
    annotations = coco_annotations(make_labels(shapes), chips, grid)
    want = []
    for index, chip in enumerate(chips):
        w = chip.window
        box = shapely.box(w.col_off, w.row_off, w.col_stop, w.row_stop)
        for shape in shapes:
            parts = shapely.get_parts(shape.intersection(box))
            area = sum(part.area for part in parts if part.area >= 1)
            if area:
                want.append((index + 1, area))
    assert [a["image_id"] for a in annotations] == [image for image, _ in want]
    assert np.allclose([a["area"] for a in annotations], [area for _, area in want], atol=2e-3)
    assert [a["id"] for a in annotations] == list(range(1, len(want) + 1))
    assert {(a["iscrowd"], a["category_id"]) for a in annotations} == {(0, 100)}
    for annotation in annotations:
        xy = np.concatenate(parts_of(annotation))
        assert xy.min() >= 0
        assert xy.max() <= 100
        x, y, w, h = annotation["bbox"]
        assert np.allclose([x, y, x + w, y + h], [*xy.min(0), *xy.max(0)], atol=2e-3)


def test_pycocotools_loads_the_document_and_sees_the_same_areas(tmp_path):
    grid = make_grid()
    chips = plan_chips("s", grid, size_px=100, overlap_px=20)
    images = coco_images(chips, [f"{c.name}.png" for c in chips])
    annotations = coco_annotations(make_labels(make_town()), chips, grid)
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps(coco_document(images, annotations, description="a town")))
    coco = COCO(str(path))
    assert len(coco.getImgIds()) == len(chips)
    assert coco.cats[100]["name"] == "building"
    for annotation in coco.loadAnns(coco.getAnnIds()):
        decoded = int(coco.annToMask(annotation).sum())
        perimeter = sum(
            np.linalg.norm(np.diff(ring, axis=0), axis=1).sum() for ring in parts_of(annotation)
        )
        assert abs(decoded - annotation["area"]) <= 1 + 0.2 * perimeter
    big = [a for a in annotations if a["area"] > 300]
    decoded = sum(int(coco.annToMask(a).sum()) for a in big)
    assert abs(decoded / sum(a["area"] for a in big) - 1) < 0.02


@given(angle=st.floats(0, 180), dx=st.floats(0, 1), dy=st.floats(0, 1))
def test_holes_survive_pycocotools(angle, dx, dy):
    shape = shapely.box(-40, -30, 40, 30)
    for hole in (shapely.box(-25, -15, -5, 10), shapely.box(3, -15, 22, 12)):
        shape = shape.difference(hole)
    shape = shapely.affinity.rotate(shape, angle, origin=(0, 0))
    shape = shapely.affinity.translate(shape, 60 + dx, 60 + dy)
    rle = coco_mask.frPyObjects([keyholed(shape).ravel().tolist()], 120, 120)
    mask = coco_mask.decode(rle)[:, :, 0].astype(bool)
    rows, cols = np.mgrid[:120, :120] + 0.5
    # Only pixels on an edge may differ: COCO rounds outlines to whole pixels.
    clear = shapely.distance(shapely.points(cols, rows), shape.boundary) > 1.1
    assert_array_equal(mask[clear], shapely.contains_xy(shape, cols, rows)[clear])
    assert abs(mask.sum() / shape.area - 1) < 0.03


def test_a_label_in_two_parts_is_one_annotation_and_slivers_go():
    grid = make_grid(100)
    chips = plan_chips("s", grid, size_px=100, overlap_px=0)
    two = shapely.MultiPolygon([shapely.box(5, 5, 15, 15), shapely.box(30, 5, 40, 15)])
    outside = shapely.box(99.5, 20, 120, 21.5)  # 0.75 px2 inside
    touching = shapely.box(100, 50, 120, 60)
    (annotation,) = coco_annotations(make_labels([two, outside, touching]), chips, grid)
    assert len(annotation["segmentation"]) == 2
    assert annotation["area"] == 200
    assert np.allclose(annotation["bbox"], [5, 5, 35, 10])


def test_invalid_labels_are_mended_where_they_are_cut():
    bow_tie = shapely.Polygon([(80, 20), (120, 60), (120, 20), (80, 60)])
    grid = make_grid(100)
    chips = plan_chips("s", grid, size_px=100, overlap_px=0)
    annotations = coco_annotations(make_labels([bow_tie]), chips, grid)
    assert np.isclose(sum(a["area"] for a in annotations), 400, atol=0.01)


def test_no_labels_and_no_chips_are_no_annotations():
    grid = make_grid()
    chips = plan_chips("s", grid, size_px=100, overlap_px=20)
    assert coco_annotations(make_labels([]), chips, grid) == []
    assert coco_annotations(make_labels(make_town()), [], grid) == []


def test_ids_continue_across_scenes():
    grid = make_grid()
    chips = plan_chips("s", grid, size_px=250)
    labels = make_labels(make_town(5))
    annotations = coco_annotations(labels, chips, grid, first_image_id=8, first_id=100)
    assert [a["id"] for a in annotations] == [100, 101, 102, 103, 104]
    assert {a["image_id"] for a in annotations} == {8}
    assert coco_images(chips, ["a.png"], first_id=8)[0]["id"] == 8


def test_labels_in_another_crs_and_wrong_lengths_are_told():
    grid = make_grid()
    chips = plan_chips("s", grid, size_px=100, overlap_px=20)
    for crs in ("EPSG:4326", None):
        with pytest.raises(VectorError, match="scene's CRS"):
            coco_annotations(make_labels(make_town(), crs=crs), chips, grid)
    with pytest.raises(ConfigError, match="one per chip"):
        coco_images(chips, ["a.png"])


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_rle_round_trips_and_is_pycocotools_own(mask):
    rle = encode_rle(mask)
    assert_array_equal(decode_rle(json.loads(json.dumps(rle))), mask)
    packed = {"size": rle["size"], "counts": rle["counts"].encode()}
    assert_array_equal(coco_mask.decode(packed).astype(bool), mask)


def test_long_runs_round_trip():
    mask = np.zeros((3000, 2000), bool)
    mask[500:1500, 3:1900] = True
    assert_array_equal(decode_rle(encode_rle(mask)), mask)
    assert_array_equal(
        decode_rle({"size": [2, 3], "counts": [1, 2, 3]}),
        np.array([[0, 1, 0], [1, 0, 0]], bool),
    )


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 2]},
        {"size": [2], "counts": "06"},
        {"size": [2, 2], "counts": "06"},
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [-2, -2], "counts": [4]},
        {"size": [2, 2], "counts": "\x00\x01"},
        {"size": [2, 2], "counts": "oooo"},
        {"size": [2, 2], "counts": "\u00e9"},
        {"size": [2, 2], "counts": None},
    ],
)
def test_hostile_rle_is_refused(rle):
    with pytest.raises(FormatError):
        decode_rle(rle)
