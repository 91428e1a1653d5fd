"""OSM files: osmium reads what was written, always the same bytes, whole or not at all."""

from __future__ import annotations

import errno
import gzip
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import shapely
from cli_support import snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files_support import as_read, house, objects, read_osm

from geoseg.errors import OutputError
from geoseg.osm import files, xml
from geoseg.osm.files import write_osm
from geoseg.osm.formats import SUFFIXES, numbered, osm_suffix
from geoseg.osm.objects.build import build
from geoseg.osm.objects.outlines import NO_OUTLINES, outlines_of
from geoseg.osm.tags import clean_tags

anything = st.text(st.characters(exclude_categories=()), max_size=300)


def town():
    """Return objects of every kind."""
    yard = shapely.Polygon(house(0, 20, 30, 30).exterior, [house(10, 30).exterior])
    pair = shapely.MultiPolygon([house(60, 0), house(90, 0)])
    return objects(
        [house(0, 0), house(10, 0), yard, pair], {"building": "yes", "name": "<&\"'>é漢"}
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_osmium_reads_what_was_written(tmp_path, suffix):
    data, path = town(), tmp_path / f"town{suffix}"
    write_osm(data, path)
    found = read_osm(path)
    assert {name: getattr(found, name) for name in ("nodes", "ways", "relations")} == as_read(data)
    assert re.fullmatch("n+w+r+", found.order)
    assert found.versions == ({0} if suffix == ".osm" else {1})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_a_file_too(tmp_path, suffix):
    write_osm(build(NO_OUTLINES, []), tmp_path / f"none{suffix}")
    assert read_osm(tmp_path / f"none{suffix}").order == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_objects_give_the_same_bytes_in_every_process(tmp_path, suffix):
    path = tmp_path / f"here{suffix}"
    write_osm(town(), path)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_osm_files as tests
tests.write_osm(tests.town(), {str(tmp_path / f"there{suffix}")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / f"there{suffix}").read_bytes() == path.read_bytes()


def test_josm_may_not_upload_unless_allowed(tmp_path):
    path = tmp_path / "town.osm"
    write_osm(town(), path)
    root = ET.parse(path).getroot()
    assert root.attrib["upload"] == "never"
    assert {item.get("action") for item in root} == {"modify"}
    assert {item.get("version") for item in root} == {None}
    write_osm(town(), path, upload_allowed=True)
    assert ET.parse(path).getroot().attrib["upload"] == "true"


def test_a_change_creates_and_does_nothing_else(tmp_path):
    write_osm(town(), tmp_path / "town.osc.gz")
    root = ET.fromstring(gzip.decompress((tmp_path / "town.osc.gz").read_bytes()))
    assert (root.tag, root.get("version")) == ("osmChange", "0.6")
    (create,) = root
    assert create.tag == "create"
    assert {item.get("version") for item in create} == {"1"}


def test_coordinates_are_exact_to_the_last_digit(tmp_path):
    e7 = np.array(
        [(1, -1), (-9_999_999, 10_000_000), (1_800_000_000, 899_900_000), (-5, 12_345_678)]
    )
    data = build(outlines_of(np.array([shapely.Polygon(e7)]), np.array([0])), [{"building": "yes"}])
    write_osm(data, tmp_path / "a.osm")
    texts = {
        (node.get("lon"), node.get("lat")) for node in ET.parse(tmp_path / "a.osm").iter("node")
    }
    assert texts == {
        ("0.0000001", "-0.0000001"),
        ("-0.9999999", "1.0000000"),
        ("180.0000000", "89.9900000"),
        ("-0.0000005", "1.2345678"),
    }


def test_blocks_of_text_leave_no_seam(tmp_path, monkeypatch):
    write_osm(town(), tmp_path / "one.osc")
    monkeypatch.setattr(xml, "BLOCK", 3)
    write_osm(town(), tmp_path / "many.osc")
    assert (tmp_path / "one.osc").read_bytes() == (tmp_path / "many.osc").read_bytes()


@settings(max_examples=60)
@given(tags=st.dictionaries(anything, anything, max_size=4), suffix=st.sampled_from(SUFFIXES))
def test_no_tag_makes_a_file_unreadable(tags, suffix):
    data = objects([house(0, 0)], tags)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        write_osm(data, path)
        ((_, found),) = read_osm(path).ways.values()
    assert found == clean_tags(tags)


@pytest.mark.parametrize("name", ["town.osm.bz2", "town.pbf", "town", "osm", "town.gz"])
def test_other_extensions_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="extension"):
        write_osm(town(), tmp_path / name)


def test_names():
    assert [osm_suffix(f"a.b{suffix.upper()}") for suffix in SUFFIXES] == list(SUFFIXES)
    assert numbered(Path("a.b.OSC.GZ"), 12) == Path("a.b-012.OSC.GZ")
    assert numbered(Path("x/a.osm.pbf"), 1234).name == "a-1234.osm.pbf"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"town{suffix}"
    path.write_bytes(b"before")
    before = snapshot(tmp_path)

    def full(*_):
        yield "<osm>"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(xml, "_nodes", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        write_osm(town(), path)
    assert str(path) in str(caught.value)
    assert snapshot(tmp_path) == before


def test_what_libosmium_says_of_a_failure_is_one_line_too(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("unknown\nproblem")

    monkeypatch.setattr(files.osmium, "apply", broken)
    with pytest.raises(OutputError, match="unknown problem"):
        write_osm(town(), tmp_path / "a.osm.pbf")
    assert snapshot(tmp_path) == {}


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_osm(town(), tmp_path / "no" / "a.osm")


def test_links_stay_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a.osm").symlink_to(tmp_path / "real" / "b.osm")
    write_osm(town(), tmp_path / "a.osm")
    assert (tmp_path / "a.osm").is_symlink()
    assert read_osm(tmp_path / "real" / "b.osm").nodes
