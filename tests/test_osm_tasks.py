"""Tasks: what touches stays together, and a task holds all that MapRoulette and JOSM need."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pytest
import shapely
from cli_support import assert_one_line, call, snapshot, succeed
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import ConfigError
from geoseg.osm.conflate.rules import Status
from geoseg.osm.tasks import TOUCH_M, TaskOptions, group_by_place, josm_link
from geoseg.stages.conflate import conflate_file
from geoseg.stages.osm_export import OsmOptions
from geoseg.stages.osm_tasks import export_tasks
from geoseg.stages.selection import Selection
from tests.test_stages_conflate import houses, moved, write_footprints, write_region

if TYPE_CHECKING:
    from pathlib import Path


@settings(max_examples=80)
@given(
    places=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=30, unique=True),
    per_task=st.integers(1, 9),
    span_m=st.floats(20, 900),
)
def test_every_footprint_is_in_one_task_of_bounded_size(
    places: list[tuple[int, int]], per_task: int, span_m: float
) -> None:
    x, y = np.array(places, float).reshape(-1, 2).T * 10
    shapes = shapely.box(x, y, x + 9, y + 10)  # walls shared north and south, a metre east and west
    tasks = list(group_by_place(shapes, TaskOptions(per_task=per_task, span_m=span_m)))
    together = np.concatenate([*tasks, []]).astype(int)
    assert sorted(together.tolist()) == list(range(len(places)))
    task_of = {row: k for k, rows in enumerate(tasks) for row in rows.tolist()}
    for i, j in zip(*shapely.STRtree(shapes).query(shapes, "dwithin", TOUCH_M), strict=True):
        assert task_of[int(i)] == task_of[int(j)]
    for rows in tasks:
        west, south, east, north = shapely.total_bounds(shapes[rows])
        fits = len(rows) <= per_task and max(east - west, north - south) <= span_m
        column = len({place[0] for place in np.array(places)[rows].tolist()}) == 1
        assert fits or column  # what touches is in one column


def test_one_footprint_a_task_unless_they_touch() -> None:
    row = shapely.box([0, 10, 30, 60], 0, [10, 20, 40, 70], 9)
    assert [task.tolist() for task in group_by_place(row, TaskOptions())] == [[0, 1], [2], [3]]
    assert list(group_by_place(np.array([], object), TaskOptions())) == []


def test_links_hold_place_and_words() -> None:
    options = TaskOptions(comment="Houses & sheds, Ulm", source="a=b", hashtags="#geoseg")
    link = josm_link((-180, 89.9999, 180, 90), options)
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc, parts.path) == ("http", "127.0.0.1:8111", "/load_and_zoom")
    query = {key: value for key, (value,) in parse_qs(parts.query).items()}
    assert query["changeset_comment"] == "Houses & sheds, Ulm"
    assert query["changeset_source"] == "a=b"
    assert query["changeset_hashtags"] == "#geoseg"
    assert float(query["top"]) == 90
    assert float(query["left"]) < -180 < float(query["right"])
    assert "changeset" not in josm_link((0, 0, 1, 1), TaskOptions())


@pytest.mark.parametrize("wrong", [{"per_task": 0}, {"span_m": 0}, {"span_m": float("nan")}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TaskOptions(**wrong)


@pytest.fixture
def conflated(tmp_path: Path) -> Path:
    """24 houses of which OSM has all but 3, 8 and 20."""
    shapes = houses()
    seen = write_footprints(tmp_path / "seen.parquet", shapes)
    known = [s for i, s in enumerate(shapes) if i not in {3, 8, 20}]
    region = write_region(tmp_path / "region.osm", known)
    conflate_file(seen, [region], tmp_path / "conflated.parquet")
    return tmp_path / "conflated.parquet"


def read_tasks(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert all(line.startswith("\x1e") for line in lines)
    return [json.loads(line[1:]) for line in lines]


def changes_in(task: dict[str, Any]) -> ET.Element:
    work = task["cooperativeWork"]
    assert work["meta"] == {"version": 2, "type": 2}
    file = work["file"]
    assert (file["type"], file["format"], file["encoding"]) == ("xml", "osc", "base64")
    return ET.fromstring(base64.b64decode(file["content"]))


def test_new_footprints_become_tasks(
    conflated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tasks.geojsonl"
    words = ("--format", "maproulette", "--comment", "Missing houses", "--json")
    done = succeed(capsys, "export", conflated, "-o", out, *words).json
    assert (done["tasks"], done["footprints"]) == (3, 3)
    assert done["left_out"] == {"duplicate": 21}
    tasks = read_tasks(out)
    assert [feature["id"] for task in tasks for feature in task["features"]] == [
        f"{i:016x}" for i in (3, 8, 20)
    ]
    shapes = gpd.read_parquet(conflated).to_crs("EPSG:4326").geometry
    for task, i in zip(tasks, (3, 8, 20), strict=True):
        assert set(task) == {"type", "features"}
        (feature,) = task["features"]
        drawn = shapely.geometry.shape(feature["geometry"])
        assert shapely.hausdorff_distance(drawn, shapes.iloc[i]) < 1e-7
        facts = feature["properties"]
        assert facts["osm_status"] == "new"
        assert "osm_id" not in facts
        query = parse_qs(urlsplit(facts["josm"]).query)
        assert (
            float(query["left"][0]) < drawn.bounds[0] < drawn.bounds[2] < float(query["right"][0])
        )
        assert query["changeset_comment"] == ["Missing houses"]


def test_cooperative_tasks_carry_their_objects(
    conflated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tasks.json"
    words = ("--format", "maproulette", "--cooperative", "--per-task", "5", "--status", "all")
    succeed(capsys, "export", conflated, "-o", out, *words, "--tags", "building=house")
    tasks = read_tasks(out)
    assert sum(len(task["features"]) for task in tasks) == 24
    for task in tasks:
        assert len(task["features"]) <= 5
        root = changes_in(task)
        ways = root.findall("create/way")
        assert len(ways) == len(task["features"])
        nodes = {node.get("id") for node in root.findall("create/node")}
        for way in ways:
            assert {nd.get("ref") for nd in way.findall("nd")} <= nodes
            assert {t.get("k"): t.get("v") for t in way.findall("tag")} == {"building": "house"}
        touching = sum(len(way.findall("nd")) - 1 for way in ways) > len(nodes)
        assert touching == (len(ways) > 1)  # houses of one task touch, and share nodes


def test_what_cannot_be_an_object_is_a_task_that_carries_none(tmp_path: Path) -> None:
    triangle = shapely.Polygon([(500_000, 5_500_000), (500_009, 5_500_000), (500_000, 5_500_009)])
    path = write_footprints(tmp_path / "t.parquet", [triangle])
    with pytest.warns(UserWarning, match="corners"):
        done = export_tasks(path, tmp_path / "t.geojsonl", objects=OsmOptions())
    assert done.n_tasks == 1
    (task,) = read_tasks(tmp_path / "t.geojsonl")
    assert "cooperativeWork" not in task


def test_no_task_is_an_empty_file(conflated: Path, tmp_path: Path) -> None:
    chosen = Selection(statuses=(Status.IN_WATER,))
    done = export_tasks(conflated, tmp_path / "t.geojsonl", selection=chosen)
    assert done.n_tasks == 0
    assert done.left_out == {"duplicate": 21, "new": 3}
    assert (tmp_path / "t.geojsonl").read_bytes() == b""


def test_osm_files_hold_only_what_is_new(
    conflated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a conflated file, and of a plain one beside an extract, which may be far off."""
    one, other, every = (tmp_path / name for name in ("one.osc", "other.osc", "all.osc"))
    done = succeed(capsys, "export", conflated, "-o", one, "--json").json
    assert done["left_out"] == {"duplicate": 21}
    seen = write_footprints(tmp_path / "off.parquet", moved(houses(), 4, -3))
    words = ("--against", tmp_path / "region.osm", "--align")
    text = succeed(capsys, "export", seen, "-o", other, *words).out
    assert "left out: 21 duplicate" in text
    for path in (one, other):
        assert len(ET.parse(path).findall("create/way")) == 3
    succeed(capsys, "export", conflated, "-o", every, "--status", "new,duplicate")
    assert len(ET.parse(every).findall("create/way")) == 24


def test_other_formats_hold_everything_unless_asked(
    conflated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every, new, compared = (tmp_path / f"{name}.gpkg" for name in ("every", "new", "compared"))
    succeed(capsys, "export", conflated, "-o", every)
    succeed(capsys, "export", conflated, "-o", new, "--status", "new")
    region = tmp_path / "region.osm"
    succeed(capsys, "export", tmp_path / "seen.parquet", "-o", compared, "--against", region)
    assert len(gpd.read_file(every)) == 24
    assert gpd.read_file(new)["id"].tolist() == gpd.read_file(compared)["id"].tolist()
    assert len(gpd.read_file(new)) == 3


@pytest.mark.parametrize(
    ("words", "code", "needles"),
    [
        (("seen.parquet", "-o", "o.osc", "--status", "new"), 2, ("conflate", "--against")),
        (("seen.parquet", "-o", "o.osc", "--status", "old"), 2, ("old", "duplicate")),
        (("seen.parquet", "-o", "o.osc", "--align"), 2, ("--align", "--against")),
        (("seen.parquet", "-o", "o.osc", "--against", "no.osm"), 2, ("no.osm",)),
        (("seen.parquet", "-o", "o.osc", "--per-task", "3"), 2, ("--per-task", "maproulette")),
        (("seen.parquet", "-o", "o.gpkg", "--cooperative"), 2, ("--cooperative", "maproulette")),
        (("seen.parquet", "-o", "t.txt", "--format", "maproulette"), 2, ("t.txt", ".geojsonl")),
        (
            ("seen.parquet", "-o", "t.geojsonl", "--format", "maproulette", "--per-task", "0"),
            2,
            ("per_task", "0"),
        ),
        (
            ("seen.parquet", "-o", "t.geojsonl", "--format", "maproulette", "--tags", "a=b"),
            2,
            ("--tags", "--cooperative"),
        ),
        (
            ("seen.parquet", "-o", "t.geojsonl", "--format", "maproulette", "--mask", "m.tif"),
            2,
            ("--mask", "tasks"),
        ),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    conflated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    needles: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    outcome = call(capsys, "export", *words)
    assert outcome.code == code
    assert_one_line(outcome, *needles)
    assert snapshot(tmp_path) == before


def test_a_footprint_that_vanishes_on_the_grid_is_a_feature_without_a_place(tmp_path: Path) -> None:
    speck = shapely.box(500_000, 5_500_000, 500_000.001, 5_500_000.001)
    export_tasks(write_footprints(tmp_path / "f.parquet", [speck]), tmp_path / "t.geojsonl")
    task = json.loads((tmp_path / "t.geojsonl").read_text().lstrip("\x1e"))
    assert task["features"][0]["geometry"] is None
    assert "nan" not in task["features"][0]["properties"]["josm"]


def test_a_footprint_drawn_by_hand_becomes_a_task(tmp_path: Path) -> None:
    frame = gpd.read_parquet(write_footprints(tmp_path / "f.parquet", houses(1)))
    frame[["id", "label", "scene", "score"]] = None
    frame["score"] = frame["score"].astype(float)
    frame.to_file(tmp_path / "edited.gpkg")
    export_tasks(tmp_path / "edited.gpkg", tmp_path / "t.geojsonl")
    task = json.loads((tmp_path / "t.geojsonl").read_text().lstrip("\x1e"))
    assert sorted(task["features"][0]["properties"]) == ["area_m2", "josm"]
