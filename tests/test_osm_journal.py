"""The journal: what was written stays, a cut line goes, and one process holds it."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.errors import BusyError, FormatError, InputNotFoundError, OutputError
from geoseg.osm.exchange.journal import Journal, read_journal
from geoseg.osm.exchange.protocol import _NEXT, PartState, advance, states_from

RECORDS = [{"event": "a", "n": 1}, {"event": "b", "text": "é\n"}, {"event": "c"}]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for record in RECORDS:
            journal.append(record)
    return path


def test_records_come_back(path):
    assert read_journal(path) == RECORDS
    with Journal(path) as journal:
        assert journal.records == RECORDS
        journal.append({"event": "d"})
    assert read_journal(path) == [*RECORDS, {"event": "d"}]


def test_a_cut_last_line_is_dropped_wherever_it_is_cut(path):
    whole = path.read_bytes()
    starts = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        expected = RECORDS[: sum(start <= size for start in starts)]
        assert read_journal(path) == expected
        with Journal(path) as journal:
            assert journal.records == expected
            journal.append({"event": "next"})
        assert read_journal(path) == [*expected, {"event": "next"}]


def test_other_damage_is_named(path):
    lines = path.read_bytes().splitlines(keepends=True)
    for broken in (b"{\n", b"[1]\n", b"\n", b'{"event": 3}\n', b"\xff\xfe\n", b"\0\0\0\n"):
        path.write_bytes(lines[0] + broken + lines[2])
        for read in (read_journal, lambda p: Journal(p).__enter__()):
            with pytest.raises(FormatError, match="line 2"):
                read(path)
        assert path.read_bytes() == lines[0] + broken + lines[2]


@pytest.mark.parametrize("text", ["Dear all", '{"type": "FeatureCollection"}', "{}", "\0"])
def test_a_file_that_is_no_journal_is_left_alone(text, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match="not a journal"), Journal(path):
        pass
    assert path.read_text() == text


def test_a_journal_that_is_held_is_busy(path):
    with Journal(path), pytest.raises(BusyError, match="in use"), Journal(path):
        pass
    with Journal(path):
        pass


def test_a_journal_that_stays_empty_is_removed(tmp_path):
    with Journal(tmp_path / "a.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_was_removed_meanwhile_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    monkeypatch.setattr("geoseg.osm.exchange.journal.fcntl.flock", lambda *_: path.unlink())
    with pytest.raises(BusyError), Journal(path):
        pass


def test_places_that_cannot_be_written_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "a.jsonl"):
        with pytest.raises(OutputError), Journal(path):
            pass
    with pytest.raises(InputNotFoundError):
        read_journal(tmp_path / "none.jsonl")


def test_a_full_disk_leaves_whole_lines(path, monkeypatch):
    before = path.read_bytes()
    with Journal(path) as journal:
        monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OutputError, match="full"):
            journal.append({"event": "x"})
        assert journal.records == RECORDS
    assert path.read_bytes() == before


EVENTS = sorted({event for _, event in _NEXT})
VALUES = {"part": 0, "changeset": 7, "prepared": {}, "result": {}, "key": "k"}


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_states_follow_the_protocol_or_are_refused(events):
    records = [{"event": event, **VALUES} for event in events]
    try:
        states = states_from(records, 1)
    except FormatError:
        return
    needs_changeset = {"open", "sending", "refused", "sent", "closing"}
    assert (states[0].phase not in needs_changeset) or states[0].changeset == 7
    assert states[0].attempt == events.count("opening")
    if states[0].phase == "closed":
        assert ("sent" in events) != ("skipped" in events)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=4,
    ),
    st.sampled_from(EVENTS),
    st.sampled_from(["part", "changeset", "prepared", "result"]),
)
def test_hostile_records_are_refused_not_trusted(value, event, key):
    records = [{"event": "opening", "part": 0}, {"event": event, **VALUES, key: value}]
    records = json.loads(json.dumps(records))
    try:
        states_from(records, 1)
    except FormatError:
        return


def test_events_out_of_order_are_named():
    with pytest.raises(FormatError, match="damaged"):
        advance(PartState(), {"event": "sent", "part": 0})
