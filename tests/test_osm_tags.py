"""Tags: text that OSM takes, templates that say what they mean or are refused."""

from __future__ import annotations

import unicodedata
import xml.etree.ElementTree as ET
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st
from osm_files_support import footprints, house

from geoseg.errors import ConfigError
from geoseg.osm.tags import MAX_TEXT, TagTemplate, clean_tags, clean_text

anything = st.text(st.characters(exclude_categories=()), max_size=300)


@given(anything)
def test_clean_text_is_what_xml_and_the_server_take(text):
    cleaned = clean_text(text)
    assert len(cleaned) <= MAX_TEXT
    assert cleaned == cleaned.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in cleaned)
    read = ET.fromstring(f"<tag v={quoteattr(cleaned)}/>".encode())
    assert read.get("v") == cleaned
    assert clean_text(cleaned) == cleaned


@given(st.text("abcäß漢字 -", max_size=200))
def test_plain_text_stays(text):
    assert clean_text(text) == " ".join(text.split())


@given(st.dictionaries(anything, anything, max_size=5))
def test_clean_tags_have_keys_and_values(tags):
    cleaned = clean_tags(tags)
    assert all(key and value for key, value in cleaned.items())
    assert list(cleaned) == sorted(cleaned)


def test_long_values_are_cut_at_255_characters():
    assert clean_tags({"k" * 300: "ö" * 300}) == {"k" * 255: "ö" * 255}


def frame(labels=("building", "hut")):
    found = footprints([house(20 * i, 0) for i in range(len(labels))])
    return found.assign(label=list(labels))


def test_by_default_objects_are_buildings_and_nothing_else():
    assert TagTemplate().fill(frame()) == [{"building": "yes"}] * 2


def test_footprints_of_a_label_share_one_mapping():
    first, _, third = TagTemplate().fill(frame(("a", "b", "a")))
    assert first is third


def test_labels_have_tags_of_their_own():
    template = TagTemplate.parse(["hut/building=hut", "hut/roof:shape=gabled", "layer=0"])
    assert template.fill(frame()) == [
        {"building": "yes", "layer": "0"},
        {"building": "hut", "layer": "0", "roof:shape": "gabled"},
    ]


def test_a_tag_is_taken_away_by_giving_it_no_value():
    template = TagTemplate.parse(["building=", "man_made=yes", "hut/man_made=", "hut/tent=yes"])
    assert template.fill(frame()) == [{"man_made": "yes"}, {"tent": "yes"}]


def test_values_quote_the_footprint_when_asked():
    template = TagTemplate.parse(["note={label} {id}", "fixme=score {score} by {model}"])
    filled = template.fill(frame(), model="lite0")
    assert filled[1]["note"] == "hut 0000000000000001"
    assert [tags["fixme"] for tags in filled] == ["score 0.5 by lite0", "score 1 by lite0"]


def test_doubled_braces_are_braces():
    assert TagTemplate.parse(["note={{{label}}}"]).fill(frame())[0]["note"] == "{building}"


def test_what_is_quoted_is_cleaned():
    template = TagTemplate.parse(["note={label}"])
    found = template.fill(frame(("a\0b\x85\x07", "x" * 400)))
    assert [tags["note"] for tags in found] == ["a b", "x" * 255]


@pytest.mark.parametrize(
    "word",
    [
        "building",
        "=yes",
        "/building=yes",
        "hut/=yes",
        "a=\0",
        "a\nb=c",
        "a= b",
        "k=" + "x" * 256,
        "x" * 256 + "=v",
        "note={colour}",
        "note={}",
        "note={score!r}",
        "note={score:.3f}",
        "note={id.__class__}",
        "note={",
        "building=",
    ],
)
def test_words_that_are_no_tags_are_refused_in_one_line(word):
    with pytest.raises(ConfigError) as caught:
        TagTemplate.parse([word])
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 200
