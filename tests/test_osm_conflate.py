"""Conflation: hand-made cases, brute force, and the experiment on real extracts."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_support import EVERYWHERE, EXTRACTS

from geoseg.errors import ConfigError
from geoseg.frames import ground_frame, moved
from geoseg.osm.conflate.compare import conflate, near_footprints
from geoseg.osm.conflate.judge import judge
from geoseg.osm.conflate.offset import estimate_offset
from geoseg.osm.conflate.pairs import (
    Centres,
    match_one_to_one,
    overlapping_pairs,
    thickness_m,
)
from geoseg.osm.conflate.review import write_review
from geoseg.osm.conflate.rules import REVIEWED, ConflateOptions, Status
from geoseg.osm.mapped.layers import KINDS, Kind, Mapped
from geoseg.osm.mapped.read import read_mapped

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

UTM = "EPSG:32633"
HOUSE = shapely.box(0, 0, 10, 12)
OPTIONS = ConflateOptions()


def mapped_of(*shapes: Any, kind: Kind = "building") -> Mapped:
    n = len(shapes)
    return Mapped.of_columns(
        [f"way/{i}" for i in range(1, n + 1)], [KINDS.index(kind)] * n, list(shapes)
    )


def statuses(
    footprints: list[Any], mapped: Mapped, options: ConflateOptions = OPTIONS
) -> list[str]:
    found = judge(np.array(footprints, object), mapped, options)
    return [str(status) for status in found.status]


def shifted(shape: Any, dx: float, dy: float = 0.0) -> Any:
    return shapely.transform(shape, lambda xy: xy + np.array([dx, dy]))


@pytest.mark.parametrize(
    ("footprint", "status"),
    [
        (HOUSE, "duplicate"),
        (shifted(HOUSE, 2), "duplicate"),  # IoU .67
        (shifted(HOUSE, 5), "overlaps"),  # IoU .33
        (shifted(HOUSE, 9), "overlaps"),  # nobody else is that building: a strip counts
        (shifted(HOUSE, 9.6), "new"),  # thinner than anybody draws
        (shifted(HOUSE, 10), "new"),
        (shifted(HOUSE, 30), "new"),
        (shapely.box(2, 2, 5, 5), "duplicate"),  # inside: nothing to add
        (shapely.box(-20, -20, 30, 30), "overlaps"),  # all of it and more
        (shapely.box(8, 0, 11, 6), "overlaps"),  # two thirds of it
    ],
)
def test_one_footprint_beside_one_building(footprint: Any, status: str) -> None:
    assert statuses([footprint], mapped_of(HOUSE)) == [status]


def test_a_shed_beside_its_old_place_is_in_doubt_unless_that_is_somebody_elses() -> None:
    shed = shapely.box(0, 0, 2, 2)
    assert statuses([shifted(shed, 2.5)], mapped_of(shed)) == ["near"]
    assert statuses([shifted(shed, 2.5), shed], mapped_of(shed)) == ["new", "duplicate"]
    assert statuses([shapely.box(2.5, 0, 5.5, 3)], mapped_of(shed)) == ["new"]  # another size
    assert statuses([shifted(shed, 3.5)], mapped_of(shed)) == ["new"]


def test_walls_of_terraces_are_no_overlaps() -> None:
    houses = [shapely.box(6 * i, 0, 6 * i + 6, 10) for i in range(5)]
    seen = [shifted(house, 1.5, 0.5) for house in houses]
    gone = mapped_of(*houses[:2], *houses[3:])
    assert statuses(seen, gone) == ["duplicate", "duplicate", "new", "duplicate", "duplicate"]
    # Without the footprint of its neighbour, a strip may be that neighbour: not new.
    assert statuses(seen[2:3], gone) == ["overlaps"]
    # Nor is a thick overlap a wall.
    assert statuses([shifted(house, 2.8) for house in houses], gone)[2] == "overlaps"


def test_one_building_over_several_footprints_is_no_gap() -> None:
    block = mapped_of(shapely.box(0, 0, 18, 10))
    parts = [shapely.box(6 * i, 0, 6 * i + 6, 10) for i in range(3)]
    assert statuses(parts, block) == ["duplicate"] * 3


def test_one_footprint_over_several_buildings_adds_nothing() -> None:
    halves = mapped_of(shapely.box(0, 0, 5, 10), shapely.box(5, 0, 10, 10))
    assert statuses([shapely.box(0, 0, 10, 11)], halves) == ["duplicate"]
    twice = mapped_of(shapely.box(0, 0, 4.5, 10), shapely.box(0, 0, 4.4, 10))
    assert statuses([shapely.box(0, 0, 10, 10)], twice) == ["overlaps"]


def test_what_crosses_and_what_stands_in_water() -> None:
    road = shapely.LineString([(5, -50), (5, 50)])
    for kind, status in (
        ("road", "crosses-road"),
        ("rail", "crosses-rail"),
        ("water", "crosses-water"),
    ):
        assert statuses([HOUSE], mapped_of(road, kind=kind)) == [status]  # type: ignore[arg-type]
    lake = mapped_of(shapely.box(5, 0, 90, 90), kind="water")
    assert statuses([HOUSE, shifted(HOUSE, -4.5)], lake) == ["in-water", "new"]
    pieces = [shapely.box(9.2, 0, 90, 6), shapely.box(9.2, 6, 90, 90)]  # 8% of the house
    assert statuses([HOUSE], mapped_of(*pieces, kind="water")) == ["new"]
    pieces = [shapely.transform(piece, lambda xy: xy - [0.5, 0]) for piece in pieces]  # 13%
    assert statuses([HOUSE], mapped_of(*pieces, kind="water")) == ["in-water"]
    corner = mapped_of(shapely.LineString([(9.5, -5), (10.5, 5), (9.8, 0)]), kind="road")
    assert statuses([HOUSE], corner) == ["crosses-road"]
    touched = mapped_of(shapely.LineString([(9.6, -5), (10.1, 0.2), (20, 20)]), kind="road")
    assert statuses([HOUSE], touched) == ["new"]


def test_outlines_that_cross_themselves_are_compared_as_well() -> None:
    bowtie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    frame = ground_frame(np.array([shapely.Point(15, 50)]))
    town = gpd.GeoDataFrame(geometry=[bowtie, shifted(HOUSE, 50)], crs=frame)
    lonlat = moved(np.array([HOUSE, shifted(bowtie, 50)], object), frame, "EPSG:4326")
    found = conflate(town, mapped_of(*lonlat))
    assert found.footprints["osm_status"].tolist() == ["duplicate", "overlaps"]
    assert statuses([HOUSE, shapely.Polygon()], mapped_of(shifted(HOUSE, 30))) == [
        "new",
        "duplicate",
    ]


def test_buildings_come_before_roads() -> None:
    both = Mapped.concat(
        [mapped_of(shapely.LineString([(5, -9), (5, 30)]), kind="road"), mapped_of(HOUSE)]
    )
    found = judge(np.array([HOUSE], object), both, OPTIONS)
    assert found.status.tolist() == [Status.DUPLICATE]
    assert found.reasons.mapped.tolist() == [1]


def test_columns_tell_what_stands_in_the_way() -> None:
    town = gpd.GeoDataFrame(
        {"id": ["a", "b", "c"]},
        geometry=[shifted(HOUSE, 500_000, 5_500_000 + 100 * i) for i in range(3)],
        crs=UTM,
        index=[7, 3, 5],
    )
    lonlat = town.geometry.to_crs("EPSG:4326")
    half = gpd.GeoSeries([shapely.box(500_000, 5_500_100, 500_006, 5_500_112)], crs=UTM)
    mapped = mapped_of(half.to_crs("EPSG:4326").iloc[0], lonlat.iloc[2])
    found = conflate(town, mapped)
    assert found.footprints.index.tolist() == [7, 3, 5]
    assert found.footprints["osm_status"].tolist() == ["new", "duplicate", "duplicate"]
    assert found.footprints["osm_id"].tolist() == ["", "way/1", "way/2"]
    assert found.footprints["osm_iou"].tolist() == pytest.approx([0, 0.6, 1], abs=1e-6)
    assert found.footprints["osm_overlap"].tolist() == pytest.approx([0, 1, 1], abs=1e-6)
    assert found.footprints.geometry.geom_equals(town.geometry).all()
    assert found.counts() == {"new": 1, "duplicate": 2}


def test_no_footprints_and_nothing_mapped() -> None:
    nothing = gpd.GeoDataFrame({"id": []}, geometry=gpd.GeoSeries([], crs=UTM))
    found = conflate(nothing, mapped_of(HOUSE))
    assert found.counts() == {}
    assert {"osm_status", "osm_id", "osm_iou", "osm_overlap"} <= set(found.footprints.columns)
    town = gpd.GeoDataFrame({"scene": ["s"]}, geometry=[HOUSE], crs=UTM)
    alone = conflate(town, mapped_of(), options=ConflateOptions(align=True))
    assert alone.counts() == {"new": 1}
    assert alone.offsets == {"s": None}


def test_each_scene_has_its_own_offset() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 900, (2, 120))
    houses = shapely.box(500_000 + x, 5_500_000 + y, 500_010 + x, 5_500_012 + y)
    keep = [k for k in range(120) if not shapely.intersects(houses[k], houses[:k]).any()]
    houses = houses[keep]
    scene = np.where(np.arange(len(houses)) % 2, "left", "right")
    way = np.where(scene == "left", 4.0, -3.0)
    seen = np.array([shifted(h, dx, 1) for h, dx in zip(houses, way, strict=True)])
    town = gpd.GeoDataFrame({"scene": scene}, geometry=seen, crs=UTM)
    mapped = mapped_of(*gpd.GeoSeries(houses, crs=UTM).to_crs("EPSG:4326"))
    found = conflate(town, mapped, options=ConflateOptions(align=True))
    assert found.counts() == {"duplicate": len(houses)}
    for name, dx in (("left", -4.0), ("right", 3.0)):
        offset = found.offsets[name]
        assert offset is not None
        assert (offset.dx_m, offset.dy_m) == pytest.approx((dx, -1), abs=0.02)
        assert offset.spread_m < 0.05
    back = found.footprints.geometry.to_numpy()
    assert shapely.hausdorff_distance(back, houses).max() < 0.05
    assert min(found.footprints["osm_iou"]) > 0.98


def test_offset_needs_evidence() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 3000, (2, 300))
    here, there = (
        shapely.box(x[:150], y[:150], x[:150] + 9, y[:150] + 9),
        shapely.box(x[150:], y[150:], x[150:] + 9, y[150:] + 9),
    )
    assert estimate_offset(Centres.of(here), Centres.of(there)) is None
    few = Centres.of(here[:9])
    assert estimate_offset(few, few) is None
    assert estimate_offset(few, few, min_pairs=9) is not None
    nothing = Centres.of(np.array([], object))
    assert estimate_offset(nothing, few) is None
    assert estimate_offset(few, nothing) is None


@settings(max_examples=40)
@given(
    dx=st.floats(-9, 9),
    dy=st.floats(-9, 9),
    mapped_share=st.floats(0.3, 1),
    seed=st.integers(0, 1000),
)
def test_offset_is_found_among_what_is_not_mapped(
    dx: float, dy: float, mapped_share: float, seed: int
) -> None:
    if np.hypot(dx, dy) > 9.5:
        return
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 1500, (2, 200))
    w, h = rng.uniform(6, 20, (2, 200))
    houses = shapely.box(x, y, x + w, y + h)
    corners = np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1).reshape(-1, 4, 2)
    seen = shapely.polygons(corners + rng.normal(0, 0.3, corners.shape) + [dx, dy])
    known = houses[rng.random(200) < mapped_share]
    found = estimate_offset(Centres.of(seen), Centres.of(known))
    assert found is not None
    assert (found.dx_m, found.dy_m) == pytest.approx((-dx, -dy), abs=0.3)
    assert found.length_m == pytest.approx(np.hypot(dx, dy), abs=0.4)


def rectangles(rng: np.random.Generator, n: int) -> NDArray[Any]:
    x, y = rng.uniform(0, 40, (2, n))
    w, h = rng.uniform(1, 12, (2, n))
    boxes = shapely.box(x, y, x + w, y + h)
    turned = [
        shapely.transform(
            b, lambda xy, a=a: xy @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        )
        for b, a in zip(boxes, rng.uniform(0, 1, n), strict=True)
    ]
    return np.array(turned, object)


@settings(max_examples=60)
@given(n=st.integers(0, 12), m=st.integers(0, 12), seed=st.integers(0, 10_000))
def test_pairs_are_those_of_brute_force(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    footprints, buildings = rectangles(rng, n), rectangles(rng, m)
    pairs = overlapping_pairs(footprints, buildings)
    found = {
        (int(i), int(j)): (iou, overlap)
        for i, j, iou, overlap in zip(
            pairs.footprint, pairs.mapped, pairs.iou, pairs.overlap, strict=True
        )
    }
    for i, j in itertools.product(range(n), range(m)):
        shared = footprints[i].intersection(buildings[j]).area
        if shared <= 1e-9:
            assert found.get((i, j), (0, 0))[0] < 1e-6
            continue
        assert found[i, j] == pytest.approx(
            (
                shared / footprints[i].union(buildings[j]).area,
                shared / min(footprints[i].area, buildings[j].area),
            )
        )


@settings(max_examples=60)
@given(n=st.integers(1, 15), m=st.integers(0, 15), seed=st.integers(0, 10_000))
def test_only_what_overlaps_nothing_but_walls_is_new(n: int, m: int, seed: int) -> None:
    """Brute force of the rule: overlaps of a new footprint are thin, their buildings taken."""
    rng = np.random.default_rng(seed)
    footprints, buildings = rectangles(rng, n), rectangles(rng, m)
    verdicts = judge(footprints, mapped_of(*buildings), OPTIONS)
    reasons = {int(i) for i in verdicts.reasons.footprint}
    for i, status in enumerate(verdicts.status):
        assert (status == Status.NEW) == (i not in reasons)
        for j in range(m):
            both = footprints[i].intersection(buildings[j])
            smaller = min(footprints[i].area, buildings[j].area)
            thick = thickness_m(np.array([both]))[0]
            if status != Status.NEW or both.area < 0.0101 * smaller or thick <= OPTIONS.touch_m:
                continue
            assert thick <= OPTIONS.strip_m + 1e-9
            others = [f.intersection(buildings[j]).area for k, f in enumerate(footprints) if k != i]
            assert max(others, default=0) > 0 or any(
                f.centroid.distance(buildings[j].centroid) <= OPTIONS.near_m
                for k, f in enumerate(footprints)
                if k != i
            )


@settings(max_examples=30)
@given(n=st.integers(0, 10), m=st.integers(0, 10), seed=st.integers(0, 10_000))
def test_order_does_not_matter(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    footprints, buildings = rectangles(rng, n), rectangles(rng, m)
    one = judge(footprints, mapped_of(*buildings), OPTIONS)
    rows, columns = rng.permutation(n), rng.permutation(m)
    other = judge(footprints[rows], mapped_of(*buildings[columns]), OPTIONS)
    assert other.status.tolist() == one.status[rows].tolist()
    assert len(other.reasons) == len(one.reasons)


@given(st.data())
def test_matching_is_greedy_and_one_to_one(data: st.DataObject) -> None:
    pairs = data.draw(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
    listed = sorted(pairs)
    worth = [data.draw(st.integers(0, 5)) for _ in listed]
    i, j = (np.array([pair[k] for pair in listed], np.intp) for k in range(2))
    found = match_one_to_one(i, j, np.array(worth, float), n_footprints=7)
    taken: dict[int, int] = {}
    for _, a, b in sorted((-w, a, b) for w, (a, b) in zip(worth, listed, strict=True)):
        if a not in taken and b not in taken.values():
            taken[a] = b
    assert found.tolist() == [taken.get(k, -1) for k in range(7)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"duplicate_iou": 0},
        {"duplicate_cover": 1.1},
        {"min_overlap": float("nan")},
        {"water_share": -1},
        {"strip_m": -0.1},
        {"touch_m": -0.1},
        {"near_m": float("inf")},
        {"crossing_m": 1e6},
        {"max_offset_m": 0},
        {"min_pairs": 2},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ConflateOptions(**wrong)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:2193", "EPSG:32701"])
def test_frames_do_not_matter(crs: str) -> None:
    """At longitude 180, in degrees or in projections that stretch, the same comes out."""
    place = gpd.GeoSeries([shapely.Point(179.99995, -18)], crs="EPSG:4326").to_crs("EPSG:32760")
    x, y = place.iloc[0].x, place.iloc[0].y
    houses = [shapely.box(x + 40 * i, y, x + 40 * i + 10, y + 12) for i in range(3)]
    town = gpd.GeoDataFrame(geometry=houses[:2], crs="EPSG:32760").to_crs(crs)
    lonlat = gpd.GeoSeries(houses[1:], crs="EPSG:32760").to_crs("EPSG:4326")
    lonlat = lonlat.apply(
        lambda g: shapely.transform(g, lambda xy: np.c_[(xy[:, 0] + 180) % 360 - 180, xy[:, 1]])
    )
    found = conflate(town, mapped_of(*lonlat))
    assert found.footprints["osm_status"].tolist() == ["new", "duplicate"]
    assert near_footprints(town).touches(lonlat.bounds.to_numpy()).all()


def test_conflicts_are_written_with_what_they_conflict_with(tmp_path: Path) -> None:
    frame = ground_frame(np.array([shapely.Point(20, 50)]))
    road = shapely.LineString([(105, -9000), (105, 9000)])
    kinds = [KINDS.index("building"), KINDS.index("road")]
    metric = [HOUSE, road]
    lonlat = list(moved(np.array(metric, object), frame, "EPSG:4326"))
    mapped = Mapped.of_columns(["way/9", "relation/8"], kinds, lonlat)
    town = gpd.GeoDataFrame(
        {"id": ["a", "b", "c"], "scene": "s", "score": 0.5},
        geometry=[shifted(HOUSE, 5), shifted(HOUSE, 100), shifted(HOUSE, 500)],
        crs=frame,
    )
    path = tmp_path / "review.geojson"
    assert write_review(path, conflate(town, mapped)) == 2
    features = json.loads(path.read_text())["features"]
    facts = [feature["properties"] for feature in features]
    assert [(f["role"], f.get("id"), f.get("footprint")) for f in facts] == [
        ("footprint", "a", None),
        ("mapped", None, "a"),
        ("footprint", "b", None),
        ("mapped", None, "b"),
    ]
    assert facts[1]["url"] == "https://www.openstreetmap.org/way/9"
    assert facts[1]["iou"] == pytest.approx(1 / 3, abs=1e-3)
    assert facts[0]["osm_status"] == "overlaps"
    assert facts[2]["osm_status"] == "crosses-road"
    assert facts[3]["kind"] == "road"
    shown = gpd.read_file(path)
    assert shown.geometry.iloc[3].length < 0.01  # of 18 km, what lies around the footprint
    assert write_review(path, conflate(town.iloc[2:], mapped)) == 0
    assert json.loads(path.read_text())["features"] == []


def test_reviewed_is_all_that_is_neither_missing_nor_there() -> None:
    assert set(Status) - set(REVIEWED) == {Status.NEW, Status.DUPLICATE}


@pytest.mark.skipif(not EXTRACTS.is_dir(), reason="the extracts are not here")
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("shift_m", "least_recall"), [(0, 0.99), (1, 0.97), (2, 0.97)])
def test_removed_buildings_are_new_and_kept_ones_are_not(
    shift_m: float, least_recall: float, align: bool
) -> None:
    """A fifth of a town's buildings is removed from the map; its footprints are shifted."""
    new, removed, covered = [], [], []
    for town, seed in itertools.product(("kouvola", "helsinki"), range(2)):
        mapped = read_mapped(EXTRACTS / f"{town}.osm.pbf", EVERYWHERE)
        rng = np.random.default_rng(seed)
        gone = rng.random(len(mapped)) < 0.2
        turn = rng.uniform(0, 2 * np.pi)
        frame = ground_frame(mapped.shapes)
        outlines = moved(mapped.shapes, "EPSG:4326", frame)
        seen = shifted(outlines, shift_m * np.cos(turn), shift_m * np.sin(turn))
        footprints = gpd.GeoDataFrame(geometry=seen, crs=frame)
        found = conflate(footprints, mapped.take(~gone), options=ConflateOptions(align=align))
        new.append(found.footprints["osm_status"].to_numpy() == "new")
        removed.append(gone)
        pairs = overlapping_pairs(outlines, outlines)
        twins = pairs.footprint[(pairs.footprint != pairs.mapped) & (pairs.overlap > 0.5)]
        covered.append(np.isin(np.arange(len(mapped)), twins))
    is_new, is_gone, twin = (np.concatenate(parts) for parts in (new, removed, covered))
    assert is_new[is_gone].mean() >= least_recall
    assert is_new[is_gone & ~twin].mean() >= 0.995
    assert (is_new & ~is_gone).sum() <= 0.01 * is_new.sum()
