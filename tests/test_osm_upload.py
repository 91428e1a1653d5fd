"""Uploads to a server that fails in every way it can: all arrives, and once."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.errors import (
    BusyError,
    ConfigError,
    FormatError,
    LostReplyError,
    RefusedError,
    ServerError,
)
from geoseg.osm.exchange.api import OsmApi
from geoseg.osm.exchange.changes import read_changes
from geoseg.osm.exchange.journal import Journal, read_journal
from geoseg.osm.exchange.matching import ids_from_download, ids_from_reply
from geoseg.osm.exchange.plan import changeset_tags, plan_upload
from geoseg.osm.exchange.protocol import KEY_TAG
from geoseg.osm.exchange.replies import Element, Outcome, parse_elements
from geoseg.osm.exchange.server import DEVELOPMENT_SERVER, Permission
from geoseg.osm.exchange.upload import upload
from geoseg.osm.files import write_osm
from tests.osm_api import TOKEN, FakeOsm, Fault
from tests.osm_builders import draw, place, write_osc
from tests.osm_files_support import house, objects
from tests.osm_kill import do_upload
from tests.test_osm_changes import objects as read_objects

DRAWN = draw(terraces=2, courtyards=1)  # three changesets of at most 12 elements
LOSSES = ["drop-before", "drop-after", "torn", "garbage", "slow", "fail-after", "late"]
CALLS = ["create", "upload", "download", "close", "user", "capabilities"]


@pytest.fixture
def osm():
    with FakeOsm() as fake:
        yield fake


@pytest.fixture
def file(tmp_path):
    return write_osc(tmp_path / "a.osc.gz", DRAWN)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.jsonl"


def assert_all_there_once(osm, journal):
    osm.finish_late()
    assert osm.buildings() == DRAWN.buildings
    assert len(osm.elements) == DRAWN.n_elements  # what was ever made
    assert not [c for c in osm.changesets.values() if c.content and c.open]
    said = {
        (kind, number)
        for record in read_journal(journal)
        if record["event"] == "sent"
        for kind, numbers in record["result"].items()
        for number in numbers
    }
    assert said == set(osm.elements)
    assert TOKEN not in journal.read_text()


def test_buildings_arrive_with_the_tags_of_an_import(osm, file, journal):
    said = []
    done = do_upload(osm.url, file, journal, said=said)

    assert_all_there_once(osm, journal)
    assert (len(done.changesets), done.n_elements, done.n_before) == (3, DRAWN.n_elements, 0)
    assert len(said) == 3
    for number in done.changesets:
        changeset = osm.changesets[number]
        assert not changeset.open
        assert len(changeset.content) <= 12
        assert changeset.tags.pop(KEY_TAG).startswith("run-")
        assert changeset.tags == {
            "comment": "Roofs",
            "created_by": "geoseg/0.1.0",
            "import": "yes",
            "source": "drone",
        }


def test_what_geoseg_exports_arrives_as_it_is(osm, tmp_path, journal):
    block = house(60, 0, 40, 30).difference(house(70, 10, 8, 8))
    path = tmp_path / "a.osc.gz"
    write_osm(objects([house(0, 0), house(10, 0), block, house(900, 0)]), path)
    do_upload(osm.url, path, journal)

    written = read_objects(path)
    tags = sorted(tuple(sorted(o[1].items())) for (kind, _), o in written.items() if kind != "node")
    ways = {
        tuple(f"{place(written['node', n][0])} {place(written['node', n][1])}" for n in o[0])
        for (kind, _), o in written.items()
        if kind == "way"
    }
    assert len(ways) == 5
    there = osm.buildings()
    assert sorted(tags_of for *_, tags_of in there) == tags
    assert {tuple(map(" ".join, line)) for kind, line, _ in there if kind == "way"} == ways


def test_the_same_call_again_sends_nothing(osm, file, journal):
    first = do_upload(osm.url, file, journal)
    before = journal.read_bytes()
    again = do_upload(osm.url, file, journal)

    assert_all_there_once(osm, journal)
    assert again.changesets == first.changesets
    assert again.n_before == 3
    assert journal.read_bytes() == before


def test_numbers_in_the_journal_are_those_on_the_server(osm, file, journal):
    do_upload(osm.url, file, journal, max_elements=100)
    (sent,) = [r["result"] for r in read_journal(journal) if r["event"] == "sent"]
    data = read_changes(file)

    places = {n: (e.get("lon"), e.get("lat")) for n, e in osm.alive("node").items()}
    for (lon, lat), number in zip(data.lonlat_e7.tolist(), sent["node"], strict=True):
        assert tuple(round(float(text) * 1e7) for text in places[number]) == (lon, lat)
    ways = {n: [int(nd.get("ref")) for nd in e.iter("nd")] for n, e in osm.alive("way").items()}
    node = dict(zip(data.node_ids.tolist(), sent["node"], strict=True))
    for i, number in enumerate(sent["way"]):
        assert ways[number] == [node[k] for k in data.nodes_of(i).tolist()]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", LOSSES)
def test_a_lost_reply_loses_and_doubles_nothing(kind, call, osm, file, journal):
    osm.faults.append(Fault(kind=kind, path=call, seconds=1.0 if kind == "slow" else 0.05))
    if call == "download":
        osm.faults.append(Fault(kind="drop-after", path="upload"))
    try:
        do_upload(osm.url, file, journal)
    except ServerError:  # strange words at the start end the run: nothing was sent
        assert kind == "garbage"
        assert call in {"user", "capabilities", "download"}
        do_upload(osm.url, file, journal)

    assert not osm.faults
    assert_all_there_once(osm, journal)


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_is_gone_ends_the_run_and_the_next_goes_on(call, osm, file, journal):
    osm.faults.append(Fault(kind="drop-before", path=call, times=1000))
    if call == "download":
        osm.faults.append(Fault(kind="drop-before", path="upload"))
    with pytest.raises(LostReplyError):
        do_upload(osm.url, file, journal)
    osm.faults.clear()
    do_upload(osm.url, file, journal)

    assert_all_there_once(osm, journal)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2])
def test_an_upload_that_is_carried_out_late_is_not_doubled(seconds, osm, file, journal):
    osm.faults.append(Fault(kind="late", path="upload", seconds=seconds, times=2))
    do_upload(osm.url, file, journal)
    assert_all_there_once(osm, journal)


def test_an_upload_under_way_is_waited_for(osm, file, journal):
    """The server holds the changeset while it works, so closing it waits."""
    apply, first = osm.answer, []

    def slowly(method, path, token, body):
        if path.endswith("upload") and not first:
            changeset = osm.changesets[int(path.split("/")[-2])]
            first.append(changeset)
            with changeset.lock:
                time.sleep(0.7)
                return apply(method, path, token, body)
        return apply(method, path, token, body)

    osm.answer = slowly
    do_upload(osm.url, file, journal)
    assert_all_there_once(osm, journal)
    assert first[0].content


@pytest.mark.parametrize("stale", [("description", "content"), ("content",), ("description",)])
def test_reads_that_lag_behind_writes_double_nothing(stale, osm, file, journal):
    """The server reads from a copy that knows of neither the upload nor the closing at first."""
    osm.faults.append(Fault(kind="drop-after", path="upload"))
    answer, reads = osm.answer, []

    def lag(method, path, token, body):
        if method == "GET" and "changeset/901" in path and len(reads) < 6:
            reads.append(path)
            if path.endswith("download") and "content" in stale:
                return "<osmChange/>"
            if path.endswith("901") and "description" in stale:
                return '<osm><changeset id="901" open="true" changes_count="0"/></osm>'
        return answer(method, path, token, body)

    osm.answer = lag
    do_upload(osm.url, file, journal)
    assert len(reads) == 6
    assert_all_there_once(osm, journal)


def test_a_changeset_that_closed_by_itself_is_replaced(osm, file, journal):
    osm.faults.append(Fault(kind="half-closed", path="upload", times=2))
    done = do_upload(osm.url, file, journal)

    assert_all_there_once(osm, journal)
    assert len(osm.changesets) == 5
    assert len(done.changesets) == 3


def test_changesets_that_always_close_end_the_run(osm, file, journal):
    osm.faults.append(Fault(kind="half-closed", path="upload", times=1000))
    with pytest.raises(ServerError, match="run the same command again"):
        do_upload(osm.url, file, journal)
    osm.faults.clear()
    do_upload(osm.url, file, journal)
    assert_all_there_once(osm, journal)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 412, 413])
@pytest.mark.parametrize("call", ["create", "upload", "close"])
def test_a_refusal_ends_the_run_and_the_next_goes_on(status, call, osm, file, journal):
    osm.faults.append(Fault(kind="answer", status=status, path=call, text="because"))
    with pytest.raises(RefusedError, match="because"):
        do_upload(osm.url, file, journal)
    assert not osm.elements or call == "close"
    do_upload(osm.url, file, journal)

    assert_all_there_once(osm, journal)


def test_a_refusal_after_the_work_was_done_is_no_failure(osm, file, journal):
    osm.faults.append(Fault(kind="fail-after", status=409, path="upload", text="a proxy says no"))
    do_upload(osm.url, file, journal)
    assert_all_there_once(osm, journal)


def test_a_refused_upload_leaves_no_changeset_open(osm, file, journal):
    osm.faults.append(Fault(kind="answer", status=412, path="upload"))
    with pytest.raises(RefusedError):
        do_upload(osm.url, file, journal)
    assert [c.open for c in osm.changesets.values()] == [False]


def test_changesets_that_a_server_would_not_take_are_not_begun(file, journal):
    with FakeOsm(max_elements=10) as osm:
        with pytest.raises(ConfigError, match="at most 10 elements"):
            do_upload(osm.url, file, journal)
        assert not osm.changesets
    assert not journal.exists()


def test_a_wide_changeset_is_told_what_to_do(file, journal):
    with FakeOsm(max_bbox_deg=0.005) as osm:
        with pytest.raises(RefusedError, match="--max-bbox-km"):
            do_upload(osm.url, file, journal, max_elements=100)
        assert not osm.elements


def test_a_rate_limit_is_waited_for(osm, file, journal):
    said = []
    headers = {"Retry-After": "9"}
    osm.faults.append(Fault(kind="answer", status=429, path="upload", headers=headers, times=3))
    do_upload(osm.url, file, journal, said=said)

    assert_all_there_once(osm, journal)
    assert said[:3] == ["the server limits the rate: waiting 9 s"] * 3
    assert len(osm.changesets) == 3


def test_a_server_that_is_closed_for_changes_is_named(osm, file, journal):
    osm.writable = False
    with pytest.raises(ServerError, match="closed for changes"):
        do_upload(osm.url, file, journal)
    assert not journal.exists()


def test_a_changeset_with_strange_content_stops_everything(osm, file, journal):
    osm.faults.append(Fault(kind="drop-after", path="upload"))
    original = osm.answer

    def meddle(method, path, token, body):
        if path.endswith("download") and len(osm.changesets[901].content) == 8:
            osm.changesets[901].content.pop()
        return original(method, path, token, body)

    osm.answer = meddle
    with pytest.raises(ServerError, match=r"901: must hold 8 new objects.*/changeset/901"):
        do_upload(osm.url, file, journal)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(
        st.tuples(
            st.sampled_from([*LOSSES, "half-closed", "answer"]),
            st.sampled_from(["create", "upload", "download", "close", "changesets", r"\d$"]),
            st.integers(1, 3),
            st.sampled_from([409, 429, 500, 503]),
        ),
        max_size=6,
    )
)
def test_any_series_of_faults_loses_and_doubles_nothing(faults, file, tmp_path):
    journal = tmp_path / "journal.jsonl"
    journal.unlink(missing_ok=True)
    with FakeOsm() as osm:
        for kind, path, times, status in faults:
            if kind == "slow" or (kind == "half-closed" and path in {"create", "changesets"}):
                continue
            if (kind, status) == ("fail-after", 429):
                continue  # no server limits the rate of what it has done
            osm.faults.append(Fault(kind=kind, path=path, times=times, status=status, seconds=0.01))
        for _ in range(20):
            try:
                do_upload(osm.url, file, journal)
                break
            except ServerError:
                continue
        assert_all_there_once(osm, journal)


def test_a_journal_of_something_else_is_refused(osm, file, journal, tmp_path):
    do_upload(osm.url, file, journal)
    other = write_osc(tmp_path / "b.osc", draw(terraces=1))
    with pytest.raises(ConfigError, match="other files"):
        do_upload(osm.url, other, journal)
    with pytest.raises(ConfigError, match="other files"):
        do_upload(osm.url, file, journal, max_elements=50)
    osm.tokens[TOKEN] = 12
    with pytest.raises(ConfigError, match="another account"):
        do_upload(osm.url, file, journal)
    with FakeOsm() as elsewhere, pytest.raises(ConfigError, match="another server"):
        do_upload(elsewhere.url, file, journal)
    osm.tokens.clear()
    with pytest.raises(RefusedError, match="token"):
        do_upload(osm.url, file, journal)
    assert_all_there_once(osm, journal)


def test_a_damaged_journal_is_refused(osm, file, journal):
    do_upload(osm.url, file, journal)
    lines = journal.read_text().splitlines()
    for damage in (lines[1:], lines[:1] + lines[3:], [lines[0], '{"event":"opening","part":77}']):
        journal.write_text("\n".join(damage) + "\n")
        with pytest.raises(FormatError):
            do_upload(osm.url, file, journal)
    assert len(osm.elements) == DRAWN.n_elements


def test_a_newer_version_goes_on_with_a_journal(osm, file, journal, monkeypatch):
    osm.faults.append(Fault(kind="answer", status=409, path="upload"))
    with pytest.raises(RefusedError):
        do_upload(osm.url, file, journal)
    monkeypatch.setattr("geoseg.osm.exchange.plan.__version__", "99.0")
    do_upload(osm.url, file, journal)
    assert_all_there_once(osm, journal)


def test_two_uploads_at_once_do_not_share_a_journal(osm, file, journal):
    with Journal(journal), pytest.raises(BusyError):
        do_upload(osm.url, file, journal)
    assert not osm.elements


def test_files_are_planned_one_by_one(tmp_path):
    paths = [
        write_osc(tmp_path / "a.osc", draw(terraces=1, courtyards=0)),
        write_osc(tmp_path / "b.osc", draw(terraces=0, courtyards=2, lon=-5_000_000)),
    ]
    plan = plan_upload(paths, max_elements=12)

    assert plan.files == ("a.osc", "b.osc")
    assert plan.file_of == (0, 1, 1)
    assert plan.n_elements == 8 + 2 * 11
    np.testing.assert_allclose(plan.bounds_deg(1), (-0.5, 60.8, -0.4999, 60.8001))
    shutil.copy(paths[0], tmp_path / "c.osc")
    with pytest.raises(ConfigError, match="holds the same"):
        plan_upload([*paths, tmp_path / "c.osc"])


def test_several_files_go_up_together(osm, tmp_path, journal):
    one, two = draw(terraces=1, courtyards=0), draw(terraces=0, courtyards=1, lon=-5_000_000)
    paths = [write_osc(tmp_path / "a.osc", one), write_osc(tmp_path / "b.osc", two)]
    with OsmApi(osm.url, TOKEN) as api:
        upload(
            plan_upload(paths),
            changeset_tags("x"),
            api=api,
            permission=Permission(server=api.server),
            journal_path=journal,
            run="run",
            say=lambda text: None,
        )
    assert osm.buildings() == sorted(one.buildings + two.buildings)


LIVE = "https://api.openstreetmap.org"


def test_the_live_map_needs_more_than_a_yes():
    page = "https://wiki.openstreetmap.org/wiki/Import/Somewhere"
    with pytest.raises(ConfigError, match="--i-understand-the-import-guidelines"):
        Permission(server=LIVE)
    with pytest.raises(ConfigError, match="--i-understand-the-import-guidelines"):
        Permission(server=LIVE, discussion_url=page)
    with pytest.raises(ConfigError, match="--changeset-url"):
        Permission(server=LIVE, understands_guidelines=True)
    with pytest.raises(ConfigError, match="https://"):
        Permission(server=LIVE, understands_guidelines=True, discussion_url="yes")
    Permission(server=LIVE, understands_guidelines=True, discussion_url=page)
    Permission(server=DEVELOPMENT_SERVER)


def test_tags_of_changesets():
    tags = changeset_tags("a", source="b", hashtags=["#c", "#d"], discussion_url="https://e")
    assert (tags["hashtags"], tags["url"], tags["import"]) == ("#c;#d", "https://e", "yes")
    for words in ({"comment": ""}, {"comment": "x" * 256}, {"comment": "a\nb"}):
        with pytest.raises(ConfigError):
            changeset_tags(**words)
    for hashtag in ("c", "#", "#a b"):
        with pytest.raises(ConfigError, match="hashtag"):
            changeset_tags("a", hashtags=[hashtag])


@given(seed=st.integers(0, 2**32 - 1))
def test_matching_by_content_finds_what_the_reply_says(seed, tmp_path_factory):
    """Twins among untagged ways, any order, any numbers."""
    rng = np.random.default_rng(seed)
    path = write_osc(tmp_path_factory.mktemp("m") / "a.osc", DRAWN)
    data = read_changes(path)
    new = dict(zip(data.node_ids.tolist(), rng.permutation(90)[:99].tolist(), strict=False))
    ways = dict(zip(data.way_ids.tolist(), rng.permutation(50).tolist(), strict=False))
    elements = [
        Element(kind="node", id=new[n] + 1, version=1, changeset=1, visible=True,
                action="create", lonlat_e7=tuple(place))
        for n, place in zip(data.node_ids.tolist(), data.lonlat_e7.tolist(), strict=True)
    ]  # fmt: skip
    elements += [
        Element(kind="way", id=ways[w] + 1, version=1, changeset=1, visible=True,
                action="create", nodes=tuple(new[n] + 1 for n in data.nodes_of(i).tolist()),
                tags=dict(data.way_tags[i]))
        for i, w in enumerate(data.way_ids.tolist())
    ]  # fmt: skip
    relation = data.relations[0]
    members = "".join(
        f'<member type="way" ref="{ways[m.way_id] + 1}" role="{m.role}"/>' for m in relation.members
    )
    tags = "".join(f'<tag k="{k}" v="{v}"/>' for k, v in relation.tags.items())
    elements += parse_elements(
        f'<osmChange><create><relation id="3" version="1" changeset="1">{members}{tags}'
        "</relation></create></osmChange>".encode(),
        root="osmChange",
    )
    shuffled = [elements[i] for i in rng.permutation(len(elements))]
    outcomes = [
        Outcome(kind=kind, old_id=old, new_id=number + 1, new_version=1)
        for kind, numbers in (("node", new), ("way", ways))
        for old, number in numbers.items()
    ]
    outcomes.append(Outcome(kind="relation", old_id=relation.id, new_id=3, new_version=1))

    assert ids_from_download(data, shuffled) == ids_from_reply(data, outcomes)
    with pytest.raises(ServerError):
        ids_from_reply(data, outcomes[1:])
    with pytest.raises(ServerError):
        ids_from_reply(data, [*outcomes, outcomes[0]])
    with pytest.raises(ServerError):
        ids_from_download(data, [*shuffled[1:], shuffled[1]])


def test_journals_are_plain_json(osm, file, journal):
    do_upload(osm.url, file, journal)
    events = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    one = ["opening", "opened", "sending", "sent", "closing", "closed"]
    assert events == ["plan", *one * 3]
