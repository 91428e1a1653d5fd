"""The client: what it asks, what it makes of answers, what it never shows."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import (
    ConfigError,
    GeosegError,
    LostReplyError,
    MissingExtraError,
    RefusedError,
    ServerError,
)
from geoseg.osm.exchange import api as api_module
from geoseg.osm.exchange import replies
from geoseg.osm.exchange.api import OsmApi
from geoseg.osm.exchange.server import DEVELOPMENT_SERVER, check_server, is_live
from tests.osm_api import TOKEN, USER, FakeOsm, Fault


@pytest.fixture
def osm():
    with FakeOsm() as fake:
        yield fake


def client(osm, *, token=TOKEN, slept=None, timeout_s=0.4):
    sleep = (lambda s: None) if slept is None else slept.append
    return OsmApi(osm.url, token, timeout_s=timeout_s, sleep=sleep, say=lambda text: None)


def test_a_changeset_goes_through_its_life(osm):
    with client(osm) as api:
        assert api.capabilities().max_elements == 10_000
        assert api.user().id == USER
        number = api.open_changeset({"comment": 'a "b" <c> & é', "x": "y"})
        assert api.changeset(number).is_open
        assert [c.tags["comment"] for c in api.open_changesets_of(USER)] == ['a "b" <c> & é']
        document = (
            '<osmChange version="0.6"><create>'
            f'<node id="-1" version="1" changeset="{number}" lat="1" lon="2"/></create></osmChange>'
        )
        (outcome,) = api.upload(number, document.encode())
        (held,) = api.download(number)
        (now,) = api.elements("node", [outcome.new_id])
        api.close_changeset(number)
        assert not api.changeset(number).is_open
        assert api.open_changesets_of(USER) == []

    assert (outcome.kind, outcome.old_id, outcome.new_version) == ("node", -1, 1)
    assert (held.action, held.id, held.lonlat_e7) == ("create", outcome.new_id, (2 * 10**7, 10**7))
    assert (now.id, now.version, now.changeset, now.visible) == (outcome.new_id, 1, number, True)


STATUSES = {
    301: "sends on to",
    400: "cannot read the request",
    401: "does not accept the token",
    403: "may not do this",
    404: "does not know",
    405: "does not do this",
    409: "conflict",
    410: "deleted",
    412: "not on the server",
    413: "smaller --max-bbox-km",
    418: "answered 418",
}


@pytest.mark.parametrize("status", STATUSES)
def test_each_status_has_words(status, osm):
    text = "a reason\nof   two lines"
    headers = {"Location": "https://elsewhere.example/"}
    osm.faults.append(
        Fault(kind="answer", status=status, path="create", text=text, headers=headers)
    )
    with client(osm) as api, pytest.raises(RefusedError) as error:
        api.open_changeset({"comment": "x"})

    message = str(error.value)
    assert error.value.status == status
    assert STATUSES[status] in message
    assert ("elsewhere.example" if status == 301 else "a reason of two lines") in message
    assert "\n" not in message
    assert not osm.changesets


@pytest.mark.parametrize("status", [202, 204, 408, 500, 502, 503, 504, 599])
def test_other_statuses_say_nothing_of_what_was_done(status, osm):
    osm.faults.append(Fault(kind="answer", status=status, text="", path="create"))
    with client(osm) as api, pytest.raises(LostReplyError, match=str(status)):
        api.open_changeset({"comment": "x"})


def test_redirects_are_not_followed(osm):
    with FakeOsm() as other:
        osm.faults.append(Fault(kind="answer", status=307, headers={"Location": other.url}))
        with client(osm) as api, pytest.raises(RefusedError, match="sends on to"):
            api.user()
        assert other.requests == []


@pytest.mark.parametrize(
    "kind", ["drop-before", "drop-after", "torn", "garbage", "slow", "fail-after"]
)
def test_a_write_without_an_answer_is_not_repeated(kind, osm):
    osm.faults.append(Fault(kind=kind, path="create", seconds=1.5))
    with client(osm) as api, pytest.raises(LostReplyError):
        api.open_changeset({"comment": "x"})

    assert len(osm.requests) == 1
    assert len(osm.changesets) == (kind != "drop-before")


@pytest.mark.parametrize("kind", ["drop-before", "drop-after", "torn", "slow", "fail-after"])
def test_a_read_without_an_answer_is_repeated(kind, osm):
    slept = []
    osm.faults.append(Fault(kind=kind, times=2, seconds=1.5))
    with client(osm, slept=slept) as api:
        assert api.user().id == USER

    assert len(osm.requests) == 3
    assert slept == [2.0, 4.0]


def test_reads_give_up(osm):
    osm.faults.append(Fault(kind="drop-before", times=99))
    with client(osm) as api, pytest.raises(LostReplyError, match="did not answer"):
        api.user()
    assert len(osm.requests) == api_module.READ_TRIES


def test_zipped_answers_are_read(osm):
    osm.faults.append(Fault(kind="gzip"))
    with client(osm) as api:
        assert api.user().id == USER


def test_answers_are_bounded(osm, monkeypatch):
    monkeypatch.setattr(api_module, "MAX_REPLY_BYTES", 10)
    with client(osm) as api, pytest.raises(LostReplyError, match="more than 10 bytes"):
        api.user()


def test_documents_are_bounded(osm, monkeypatch):
    monkeypatch.setattr(api_module, "MAX_PAYLOAD_BYTES", 10)
    with client(osm) as api, pytest.raises(RefusedError, match="smaller --max-elements"):
        api.upload(1, b"x" * 11)
    assert osm.requests == []


def test_rate_limits_are_waited_for(osm):
    slept = []
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    for header in ("7", soon, "rubbish", ""):
        headers = {"Retry-After": header} if header else {}
        osm.faults.append(Fault(kind="answer", status=429, headers=headers))
    with client(osm, slept=slept) as api:
        api.open_changeset({"comment": "x"})

    assert slept[0] == 7
    assert 90 < slept[1] <= 100
    assert slept[2:] == [120, 240]
    assert len(osm.changesets) == 1


@pytest.mark.parametrize(("header", "tries"), [("86400", 1), ("1", api_module.WAITS)])
def test_rate_limits_that_last_end_the_run(header, tries, osm):
    fault = Fault(kind="answer", status=429, times=99, headers={"Retry-After": header})
    osm.faults.append(fault)
    with client(osm) as api, pytest.raises(RefusedError, match="run the same command again later"):
        api.open_changeset({"comment": "x"})
    assert len(osm.requests) == tries


def test_closing_what_is_closed_is_no_error(osm):
    with client(osm) as api:
        number = api.open_changeset({"comment": "x"})
        api.close_changeset(number)
        api.close_changeset(number)
        osm.changesets[number].open = True
        osm.changesets[number].uid = 1
        with pytest.raises(RefusedError, match="own"):
            api.close_changeset(number)


def test_many_elements_take_several_requests(osm):
    ids = [int(osm.store(ET.Element("node", lat="1", lon="2"), 5).get("id")) for _ in range(801)]
    with client(osm) as api:
        assert [e.id for e in api.elements("node", ids)] == ids
        with pytest.raises(RefusedError, match="404"):
            list(api.elements("node", [1]))
    assert len(osm.requests) == 4


def test_the_token_is_never_shown(osm, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    osm.faults += [
        Fault(kind="answer", status=403, text=" " * 1990 + f"your token {TOKEN} is bad"),
        Fault(kind="answer", status=500, text=TOKEN, times=5),
        Fault(kind="answer", status=302, headers={"Location": f"https://x.example/{TOKEN}"}),
        Fault(kind="drop-before", times=5),
    ]
    shown = []
    with client(osm) as api:
        shown.append(repr(api))
        for _ in range(4):
            with pytest.raises(ServerError) as error:
                api.user()
            shown += [str(error.value), repr(error.value), str(error.value.__cause__)]
        assert api.user().id == USER
    shown += [caplog.text, *capsys.readouterr()]
    assert "[token]" in " ".join(shown)
    assert not [text for text in shown if TOKEN[:8] in text]


def test_a_token_that_no_header_can_hold_is_not_shown(osm):
    with pytest.raises(ServerError) as error:
        client(osm, token="secret\nX-Other: 1é").user()
    assert "secret" not in str(error.value)


def test_the_missing_extra_is_named(osm, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"geoseg\[osm-upload\]"):
        client(osm)


SERVERS = {
    "https://api.openstreetmap.org": "https://api.openstreetmap.org",
    "https://API.OpenStreetMap.org./api/0.6/": "https://api.openstreetmap.org",
    "https://example.org:8443/osm/api": "https://example.org:8443/osm",
    "http://localhost:3000": "http://localhost:3000",
    "http://127.0.0.1:3000/api/0.6": "http://127.0.0.1:3000",
    "http://[::1]:3000": "http://[::1]:3000",
}


@pytest.mark.parametrize("url", SERVERS)
def test_addresses_of_servers_are_brought_to_one_form(url):
    assert check_server(url) == SERVERS[url]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openstreetmap.org",
        "http://api.openstreetmap.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "ftp://example.org",
        "https://",
        "https://user:secret@example.org",
        "https://example.org/?a=b",
        "https://example.org/#a",
        "https://example.org:99999",
        "https://exa mple.org",
        "https://[::1",
        "https://öpenstreetmap.org",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ConfigError) as error:
        check_server(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("server", "live"),
    [
        ("https://api.openstreetmap.org", True),
        ("https://openstreetmap.org", True),
        ("https://www.osm.org", True),
        ("https://API.OPENSTREETMAP.ORG.", True),
        (DEVELOPMENT_SERVER, False),
        ("https://openstreetmap.org.example.com", False),
        ("https://notopenstreetmap.org", False),
        ("http://127.0.0.1", False),
    ],
)
def test_the_live_map_is_recognised(server, live):
    assert is_live(server) is live


PARSERS = (
    replies.parse_capabilities,
    replies.parse_user,
    replies.parse_number,
    replies.parse_changesets,
    replies.parse_outcomes,
    lambda body: replies.parse_elements(body, root="osm"),
)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "body",
    [
        b"<html/>",
        b"<osm",
        b"",
        b"\0",
        b'<osm><user id="x"/><changeset id="1"/><node id="1"/></osm>',
        b'<osm><changeset id="1" open="maybe"/><way id="1" version="x" changeset="1"/></osm>',
        b'<osm><node id="1" version="1" changeset="1" lat="inf" lon="0"/><changeset id="a"/></osm>',
        b'<diffResult><node new_id="1"/></diffResult>',
        b'<diffResult><node old_id="1" new_id="one"/></diffResult>',
        b'<!DOCTYPE osm [<!ENTITY a "b">]><osm/>',
    ],
)
def test_strange_answers_are_server_errors(parse, body):
    with pytest.raises(ServerError):
        parse(body)


@given(st.binary(max_size=60))
def test_no_answer_is_anything_but_read_or_refused(body):
    for parse in PARSERS:
        try:
            parse(body)
        except GeosegError:
            continue
