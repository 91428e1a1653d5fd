"""Take back what a journal says was uploaded, as far as nobody has touched it since.

What another account changed, moved or uses is left and reported: a building whose way, a corner of
it, or the relation it is part of has a second version stays whole, with all its nodes. The server
itself leaves what something else refers to (`if-unused`). Journalled and resumable as an upload is,
a changeset of deletions for each changeset of creations. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from geoseg import __version__
from geoseg.errors import ConfigError, FormatError, ServerError
from geoseg.osm.exchange.documents import deletion_document
from geoseg.osm.exchange.journal import Journal
from geoseg.osm.exchange.protocol import bring_home, states_from
from geoseg.osm.exchange.replies import KINDS
from geoseg.osm.exchange.upload import JOURNAL_FORMAT, begin, check_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from geoseg.osm.exchange.api import OsmApi
    from geoseg.osm.exchange.journal import Record
    from geoseg.osm.exchange.protocol import PartState, Values
    from geoseg.osm.exchange.replies import Element, Kind, Outcome

    Ref = tuple[Kind, int]

_SENT: Final = {"sending", "sent", "closing", "closed"}
_IN_USE: Final = "in use by what others drew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A changeset that was sent to."""

    changeset: int
    ids: Mapping[Kind, Sequence[int]] | None
    """What arrived in it; None where the reply got lost, so that the changeset has to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a journal of an upload says: where it went, and what it made."""

    run: str
    server: str
    user: int
    comment: str
    made: tuple[Made, ...]

    @property
    def n_elements(self) -> int:
        """Objects that are known to have arrived."""
        return sum(len(ids) for made in self.made for ids in (made.ids or {}).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """How a revert ended."""

    changesets: tuple[int, ...]
    """Changesets of deletions."""
    n_deleted: int
    n_gone: int
    """Objects that had been deleted before."""
    left: tuple[tuple[str, str], ...]
    """Objects that stay, such as `way 12`, each with the reason."""


def read_trace(records: Sequence[Record], path: Path) -> Trace:
    """Return what there is to take back.

    Raises:
        FormatError: The records are not those of an upload.
    """
    head = check_head(records, path)
    if head.get("kind") != "upload":
        raise FormatError(f"{path}: is the journal of a revert; give that of the upload")
    try:
        states = states_from(records[1:], len(head["parts"]))
        return Trace(
            run=str(head["run"]),
            server=str(head["server"]),
            user=int(head["user"]),
            comment=str(head["tags"]["comment"]),
            made=tuple(
                Made(changeset=state.changeset, ids=_ids(state))
                for state in states.values()
                if state.changeset is not None and state.phase in _SENT
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: the journal is damaged: {error}") from error


def _ids(state: PartState) -> dict[Kind, list[int]] | None:
    if state.phase == "sending":
        return None
    return {kind: [int(number) for number in state.result[kind]] for kind in KINDS}


def revert(
    upload_path: Path,
    *,
    api: OsmApi,
    journal_path: Path,
    run: str,
    say: Callable[[str], None],
) -> Reverted:
    """Delete what is still as it was uploaded.

    Args:
        upload_path: The journal of the upload; held meanwhile, not changed.
        api: The server that the journal names.
        journal_path: The journal of the revert itself.
        run: A name unlike that of any other run, for a new journal.
        say: Told what is done, line by line.

    Raises:
        ConfigError: The server or the account is another, or the journal is of something else.
        RefusedError: The server said no; a conflict among it means that somebody edits there now.
        LostReplyError: The server does not answer; the same call goes on later.
        BusyError: Another process holds one of the journals.
    """
    with Journal(upload_path) as upload_journal:
        trace = read_trace(upload_journal.records, upload_path)
        user = api.user().id
        if (api.server, user) != (trace.server, trace.user):
            raise ConfigError(
                f"{upload_path}: was written for {trace.server} and account {trace.user}, got "
                f"{api.server} and {user}; use the token of that account"
            )
        head = {
            "event": "plan",
            "format": JOURNAL_FORMAT,
            "kind": "revert",
            "run": run,
            "server": api.server,
            "user": user,
            "tags": {"reverts": trace.run},
            "parts": [{"changeset": made.changeset} for made in trace.made],
        }
        with Journal(journal_path) as journal:
            cargo = _Cargo(trace, api)
            session = begin(journal, head, journal_path, api=api, cargo=cargo, say=say)
            for part, made in enumerate(trace.made):
                state = bring_home(session, part)
                say(f"changeset {made.changeset}: {_summary(state.result)}")
            return _report(session.states.values())


def preview(trace: Trace, *, api: OsmApi, say: Callable[[str], None]) -> Reverted:
    """Return what a revert would do now, changing nothing."""
    results = []
    for made in trace.made:
        prepared, _ = _prepare(made, api)
        result = {**prepared, "deleted": prepared["delete"]}
        say(f"changeset {made.changeset}: {_summary(result)}")
        results.append(result)
    return _sum_up(results, ())


def choose(elements: Sequence[Element], changeset: int) -> tuple[list[Element], dict[Ref, str]]:
    """Choose what can be deleted among the objects that a changeset made.

    Args:
        elements: All of them, as they are now.
        changeset: The changeset.

    Returns:
        What to delete, and for each object that stays, why. What is deleted already is in neither.
    """
    there = {(e.kind, e.id): e for e in elements if e.visible}
    left: dict[Ref, str] = {
        ref: f"changed since, version {e.version} in changeset {e.changeset}"
        for ref, e in there.items()
        if e.version != 1 or e.changeset != changeset
    }
    for kind in ("way", "relation"):  # what is made of something that was touched is touched
        for ref, element in there.items():
            if ref[0] == kind and ref not in left:
                touched = [part for part in _parts(element) if part in left]
                if touched:
                    left[ref] = f"{touched[0][0]} {touched[0][1]} of it was changed since"
    for kind in ("relation", "way"):  # and what stays keeps what it is made of
        for ref in [ref for ref in left if ref[0] == kind]:
            for part in _parts(there[ref]):
                if part in there and part not in left:
                    left[part] = f"in use by {ref[0]} {ref[1]}, which stays"
    return [element for ref, element in there.items() if ref not in left], left


def _parts(element: Element) -> list[Ref]:
    if element.kind == "way":
        return [("node", node) for node in element.nodes]
    return [(cast("Kind", kind), member.way_id) for kind, member in element.members]


class _Cargo:
    """Deletions, a changeset for each that made something."""

    def __init__(self, trace: Trace, api: OsmApi) -> None:
        self._trace, self._api = trace, api
        self._chosen: list[Element] = []

    def tags(self, part: int) -> Mapping[str, str]:
        number = self._trace.made[part].changeset
        return {
            "comment": f"Revert of changeset {number}: {self._trace.comment}"[:255],
            "created_by": f"geoseg/{__version__}",
        }

    def prepare(self, part: int) -> Values:
        made = self._trace.made[part]
        if made.ids is None:  # nothing may arrive after it was looked at
            self._api.close_changeset(made.changeset)
        prepared, self._chosen = _prepare(made, self._api)
        return prepared

    def is_empty(self, prepared: Values) -> bool:
        return not prepared["delete"]

    def document(self, part: int, prepared: Values, changeset: int) -> bytes:
        return deletion_document(self._chosen, changeset)

    def from_reply(self, part: int, prepared: Values, outcomes: Sequence[Outcome]) -> Values:
        answered = [(o.kind, o.old_id) for o in outcomes]
        if sorted(answered) != sorted(_refs(prepared)):
            raise ServerError("the server must answer for each deletion, and no other")
        return _result(prepared, [(o.kind, o.old_id) for o in outcomes if o.new_id is None])

    def from_download(self, part: int, prepared: Values, elements: Sequence[Element]) -> Values:
        deleted = [(e.kind, e.id) for e in elements if e.action == "delete"]
        if len(deleted) < len(elements) or set(deleted) - set(_refs(prepared)):
            raise ServerError("holds changes that are not those that were sent")
        return _result(prepared, deleted)


def _prepare(made: Made, api: OsmApi) -> tuple[Values, list[Element]]:
    """Return what a revert of a changeset would do now, and the objects it would delete."""
    ids = made.ids
    if ids is None:
        held = [e for e in api.download(made.changeset) if e.action == "create"]
        ids = {kind: [e.id for e in held if e.kind == kind] for kind in KINDS}
    now = [e for kind in KINDS for e in api.elements(kind, sorted(ids[kind]))]
    chosen, left = choose(now, made.changeset)
    values = {
        "delete": [[e.kind, e.id] for e in chosen],
        "left": [[f"{kind} {number}", reason] for (kind, number), reason in left.items()],
        "gone": sum(not e.visible for e in now),
    }
    return values, chosen


def _refs(prepared: Values) -> list[Ref]:
    return [(kind, number) for kind, number in prepared["delete"]]


def _result(prepared: Values, deleted: Iterable[Ref]) -> Values:
    done = set(deleted)
    kept = [ref for ref in _refs(prepared) if ref not in done]
    left = prepared["left"] + [[f"{kind} {number}", _IN_USE] for kind, number in kept]
    return {"deleted": sorted(done), "left": left, "gone": prepared["gone"]}


def _summary(result: Mapping[str, Any]) -> str:
    return (
        f"{len(result['deleted']):,} objects taken back, {result['gone']:,} gone before, "
        f"{len(result['left']):,} left"
    )


def _report(states: Iterable[PartState]) -> Reverted:
    numbers = tuple(s.changeset for s in states if s.changeset is not None)
    return _sum_up([s.result for s in states], numbers)


def _sum_up(results: Sequence[Mapping[str, Any]], changesets: tuple[int, ...]) -> Reverted:
    return Reverted(
        changesets=changesets,
        n_deleted=sum(len(result["deleted"]) for result in results),
        n_gone=sum(result["gone"] for result in results),
        left=tuple((name, reason) for result in results for name, reason in result["left"]),
    )
