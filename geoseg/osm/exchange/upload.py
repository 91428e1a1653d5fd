"""Upload planned changesets, one by one: journalled, resumable, nothing twice.

The same call with the same journal goes on where it ended, and does nothing once all is there. Must
not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from geoseg.errors import ConfigError, FormatError, ServerError
from geoseg.osm.exchange.documents import creation_document
from geoseg.osm.exchange.journal import Journal
from geoseg.osm.exchange.matching import ids_from_download, ids_from_reply
from geoseg.osm.exchange.protocol import PartState, Session, bring_home, states_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from geoseg.osm.exchange.api import OsmApi
    from geoseg.osm.exchange.journal import Record
    from geoseg.osm.exchange.plan import UploadPlan
    from geoseg.osm.exchange.protocol import Cargo, Values
    from geoseg.osm.exchange.replies import Element, Outcome
    from geoseg.osm.exchange.server import Permission

JOURNAL_FORMAT: Final = "geoseg-osm-journal-1"
_COMPARED: Final = {
    "kind": "it is of another kind of run",
    "server": "it was begun on another server",
    "user": "it was begun by another account",
    "tags": "it was begun with other tags: comment, source, hashtags or URL",
    "parts": "it was begun with other files, or other limits of a changeset",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """How an upload ended."""

    changesets: tuple[int, ...]
    """Their numbers, in the plan's order."""
    n_elements: int
    n_before: int
    """How many of the changesets were there before this call."""


def upload(
    plan: UploadPlan,
    tags: Mapping[str, str],
    *,
    api: OsmApi,
    permission: Permission,
    journal_path: Path,
    run: str,
    say: Callable[[str], None],
) -> Uploaded:
    """Send what is not there yet.

    Args:
        plan: What to send.
        tags: Of every changeset.
        api: The server.
        permission: For that server.
        journal_path: Where the journal is, or will be.
        run: A name unlike that of any other run, for a new journal.
        say: Told what is done, line by line.

    Raises:
        ConfigError: The journal is of something else, or the server takes less than planned.
        RefusedError: The server said no.
        LostReplyError: The server does not answer; the same call goes on later.
        ServerError: The server is closed for changes, or holds what was not sent.
        BusyError: Another process holds the journal.
    """
    if permission.server != api.server:
        raise ConfigError(f"the permission is for {permission.server}, not for {api.server}")
    with Journal(journal_path) as journal:
        user = api.user().id
        _check_server(api, plan)
        head = {
            "event": "plan",
            "format": JOURNAL_FORMAT,
            "kind": "upload",
            "run": run,
            "server": api.server,
            "user": user,
            "files": list(plan.files),
            "tags": dict(tags),
            "parts": list(plan.digests),
        }
        session = begin(journal, head, journal_path, api=api, cargo=_Cargo(plan, tags), say=say)
        before = sum(state.phase == "closed" for state in session.states.values())
        for part in session.states:
            _send(session, part, plan)
    states = session.states.values()
    return Uploaded(
        changesets=tuple(s.changeset for s in states if s.changeset is not None),
        n_elements=plan.n_elements,
        n_before=before,
    )


def begin(
    journal: Journal,
    head: Record,
    path: Path,
    *,
    api: OsmApi,
    cargo: Cargo,
    say: Callable[[str], None],
) -> Session:
    """Write the head of a new journal, or go on with one whose head says the same.

    Raises:
        ConfigError: The journal is of something else.
        FormatError: It is damaged.
    """
    if not journal.records:
        journal.append(head)
    first = check_head(journal.records, path)
    for key, words in _COMPARED.items():
        if _comparable(first.get(key)) != _comparable(head[key]):
            raise ConfigError(f"{path}: {words}; give the same again, or another --journal")
    try:
        states = states_from(journal.records[1:], len(head["parts"]))
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    run, user = str(first["run"]), int(head["user"])
    return Session(
        api=api, journal=journal, cargo=cargo, run=run, user=user, states=states, say=say
    )


def _comparable(value: Any) -> Any:
    """Return a value of a head without the version of geoseg, which may change on the way."""
    if isinstance(value, dict):
        return {key: inner for key, inner in value.items() if key != "created_by"}
    return value


def check_head(records: Sequence[Record], path: Path) -> Record:
    """Return the first record of a journal of ours.

    Raises:
        FormatError: It is none.
    """
    if not records or records[0].get("format") != JOURNAL_FORMAT or "run" not in records[0]:
        raise FormatError(f"{path}: is not a journal of an upload; `geoseg osm upload` writes them")
    return records[0]


class _Cargo:
    """New objects, a changeset each part."""

    def __init__(self, plan: UploadPlan, tags: Mapping[str, str]) -> None:
        self._parts, self._tags = plan.parts, tags

    def tags(self, part: int) -> Mapping[str, str]:
        return self._tags

    def prepare(self, part: int) -> Values:
        return {"elements": self._parts[part].n_elements}

    def is_empty(self, prepared: Values) -> bool:
        return not prepared["elements"]

    def document(self, part: int, prepared: Values, changeset: int) -> bytes:
        return creation_document(self._parts[part], changeset)

    def from_reply(self, part: int, prepared: Values, outcomes: Sequence[Outcome]) -> Values:
        found = ids_from_reply(self._parts[part], outcomes)
        return {str(kind): ids for kind, ids in found.items()}

    def from_download(self, part: int, prepared: Values, elements: Sequence[Element]) -> Values:
        found = ids_from_download(self._parts[part], elements)
        return {str(kind): ids for kind, ids in found.items()}


def _send(session: Session, part: int, plan: UploadPlan) -> PartState:
    was_there = session.states[part].phase == "closed"
    state = bring_home(session, part)
    if not was_there:
        session.say(
            f"changeset {part + 1} of {len(plan.parts)}: {plan.parts[part].n_elements:,} elements, "
            f"{session.api.server}/changeset/{state.changeset}"
        )
    return state


def _check_server(api: OsmApi, plan: UploadPlan) -> None:
    able = api.capabilities()
    if not able.writable:
        raise ServerError(f"{api.server} is closed for changes now; run the same command later")
    largest = max((part.n_elements for part in plan.parts), default=0)
    if largest > able.max_elements:
        raise ConfigError(
            f"a changeset must have at most {able.max_elements:,} elements on this server, one has "
            f"{largest:,}; give a smaller --max-elements"
        )
    longest = max(
        (int((part.way_offsets[1:] - part.way_offsets[:-1]).max()) for part in plan.parts),
        default=0,
    )
    if longest > able.max_way_nodes:
        raise ConfigError(
            f"a way must have at most {able.max_way_nodes:,} nodes on this server, one has "
            f"{longest:,}; export again"
        )
