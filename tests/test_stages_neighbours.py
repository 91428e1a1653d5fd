"""Neighbours settled a group at a time, from a spool, in order."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from geoseg.config import load_config
from geoseg.footprints import optional_columns
from geoseg.grid import Grid
from geoseg.stages.neighbours import from_metres, settled_footprints, to_metres
from geoseg.topology import settle_overlaps
from geoseg.vector import Spool
from geoseg.vector import spool as spool_module

UTM = CRS("EPSG:32645")
ROTATED = Affine(0.24, 0.1, 500_000, 0.1, -0.24, 3_060_000)
GRIDS = [
    Grid(crs=UTM, transform=Affine(0.3, 0, 500_000, 0, -0.3, 3_060_000), height=400, width=400),
    Grid(crs=UTM, transform=ROTATED, height=400, width=400),
    Grid(
        crs=CRS("EPSG:4326"),
        transform=Affine(1.3e-6, 0, 85.5, 0, -1.2e-6, 27.6),
        height=400,
        width=400,
    ),
]


def frame_of(shapes_m, scores, grid):
    count = len(shapes_m)
    return geopandas.GeoDataFrame(
        {
            "id": [f"{i:016x}" for i in range(count)],
            "label": "building",
            "score": scores,
            "area_m2": shapely.area(shapes_m),
            "n_chips": 1,
            "scene": "town",
            "touches_edge": False,
        },
        geometry=from_metres(shapes_m, grid),
        crs=grid.crs,
    )


def random_town(seed, count, side_m=60.0):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, side_m, (2, count))
    w, h = rng.uniform(3, 9, (2, count))
    return shapely.box(x, y, x + w, y + h), rng.uniform(0.3, 1, count)


def settled(frame, grid, folder, *, parts=1, batch_rows=None, cfg=None):
    columns = optional_columns(frame.columns)
    with pytest.MonkeyPatch.context() as patch, Spool(folder, grid.crs, columns) as spool:
        if batch_rows is not None:
            patch.setattr(spool_module, "BATCH_ROWS", batch_rows)
        for rows in np.array_split(np.arange(len(frame)), parts):
            spool.append(frame.iloc[rows])
        found = list(settled_footprints(spool, grid, cfg or load_config()))
    frames = [frame for frame, _ in found] or [frame.iloc[:0]]
    rows = np.concatenate([np.zeros(0, int), *(rows for _, rows in found)])
    return geopandas.GeoDataFrame(geopandas.pd.concat(frames, ignore_index=True)), rows


@pytest.mark.parametrize("grid", GRIDS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40), batch_rows=st.sampled_from([1, 3, 64]))
def test_groups_in_batches_give_what_all_at_once_gives(
    tmp_path_factory, grid, seed, count, batch_rows
):
    shapes, scores = random_town(seed, count)
    frame = frame_of(shapes, scores, grid)
    found, rows = settled(frame, grid, tmp_path_factory.mktemp("s"), batch_rows=batch_rows)
    expected = settle_overlaps(shapes, scores, min_area_m2=5.0)
    assert rows.tolist() == np.flatnonzero(~shapely.is_empty(expected)).tolist()
    assert found["id"].tolist() == frame["id"].iloc[rows].tolist()
    back = to_metres(found.geometry.to_numpy(), grid)
    assert shapely.area(shapely.symmetric_difference(back, expected[rows])).max(initial=0) < 1e-5
    assert found["area_m2"].to_numpy() == pytest.approx(shapely.area(expected[rows]), rel=1e-6)
    assert shapely.is_valid(found.geometry.to_numpy()).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), parts=st.integers(1, 9), batch_rows=st.sampled_from([1, 5, 64]))
def test_how_rows_come_and_are_read_changes_no_bit(tmp_path_factory, seed, parts, batch_rows):
    grid = GRIDS[0]
    frame = frame_of(*random_town(seed, 30), grid)
    folder = tmp_path_factory.mktemp("s")
    one, _ = settled(frame, grid, folder)
    other, _ = settled(frame, grid, folder, parts=parts, batch_rows=batch_rows)
    assert one.to_wkb().equals(other.to_wkb())


def test_untouched_outlines_keep_every_bit(tmp_path):
    grid = GRIDS[1]
    frame = frame_of(shapely.box([0, 20, 40], 0, [10, 30, 50], 10), np.full(3, 0.5), grid)
    found, _ = settled(frame, grid, tmp_path)
    assert found.geometry.to_wkb().tolist() == frame.geometry.to_wkb().tolist()


@pytest.mark.parametrize("grid", GRIDS)
def test_metres_and_back(grid):
    shapes, _ = random_town(0, 9)
    again = to_metres(from_metres(shapes, grid), grid)
    assert shapely.hausdorff_distance(again, shapes).max() < 1e-6


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), parts=st.integers(1, 6), batch_rows=st.sampled_from([1, 5, 64]))
def test_shared_walls_do_not_depend_on_how_rows_come(tmp_path_factory, seed, parts, batch_rows):
    grid = GRIDS[0]
    shapes, scores = random_town(seed, 25)
    frame = frame_of(shapes, scores, grid)
    frame = frame.assign(regularized=np.arange(25) % 4 > 0, iou_raw=0.9)
    folder = tmp_path_factory.mktemp("s")
    cfg = load_config(options={"regularize.enabled": True})
    one, _ = settled(frame, grid, folder, cfg=cfg)
    other, _ = settled(frame, grid, folder, cfg=cfg, parts=parts, batch_rows=batch_rows)
    assert one.to_wkb().equals(other.to_wkb())
    metric = to_metres(one.geometry.to_numpy(), grid)
    left, right = shapely.STRtree(metric).query(metric, predicate="intersects")
    shared = shapely.area(shapely.intersection(metric[left], metric[right]))[left != right]
    assert shared.max(initial=0) < 1e-6


def test_regular_neighbours_share_a_wall_and_others_do_not_move(tmp_path):
    grid = GRIDS[0]
    shapes = np.array([shapely.box(10, 10, 18, 20), shapely.box(18.4, 10, 26, 20)])
    cfg = load_config(options={"regularize.enabled": True})
    for regular in (True, False):
        frame = frame_of(shapes, [0.9, 0.8], grid).assign(regularized=regular, iou_raw=0.9)
        found, _ = settled(frame, grid, tmp_path, cfg=cfg)
        back = to_metres(found.geometry.to_numpy(), grid)
        assert shapely.distance(*back) == pytest.approx(0 if regular else 0.4, abs=1e-6)
        assert found["area_m2"].to_numpy() == pytest.approx(shapely.area(back), rel=1e-6)
        assert found["regularized"].tolist() == [regular, regular]
