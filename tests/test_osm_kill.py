"""A kill at every point of the protocol: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import itertools

import pytest

from tests.osm_api import TOKEN, FakeOsm
from tests.osm_builders import draw, write_osc
from tests.osm_kill import do_revert, do_upload, kill_during

DRAWN = draw(terraces=1, courtyards=1)
MAX_POINTS = 60


@pytest.fixture
def file(tmp_path):
    return write_osc(tmp_path / "a.osc", DRAWN)


def assert_all_there_once(osm, journal):
    assert osm.buildings() == DRAWN.buildings
    assert len(osm.elements) == DRAWN.n_elements  # what was ever made
    assert not [c for c in osm.changesets.values() if c.content and c.open]
    assert TOKEN not in journal.read_text()


@pytest.mark.parametrize("moment", ["before", "torn", "after", "lost", "applied"])
def test_upload_that_is_killed_anywhere_goes_on(moment, file, tmp_path):
    for number in range(1, MAX_POINTS):
        with FakeOsm() as osm:
            journal = tmp_path / f"{moment}-{number}.jsonl"
            words = (osm.url, file, journal)
            if not kill_during(osm, do_upload, words, moment, number):
                assert number > 8, "all points of two changesets were tried"
                return
            done = do_upload(*words)
            assert len(done.changesets) == 2
            assert_all_there_once(osm, journal)
    raise AssertionError("the upload must end")


@pytest.mark.parametrize("moment", ["before", "torn", "after", "lost", "applied"])
def test_revert_that_is_killed_anywhere_goes_on(moment, file, tmp_path):
    for number in range(1, MAX_POINTS):
        with FakeOsm() as osm:
            upload_journal = tmp_path / f"{moment}-{number}.jsonl"
            do_upload(osm.url, file, upload_journal, max_elements=100)
            words = (osm.url, upload_journal, tmp_path / f"{moment}-{number}.revert.jsonl")
            if not kill_during(osm, do_revert, words, moment, number):
                assert number > 7, "all points of a changeset were tried"
                return
            done = do_revert(*words)
            assert osm.buildings() == []
            assert not osm.alive("node")
            assert done.left == ()
            assert done.n_deleted + done.n_gone == DRAWN.n_elements
            assert all(len(versions) == 2 for versions in osm.elements.values())
    raise AssertionError("the revert must end")


def test_upload_that_is_killed_again_and_again_ends(file, tmp_path):
    with FakeOsm() as osm:
        words = (osm.url, file, tmp_path / "journal.jsonl")
        moments = itertools.cycle([("applied", 3), ("torn", 2), ("lost", 3), ("after", 2)])
        for _ in range(12):
            if not kill_during(osm, do_upload, words, *next(moments)):
                break
        else:
            do_upload(*words)
        assert_all_there_once(osm, words[-1])


@pytest.mark.parametrize("number", range(1, 9))
def test_upload_that_was_killed_can_be_reverted_as_it_is(number, file, tmp_path):
    with FakeOsm() as osm:
        journal = tmp_path / "journal.jsonl"
        kill_during(osm, do_upload, (osm.url, file, journal), "applied", number)
        if journal.exists() and journal.stat().st_size:
            do_revert(osm.url, journal, tmp_path / "back.jsonl")
        assert osm.buildings() == []
        assert not osm.alive("node")
