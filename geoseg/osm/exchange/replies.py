"""What a server of the OSM API 0.6 answers, read into plain values.

Replies are as untrusted as files: anything that is not as it should be is a `ServerError`, never a
guess. Frame: WGS84, whole 1e-7 degrees. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from geoseg.errors import FormatError, ServerError
from geoseg.osm.elements import DEGREE_E7, Member
from geoseg.osm.exchange.xmlstream import walk_xml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal["node", "way", "relation"]
KINDS: Final[tuple[Kind, ...]] = ("node", "way", "relation")
MAX_REPLY_BYTES: Final = 100_000_000
"""Most bytes of a reply: 10,000 ways of 2,000 nodes are not uploaded at once."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a server allows."""

    max_elements: int
    """Most elements of a changeset."""
    max_way_nodes: int
    writable: bool
    """Whether its database and API are online for changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The account a token belongs to."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changeset:
    """A changeset as the server describes it."""

    id: int
    is_open: bool
    n_changes: int
    """How many objects came into it; 0 where the server does not say."""
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one element of an upload."""

    kind: Kind
    old_id: int
    new_id: int | None
    """None where it was deleted."""
    new_version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """A node, way or relation on the server."""

    kind: Kind
    id: int
    version: int
    changeset: int
    visible: bool
    """False where it is deleted."""
    action: str = ""
    """What a changeset did with it: `create`, `modify`, `delete`; empty outside of one."""
    lonlat_e7: tuple[int, int] | None = None
    nodes: tuple[int, ...] = ()
    members: tuple[tuple[str, Member], ...] = ()
    """Kind and member; `way_id` holds the id whatever the kind."""
    tags: Mapping[str, str] = field(default_factory=dict)


def parse_capabilities(body: bytes) -> Capabilities:
    """Read `/api/capabilities`.

    Raises:
        ServerError: It is something else.
    """
    found = _attributes(body, {"changesets", "waynodes", "status"})
    status = found.get("status", {})
    with _Reading("capabilities"):
        return Capabilities(
            max_elements=int(found["changesets"]["maximum_elements"]),
            max_way_nodes=int(found["waynodes"]["maximum"]),
            writable=all(status.get(key, "online") == "online" for key in ("api", "database")),
        )


def parse_user(body: bytes) -> User:
    """Read `/user/details`.

    Raises:
        ServerError: It is something else.
    """
    with _Reading("user"):
        found = _attributes(body, {"user"})["user"]
        return User(id=int(found["id"]), name=found["display_name"])


def parse_number(body: bytes) -> int:
    """Read the number of a new changeset.

    Raises:
        ServerError: It is something else.
    """
    text = body.strip()
    if not (text.isdigit() and len(text) < 19 and int(text)):
        raise ServerError(f"a new changeset's number must come back, got {body[:60]!r}")
    return int(text)


def parse_changesets(body: bytes) -> list[Changeset]:
    """Read one changeset or a list of them.

    Raises:
        ServerError: It is something else.
    """
    found: list[tuple[dict[str, str], dict[str, str]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "changeset":
            found.append((attributes, {}))
        elif name == "tag" and found:
            found[-1][1][attributes["k"]] = attributes["v"]

    _walk(body, start, "osm")
    with _Reading("changesets"):
        return [
            Changeset(
                id=int(head["id"]),
                is_open=_boolean(head["open"]),
                n_changes=int(head.get("changes_count", "0")),
                tags=tags,
            )
            for head, tags in found
        ]


def parse_outcomes(body: bytes) -> list[Outcome]:
    """Read the diffResult of an upload.

    Raises:
        ServerError: It is something else.
    """
    found: list[Outcome] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name in KINDS:
            new = {key: attributes.get(key) for key in ("new_id", "new_version")}
            numbers = {key: None if text is None else int(text) for key, text in new.items()}
            found.append(Outcome(kind=name, old_id=int(attributes["old_id"]), **numbers))

    _walk(body, start, "diffResult")
    return found


def parse_elements(body: bytes, *, root: Literal["osm", "osmChange"]) -> list[Element]:
    """Read elements: of a changeset (`osmChange`), or as they are now (`osm`).

    Raises:
        ServerError: It is something else.
    """
    collector = _Collector()
    _walk(body, collector.start, root)
    with _Reading("elements"):
        return [raw.element() for raw in collector.found]


@dataclass(slots=True)
class _Raw:
    kind: Kind
    action: str
    attributes: dict[str, str]
    nodes: list[int] = field(default_factory=list)
    members: list[tuple[str, Member]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def element(self) -> Element:
        head = self.attributes
        has_place = "lat" in head and "lon" in head
        return Element(
            kind=self.kind,
            id=int(head["id"]),
            version=int(head["version"]),
            changeset=int(head["changeset"]),
            visible=_boolean(head.get("visible", "true")),
            action=self.action,
            lonlat_e7=(_e7(head["lon"]), _e7(head["lat"])) if has_place else None,
            nodes=tuple(self.nodes),
            members=tuple(self.members),
            tags=self.tags,
        )


class _Collector:
    """Gathers elements while a reply is parsed."""

    def __init__(self) -> None:
        self.found: list[_Raw] = []
        self._action = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in {"create", "modify", "delete"}:
            self._action = name
        elif name in KINDS:
            self.found.append(_Raw(name, self._action, attributes))
        elif name == "tag" and self.found:
            self.found[-1].tags[attributes["k"]] = attributes["v"]
        elif name == "nd" and self.found:
            self.found[-1].nodes.append(int(attributes["ref"]))
        elif name == "member" and self.found:
            member = Member(way_id=int(attributes["ref"]), role=attributes["role"])
            self.found[-1].members.append((attributes["type"], member))


class _Reading:
    """Turns what a strange reply makes Python say into a `ServerError`; a context manager."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | ValueError | OverflowError | FormatError):
            text = " ".join(str(error).split())[:120]
            raise ServerError(
                f"the server's {self._what} must be those of the OSM API 0.6, got {text}; "
                "check the address"
            ) from error


def _walk(body: bytes, start: Callable[[str, dict[str, str]], None], root: str) -> None:
    outermost = ""

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal outermost
        if not outermost:
            outermost = name
            if name != root:
                raise FormatError(f"<{name[:40]}> instead of <{root}>")
        start(name, attributes)

    with _Reading("replies"):
        walk_xml([body], opened, lambda _: None, max_bytes=MAX_REPLY_BYTES)


def _attributes(body: bytes, names: set[str]) -> dict[str, dict[str, str]]:
    """Return the attributes of the first element of each name."""
    found: dict[str, dict[str, str]] = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        if name in names:
            found.setdefault(name, attributes)

    _walk(body, start, "osm")
    return found


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"{text[:40]!r} where true or false belongs")
    return text == "true"


def _e7(text: str) -> int:
    return round(float(text) * DEGREE_E7)
