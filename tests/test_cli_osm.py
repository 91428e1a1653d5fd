"""`geoseg osm` as a user meets it."""

from __future__ import annotations

import signal
import sys
import types

import pytest

from tests.cli_support import assert_one_line, call, snapshot, spawn, succeed
from tests.osm_api import TOKEN, FakeOsm, Fault
from tests.osm_builders import draw, write_osc

DRAWN = draw(terraces=2, courtyards=1)
COMMENT = ("--comment", "Roofs of a village")


@pytest.fixture
def osm():
    with FakeOsm() as fake:
        yield fake


@pytest.fixture
def file(tmp_path):
    return write_osc(tmp_path / "roofs.osc.gz", DRAWN)


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("GEOSEG_OSM_TOKEN", TOKEN)
    monkeypatch.setitem(sys.modules, "keyring", None)


def test_without_a_yes_nothing_is_sent_or_written(osm, file, tmp_path, capsys):
    before = snapshot(tmp_path)
    outcome = succeed(capsys, "osm", "upload", file, *COMMENT, "--server", osm.url)

    assert osm.requests == []
    assert snapshot(tmp_path) == before
    for words in ("5 buildings", "27 elements", "comment=Roofs", "import=yes", "nothing was sent"):
        assert words in outcome.out
    assert osm.url in outcome.out


def test_the_default_server_is_for_trying_out(file, capsys):
    outcome = succeed(capsys, "osm", "upload", file, *COMMENT)
    assert "https://master.apis.dev.openstreetmap.org" in outcome.out


def test_a_dry_run_in_json(file, capsys):
    words = ("--max-elements", "12", "--hashtags", "#a;#b", "--source", "drone", "--json")
    values = succeed(capsys, "osm", "upload", file, *COMMENT, *words).json

    assert values["dry_run"] is True
    assert [part["elements"] for part in values["changesets"]] == [8, 8, 11]
    assert [part["buildings"] for part in values["changesets"]] == [2, 2, 1]
    assert values["changesets"][0]["bbox"] == [26.7, 60.8, 26.7002, 60.8001]
    assert values["tags"]["hashtags"] == "#a;#b"


def test_upload_and_revert(osm, file, tmp_path, capsys):
    words = ("osm", "upload", file, *COMMENT, "--server", osm.url, "--yes")
    outcome = call(capsys, *words)
    assert outcome.code == 0
    assert osm.buildings() == DRAWN.buildings
    assert "sent 27 elements in 1 changeset\n" in outcome.out
    journal = tmp_path / "roofs.journal.jsonl"
    assert f"geoseg osm revert {journal}" in outcome.out
    again = call(capsys, *words, "--json").json
    assert (again["sent_before"], again["changesets"]) == (1, [901])

    looked = call(capsys, "osm", "revert", journal)
    assert (looked.code, len(osm.alive("way"))) == (0, 6)
    assert "would take back 27 objects" in looked.out
    values = call(capsys, "osm", "revert", journal, "--yes", "--json").json
    assert (values["deleted"], values["left"], values["exit_code"]) == (27, [], 0)
    assert osm.buildings() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "roofs.journal.jsonl",
        "roofs.journal.revert.jsonl",
        "roofs.osc.gz",
    ]


def test_what_is_left_is_told_with_exit_code_3(osm, file, tmp_path, capsys):
    call(capsys, "osm", "upload", file, *COMMENT, "--server", osm.url, "--yes")
    for number in osm.alive("way"):
        osm.edit("way", number)
    outcome = call(capsys, "osm", "revert", tmp_path / "roofs.journal.jsonl", "--yes")

    assert outcome.code == 3
    assert "version 2 in changeset 99" in outcome.out
    assert "and 17 more stay" in outcome.out
    assert len(osm.alive("way")) == 6


LIVE = ("--server", "https://api.openstreetmap.org")
GUIDELINES = "--i-understand-the-import-guidelines"
WRONG = {
    "no comment": (2, (), "comment"),
    "empty comment": (2, ("--comment", ""), "comment"),
    "plain http": (2, (*COMMENT, "--server", "http://example.org"), "https"),
    "live": (2, (*COMMENT, *LIVE, "--yes"), "import guidelines"),
    "live, dry": (2, (*COMMENT, *LIVE), "import guidelines"),
    "live, not discussed": (2, (*COMMENT, *LIVE, GUIDELINES), "--changeset-url"),
    "hashtag": (2, (*COMMENT, "--hashtags", "roofs"), "hashtag"),
    "no elements": (2, (*COMMENT, "--max-elements", "0"), "max_elements"),
    "no area": (2, (*COMMENT, "--max-bbox-km", "-1"), "max_bbox_km"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_one_line(name, file, capsys):
    code, words, needle = WRONG[name]
    outcome = call(capsys, "osm", "upload", file, *words)
    assert outcome.code == code
    assert_one_line(outcome, needle)


def test_the_live_map_opens_to_those_who_discussed(file, capsys):
    page = "https://wiki.openstreetmap.org/wiki/Import/Somewhere"
    words = (*COMMENT, *LIVE, GUIDELINES, "--changeset-url", page)
    assert f"url={page}" in succeed(capsys, "osm", "upload", file, *words).out


def test_other_inputs_are_one_line(tmp_path, capsys):
    bad = tmp_path / "bad.osc"
    bad.write_text("<osmChange><modify/></osmChange>")
    for path, code, needle in [
        (tmp_path / "none.osc", 2, "no file"),
        (bad, 1, "only create"),
        (tmp_path / "a.osm", 1, "must end in"),
    ]:
        outcome = call(capsys, "osm", "upload", path, *COMMENT)
        assert outcome.code == code
        assert_one_line(outcome, needle)
    for path, code, needle in [(tmp_path / "none", 2, "no file"), (bad, 1, "not a")]:
        outcome = call(capsys, "osm", "revert", path)
        assert outcome.code == code
        assert_one_line(outcome, needle)


def test_refusals_are_one_line_and_the_token_is_not_in_it(osm, file, tmp_path, capsys):
    osm.faults.append(Fault(kind="answer", status=409, path="upload", text=f"no, {TOKEN}"))
    outcome = call(capsys, "osm", "upload", file, *COMMENT, "--server", osm.url, "--yes")

    assert outcome.code == 1
    assert_one_line(outcome, "conflict", "[token]")
    assert TOKEN not in outcome.err + (tmp_path / "roofs.journal.jsonl").read_text()


def test_a_token_is_needed_and_checked(osm, file, monkeypatch, capsys):
    words = ("osm", "upload", file, *COMMENT, "--server", osm.url, "--yes")
    for value in ("", "two words", "é"):
        monkeypatch.setenv("GEOSEG_OSM_TOKEN", value)
        outcome = call(capsys, *words)
        assert outcome.code == 2
        assert_one_line(outcome, "GEOSEG_OSM_TOKEN")
    monkeypatch.setenv("GEOSEG_OSM_TOKEN", "wrong")
    outcome = call(capsys, *words)
    assert_one_line(outcome, "does not accept the token")
    assert osm.changesets == {}


def test_a_keyring_holds_the_token(osm, file, monkeypatch, capsys):
    monkeypatch.delenv("GEOSEG_OSM_TOKEN")
    asked = []

    def get_password(service, user):
        asked.append((service, user))
        return TOKEN

    monkeypatch.setitem(sys.modules, "keyring", types.SimpleNamespace(get_password=get_password))
    assert call(capsys, "osm", "upload", file, *COMMENT, "--server", osm.url, "--yes").code == 0
    assert asked == [("geoseg-osm", "127.0.0.1")]


def test_a_keyring_that_stays_locked_is_none(osm, file, monkeypatch, capsys):
    monkeypatch.delenv("GEOSEG_OSM_TOKEN")

    class KeyringError(Exception):
        pass

    def get_password(service, user):
        raise KeyringError

    errors = types.SimpleNamespace(KeyringError=KeyringError)
    keyring = types.SimpleNamespace(get_password=get_password, errors=errors)
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    outcome = call(capsys, "osm", "upload", file, *COMMENT, "--server", osm.url, "--yes")
    assert outcome.code == 2
    assert_one_line(outcome, "GEOSEG_OSM_TOKEN")


def test_a_revert_needs_a_journal_of_its_own(osm, file, tmp_path, capsys):
    call(capsys, "osm", "upload", file, *COMMENT, "--server", osm.url, "--yes")
    journal = tmp_path / "roofs.journal.jsonl"
    outcome = call(capsys, "osm", "revert", journal, "--journal", journal, "--yes")
    assert outcome.code == 2
    assert_one_line(outcome, "of its own")


def test_an_interrupted_upload_says_how_to_go_on(osm, file, tmp_path):
    headers = {"Retry-After": "600"}
    osm.faults.append(Fault(kind="answer", status=429, path="upload", times=9, headers=headers))
    words = ("osm", "upload", file, *COMMENT, "--server", osm.url, "--yes")
    process = spawn(*words)
    assert "waiting 600 s" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert err.strip() == (
        f"geoseg: interrupted; {tmp_path / 'roofs.journal.jsonl'} says how far it came, "
        "and the same command goes on"
    )
