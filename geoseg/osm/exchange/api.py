"""A client of the OSM API 0.6, as far as uploading and taking back needs it.

The only module that reaches a network. It repeats what only reads, waits where the server asks for
it, and repeats nothing that writes: a request without an answer is a `LostReplyError`, and what it
did is for the caller to find out. The token is sent to the one server it is meant for and nowhere
else: it is in no message, log, file or repr. Must not import osmium.
"""

from __future__ import annotations

import gzip
import logging
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Self, TypeVar
from urllib.parse import urlsplit

from geoseg import __version__
from geoseg.errors import LostReplyError, MissingExtraError, RefusedError, ServerError
from geoseg.osm.exchange.documents import changeset_document
from geoseg.osm.exchange.replies import (
    MAX_REPLY_BYTES,
    Capabilities,
    Changeset,
    Element,
    Kind,
    Outcome,
    User,
    parse_capabilities,
    parse_changesets,
    parse_elements,
    parse_number,
    parse_outcomes,
    parse_user,
)
from geoseg.osm.exchange.server import check_server, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType, TracebackType

    import httpx

log = logging.getLogger(__name__)
_T = TypeVar("_T")

TIMEOUT_S: Final = 300.0
"""Seconds for a whole answer: a server takes minutes over a full changeset."""
CONNECT_TIMEOUT_S: Final = 20.0
MAX_PAYLOAD_BYTES: Final = 50_000_000
"""Most bytes of a document, uncompressed; the server refuses more."""
READ_TRIES: Final = 5
FIRST_PAUSE_S: Final = 2.0
"""Seconds before what only reads is tried again; doubled each time."""
WAITS: Final = 8
"""How often one request waits because the server limits the rate."""
FIRST_WAIT_S: Final = 30.0
"""Seconds to wait where the server does not say how long; doubled each time."""
MAX_WAIT_S: Final = 3600.0
IDS_PER_REQUEST: Final = 400
"""Elements asked for at once: addresses longer than 8 kB are refused."""

_WORDS: Final = {
    400: "the server cannot read the request ({text}); please report it with the file",
    401: "the server does not accept the token ({text}); make one with the permissions read_prefs "
    "and write_api for this server",
    403: "the account may not do this ({text}); the token needs the permissions read_prefs and "
    "write_api, and the account must not be blocked",
    404: "the server does not know what is asked for ({text}); check the server's address",
    405: "the server does not do this ({text}); check the server's address",
    409: "the server sees a conflict ({text}); look at it before you go on",
    410: "what is asked for has been deleted ({text})",
    412: "something that is referred to is not on the server ({text})",
    413: "the server finds the changeset too large ({text}); give a smaller --max-bbox-km or "
    "--max-elements",
    429: "the server limits the rate ({text}); run the same command again later",
}


class OsmApi:
    """A server with a token; a context manager.

    Args:
        server: Address, with or without `/api/0.6`.
        token: OAuth 2 bearer token; empty to read only.
        timeout_s: Seconds for a whole answer.
        sleep: Waits that many seconds.
        say: Told why it waits.

    Raises:
        ConfigError: The address cannot be used.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        server: str,
        token: str,
        *,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = log.info,
    ) -> None:
        self.server = check_server(server)
        self.sleep, self.say = sleep, say
        self._secret = token
        self._timeout_s = timeout_s
        self._httpx = _import_httpx()
        headers = {
            "User-Agent": f"geoseg/{__version__}",
            "Accept": "application/xml, text/xml, text/plain, */*;q=0.1",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        timeout = self._httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
        try:
            self._client: httpx.Client = self._httpx.Client(
                headers=headers,
                timeout=timeout,
                follow_redirects=False,
                trust_env=not is_loopback(urlsplit(self.server).hostname or ""),
                verify=self.server.startswith("https:"),  # certificates take time to load
            )
        except ValueError:  # its text would show the header
            raise ServerError("the token must be letters, digits and dashes: check it") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def capabilities(self) -> Capabilities:
        """Ask what the server allows."""
        return parse_capabilities(self._read("/api/capabilities"))

    def user(self) -> User:
        """Ask whose token it is."""
        return parse_user(self._read("/api/0.6/user/details"))

    def open_changeset(self, tags: Mapping[str, str]) -> int:
        """Open a changeset and return its number.

        Raises:
            LostReplyError: It may be open, under a number that is not known.
            RefusedError: It is not.
        """
        body = self._request("PUT", "/api/0.6/changeset/create", changeset_document(tags))
        return _or_lost(lambda: parse_number(body))

    def open_changesets_of(self, user: int) -> list[Changeset]:
        """List the open changesets of an account, the newest hundred."""
        return parse_changesets(self._read(f"/api/0.6/changesets?user={user}&open=true"))

    def changeset(self, number: int) -> Changeset:
        """Describe a changeset."""
        found = parse_changesets(self._read(f"/api/0.6/changeset/{number}"))
        if len(found) != 1 or found[0].id != number:
            raise ServerError(
                f"changeset {number} must come back alone; check the server's address"
            )
        return found[0]

    def upload(self, changeset: int, document: bytes) -> list[Outcome]:
        """Carry out an osmChange document, all of it or nothing.

        Raises:
            LostReplyError: It may have been carried out, now or later.
            RefusedError: It was not.
        """
        if len(document) > MAX_PAYLOAD_BYTES:
            raise RefusedError(
                f"a document must have at most {MAX_PAYLOAD_BYTES / 1e6:.0f} MB, got "
                f"{len(document) / 1e6:.1f}; give a smaller --max-elements",
                status=413,
            )
        body = self._request("POST", f"/api/0.6/changeset/{changeset}/upload", document)
        return _or_lost(lambda: parse_outcomes(body))

    def download(self, changeset: int) -> list[Element]:
        """Return what a changeset holds, as it was uploaded."""
        body = self._read(f"/api/0.6/changeset/{changeset}/download")
        return parse_elements(body, root="osmChange")

    def close_changeset(self, number: int) -> None:
        """Close a changeset; nothing comes into it any more, not even what is still on its way.

        One that is closed already is as good.
        """
        try:
            self._request("PUT", f"/api/0.6/changeset/{number}/close", b"")
        except RefusedError as error:
            if not self.says_closed(number, error):
                raise

    def says_closed(self, number: int, error: RefusedError) -> bool:
        """Say whether a refusal is because the changeset is closed.

        Asked is only where the words are strange: what is read may lag behind what is written.
        """
        if error.status != 409:
            return False
        return "was closed" in str(error) or not self.changeset(number).is_open

    def elements(self, kind: Kind, ids: Sequence[int]) -> Iterator[Element]:
        """Return elements of one kind as they are now, deleted ones too."""
        for i in range(0, len(ids), IDS_PER_REQUEST):
            wanted = ids[i : i + IDS_PER_REQUEST]
            numbers = ",".join(map(str, wanted))
            body = self._read(f"/api/0.6/{kind}s?{kind}s={numbers}")
            found = {e.id: e for e in parse_elements(body, root="osm") if e.kind == kind}
            if set(wanted) - set(found):
                raise ServerError(f"{kind} {min(set(wanted) - set(found))} must come back, did not")
            yield from (found[number] for number in wanted)

    def _read(self, path: str) -> bytes:
        """Ask for something, again and again where no answer comes."""
        pause = FIRST_PAUSE_S
        for _ in range(READ_TRIES - 1):
            try:
                return self._request("GET", path, None)
            except LostReplyError as error:
                self.say(f"{error}; trying again in {pause:.0f} s")
                self.sleep(pause)
                pause *= 2
        return self._request("GET", path, None)

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        """Send one request until the server does not ask to wait; return what it answers."""
        wait = FIRST_WAIT_S
        for _ in range(WAITS):
            status, headers, answer = self._exchange(method, path, body)
            if status not in {429, 509}:
                break
            asked = _retry_after_s(headers.get("retry-after", ""), default=wait)
            if asked > MAX_WAIT_S:
                break
            self.say(f"the server limits the rate: waiting {asked:.0f} s")
            self.sleep(asked)
            wait = min(2 * wait, MAX_WAIT_S)
        if status == 200:
            return answer
        if status == 408 or (not 300 <= status < 500 and status != 509):  # 2xx of a proxy as well
            raise LostReplyError(f"the server failed ({status}: {self._text(answer)})")
        raise RefusedError(self._words(status, headers, answer), status=status)

    def _exchange(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Content-Type": "text/xml; charset=utf-8"} if body else {}
        if body:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=6, mtime=0)
        ends = time.monotonic() + self._timeout_s
        url = self.server + path
        log.debug("%s %s", method, url)
        try:
            with self._client.stream(method, url, content=body, headers=headers) as reply:
                return reply.status_code, reply.headers, self._body(reply, ends)
        except (self._httpx.HTTPError, self._httpx.StreamError) as error:
            reason = f"{type(error).__name__}: {self._text(str(error).encode())}"
            raise LostReplyError(f"{self.server} did not answer ({reason})") from None

    def _body(self, reply: httpx.Response, ends: float) -> bytes:
        """Read an answer; give up on one that is too long or comes too slowly."""
        blocks, size = [], 0
        for block in reply.iter_bytes():
            blocks.append(block)
            size += len(block)
            if size > MAX_REPLY_BYTES:
                raise LostReplyError(f"{self.server} answered more than {MAX_REPLY_BYTES:,} bytes")
            if time.monotonic() > ends:
                raise LostReplyError(
                    f"{self.server} took more than {self._timeout_s:g} s to answer"
                )
        return b"".join(blocks)

    def _words(self, status: int, headers: Mapping[str, str], answer: bytes) -> str:
        if 300 <= status < 400:
            place = self._text(headers.get("location", "").encode())
            return f"the server sends on to {place}; give that address if you trust it"
        words = _WORDS.get(status, f"the server answered {status} ({{text}})")
        return words.replace("{text}", f"{status}: {self._text(answer)}")

    def _text(self, answer: bytes) -> str:
        """Return what a server said, one line fit to be shown."""
        if self._secret:  # before anything is cut, so that no part of it stays
            answer = answer.replace(self._secret.encode(), b"[token]")
        text = " ".join(answer[:2000].decode("utf-8", "replace").split())
        text = "".join(c if c.isprintable() else "?" for c in text)
        return text[:200] or "without a word"


def _or_lost(parse: Callable[[], _T]) -> _T:
    """Read the answer to a request that writes; one that cannot be read is as good as none."""
    try:
        return parse()
    except ServerError as error:
        raise LostReplyError(str(error)) from error


def _retry_after_s(text: str, *, default: float) -> float:
    """Return seconds: the header holds a number, or a date."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return default


def _import_httpx() -> ModuleType:
    try:
        import httpx  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise MissingExtraError("uploads need httpx: pip install 'geoseg[osm-upload]'") from error
    logging.getLogger("httpcore").setLevel(logging.INFO)  # below it would log headers
    return httpx
