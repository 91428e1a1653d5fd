"""Files of new objects: read whole, or refused in one line."""

from __future__ import annotations

import gzip
import re
from xml.etree import ElementTree as ET

import numpy as np
import osmium
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.errors import FormatError, InputNotFoundError
from geoseg.osm.exchange.changes import check_tag, read_changes
from geoseg.osm.exchange.documents import (
    changeset_document,
    creation_document,
    degrees,
    deletion_document,
)
from geoseg.osm.exchange.replies import Element
from tests.osm_builders import draw, write_osc

DRAWN = draw(terraces=2, courtyards=2)
TEXT = DRAWN.text
NODE_1 = re.search(r'<node id="-1" [^>]*/>', TEXT)[0]


def read_text(tmp_path, text, name="a.osc"):
    path = tmp_path / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_changes(path)


def objects(path):
    """Read a file with pyosmium: the oracle."""
    found = {}
    for o in osmium.FileProcessor(str(path)):
        tags = dict(o.tags)
        if o.is_node():
            found["node", o.id] = (round(o.location.lon * 1e7), round(o.location.lat * 1e7))
        elif o.is_way():
            found["way", o.id] = ([n.ref for n in o.nodes], tags)
        else:
            found["relation", o.id] = ([(m.type, m.ref, m.role) for m in o.members], tags)
    return found


def as_objects(data):
    places = map(tuple, data.lonlat_e7.tolist())
    nodes = {("node", n): p for n, p in zip(data.node_ids.tolist(), places, strict=True)}
    ways = {
        ("way", w): (data.nodes_of(i).tolist(), dict(data.way_tags[i]))
        for i, w in enumerate(data.way_ids.tolist())
    }
    relations = {
        ("relation", r.id): ([("w", m.way_id, m.role) for m in r.members], dict(r.tags))
        for r in data.relations
    }
    return {**nodes, **ways, **relations}


@pytest.mark.parametrize("name", ["a.osc", "a.osc.gz", "A.OSC"])
def test_reading_agrees_with_osmium(name, tmp_path):
    path = write_osc(tmp_path / name, DRAWN)
    data = read_changes(path)

    assert as_objects(data) == objects(path if name != "A.OSC" else path.rename(tmp_path / "b.osc"))
    assert data.n_elements == DRAWN.n_elements
    assert (np.diff(data.node_ids) < 0).all()


def test_order_of_elements_does_not_matter(tmp_path):
    tree = ET.fromstring(TEXT)
    tree[0][:] = reversed(tree[0])

    assert as_objects(read_text(tmp_path, ET.tostring(tree, "unicode"))) == as_objects(
        read_text(tmp_path, TEXT)
    )


def test_what_is_sent_is_what_was_read(tmp_path):
    data = read_text(tmp_path, TEXT)
    path = tmp_path / "sent.osc"
    path.write_bytes(creation_document(data, 12))

    assert objects(path) == as_objects(data)
    elements = [e for block in ET.parse(path).getroot() for e in block]
    assert {(e.get("version"), e.get("changeset")) for e in elements} == {("1", "12")}
    assert as_objects(read_changes(path)) == as_objects(data)


BAD = {
    "not a document": ("hello", "not XML"),
    "empty": ("", "not XML"),
    "torn": (TEXT[:-40], "torn"),
    "another root": ("<osm/>", "osmChange"),
    "nothing in it": ("<osmChange/>", "nothing to upload"),
    "a change": (TEXT.replace("create>", "modify>"), "only create"),
    "a deletion": (TEXT.replace("create>", "delete>"), "only create"),
    "an id of the server": (TEXT.replace('way id="-1"', 'way id="7"'), "negative"),
    "id zero": (TEXT.replace('way id="-1"', 'way id="-0"'), "negative"),
    "no id": (TEXT.replace('way id="-1"', "way"), "negative"),
    "a huge id": (TEXT.replace('way id="-1"', f'way id="-{"9" * 30}"'), "whole number"),
    "an id twice": (TEXT.replace('way id="-2"', 'way id="-1"'), "twice"),
    "a node twice": (TEXT.replace(NODE_1, NODE_1 * 2), "twice"),
    "a missing node": (TEXT.replace(NODE_1, ""), "not in the file"),
    "a node alone": (TEXT.replace(NODE_1, NODE_1 + NODE_1.replace("-1", "-99")), "no way"),
    "two nodes at one place": (
        TEXT.replace(NODE_1, NODE_1 + NODE_1.replace('"-1"', '"-99"')).replace(
            '<nd ref="-1"/>', '<nd ref="-1"/><nd ref="-99"/>'
        ),
        "another does",
    ),
    "latitude 95": (re.sub('lat="[^"]*"', 'lat="95"', TEXT, count=1), "lat"),
    "latitude NaN": (re.sub('lat="[^"]*"', 'lat="nan"', TEXT, count=1), "lat"),
    "no latitude": (re.sub('lat="[^"]*"', "", TEXT, count=1), "lat"),
    "infinite longitude": (re.sub('lon="[^"]*"', 'lon="-inf"', TEXT, count=1), "lon"),
    "a tag on a corner": (
        TEXT.replace(NODE_1, NODE_1[:-2] + '><tag k="a" v="b"/></node>'),
        "no tags",
    ),
    "a tag of 300 characters": (TEXT.replace('v="yes"', f'v="{"x" * 300}"'), "255"),
    "a tag twice": (
        TEXT.replace('<tag k="building" v="yes"/>', '<tag k="building" v="yes"/>' * 2),
        "twice",
    ),
    "an empty tag": (TEXT.replace('v="yes"', 'v=""'), "empty"),
    "a line break in a tag": (TEXT.replace('v="yes"', 'v="a&#10;b"'), "control"),
    "blanks in a row": (TEXT.replace('v="yes"', 'v="a  b"'), "two in a row"),
    "NUL": (TEXT.replace('v="yes"', 'v="\0"'), "not XML"),
    "a way that says nothing": (
        TEXT.replace('<tag k="building" v="yes"/></way>', "</way>"), "nothing"
    ),
    "a long way": (
        TEXT.replace('<nd ref="-1"/>', '<nd ref="-1"/>' * 2001, 1),
        "2 to 2,000 nodes",
    ),
    "a short way": (
        TEXT.replace(
            "</create>",
            '<way id="-77"><nd ref="-1"/><tag k="building" v="yes"/></way></create>',
        ),
        "2 to 2,000 nodes",
    ),
    "a missing member": (
        TEXT.replace('type="way" ref="-5"', 'type="way" ref="-50"'), "member"
    ),
    "an empty role": (TEXT.replace('role="inner"', 'role=""'), "role"),
    "a node as member": (TEXT.replace('type="way"', 'type="node"'), "ways"),
    "a relation of another kind": (TEXT.replace('v="multipolygon"', 'v="site"'), "multipolygon"),
    "an unknown element": (TEXT.replace("</create>", "<area/></create>"), "nodes, ways"),
    "an unknown child": (TEXT.replace("</way>", "<nod/></way>"), "no place"),
    "depth": (TEXT.replace("</way>", "<nd ref='-1'><tag k='a' v='b'/></nd></way>"), "no place"),
    "a document type": (
        TEXT.replace("<osmChange", '<!DOCTYPE a [<!ENTITY b "c">]><osmChange'),
        "document type",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_as_it_should_be_is_one_line(name, tmp_path):
    text, needle = BAD[name]
    assert text != TEXT
    with pytest.raises(FormatError) as error:
        read_text(tmp_path, text)

    message = str(error.value)
    assert needle in message
    assert message.startswith(str(tmp_path / "a.osc"))
    assert "\n" not in message
    assert len(message) < 400


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.osc.gz"
    path.write_bytes(gzip.compress(b"<osmChange>" + b" " * 30_000_000))
    with pytest.raises(FormatError, match="at most 5 MB"):
        read_changes(path, max_bytes=5_000_000)


@pytest.mark.parametrize("cut", [0, 1, 10, 100])
def test_a_torn_gzip_is_one_line(cut, tmp_path):
    path = write_osc(tmp_path / "a.osc.gz", DRAWN)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError, match=r"torn"):
        read_changes(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match="check the path"):
        read_changes(tmp_path / "none.osc")
    with pytest.raises(FormatError, match="must end in"):
        read_changes(tmp_path / "a.osm")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_right_or_refused(data, tmp_path):
    raw = bytearray(TEXT.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position] = data.draw(st.integers(0, 255))
    try:
        found = read_text(tmp_path, bytes(raw))
    except FormatError:
        return
    document = creation_document(found, 1)  # what is accepted can be sent
    (tmp_path / "again.osc").write_bytes(document)
    assert as_objects(read_changes(tmp_path / "again.osc")) == as_objects(found)


@given(st.text(max_size=300))
def test_tags_that_pass_survive_xml(text):
    try:
        check_tag("comment", text)
    except FormatError:
        return
    (tag,) = ET.fromstring(changeset_document({"comment": text})).iter("tag")
    assert tag.get("v") == text


@given(st.integers(-1_800_000_000, 1_800_000_000))
def test_degrees_are_exact(value):
    assert round(float(degrees(value)) * 1e7) == value


def test_deletions_take_relations_first_and_nodes_last():
    elements = [
        Element(kind="node", id=5, version=1, changeset=2, visible=True, lonlat_e7=(-1, 20)),
        Element(kind="relation", id=7, version=1, changeset=2, visible=True),
        Element(kind="way", id=6, version=1, changeset=2, visible=True),
    ]
    (block,) = ET.fromstring(deletion_document(elements, 3))
    assert block.attrib == {"if-unused": "true"}
    assert [e.tag for e in block] == ["relation", "way", "node"]
    assert block[2].attrib == {
        "id": "5", "version": "1", "changeset": "3", "lat": "0.0000020", "lon": "-0.0000001"
    }  # fmt: skip
