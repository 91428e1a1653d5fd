"""Changesets brought to the server one by one, whatever happens on the way: a state machine.

Each step writes what it is about to do, does it, and writes what came of it. So the journal says at
every moment what may have happened, and a step that was cut is settled from what the server holds:

    planned -> opening -> open -> sending -> sent -> closing -> closed

*Opening* that was cut: the changeset is found among the open ones by a key of its own, or a new
one is opened; an empty one that is left behind closes by itself. *Sending* that was cut: the
changeset is closed first, since what is closed takes nothing in any more, not even what is still
under way; then it holds all of what was sent, or nothing, as the server takes documents whole. If
nothing, it is sent in another changeset. *Closing* that was cut is done again.

Must not import osmium.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from geoseg.errors import FormatError, LostReplyError, RefusedError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from geoseg.osm.exchange.api import OsmApi
    from geoseg.osm.exchange.journal import Journal
    from geoseg.osm.exchange.replies import Element, Outcome

Phase = Literal["planned", "opening", "open", "sending", "refused", "sent", "closing", "closed"]
Values = dict[str, Any]

KEY_TAG: Final = "geoseg:key"
"""Changeset tag that tells our changesets from each other."""
MAX_LOST: Final = 6
"""Replies lost in one changeset before giving up."""
MAX_STEPS: Final = 24
"""Steps of one changeset before giving up; three are enough when all goes well."""
FIRST_PAUSE_S: Final = 2.0
"""Seconds to wait after a lost reply, doubled each time."""

_NEXT: Final[dict[tuple[Phase, str], Phase]] = {
    ("planned", "opening"): "opening",
    ("planned", "skipped"): "closed",
    ("opening", "opening"): "opening",
    ("opening", "opened"): "open",
    ("open", "sending"): "sending",
    ("open", "abandoned"): "planned",
    ("sending", "sent"): "sent",
    ("sending", "refused"): "refused",
    ("sending", "abandoned"): "planned",
    ("refused", "sent"): "sent",
    ("refused", "abandoned"): "planned",
    ("sent", "closing"): "closing",
    ("closing", "closing"): "closing",
    ("closing", "closed"): "closed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """How far one changeset's load is."""

    phase: Phase = "planned"
    attempt: int = 0
    """Changesets that were tried for it."""
    changeset: int | None = None
    prepared: Values = field(default_factory=dict)
    """What the last document held, as the cargo describes it."""
    result: Values = field(default_factory=dict)
    """What came of it."""


class Cargo(Protocol):
    """What the changesets of a run are to hold."""

    def tags(self, part: int) -> Mapping[str, str]:
        """Return the tags of a changeset."""
        ...

    def prepare(self, part: int) -> Values:
        """Return what a document would hold, in JSON's values."""
        ...

    def is_empty(self, prepared: Values) -> bool:
        """Say whether there is nothing to send."""
        ...

    def document(self, part: int, prepared: Values, changeset: int) -> bytes:
        """Return the document of what was prepared last."""
        ...

    def from_reply(self, part: int, prepared: Values, outcomes: Sequence[Outcome]) -> Values:
        """Return what came of a document, or raise ServerError if the reply is not to it."""
        ...

    def from_download(self, part: int, prepared: Values, elements: Sequence[Element]) -> Values:
        """Return the same from a changeset's content, or raise ServerError if it is another."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A run under way: the server, the journal, and how far each part is."""

    api: OsmApi
    journal: Journal
    cargo: Cargo
    run: str
    """Name of the run, unlike that of any other."""
    user: int
    """Number of the account."""
    states: dict[int, PartState]
    say: Callable[[str], None]

    def record(self, part: int, event: str, **values: Any) -> None:
        """Write an event to the journal and move on."""
        line = {"event": event, "part": part, **values}
        state = advance(self.states[part], line)
        self.journal.append(line)
        self.states[part] = state


def advance(state: PartState, record: Mapping[str, Any]) -> PartState:
    """Return the state after an event.

    Raises:
        FormatError: The event cannot come now: the journal is not as it was written.

    Example:
        >>> state = advance(PartState(), {"event": "opening", "part": 0})
        >>> advance(state, {"event": "opened", "part": 0, "changeset": 7}).phase
        'open'
    """
    event = str(record["event"])
    phase = _NEXT.get((state.phase, event))
    if phase is None:
        raise FormatError(f"the journal says {event!r} where a part is {state.phase}: damaged")
    state = replace(state, phase=phase)
    if event == "opening":
        return replace(state, attempt=state.attempt + 1, changeset=None)
    if event == "opened":
        return replace(state, changeset=int(record["changeset"]))
    if event == "sending":
        return replace(state, prepared=dict(record["prepared"]))
    if event in {"sent", "skipped"}:
        return replace(state, result=dict(record["result"]))
    if event == "abandoned":
        return replace(state, changeset=None, prepared={})
    return state


def states_from(records: Sequence[Mapping[str, Any]], n_parts: int) -> dict[int, PartState]:
    """Return how far each part is after the events of a journal.

    Raises:
        FormatError: They contradict each other.
    """
    states = {part: PartState() for part in range(n_parts)}
    for record in records:
        try:
            part = record["part"]
            states[part] = advance(states[part], record)
        except (KeyError, TypeError, ValueError) as error:
            text = str(error) if isinstance(error, FormatError) else repr(error)
            raise FormatError(f"the journal is damaged: {text[:120]}") from error
    return states


def bring_home(session: Session, part: int) -> PartState:
    """Take the steps of a part until it is closed.

    Raises:
        RefusedError: The server said no. Nothing of the part is on the server.
        LostReplyError: The server does not answer. The journal says how far things are.
        ServerError: A changeset holds what was not sent.
    """
    lost = 0
    for _ in range(MAX_STEPS):
        state = session.states[part]
        if state.phase == "closed":
            return state
        try:
            _STEPS[state.phase](session, part, state)
        except LostReplyError as error:
            lost += 1
            if lost == MAX_LOST:
                raise LostReplyError(f"{error}; run the same command again to go on") from error
            pause = FIRST_PAUSE_S * 2 ** (lost - 1)
            session.say(f"{error}; looking again in {pause:.0f} s")
            session.api.sleep(pause)
    raise ServerError(
        "changesets close before they are filled; run the same command again to go on"
    )


def _open(session: Session, part: int, state: PartState) -> None:
    prepared = session.cargo.prepare(part)
    if session.cargo.is_empty(prepared):
        result = session.cargo.from_reply(part, prepared, [])
        session.record(part, "skipped", result=result)
        return
    _open_anew(session, part, state)


def _open_anew(session: Session, part: int, state: PartState) -> None:
    session.record(part, "opening", key=_key(session, part, state.attempt + 1))
    tags = {**session.cargo.tags(part), KEY_TAG: _key(session, part, state.attempt + 1)}
    number = session.api.open_changeset(tags)
    session.record(part, "opened", changeset=number)


def _find_opened(session: Session, part: int, state: PartState) -> None:
    """Find the changeset whose number got lost, or open another."""
    key = _key(session, part, state.attempt)
    mine = session.api.open_changesets_of(session.user)
    found = [changeset.id for changeset in mine if changeset.tags.get(KEY_TAG) == key]
    if found:
        session.record(part, "opened", changeset=min(found))
    else:
        _open_anew(session, part, state)


def _send(session: Session, part: int, state: PartState) -> None:
    number = _number(state)
    prepared = session.cargo.prepare(part)
    if session.cargo.is_empty(prepared):
        _abandon(session, part, state)
        return
    document = session.cargo.document(part, prepared, number)
    session.record(part, "sending", changeset=number, prepared=prepared)
    try:
        outcomes = session.api.upload(number, document)
        result = session.cargo.from_reply(part, prepared, outcomes)
    except RefusedError as error:
        if session.api.says_closed(number, error):
            return  # it closed by itself: what it holds settles the matter
        session.record(part, "refused", changeset=number, status=error.status, message=str(error))
        with contextlib.suppress(ServerError):  # the next call of the command does it then
            _settle(session, part, session.states[part])
        if session.states[part].phase == "sent":  # some proxy said no after the server said yes
            return
        raise
    except ServerError as error:
        raise LostReplyError(str(error)) from error
    session.record(part, "sent", changeset=number, result=result)


def _settle(session: Session, part: int, state: PartState) -> None:
    """Find out whether what was sent arrived; close the changeset first, so that it is final."""
    number = _number(state)
    session.api.close_changeset(number)
    seen = session.api.changeset(number)
    elements = session.api.download(number)
    if seen.is_open or len(elements) < seen.n_changes:  # a copy of the data that lags behind
        raise LostReplyError(f"changeset {number} is not seen yet as it is")
    if not elements:
        session.record(part, "abandoned", changeset=number)
        return
    try:
        result = session.cargo.from_download(part, state.prepared, elements)
    except ServerError as error:
        raise ServerError(
            f"changeset {number}: {error}; look at {session.api.server}/changeset/{number}"
        ) from error
    session.record(part, "sent", changeset=number, result=result)


def _abandon(session: Session, part: int, state: PartState) -> None:
    number = _number(state)
    session.api.close_changeset(number)
    session.record(part, "abandoned", changeset=number)


def _close(session: Session, part: int, state: PartState) -> None:
    number = _number(state)
    session.record(part, "closing", changeset=number)
    session.api.close_changeset(number)
    session.record(part, "closed", changeset=number)


def _key(session: Session, part: int, attempt: int) -> str:
    return f"{session.run}-{part + 1}-{attempt}"


def _number(state: PartState) -> int:
    assert state.changeset is not None, "a part has a changeset from its opening to its end"
    return state.changeset


_STEPS: Final[dict[Phase, Callable[[Session, int, PartState], None]]] = {
    "planned": _open,
    "opening": _find_opened,
    "open": _send,
    "sending": _settle,
    "refused": _settle,
    "sent": _close,
    "closing": _close,
}
assert {*_STEPS, "closed"} == set(get_args(Phase)), "each phase has a step"
