"""What is mapped: every source gives the same objects, and osmium's own areas are the oracle."""

from __future__ import annotations

import bz2
import gzip
import json
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import osmium
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_support import EVERYWHERE, EXTRACTS, osm_xml, overpass_json, square

from geoseg.errors import FormatError, InputNotFoundError, VectorError
from geoseg.osm.mapped import extract
from geoseg.osm.mapped.layers import KINDS, Mapped, encloses, kind_of
from geoseg.osm.mapped.near import Near
from geoseg.osm.mapped.read import read_mapped

if TYPE_CHECKING:
    from pathlib import Path

HOUSE = {"building": "yes"}
COURTYARD = {"type": "multipolygon", "building": "apartments"}
CORNERS = [*square(10, 50, 0.001), *square(10.0002, 50.0002, 0.0004), *square(10.01, 50, 0.001)]
NODES = dict(enumerate(CORNERS, start=1))
WAYS: dict[int, tuple[list[int], dict[str, str]]] = {
    1: ([1, 2, 3], {}),
    2: ([3, 4, 1], {}),
    3: ([5, 6, 7, 8, 5], {}),
    4: ([9, 10, 11, 12, 9], HOUSE),
    5: ([9, 10, 11, 12, 9], {"building": "no"}),
    6: ([9, 10, 11], HOUSE),
    7: ([1, 7, 11], {"highway": "residential"}),
    8: ([1, 7, 11], {"highway": "service", "tunnel": "building_passage"}),
    9: ([2, 12], {"railway": "tram"}),
    10: ([9, 10, 11, 12, 9], {"natural": "water"}),
    11: ([4, 9], {"waterway": "stream"}),
}
RELATIONS: dict[int, tuple[list[tuple[int, str]], dict[str, str]]] = {
    1: ([(1, "outer"), (2, "outer"), (3, "inner")], COURTYARD),
    2: ([(4, "outer")], {"type": "site", "building": "yes"}),
}


def renamed(nodes: Any, ways: Any, relations: Any) -> tuple[Any, Any, Any]:
    """Return a document as an editor has it before it is uploaded: every id negative."""
    return (
        {-i: place for i, place in nodes.items()},
        {-i: ([-n for n in refs], tags) for i, (refs, tags) in ways.items()},
        {-i: ([(-w, r) for w, r in m], tags) for i, (m, tags) in relations.items()},
    )


def by_id(mapped: Mapped) -> dict[str, tuple[str, Any]]:
    kinds = [KINDS[code] for code in mapped.kinds]
    found = dict(zip(mapped.ids, zip(kinds, mapped.shapes, strict=True), strict=True))
    assert len(found) == len(mapped)
    return found


def same_places(one: Mapped, other: Mapped) -> bool:
    a, b = by_id(one), by_id(other)
    return a.keys() == b.keys() and all(
        a[i][0] == b[i][0] and shapely.equals(a[i][1], b[i][1]) for i in a
    )


def read_or_refuse(path: Path) -> tuple[Mapped, str]:
    """Return what is read, or nothing and why."""
    try:
        return read_mapped(path, EVERYWHERE, kinds=KINDS), ""
    except (FormatError, VectorError) as error:
        return Mapped.of_columns([], [], []), str(error)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "town.osm"
    path.write_text(osm_xml(NODES, WAYS, RELATIONS))
    return path


def test_buildings_are_closed_ways_and_multipolygons(document: Path) -> None:
    found = by_id(read_mapped(document, EVERYWHERE))
    assert list(found) == ["way/4", "relation/1"]
    outer, hole = (
        shapely.box(10, 50, 10.001, 50.001),
        shapely.box(10.0002, 50.0002, 10.0006, 50.0006),
    )
    assert shapely.equals(found["relation/1"][1], outer - hole)
    assert shapely.equals(found["way/4"][1], shapely.Polygon(square(10.01, 50, 0.001)))


def test_other_kinds_come_on_request(document: Path) -> None:
    found = by_id(read_mapped(document, EVERYWHERE, kinds=KINDS))
    kinds = {i: kind for i, (kind, _) in found.items()}
    assert kinds == {
        "way/4": "building",
        "way/7": "road",
        "way/9": "rail",
        "way/10": "water",
        "way/11": "water",
        "relation/1": "building",
    }
    assert found["way/10"][1].geom_type == "Polygon"
    assert found["way/11"][1].geom_type == "LineString"


@pytest.mark.parametrize("suffix", [".osm.gz", ".osm.bz2", ".osm.pbf", ".pbf", ".opl", ".OSM"])
def test_every_osm_format_gives_the_same(document: Path, suffix: str) -> None:
    other = document.with_name(f"other{suffix}")
    data = document.read_bytes()
    if suffix in {".osm.gz", ".osm.bz2"}:
        other.write_bytes((gzip if suffix.endswith("gz") else bz2).compress(data))
    elif suffix == ".OSM":
        other.write_bytes(data)
    else:
        kind = "opl" if suffix == ".opl" else "pbf"
        with osmium.SimpleWriter(osmium.io.File(str(other), kind)) as writer:
            for thing in osmium.FileProcessor(str(document)):
                writer.add(thing)
    assert same_places(
        read_mapped(other, EVERYWHERE, kinds=KINDS), read_mapped(document, EVERYWHERE, kinds=KINDS)
    )


@pytest.mark.parametrize("geom", [True, False])
def test_overpass_gives_the_same(document: Path, geom: bool) -> None:
    answer = document.with_suffix(".json")
    answer.write_text(overpass_json(NODES, WAYS, RELATIONS, geom=geom))
    assert same_places(
        read_mapped(answer, EVERYWHERE, kinds=KINDS), read_mapped(document, EVERYWHERE, kinds=KINDS)
    )


def test_new_objects_of_an_editor_are_read(document: Path) -> None:
    path = document.with_name("new.osm")
    path.write_text(osm_xml(*renamed(NODES, WAYS, RELATIONS)))
    found, known = by_id(read_mapped(path, EVERYWHERE)), by_id(read_mapped(document, EVERYWHERE))
    assert list(found) == ["way/-4", "relation/-1"]
    for (_, one), (_, other) in zip(found.values(), known.values(), strict=True):
        assert shapely.equals(one, other)


@pytest.mark.parametrize("cut", [7, 8])
def test_cut_nodes_leave_the_rest_of_a_building(tmp_path: Path, cut: int) -> None:
    nodes = {i: place for i, place in NODES.items() if i != cut}
    ways = {3: ([7, 8, 5, 6, 7], HOUSE)}
    for name, text in (
        ("t.osm", osm_xml(nodes, ways)),
        ("b.json", overpass_json(nodes, ways, geom=False)),
        ("g.json", overpass_json(nodes, ways, geom=True)),
    ):
        (tmp_path / name).write_text(text)
        (shape,) = read_mapped(tmp_path / name, EVERYWHERE).shapes
        assert shapely.get_num_coordinates(shape) == 4, name
        assert shape.area == pytest.approx(0.0004**2 / 2), name


def test_a_hole_without_its_outer_ring_is_no_building(tmp_path: Path) -> None:
    ways = {i: WAYS[i] for i in (2, 3)}
    for name, text in (
        ("t.osm", osm_xml(NODES, ways, RELATIONS)),
        ("t.json", overpass_json(NODES, ways, RELATIONS, geom=True)),
    ):
        (tmp_path / name).write_text(text)
        assert len(read_mapped(tmp_path / name, EVERYWHERE)) == 0, name


def test_islands_and_touching_rings(tmp_path: Path) -> None:
    corners = [*square(0, 0, 9), *square(2, 2, 5), *square(4, 4, 1), *square(9, 0, 3)]
    nodes = {i: (x / 1000, y / 1000) for i, (x, y) in enumerate(corners, start=1)}
    rings = {k + 1: ([4 * k + 1, 4 * k + 2, 4 * k + 3, 4 * k + 4, 4 * k + 1], {}) for k in range(4)}
    members = [(1, "outer"), (2, "inner"), (3, "outer"), (4, "")]
    (tmp_path / "t.osm").write_text(osm_xml(nodes, rings, {1: (members, COURTYARD)}))
    (shape,) = read_mapped(tmp_path / "t.osm", EVERYWHERE).shapes
    assert shape.is_valid
    assert shape.area == pytest.approx((81 - 25 + 1 + 9) * 1e-6)


def test_self_crossing_buildings_count(tmp_path: Path) -> None:
    nodes = {1: (0.0, 0.0), 2: (0.001, 0.001), 3: (0.001, 0.0), 4: (0.0, 0.001)}
    (tmp_path / "t.osm").write_text(osm_xml(nodes, {1: ([1, 2, 3, 4, 1], HOUSE)}))
    (shape,) = read_mapped(tmp_path / "t.osm", EVERYWHERE).shapes
    assert shape.is_valid
    assert shape.area == pytest.approx(0.5e-6)


def test_only_what_is_near_is_kept(document: Path) -> None:
    near = Near.of(np.array([shapely.Point(10.0005, 50.0005)]), margin_m=10)
    far = Near.of(np.array([shapely.Point(10.5, 50)]), margin_m=10)
    assert read_mapped(document, near).ids.tolist() == ["way/4", "relation/1"]  # one cell
    assert len(read_mapped(document, far, kinds=KINDS)) == 0
    nowhere = Near.of(np.array([], object), margin_m=10)
    assert len(read_mapped(document, nowhere, kinds=KINDS)) == 0


def test_batches_do_not_matter(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = read_mapped(document, EVERYWHERE, kinds=KINDS)
    monkeypatch.setattr(extract, "_BATCH", 2)
    again = read_mapped(document, EVERYWHERE, kinds=KINDS)
    assert again.ids.tolist() == known.ids.tolist()
    assert same_places(again, known)


def test_places_of_nodes_on_disk_give_the_same(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read_mapped(document, EVERYWHERE, kinds=KINDS)
    monkeypatch.setattr(extract, "LARGE_BYTES", 0)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert same_places(read_mapped(document, EVERYWHERE, kinds=KINDS, scratch=scratch), known)
    assert list(scratch.iterdir()) == []


@given(
    lonlat=st.lists(st.tuples(st.floats(-180, 180), st.floats(-88, 88)), min_size=1, max_size=8),
    metres=st.floats(1, 5000),
    turn=st.floats(0, 2 * np.pi),
)
def test_what_is_within_the_margin_is_near(
    lonlat: list[tuple[float, float]], metres: float, turn: float
) -> None:
    near = Near.of(np.array([shapely.Point(*place) for place in lonlat]), margin_m=metres)
    lon, lat = lonlat[0]
    away = 0.99 * metres / 111_320
    north = lat + away * np.sin(turn)
    east = lon + away * np.cos(turn) / np.cos(np.radians(max(abs(lat), abs(north))))
    east = (east + 180) % 360 - 180
    assert near.touches(np.array([[east, north, east, north]])).all()
    assert not near.touches(np.array([[np.nan] * 4, [np.inf] * 4])).any()


def test_near_footprints_on_both_sides_of_180_degrees() -> None:
    crossing = shapely.MultiPolygon(
        [shapely.box(179.999, 0, 180, 0.001), shapely.box(-180, 0, -179.999, 0.001)]
    )
    near = Near.of(np.array([crossing]), margin_m=100)
    places = np.array([[179.9995, 0, 179.9995, 0], [-179.9995, 0, -179.9995, 0], [0, 0, 0, 0]])
    assert near.touches(places).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"building": "no", "highway": "footway"}, "road"),
        ({"building": "ruins", "highway": "footway"}, "building"),
        ({"highway": "proposed"}, None),
        ({"highway": "primary", "bridge": "yes"}, None),
        ({"highway": "primary", "layer": "-1"}, None),
        ({"highway": "primary", "layer": "0", "tunnel": "no"}, "road"),
        ({"railway": "rail"}, "rail"),
        ({"railway": "abandoned"}, None),
        ({"waterway": "weir"}, None),
        ({"landuse": "reservoir"}, "water"),
        ({"waterway": "stream", "tunnel": "culvert"}, None),
        ({}, None),
    ],
)
def test_kinds_by_tags(tags: dict[str, str], kind: str | None) -> None:
    assert kind_of(tags.get, KINDS) == kind
    assert kind_of(tags.get, ()) is None


def test_a_moat_is_a_line_and_a_pond_is_not() -> None:
    assert not encloses({"waterway": "ditch"}.get, "water")
    assert encloses({"waterway": "riverbank"}.get, "water")
    assert encloses({"natural": "water"}.get, "water")
    assert not encloses({"highway": "pedestrian"}.get, "road")


def test_vector_files_hold_buildings_unless_they_say_otherwise(tmp_path: Path) -> None:
    shapes = [shapely.box(i, 0, i + 0.5, 0.5) for i in range(3)]
    lines = [*shapes, shapely.LineString([(0, 0), (3, 3)])]
    plain = gpd.GeoDataFrame(geometry=shapes, crs="EPSG:4326").to_crs("EPSG:3857")
    plain.to_file(tmp_path / "plain.gpkg")
    found = read_mapped(tmp_path / "plain.gpkg", EVERYWHERE)
    assert found.ids.tolist() == ["row/1", "row/2", "row/3"]
    assert shapely.area(shapely.symmetric_difference(found.shapes, shapes)).max() < 1e-9
    tagged = gpd.GeoDataFrame(
        {
            "@id": ["way/1", "way/2", "way/3", "way/4"],
            "building": ["yes", "no", None, None],
            "highway": [None, None, None, "primary"],
        },
        geometry=lines,
        crs="EPSG:4326",
    )
    tagged.to_file(tmp_path / "turbo.geojson")
    tagged.to_file(tmp_path / "named.json", driver="GeoJSON")
    for name in ("turbo.geojson", "named.json"):
        found = read_mapped(tmp_path / name, EVERYWHERE, kinds=("building", "road"))
        assert found.ids.tolist() == ["way/1", "way/4"]
        assert [KINDS[code] for code in found.kinds] == ["building", "road"]


@pytest.mark.parametrize(
    ("name", "data", "error", "words"),
    [
        ("absent.osm", None, InputNotFoundError, "does not exist"),
        ("absent.geojson", None, InputNotFoundError, "does not exist"),
        ("a.osm", b"", FormatError, "torn or no OSM file"),
        ("a.osm", b"<osm version='0.6'><node", FormatError, "torn or no OSM file"),
        ("a.osm.pbf", b"rubbish", FormatError, "torn or no OSM file"),
        ("a.osm.gz", gzip.compress(b"<osm version='0.6'/>", mtime=0)[:20], FormatError, "torn"),
        ("a.osc", b"<osmChange version='0.6'/>", FormatError, "changes or history"),
        ("a.osc.gz", b"", FormatError, "changes or history"),
        ("a.osh.pbf", b"", FormatError, "changes or history"),
        ("a.json", b"{", FormatError, "no answer of Overpass"),
        ("a.json", b'{"elements": 3}', FormatError, "no answer of Overpass"),
        ("a.json", b"[]", FormatError, "no answer of Overpass"),
        ("a.json", b'{"elements":[{"type":"way","id":1,"tags":{}}]}', FormatError, "out geom"),
        (
            "a.json",
            b'{"elements":[],"remark":"runtime error: Query timed out"}',
            FormatError,
            "timed out",
        ),
        ("a.geojson", b"{}", VectorError, "a.geojson"),
        ("a.txt", b"hello", VectorError, "a.txt"),
    ],
)
def test_bad_files_are_one_clear_line(
    tmp_path: Path, name: str, data: bytes | None, error: type[Exception], words: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=words) as refused:
        read_mapped(path, EVERYWHERE)
    assert "\n" not in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize("name", ["https://here.org/region.osm.pbf", "/vsicurl/x/answer.json"])
def test_what_lies_elsewhere_is_to_be_downloaded(name: str) -> None:
    with pytest.raises(InputNotFoundError, match="download it first") as refused:
        read_mapped(name, EVERYWHERE)
    assert name in str(refused.value)


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_extracts_are_refused_or_read(data: st.DataObject, tmp_path_factory: Any) -> None:
    whole = osm_xml(NODES, WAYS, RELATIONS).encode()
    start = data.draw(st.integers(0, len(whole)))
    text = whole[:start] + data.draw(st.binary(max_size=8)) + whole[start + 3 :]
    path = tmp_path_factory.mktemp("torn") / "t.osm"
    path.write_bytes(text)
    found, refusal = read_or_refuse(path)
    assert "\n" not in refusal
    assert shapely.is_valid(found.shapes).all()


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["lat", "nodes", "geometry", "members", "tags", "id", "type"]),
)
def test_strange_answers_of_overpass_are_refused_or_read(
    tmp_path_factory: Any, value: Any, key: str
) -> None:
    answer = json.loads(overpass_json(NODES, WAYS, RELATIONS, geom=True))
    answer["elements"][0][key] = value
    path = tmp_path_factory.mktemp("odd") / "t.json"
    path.write_text(json.dumps(answer))
    assert "\n" not in read_or_refuse(path)[1]


@pytest.mark.skipif(not EXTRACTS.is_dir(), reason="the extracts are not here")
@pytest.mark.parametrize("name", ["kouvola", "helsinki"])
def test_extracts_are_read_as_osmium_assembles_them(name: str) -> None:
    path = EXTRACTS / f"{name}.osm.pbf"
    found = by_id(read_mapped(path, EVERYWHERE))
    factory = osmium.geom.WKBFactory()
    areas = (
        osmium.FileProcessor(path)
        .with_areas()
        .with_filter(osmium.filter.EntityFilter(osmium.osm.AREA))
        .with_filter(osmium.filter.KeyFilter("building"))
    )
    n_whole = 0
    for area in areas:
        whole = shapely.make_valid(shapely.from_wkb(factory.create_multipolygon(area)))
        kind = "way" if area.from_way() else "relation"
        ours = found[f"{kind}/{area.orig_id()}"][1]
        assert shapely.symmetric_difference(whole, ours).area <= 1e-6 * whole.area
        n_whole += 1
    assert n_whole > 400
    assert len(found) - n_whole < 60  # cut by the extract's border: made of what is left


@pytest.mark.parametrize("name", ["a.osm", "a.json", "a"])
def test_a_folder_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputNotFoundError, match="is a folder: give a file"):
        read_mapped(tmp_path / name, EVERYWHERE)
