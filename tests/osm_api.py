"""A small server of the OSM API 0.6 on this machine, with faults on demand.

It shares no code with geoseg: documents are read with ElementTree, and the rules are those of the
real server, as far as uploading meets them. Uploads are atomic, changesets are locked while one is
carried out, ids have gaps, and downloads come in an order of their own.
"""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "a-token-that-nobody-may-see"
USER = 4711
API = "/api/0.6"


class Answer(Exception):  # noqa: N818 - an answer, not an error
    """What the server says, other than 200."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with the next requests that match.

    `kind` is one of: `drop-before`, `drop-after` (no answer, without and after carrying it out),
    `answer` (a status instead of carrying it out), `fail-after` (a status after it), `torn`,
    `garbage`, `slow`, `gzip` (the answer after it), `late` (carried out after the client left),
    `half-closed` (the changeset closes just before).
    """

    kind: str
    method: str = ""
    path: str = ""
    times: int = 1
    status: int = 500
    text: str = "something broke"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.5


@dataclass(kw_only=True)
class Changeset:
    id: int
    uid: int
    tags: dict[str, str]
    open: bool = True
    content: list[tuple[str, ET.Element]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)


class FakeOsm:
    """The server; a context manager. `elements` holds the versions of (kind, id), in order."""

    def __init__(self, *, max_elements: int = 10_000, max_bbox_deg: float = 90.0) -> None:
        self.max_elements, self.max_bbox_deg = max_elements, max_bbox_deg
        self.elements: dict[tuple[str, int], list[ET.Element]] = {}
        self.changesets: dict[int, Changeset] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.on_request: Callable[[str, int], None] = lambda moment, number: None
        self.tokens = {TOKEN: USER}
        self.writable = True
        self._ids = {"changeset": 900, "node": 10_000, "way": 5_000, "relation": 1_000}
        self._lock = threading.RLock()
        self._late: list[threading.Thread] = []

    def __enter__(self) -> FakeOsm:
        fake = self

        class Bound(Handler):
            osm = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.finish_late()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def finish_late(self) -> None:
        """Wait for what is carried out late."""
        for thread in self._late:
            thread.join()

    def alive(self, kind: str) -> dict[int, ET.Element]:
        """Return what is on the map now."""
        return {
            number: versions[-1]
            for (k, number), versions in self.elements.items()
            if k == kind and versions[-1].get("visible") == "true"
        }

    def buildings(self) -> list[tuple[Any, ...]]:
        """Return what is on the map in plain values that know no ids, sorted."""
        nodes, ways = self.alive("node"), self.alive("way")

        def line(way: ET.Element) -> tuple[Any, ...]:
            refs = [nodes[int(nd.get("ref", ""))] for nd in way.iter("nd")]
            return tuple((node.get("lon"), node.get("lat")) for node in refs)

        found: list[tuple[Any, ...]] = [("way", line(w), _tags(w)) for w in ways.values()]
        for relation in self.alive("relation").values():
            members = tuple(
                (m.get("role"), line(ways[int(m.get("ref", ""))])) for m in relation.iter("member")
            )
            found.append(("relation", members, _tags(relation)))
        return sorted(found)

    def edit(self, kind: str, number: int, **attributes: str) -> ET.Element:
        """Let somebody else change an element; attributes, or `visible="false"`."""
        return self.store(self.elements[kind, number][-1], 99, **attributes)

    def store(self, element: ET.Element, changeset: int, **attributes: str) -> ET.Element:
        """Add a version of an element, or a new one if it has no positive id."""
        new = ET.fromstring(ET.tostring(element))
        number = int(new.get("id", "0"))
        if number <= 0:
            self._ids[element.tag] += 1 + self._ids[element.tag] % 3
            number = self._ids[element.tag]
        versions = self.elements.setdefault((element.tag, number), [])
        new.attrib |= {
            "id": str(number),
            "version": str(len(versions) + 1),
            "changeset": str(changeset),
            "visible": "true",
            **attributes,
        }
        versions.append(new)
        return new

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.method in {"", method} and re.search(fault.path, path):
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    return fault
        return None

    def answer(self, method: str, path: str, token: str, body: bytes) -> str:
        """Carry out a request and return what the server says; raises Answer for other than 200."""
        user = self.tokens.get(token)
        if path == "/api/capabilities":
            state = "online" if self.writable else "readonly"
            return (
                f'<osm><api><waynodes maximum="2000"/><changesets maximum_elements="'
                f'{self.max_elements}"/><status database="{state}" api="{state}"/></api></osm>'
            )
        if (method != "GET" or "/user" in path) and user is None:
            raise Answer(401, "Couldn't authenticate you")
        if path == f"{API}/user/details":
            return f'<osm><user id="{user}" display_name="mapper"/></osm>'
        if found := re.fullmatch(rf"{API}/(node|way|relation)s\?\1s=([\d,]+)", path):
            return self._elements(found[1], [int(n) for n in found[2].split(",")])
        if found := re.fullmatch(rf"{API}/changesets\?user=(\d+)&open=true", path):
            mine = [c for c in self.changesets.values() if c.uid == int(found[1]) and c.open]
            return f"<osm>{''.join(map(_describe, reversed(mine)))}</osm>"
        if (method, path) == ("PUT", f"{API}/changeset/create"):
            return self._create(body, user)
        found = re.fullmatch(rf"{API}/changeset/(\d+)(?:/(upload|download|close))?", path)
        if not found or int(found[1]) not in self.changesets:
            raise Answer(404, "no such thing")
        return self._changeset(self.changesets[int(found[1])], found[2] or "", user, body)

    def _elements(self, kind: str, numbers: list[int]) -> str:
        if any((kind, number) not in self.elements for number in numbers):
            raise Answer(404, "")
        now = [self.elements[kind, number][-1] for number in numbers]
        return f"<osm>{''.join(ET.tostring(e, 'unicode') for e in reversed(now))}</osm>"

    def _create(self, body: bytes, user: int | None) -> str:
        tags = {t.get("k", ""): t.get("v", "") for t in ET.fromstring(body).iter("tag")}
        if any(len(text) > 255 for pair in tags.items() for text in pair):
            raise Answer(400, "tag too long")
        with self._lock:
            self._ids["changeset"] += 1
            number = self._ids["changeset"]
            self.changesets[number] = Changeset(id=number, uid=user or 0, tags=tags)
        return str(number)

    def _changeset(self, changeset: Changeset, what: str, user: int | None, body: bytes) -> str:
        if not what:
            return f"<osm>{_describe(changeset)}</osm>"
        if what == "download":
            blocks = [
                f"<{action}>{ET.tostring(element, 'unicode')}</{action}>"
                for action, element in reversed(changeset.content)
            ]
            return f"<osmChange>{''.join(blocks)}</osmChange>"
        with changeset.lock:
            if changeset.uid != user:
                raise Answer(409, "The user doesn't own that changeset")
            if not changeset.open:
                raise Answer(409, f"The changeset {changeset.id} was closed at 2026-01-01")
            if what == "close":
                changeset.open = False
                return ""
            with self._lock:
                return Upload(self, changeset).run(body)


class Upload:
    """One document carried out: first looked at as a whole, then stored."""

    def __init__(self, osm: FakeOsm, changeset: Changeset) -> None:
        self.osm, self.changeset = osm, changeset
        self.new: dict[tuple[str, int], int] = {}
        self.results: list[str] = []

    def run(self, body: bytes) -> str:
        saved = {key: list(versions) for key, versions in self.osm.elements.items()}
        content = list(self.changeset.content)
        try:
            for block in ET.fromstring(body):
                for element in block:
                    self.check(element, block.tag)
                    if block.tag == "create":
                        self.create(element)
                    elif block.tag == "delete":
                        self.delete(element, if_unused=block.get("if-unused") is not None)
            self.check_size()
        except Answer:
            self.osm.elements = saved
            self.changeset.content = content
            raise
        return f"<diffResult>{''.join(self.results)}</diffResult>"

    def check(self, element: ET.Element, action: str) -> None:
        if action not in {"create", "delete"}:
            raise Answer(400, f"unknown action {action}")
        if element.get("changeset") != str(self.changeset.id) or not element.get("version"):
            raise Answer(400, "missing version or changeset")
        if action == "create" and element.tag == "node" and None in {
            element.get("lat"), element.get("lon")
        }:  # fmt: skip
            raise Answer(400, "missing coordinate")
        if len(list(element.iter("nd"))) > 2000:
            raise Answer(400, "too many nodes")
        for tag in element.iter("tag"):
            if len(tag.get("v", "")) > 255 or len(tag.get("k", "")) > 255:
                raise Answer(400, "tag too long")

    def create(self, element: ET.Element) -> None:
        new = ET.fromstring(ET.tostring(element))
        for part, kind in [(nd, "node") for nd in new.iter("nd")] + [
            (member, member.get("type", "")) for member in new.iter("member")
        ]:
            number = int(part.get("ref", ""))
            if number < 0 and (kind, number) not in self.new:
                raise Answer(400, f"placeholder {number} comes before its {kind}")
            number = self.new.get((kind, number), number)
            if (kind, number) not in self.osm.elements:
                raise Answer(412, f"Precondition failed: {kind} {number} does not exist")
            part.set("ref", str(number))
        stored = self.osm.store(new, self.changeset.id)
        old = int(element.get("id", ""))
        self.new[element.tag, old] = int(stored.get("id", ""))
        self.changeset.content.append(("create", stored))
        self.results.append(
            f'<{element.tag} old_id="{old}" new_id="{stored.get("id")}" new_version="1"/>'
        )

    def delete(self, element: ET.Element, *, if_unused: bool) -> None:
        kind, number = element.tag, int(element.get("id", ""))
        now = self.osm.elements[kind, number][-1]
        if now.get("visible") == "false" and not if_unused:
            raise Answer(410, f"{kind} {number} has already been deleted")
        if now.get("version") != element.get("version") and now.get("visible") == "true":
            raise Answer(409, f"Version mismatch: server had: {now.get('version')} of {number}")
        if now.get("visible") == "false" or self.is_used(kind, number):
            if not if_unused:
                raise Answer(412, f"Precondition failed: {kind} {number} is still used")
            self.results.append(
                f'<{kind} old_id="{number}" new_id="{number}" new_version="{now.get("version")}"/>'
            )
            return
        stored = self.osm.store(now, self.changeset.id, visible="false")
        self.changeset.content.append(("delete", stored))
        self.results.append(f'<{kind} old_id="{number}"/>')

    def is_used(self, kind: str, number: int) -> bool:
        ref = str(number)
        ways = self.osm.alive("way").values() if kind == "node" else ()
        relations = self.osm.alive("relation").values()
        return any(nd.get("ref") == ref for way in ways for nd in way.iter("nd")) or any(
            (m.get("type"), m.get("ref")) == (kind, ref)
            for r in relations
            for m in r.iter("member")
        )

    def check_size(self) -> None:
        if len(self.changeset.content) > self.osm.max_elements:
            raise Answer(409, "The changeset is full")
        nodes = [e for _, e in self.changeset.content if e.tag == "node"]
        for key in ("lat", "lon"):
            values = [float(node.get(key, "0")) for node in nodes]
            if values and max(values) - min(values) > self.osm.max_bbox_deg:
                raise Answer(413, "Changeset bounding box size limit exceeded.")


class Handler(BaseHTTPRequestHandler):
    """HTTP around it."""

    osm: FakeOsm
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # answers would wait 40 ms each

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as inherited
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.osm.requests.append((method, self.path))
        number = len(self.osm.requests)
        self.osm.on_request("before", number)
        fault = self.osm.take_fault(method, self.path) or Fault(kind="")
        if fault.kind == "drop-before":
            return self._hang_up()
        if fault.kind == "answer":
            return self._send(fault.status, fault.text, fault.headers)
        if fault.kind == "half-closed":
            found = re.search(r"/changeset/(\d+)", self.path)
            self.osm.changesets[int(found[1] if found else 0)].open = False
        if fault.kind == "late":
            return self._carry_out_late(method, body, fault)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            status, text, headers = 200, self.osm.answer(method, self.path, token, body), {}
        except Answer as answer:
            status, text, headers = answer.status, answer.text, answer.headers
        self.osm.on_request("after", number)
        return self._finish(fault, status, text, headers)

    def _finish(self, fault: Fault, status: int, text: str, headers: dict[str, str]) -> None:
        if fault.kind == "drop-after":
            self._hang_up()
        elif fault.kind == "fail-after":
            self._send(fault.status, fault.text, fault.headers)
        elif fault.kind == "garbage":
            self._send(200, "<html>this is a proxy", {})
        elif fault.kind == "torn":
            self._send(200, text[: len(text) // 2], {"Content-Length": str(len(text) + 9)})
            self._hang_up()
        elif fault.kind == "slow":
            self._trickle(text, fault.seconds)
        else:
            self._send(status, text, headers, zipped=fault.kind == "gzip")

    def _send(
        self, status: int, text: str, headers: dict[str, str], *, zipped: bool = False
    ) -> None:
        data = gzip.compress(text.encode()) if zipped else text.encode()
        values = {"Content-Type": "text/xml", "Content-Length": str(len(data)), **headers}
        if zipped:
            values["Content-Encoding"] = "gzip"
        with suppress(OSError):  # the client may be gone
            self.send_response(status)
            for name, value in values.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    def _trickle(self, text: str, seconds: float) -> None:
        with suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(text) + 1000))
            self.end_headers()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.02)
        self._hang_up()

    def _carry_out_late(self, method: str, body: bytes, fault: Fault) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")

        def later() -> None:
            time.sleep(fault.seconds)
            with suppress(Answer):
                self.osm.answer(method, self.path, token, body)

        thread = threading.Thread(target=later)
        self.osm._late.append(thread)
        thread.start()
        self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _describe(changeset: Changeset) -> str:
    tags = "".join(
        ET.tostring(ET.Element("tag", k=k, v=v), "unicode") for k, v in changeset.tags.items()
    )
    state = "true" if changeset.open else "false"
    head = f'id="{changeset.id}" open="{state}" uid="{changeset.uid}"'
    return f'<changeset {head} changes_count="{len(changeset.content)}">{tags}</changeset>'


def _tags(element: ET.Element) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((t.get("k", ""), t.get("v", "")) for t in element.iter("tag")))
