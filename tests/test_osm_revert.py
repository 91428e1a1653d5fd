"""Taking back: what is untouched goes, what others touched stays, and no more than was uploaded."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.errors import BusyError, ConfigError, FormatError, RefusedError, ServerError
from geoseg.osm.exchange.api import OsmApi
from geoseg.osm.exchange.journal import Journal, read_journal
from geoseg.osm.exchange.revert import preview, read_trace
from tests.osm_api import TOKEN, FakeOsm, Fault
from tests.osm_builders import draw, write_osc
from tests.osm_kill import do_revert, do_upload
from tests.test_osm_upload import LOSSES

DRAWN = draw(terraces=2, courtyards=1)


@pytest.fixture
def osm():
    with FakeOsm() as fake:
        yield fake


@pytest.fixture
def journal(osm, tmp_path):
    path = tmp_path / "journal.jsonl"
    do_upload(osm.url, write_osc(tmp_path / "a.osc", DRAWN), path)
    return path


def back(osm, journal):
    return do_revert(osm.url, journal, journal.with_name("back.jsonl"))


def look(osm, journal):
    trace = read_trace(read_journal(journal), journal)
    with OsmApi(osm.url, "", timeout_s=2) as api:
        return preview(trace, api=api, say=lambda text: None)


def first(osm, kind):
    return min(osm.alive(kind))


def draw_way(osm, *nodes, changeset=99):
    """Let somebody else draw a way over nodes."""
    way = ET.Element("way")
    for node in nodes:
        ET.SubElement(way, "nd", ref=str(node))
    return osm.store(way, changeset)


def assert_whole(osm):
    """Nothing on the map refers to what is not there."""
    nodes, ways = osm.alive("node"), osm.alive("way")
    assert {int(nd.get("ref")) for w in ways.values() for nd in w.iter("nd")} <= set(nodes)
    members = {int(m.get("ref")) for r in osm.alive("relation").values() for m in r.iter("member")}
    assert members <= set(ways)


def test_what_is_untouched_goes_and_the_rest_stays(osm, journal):
    node = osm.store(ET.Element("node", lat="60.8", lon="26.7"), 98)
    done = back(osm, journal)

    assert (done.n_deleted, done.n_gone, done.left) == (DRAWN.n_elements, 0, ())
    assert list(osm.alive("node")) == [int(node.get("id"))]
    assert len(done.changesets) == 3
    for number in done.changesets:
        changeset = osm.changesets[number]
        assert not changeset.open
        assert changeset.tags["comment"].startswith("Revert of changeset 90")
        assert {action for action, _ in changeset.content} == {"delete"}
    again = back(osm, journal)
    assert again == done


def test_a_look_changes_nothing_and_needs_no_token(osm, journal):
    osm.edit("node", first(osm, "node"), lat="60.80001")
    before = (journal.read_bytes(), len(osm.changesets), sum(map(len, osm.elements.values())))
    seen = look(osm, journal)

    assert before == (
        journal.read_bytes(), len(osm.changesets), sum(map(len, osm.elements.values()))
    )  # fmt: skip
    done = back(osm, journal)
    assert (seen.n_deleted, seen.left) == (done.n_deleted, done.left)


def test_a_building_with_a_moved_corner_stays_whole(osm, journal):
    way = first(osm, "way")
    corners = {int(nd.get("ref")) for nd in osm.alive("way")[way].iter("nd")}
    ends = [int(nd.get("ref")) for w in osm.alive("way").values() for nd in list(w)[:-1]]
    corner = next(n for n in corners if ends.count(n) == 1)  # not one of the shared wall
    osm.edit("node", corner, lat="60.80001")
    done = back(osm, journal)

    assert set(osm.alive("way")) == {way}
    assert set(osm.alive("node")) == corners
    reasons = dict(done.left)
    assert "version 2 in changeset 99" in reasons[f"node {corner}"]
    assert f"node {corner} of it" in reasons[f"way {way}"]
    assert len(reasons) == 1 + len(corners)


def test_a_courtyard_with_new_tags_stays_whole(osm, journal):
    relation = first(osm, "relation")
    osm.edit("relation", relation)
    done = back(osm, journal)

    assert len(osm.alive("relation")) == 1
    assert len(osm.alive("way")) == 2
    assert len(osm.alive("node")) == 8
    assert_whole(osm)
    assert len(done.left) == 11


def test_a_courtyard_whose_hole_was_edited_stays_whole(osm, journal):
    hole = int(next(m for m in osm.alive("relation")[first(osm, "relation")].iter("member")
                    if m.get("role") == "inner").get("ref"))  # fmt: skip
    osm.edit("way", hole)
    done = back(osm, journal)

    assert len(osm.alive("way")) == 2
    assert_whole(osm)
    assert len(done.left) == 11


def test_what_others_use_stays(osm, journal):
    way = first(osm, "way")
    corner = int(next(osm.alive("way")[way].iter("nd")).get("ref"))
    other = draw_way(osm, corner)
    done = back(osm, journal)

    assert set(osm.alive("way")) == {int(other.get("id"))}
    assert set(osm.alive("node")) == {corner}
    assert done.left == ((f"node {corner}", "in use by what others drew"),)


def test_what_is_in_a_relation_of_others_stays(osm, journal):
    way = first(osm, "way")
    relation = ET.Element("relation")
    ET.SubElement(relation, "member", type="way", ref=str(way), role="")
    osm.store(relation, 99)
    done = back(osm, journal)

    assert set(osm.alive("way")) == {way}
    assert_whole(osm)
    assert len(done.left) == 5


def test_what_was_deleted_meanwhile_is_counted(osm, journal):
    way = osm.alive("way")[first(osm, "way")]
    osm.edit("way", int(way.get("id")), visible="false")
    done = back(osm, journal)

    assert done.n_gone == 1
    assert done.n_deleted == DRAWN.n_elements - 1
    assert not osm.alive("node")


def test_all_deleted_meanwhile_needs_no_changeset(osm, journal):
    for kind, number in osm.elements:
        osm.edit(kind, number, visible="false")
    done = back(osm, journal)

    assert done.changesets == ()
    assert (done.n_deleted, done.n_gone) == (0, DRAWN.n_elements)


@pytest.mark.parametrize("call", ["create", "upload", "close", "download", "nodes", "user"])
@pytest.mark.parametrize("kind", LOSSES)
def test_a_lost_reply_changes_nothing(kind, call, osm, journal):
    if call == "download":
        osm.faults.append(Fault(kind="drop-after", path="upload"))
    osm.faults.append(Fault(kind=kind, path=call, seconds=1.0 if kind == "slow" else 0.05))
    try:
        done = back(osm, journal)
    except ServerError:
        assert kind == "garbage"
        done = back(osm, journal)

    osm.finish_late()
    assert not osm.faults
    assert not osm.alive("node")
    assert done.n_deleted + done.n_gone == DRAWN.n_elements
    assert all(len(versions) == 2 for versions in osm.elements.values())


def test_an_edit_at_the_last_moment_is_a_conflict_and_then_left(osm, journal):
    way = first(osm, "way")
    answer = osm.answer

    def edit_first(method, path, token, body):
        if path.endswith("upload"):
            osm.answer = answer
            osm.edit("way", way)
        return answer(method, path, token, body)

    osm.answer = edit_first
    with pytest.raises(RefusedError, match="conflict"):
        back(osm, journal)
    done = back(osm, journal)

    assert set(osm.alive("way")) == {way}
    assert f"way {way}" in dict(done.left)


def test_what_goes_at_the_last_moment_leaves_an_empty_changeset(osm, journal):
    answer = osm.answer

    def delete_all(method, path, token, body):
        if path.endswith("create"):
            for kind, number in osm.elements:
                osm.edit(kind, number, visible="false")
        return answer(method, path, token, body)

    osm.answer = delete_all
    done = back(osm, journal)

    assert (done.n_deleted, done.n_gone, done.changesets) == (0, DRAWN.n_elements, ())
    assert [c.content for c in osm.changesets.values()][3:] == [[]]
    assert not any(c.open for c in osm.changesets.values())


def test_an_upload_that_was_cut_can_be_taken_back(osm, tmp_path):
    journal = tmp_path / "journal.jsonl"
    osm.faults.append(Fault(kind="drop-after", path="upload", times=1))
    osm.faults.append(Fault(kind="drop-before", path="close", times=99))
    with pytest.raises(ServerError):
        do_upload(osm.url, write_osc(tmp_path / "a.osc", DRAWN), journal)
    osm.faults.clear()
    assert read_trace(read_journal(journal), journal).made[0].ids is None
    assert look(osm, journal).n_deleted == 8
    assert [c.open for c in osm.changesets.values()] == [True]
    done = back(osm, journal)

    assert done.n_deleted == 8
    assert not osm.alive("node")


def test_other_journals_accounts_and_servers_are_refused(osm, journal, tmp_path):
    back(osm, journal)
    with pytest.raises(FormatError, match="journal of a revert"):
        do_revert(osm.url, tmp_path / "back.jsonl", tmp_path / "c.jsonl")
    with pytest.raises(ConfigError, match="another kind"):
        do_revert(osm.url, journal, _upload_again(osm, tmp_path))
    with FakeOsm() as other, pytest.raises(ConfigError, match="account"):
        back(other, journal)
    osm.tokens[TOKEN] = 5
    with pytest.raises(ConfigError, match="account"):
        back(osm, journal)
    with Journal(journal), pytest.raises(BusyError):
        back(osm, journal)


def _upload_again(osm, tmp_path):
    path = write_osc(tmp_path / "b.osc", draw(terraces=1, courtyards=0, lon=1))
    do_upload(osm.url, path, tmp_path / "b.jsonl")
    return tmp_path / "b.jsonl"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_others_did_is_kept(data, tmp_path):
    """Random edits, deletions and uses by others; the map must hold together and theirs stay."""
    journal = tmp_path / "journal.jsonl"
    for name in ("journal.jsonl", "back.jsonl"):
        (tmp_path / name).unlink(missing_ok=True)
    with FakeOsm() as osm:
        do_upload(osm.url, write_osc(tmp_path / "a.osc", DRAWN), journal)
        ours = sorted(osm.elements)
        touched = data.draw(st.lists(st.sampled_from(ours), max_size=4, unique=True))
        for kind, number in touched:
            osm.edit(kind, number)
        used = data.draw(st.lists(st.sampled_from([n for k, n in ours if k == "node"]), max_size=3))
        other = int(draw_way(osm, *used).get("id")) if used else 0
        done = back(osm, journal)

        assert_whole(osm)
        there = {(kind, n) for kind in ("node", "way", "relation") for n in osm.alive(kind)}
        assert set(touched) <= there
        assert {("node", n) for n in used} <= there
        assert not other or len(osm.elements["way", other]) == 1
        assert {f"{kind} {n}" for kind, n in there - {("way", other)}} == {n for n, _ in done.left}
        assert done.n_deleted == len(ours) - len(done.left)
        # What stays hangs together with what was touched: terraces and blocks are changesets here.
        homes = {key: versions[0].get("changeset") for key, versions in osm.elements.items()}
        near = {homes[key] for key in [*touched, *(("node", n) for n in used)]}
        assert {homes[key] for key in there - {("way", other)}} <= near
        untouched = {homes[key] for key in ours} - near
        assert not any(homes[key] in untouched for key in there)
