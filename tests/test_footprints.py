"""The footprints' schema, their validator and ids that last."""

from __future__ import annotations

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from builders import make_grid, make_instance
from scipy import ndimage
from shapely.geometry import box

from geoseg.errors import FormatError
from geoseg.footprints import (
    SCHEMA,
    empty_footprints,
    make_footprints,
    settle_ids,
    validate_footprints,
)
from geoseg.polygonize import PolygonizeOptions
from geoseg.testing import assert_footprints_valid, make_town

GRID = make_grid(height=3000, width=3000)
FULL = np.full((20, 30), 255, np.uint8)
EMPTY = np.zeros((5, 5), np.uint8)


def test_columns_and_types_are_the_schemas() -> None:
    footprints = make_footprints([make_instance(FULL, x=40, y=50, score=0.75)], GRID)
    assert list(footprints.columns) == [*SCHEMA, "geometry"]
    for name, dtype in SCHEMA.items():
        if dtype != "str":
            assert str(footprints[name].dtype) == dtype
    (row,) = footprints.itertuples()
    assert len(row.id) == 16
    assert set(row.id) <= set("0123456789abcdef")
    assert (row.label, row.score, row.n_chips, row.scene, row.touches_edge) == (
        "1", 0.75, 1, "s", False,
    )  # fmt: skip
    assert row.area_m2 == pytest.approx(150, rel=2e-3)
    assert row.geometry.equals(box(500_020, 4_999_965, 500_035, 4_999_975))
    assert footprints.crs == GRID.crs
    assert_footprints_valid(validate_footprints(footprints))


def test_labels_are_named_where_a_name_is_known() -> None:
    instances = [make_instance(FULL)]
    assert make_footprints(instances, GRID, labels={1: "building"}).label.tolist() == ["building"]
    assert make_footprints(instances, GRID, labels={7: "tree"}).label.tolist() == ["1"]


def test_order_is_kept_and_the_small_and_empty_are_left_out() -> None:
    instances = [
        make_instance(FULL, x=10, score=0.1),
        make_instance(EMPTY, x=60, score=0.2),
        make_instance(FULL[:2, :2], x=90, score=0.3),
        make_instance(FULL, x=130, score=0.4),
    ]
    footprints = make_footprints(instances, GRID)
    assert footprints.score.tolist() == [0.1, 0.4]
    assert footprints.index.tolist() == [0, 3], "the index says which instance each one was"
    assert_footprints_valid(footprints)
    keep_all = PolygonizeOptions(min_area_m2=0)
    assert make_footprints(instances, GRID, options=keep_all).score.tolist() == [0.1, 0.3, 0.4]


@pytest.mark.parametrize("instances", [[], [make_instance(EMPTY)]])
def test_nothing_is_an_empty_valid_frame(instances: list) -> None:
    footprints = make_footprints(instances, GRID)
    assert len(footprints) == 0
    assert footprints.crs == GRID.crs
    assert list(validate_footprints(footprints).columns) == [*SCHEMA, "geometry"]


def test_empty_footprints_join_with_others() -> None:
    empty = empty_footprints(GRID.crs)
    assert list(validate_footprints(empty).columns) == [*SCHEMA, "geometry"]
    for name, dtype in SCHEMA.items():
        if dtype != "str":
            assert str(empty[name].dtype) == dtype
    full = make_footprints([make_instance(FULL)], GRID)
    assert len(validate_footprints(pd.concat([full, empty.iloc[:0]]))) == 1


def soft_instances(ids: np.ndarray, jitter: np.random.Generator | None, *, noise: bool) -> list:
    """Blur each painted building; jitter moves its edge by 0.05 px, or shakes every pixel."""
    found = []
    for k, (rows, cols) in enumerate(ndimage.find_objects(ids), start=1):
        hard = np.pad((ids[rows, cols] == k).astype(np.float32), 5)
        soft = cv2.GaussianBlur(hard, (7, 7), 1.0)
        if jitter is not None and noise:
            edge = (soft > 0) & (soft < 1)
            soft += edge * jitter.normal(0, 0.02, soft.shape).astype(np.float32)  # 0.4 per px
        elif jitter is not None:
            dx, dy = jitter.uniform(-0.05, 0.05, 2)
            move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            soft = cv2.warpAffine(soft, move, soft.shape[::-1])
        level = np.rint(np.clip(soft, 0, 1) * 255).astype(np.uint8)
        found.append(make_instance(level, x=cols.start - 5, y=rows.start - 5))
    return found


def share_changed(ids: np.ndarray, *, noise: bool) -> float:
    before = make_footprints(soft_instances(ids, None, noise=noise), GRID)
    shaken = soft_instances(ids, np.random.default_rng(1), noise=noise)
    order = np.random.default_rng(2).permutation(len(shaken))
    after = make_footprints([shaken[i] for i in order], GRID)
    assert len(before) == len(after)
    assert before.id.is_unique
    assert after.id.is_unique
    by_place = pd.Series(after.id.to_numpy(), index=order[after.index.to_numpy()])
    return float((by_place.loc[before.index].to_numpy() != before.id.to_numpy()).mean())


def test_ids_survive_a_twentieth_of_a_pixel_and_any_order() -> None:
    ids = make_town(size_px=2100).ids
    assert ids.max() >= 850
    assert share_changed(ids, noise=False) < 0.01
    assert share_changed(ids, noise=True) < 0.01


@pytest.mark.parametrize("noise", [False, True])
def test_ids_of_painted_rectangles_on_a_regular_grid_survive_too(noise: bool) -> None:
    """Their centres lie on whole and half pixels, where cells must not have borders."""
    ids = np.zeros((1200, 1200), np.int32)
    rng = np.random.default_rng(0)
    k = 0
    for y in range(10, 1160, 37):
        for x in range(10, 1160, 37):
            k += 1
            h, w = rng.integers(12, 28, 2)
            ids[y : y + h, x : x + w] = k
    assert share_changed(ids, noise=noise) < 0.01


def test_ids_differ_by_scene_and_of_twins_on_one_spot() -> None:
    one, two = (make_instance(FULL, x=40, y=50, scene_id=name) for name in ("a", "b"))
    assert len(set(make_footprints([one, two], GRID).id)) == 2
    yard = np.pad(FULL, 30, constant_values=0)
    twins = [
        make_instance(yard),
        make_instance(FULL, x=30, y=30),
        make_instance(FULL[2:-2], x=30, y=32),
    ]
    assert make_footprints(twins, GRID).id.is_unique


def test_of_several_on_one_spot_the_first_keeps_the_id_whatever_the_calls() -> None:
    large, small = make_instance(FULL, x=30, y=30), make_instance(FULL[3:-3, 3:-3], x=33, y=33)
    together = make_footprints([large, small], GRID).id.tolist()
    taken: dict[str, int] = {}
    apart = [make_footprints([item], GRID, taken=taken).id[0] for item in (large, small)]
    assert together == apart
    assert len(set(together)) == 2
    assert make_footprints([small], GRID).id[0] == together[0], "alone it would have the spot's id"


def test_ids_left_unsettled_are_settled_later_to_the_same() -> None:
    instances = [make_instance(FULL, x=30, y=30), make_instance(FULL[3:-3, 3:-3], x=33, y=33)]
    raw = make_footprints(instances, GRID, settled=False).id.tolist()
    assert raw[0] == raw[1]
    assert settle_ids(raw, {}) == make_footprints(instances, GRID).id.tolist()


def good(n: int = 2) -> gpd.GeoDataFrame:
    return make_footprints([make_instance(FULL, x=100 * i) for i in range(n)], GRID)


BOWTIE = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda f: f.drop(columns=["score", "n_chips"]), r"missing: \['score', 'n_chips'\]"),
        (lambda f: f.assign(score=[0.5, 1.2]), r"scores must be in \[0, 1\]"),
        (lambda f: f.assign(score=[0.5, np.nan]), r"scores must be in \[0, 1\]"),
        (lambda f: f.assign(id="same"), "unique"),
        (lambda f: f.set_crs(None, allow_override=True), "CRS"),
        (lambda f: f.set_geometry([BOWTIE, BOWTIE], crs=f.crs), "valid"),
        (lambda f: f.set_geometry([shapely.Polygon(), None], crs=f.crs), "valid"),
        (lambda f: f.set_geometry([shapely.Point(0, 0)] * 2, crs=f.crs), "valid"),
        (lambda f: gpd.GeoDataFrame(f.drop(columns="geometry")), "geometry"),
        (lambda f: pd.DataFrame(f.drop(columns="geometry")), "geometry"),
    ],
)
def test_what_is_wrong_is_said(bad: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        validate_footprints(bad(good()))


def test_columns_beside_the_schema_are_dropped_and_the_rest_put_in_order() -> None:
    mixed = good().assign(extra=1)[["geometry", "extra", *reversed(SCHEMA)]]
    assert list(validate_footprints(mixed).columns) == [*SCHEMA, "geometry"]
