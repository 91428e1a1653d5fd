"""Which new object on the server is which of ours: from the server's reply, or from what it holds.

The second way is for replies that got lost. Places of nodes are unique in what we send, so nodes
are told by place, ways by their nodes and tags, relations by their members and tags; the order in
which a server lists them does not matter. Must not import osmium.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from geoseg.errors import ServerError
from geoseg.osm.exchange.replies import KINDS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from geoseg.osm.elements import OsmData, Tags
    from geoseg.osm.exchange.replies import Element, Kind, Outcome

    NewIds = dict[Kind, list[int]]
    """Number on the server of each object, in the order of ours."""


def ids_from_reply(data: OsmData, outcomes: Iterable[Outcome]) -> NewIds:
    """Return the new ids as the server gave them.

    Args:
        data: What was sent.
        outcomes: What the server said of each object.

    Raises:
        ServerError: An object is missing, comes twice, or is no new one.
    """
    given: dict[tuple[str, int], int] = {}
    for outcome in outcomes:
        key = (outcome.kind, outcome.old_id)
        if key in given or outcome.new_version != 1 or (outcome.new_id or 0) < 1:
            raise ServerError(f"{outcome.kind} {outcome.old_id} must come back once, as a new one")
        given[key] = outcome.new_id or 0
    ids: NewIds = {
        kind: [given.pop((kind, old), 0) for old in sent] for kind, sent in _sent_ids(data).items()
    }
    if given or not all(all(numbers) for numbers in ids.values()):
        raise ServerError("the server must answer for each object that was sent, and no other")
    return ids


def ids_from_download(data: OsmData, elements: Sequence[Element]) -> NewIds:
    """Return the new ids from what a changeset holds.

    Args:
        data: What was sent.
        elements: The changeset's content, in any order.

    Raises:
        ServerError: It holds something else, or not all of it.
    """
    if len(elements) != data.n_elements or any(
        e.action != "create" or e.version != 1 for e in elements
    ):
        raise ServerError(
            f"must hold {data.n_elements:,} new objects, holds {len(elements):,} or others"
        )
    by_kind: dict[Kind, list[Element]] = {kind: [] for kind in KINDS}
    for element in elements:
        by_kind[element.kind].append(element)
    nodes = _pair(
        [tuple(place) for place in data.lonlat_e7.tolist()],
        [(e.lonlat_e7, e) for e in by_kind["node"]],
    )
    node = dict(zip(data.node_ids.tolist(), nodes, strict=True))
    ways = _pair(
        [
            (tuple(node[i] for i in data.nodes_of(k).tolist()), _frozen(tags))
            for k, tags in enumerate(data.way_tags)
        ],
        [((e.nodes, _frozen(e.tags)), e) for e in by_kind["way"]],
    )
    way = dict(zip(data.way_ids.tolist(), ways, strict=True))
    relations = _pair(
        [
            (tuple(("way", way[m.way_id], m.role) for m in r.members), _frozen(r.tags))
            for r in data.relations
        ],
        [
            ((tuple((k, m.way_id, m.role) for k, m in e.members), _frozen(e.tags)), e)
            for e in by_kind["relation"]
        ],
    )
    return {"node": nodes, "way": ways, "relation": relations}


def _sent_ids(data: OsmData) -> dict[Kind, list[int]]:
    return {
        "node": data.node_ids.tolist(),
        "way": data.way_ids.tolist(),
        "relation": [relation.id for relation in data.relations],
    }


def _pair(ours: Sequence[Hashable], theirs: Iterable[tuple[Hashable, Element]]) -> list[int]:
    """Return for each of our descriptions the number of theirs that is the same.

    Where several are alike, they are taken in ascending order: which is which makes no difference.
    """
    found: dict[Hashable, list[int]] = defaultdict(list)
    for description, element in theirs:
        found[description].append(element.id)
    for numbers in found.values():
        numbers.sort(reverse=True)
    try:
        return [found[description].pop() for description in ours]
    except IndexError:
        raise ServerError("holds objects that are not those that were sent") from None


def _frozen(tags: Tags) -> frozenset[tuple[str, str]]:
    return frozenset(tags.items())
