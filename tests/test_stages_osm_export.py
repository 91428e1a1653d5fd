"""The export of footprints to OSM files, as a stage and on the command line."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from cli_support import assert_one_line, call, snapshot, succeed
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files_support import UTM, YES, footprints, house, read_osm

from geoseg.errors import ConfigError, FormatError, GeosegWarning, OutputError
from geoseg.osm.formats import SUFFIXES
from geoseg.osm.tags import TagTemplate
from geoseg.stages import osm_export as stage
from geoseg.stages.osm_export import OsmOptions, export_osm, write_frames
from geoseg.vector import FootprintWriter

if TYPE_CHECKING:
    from collections.abc import Sequence


def write(path: Path, shapes: Sequence[shapely.Geometry], **kwargs: str) -> Path:
    """Write a file of footprints."""
    with FootprintWriter(path, crs=UTM) as writer:
        writer.write(footprints(shapes, **kwargs))
    return path


def terrace(n: int = 6) -> list[shapely.Polygon]:
    return [house(10.1 * i, 0) for i in range(n)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_neighbours_share_nodes_in_every_format(tmp_path, capsys, suffix):
    source = write(tmp_path / "f.parquet", terrace())
    done = succeed(capsys, "export", source, "-o", tmp_path / f"o{suffix}")
    found = read_osm(tmp_path / f"o{suffix}")
    assert (len(found.nodes), len(found.ways)) == (14, 6)
    assert all(tags == YES for _, tags in found.ways.values())
    assert f"wrote {tmp_path / f'o{suffix}'}" in done.out
    assert "6 footprints" in done.out


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_the_source_may_have_any_format(tmp_path, suffix):
    source = write(tmp_path / f"f{suffix}", terrace())
    export_osm(source, tmp_path / "o.osm")
    assert len(read_osm(tmp_path / "o.osm").nodes) == 14


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_footprints_give_the_same_bytes(tmp_path, suffix):
    frame = footprints([*terrace(), shapely.MultiPolygon([house(0, 50), house(30, 50)])])
    write_frames([frame], UTM, tmp_path / f"one{suffix}")
    write_frames([frame[:2], frame[2:2], frame[2:]], UTM, tmp_path / f"two{suffix}")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_frames_may_pass_a_filter_on_their_way(tmp_path):
    frames = (frame[frame["score"] > 0.7] for frame in [footprints(terrace())])
    done = write_frames(frames, UTM, tmp_path / "o.osc")
    assert done.tally.footprints == len(read_osm(tmp_path / "o.osc").ways) == 3


def test_tags_are_those_asked_for(tmp_path, capsys):
    source = write(tmp_path / "f.parquet", terrace(2), label="hut")
    words = ["--tags", "hut/building=hut", "--tags", "layer=0", "--tags", "fixme={score}"]
    succeed(capsys, "export", source, "-o", tmp_path / "o.osm", *words)
    assert [tags for _, tags in read_osm(tmp_path / "o.osm").ways.values()] == [
        {"building": "hut", "layer": "0", "fixme": "0.5"},
        {"building": "hut", "layer": "0", "fixme": "1"},
    ]


def test_the_snap_distance_is_the_users(tmp_path, capsys):
    source = write(tmp_path / "f.parquet", terrace())
    succeed(capsys, "export", source, "-o", tmp_path / "o.osm", "--osm-snap", "0")
    assert len(read_osm(tmp_path / "o.osm").nodes) == 24


def test_josm_may_upload_when_told(tmp_path, capsys):
    source = write(tmp_path / "f.parquet", terrace())
    succeed(capsys, "export", source, "-o", tmp_path / "o.osm", "--upload-allowed")
    assert b'upload="true"' in (tmp_path / "o.osm").read_bytes()


def test_many_objects_go_to_several_files_that_hold_them_once(tmp_path, capsys):
    blocks = [house(20 * x, 20 * y) for x in range(10) for y in range(10)]
    source = write(tmp_path / "f.parquet", blocks)
    words = ["export", source, "-o", tmp_path / "o.osc.gz", "--max-elements", 120, "--json"]
    outputs = succeed(capsys, *words).json["outputs"]
    assert outputs == [str(tmp_path / f"o-{i:03d}.osc.gz") for i in range(1, len(outputs) + 1)]
    found = [read_osm(Path(path)) for path in outputs]
    assert max(len(part.nodes) + len(part.ways) for part in found) <= 120
    assert sum(len(part.ways) for part in found) == 100
    assert len({node for part in found for node in part.nodes}) == 400
    assert not (tmp_path / "o.osc.gz").exists()


def test_what_fits_keeps_its_name(tmp_path, capsys):
    source = write(tmp_path / "f.parquet", terrace())
    words = ("--max-elements", 5000, "--max-bbox-km", 10)
    succeed(capsys, "export", source, "-o", tmp_path / "o.osc", *words)
    assert [path.name for path in tmp_path.glob("o*")] == ["o.osc"]


def test_far_places_go_to_files_of_their_own(tmp_path, capsys):
    source = write(tmp_path / "f.parquet", [house(0, 0), house(0, 9000)])
    succeed(capsys, "export", source, "-o", tmp_path / "o.osc", "--max-bbox-km", 5)
    assert sorted(path.name for path in tmp_path.glob("o*")) == ["o-001.osc", "o-002.osc"]


@pytest.mark.parametrize(("old", "most"), [("o-003.osc", 5), ("o.osc", 5), ("o-001.osc", 50)])
def test_files_of_an_earlier_export_are_not_left_among_new_ones(tmp_path, capsys, old, most):
    source = write(tmp_path / "f.parquet", [house(0, 0), house(0, 9000)])
    (tmp_path / old).write_text("old")
    before = snapshot(tmp_path)
    done = call(capsys, "export", source, "-o", tmp_path / "o.osc", "--max-elements", most)
    assert done.code == 1
    assert_one_line(done, old, "remove")
    assert snapshot(tmp_path) == before


def test_what_is_left_out_is_counted(tmp_path, capsys):
    triangle = shapely.Polygon([(0, 50), (9, 50), (0, 59)])
    source = write(tmp_path / "f.parquet", [*terrace(2), house(0, 0), triangle])
    done = call(capsys, "export", source, "-o", tmp_path / "o.osm")
    assert done.code == 0
    assert done.err.splitlines() == [
        "warning: footprints left out: 1 with fewer than 4 corners, 1 that came twice",
    ]
    assert len(read_osm(tmp_path / "o.osm").ways) == 2


def test_overlapping_footprints_are_told(tmp_path):
    source = write(tmp_path / "f.parquet", [house(0, 0), house(5, 2)])
    with pytest.warns(GeosegWarning, match="2 footprints overlap others"):
        export_osm(source, tmp_path / "o.osm")


def test_a_group_too_large_for_a_changeset_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("geoseg.stages.osm_export.SERVER_ELEMENTS", 15)
    source = write(tmp_path / "f.parquet", [*terrace(), house(500, 0)])
    with pytest.warns(GeosegWarning, match="hang together"):
        export_osm(source, tmp_path / "o.osc", OsmOptions(max_elements=10))


def test_no_footprints_give_an_empty_file(tmp_path):
    frame = footprints(terrace())[:0]
    done = write_frames([frame], UTM, tmp_path / "o.osm", OsmOptions(max_elements=10))
    assert done.paths == [tmp_path / "o.osm"]
    assert read_osm(tmp_path / "o.osm").order == ""
    write_frames([], UTM, tmp_path / "none.osm.pbf")
    assert read_osm(tmp_path / "none.osm.pbf").order == ""


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["-o", "o.osm", "--tags", "building"], ["KEY=VALUE", "'building'"]),
        (["-o", "o.osm", "--tags", "building="], ["must have a tag"]),
        (["-o", "o.osm", "--osm-snap", "9"], ["[0, 5]", "9"]),
        (["-o", "o.osm", "--osm-snap", "nan"], ["[0, 5]"]),
        (["-o", "o.osm", "--max-elements", "0"], ["at least 1"]),
        (["-o", "o.osm", "--max-bbox-km", "-1"], ["above 0"]),
        (["-o", "o.osm", "--mask", "m.tif"], ["--mask", "OSM files"]),
        (["-o", "o.gpkg", "--osm-snap", "0"], ["--osm-snap", ".osc.gz"]),
        (["-o", "o.gpkg", "--tags", "a=b", "--upload-allowed"], ["--tags, --upload-allowed"]),
        (["-o", "o.osc", "--upload-allowed"], ["--upload-allowed", ".osm"]),
        (["-o", "no/o.osm"], ["folder", "does not exist"]),
        (["-o", "o.osm.bz2"], ["OSM files end in", ".osc.gz"]),
        (["-o", "o.pbf"], ["OSM files end in", ".osm.pbf"]),
    ],
)
def test_wrong_use_is_one_line_and_code_2(tmp_path, capsys, monkeypatch, words, needles):
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / "f.parquet", terrace(2))
    before = snapshot(tmp_path)
    done = call(capsys, "export", source, *words)
    assert done.code == 2
    assert_one_line(done, *needles)
    assert snapshot(tmp_path) == before


def test_run_says_to_export(tmp_path, capsys):
    done = call(capsys, "run", tmp_path / "s.tif", "-o", tmp_path / "o.osc.gz")
    assert done.code == 2
    assert_one_line(done, "export")


def test_a_torn_source_leaves_nothing(tmp_path, capsys):
    source = write(tmp_path / "f.parquet", terrace(2))
    source.write_bytes(source.read_bytes()[:-40])
    with pytest.raises(FormatError):
        export_osm(source, tmp_path / "o.osm")
    assert not (tmp_path / "o.osm").exists()


def test_a_file_is_not_written_over_itself(tmp_path):
    source = write(tmp_path / "f.parquet", terrace(2))
    (tmp_path / "o.osm").symlink_to(source)
    with pytest.raises(ConfigError, match="input"):
        export_osm(source, tmp_path / "o.osm")


def test_a_failure_among_several_files_leaves_none(tmp_path, monkeypatch):
    source = write(tmp_path / "f.parquet", [house(0, 0), house(0, 9000)])
    before = snapshot(tmp_path)
    count = 0

    def second_fails(*words, **options):
        nonlocal count
        count += 1
        if count == 2:
            raise OutputError(f"{words[1]}: cannot be written (disk full)")
        return stage_write(*words, **options)

    stage_write = stage.write_osm
    monkeypatch.setattr(stage, "write_osm", second_fails)
    with pytest.raises(OutputError, match=r"o-002\.osc: cannot"):
        export_osm(source, tmp_path / "o.osc", OsmOptions(max_elements=5))
    assert snapshot(tmp_path) == before


coordinate = st.one_of(
    st.floats(-200, 200), st.sampled_from([math.inf, 1e300, 95.0, -90.0, 180.0, -180.0])
)
corner = st.tuples(coordinate, coordinate)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@st.composite
def hostile(draw):
    """Draw a shape that some damaged file might hold, degrees."""
    kind = draw(
        st.sampled_from(["none", "empty", "point", "nested", "nan", "long", "ring", "pole"])
    )
    if kind in ("none", "empty", "point"):
        return {"none": None, "empty": shapely.Polygon(), "point": shapely.Point(1, 1)}[kind]
    if kind == "long":
        angle = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
        middle = draw(st.sampled_from([0.0, 179.9999, 89.0]))
        return shapely.Polygon(np.column_stack([middle + np.cos(angle) / 9, np.sin(angle) / 9]))
    if kind == "pole":
        return shapely.box(-180, 89, 180, 90)
    ring = [*draw(st.lists(corner, min_size=3, max_size=8))]
    if kind == "nan":
        ring.insert(1, (math.nan, 0.0))
    with np.errstate(invalid="ignore"):
        polygon = shapely.Polygon(shapely.LinearRing([*ring, ring[0]]))
    return (
        shapely.GeometryCollection([polygon, shapely.Point(0, 0)]) if kind == "nested" else polygon
    )


@settings(max_examples=60)
@given(
    shapes=st.lists(hostile(), max_size=4),
    label=text,
    suffix=st.sampled_from(SUFFIXES),
    quoted=st.booleans(),
)
def test_no_footprint_makes_a_file_unreadable(shapes, label, suffix, quoted):
    frame = footprints([house(0, 0)] * (len(shapes) + 1)).assign(label=label)
    with np.errstate(invalid="ignore"):
        good = shapely.box(10, 10, 10.0001, 10.0001)
        frame = frame.set_geometry([good, *shapes], crs="EPSG:4326")
    tags = TagTemplate.parse(["note={label}"]) if quoted else TagTemplate()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", GeosegWarning)
        path = Path(folder, f"a{suffix}")
        write_frames([frame], frame.crs, path, OsmOptions(tags=tags))
        found = read_osm(path)
    assert found.ways
    for refs, _ in found.ways.values():
        assert len(refs) <= 2000
        assert set(refs) <= set(found.nodes)
        assert all(one != other for one, other in pairwise(refs))
    for lon, lat in found.nodes.values():
        assert abs(lon) <= 180e7
        assert abs(lat) <= 90e7


def test_summary_is_json(tmp_path, capsys):
    source = write(tmp_path / "f.parquet", terrace())
    done = succeed(capsys, "export", source, "-o", tmp_path / "o.osm", "--json")
    assert json.loads(done.out)["footprints"] == 6
