"""Files of new objects, as geoseg writes them: `.osc` and `.osc.gz` read and checked.

Only creations are taken, and only complete ones: closed references, negative ids, places on the
globe, nothing that stands alone. What is read here will be sent to a server, so a file that is not
just as it should be is refused whole. Frame: WGS84, whole 1e-7 degrees. Must not import osmium.
"""

from __future__ import annotations

import gzip
import math
import zlib
from array import array
from typing import TYPE_CHECKING, Final

import numpy as np

from geoseg.errors import FormatError, InputNotFoundError
from geoseg.osm.elements import DEGREE_E7, MAX_WAY_NODES, Member, OsmData, Relation
from geoseg.osm.exchange.xmlstream import BLOCK_BYTES, walk_xml
from geoseg.osm.tags import MAX_TEXT, clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.osm.elements import Tags

SUFFIXES: Final = (".osc", ".osc.gz")
MAX_FILE_BYTES: Final = 4_000_000_000
"""Most bytes of a file, uncompressed: some ten million buildings."""
_KINDS: Final = ("node", "way", "relation")


def read_changes(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> OsmData:
    """Read the new objects of an osmChange file.

    Args:
        path: A `.osc` or `.osc.gz` file.
        max_bytes: Most bytes, uncompressed; what would be more is not read.

    Returns:
        The objects by descending id, WGS84 in 1e-7 degrees; `sources` counts ways and relations.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is torn, too large, or holds anything but complete new objects.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise FormatError(f"{path}: must end in {' or '.join(SUFFIXES)}; `geoseg export` writes it")
    if not path.is_file():
        raise InputNotFoundError(f"no file {path}: check the path")
    reader = _Reader()
    try:
        walk_xml(_blocks(path), reader.start, reader.end, max_bytes=max_bytes)
        return _assemble(reader)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read, or torn: {error}") from error


def check_tag(key: str, value: str) -> None:
    """Raise FormatError if a server would refuse a tag, or a reader choke on it."""
    for text in (key, value):
        if len(text) > MAX_TEXT:
            raise FormatError(f"tag {key[:40]!r}: at most {MAX_TEXT} characters, got {len(text)}")
        if not text.strip():
            raise FormatError(f"tag {key[:40]!r}={value[:40]!r}: must not be empty")
        if clean_text(text) != text:
            raise FormatError(
                f"tag {key[:40]!r}={value[:40]!r}: must have no control characters, "
                "no blanks at its ends, nor two in a row"
            )


def _blocks(path: Path) -> Iterator[bytes]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


class _Reader:
    """Collects elements while the file is parsed; ids in the order of the file."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self.nodes: array[int] = array("q")
        self.lonlat: array[int] = array("q")
        self.ways: array[int] = array("q")
        self.way_ends: array[int] = array("q", [0])
        self.way_nodes: array[int] = array("q")
        self.way_tags: list[Tags] = []
        self.relations: list[Relation] = []
        self._tags: dict[str, str] = {}
        self._members: list[Member] = []
        self._relation_id = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        depth = len(self._path)
        self._path.append(name)
        if depth == 0 and name != "osmChange":
            raise FormatError(f"must be an osmChange document, got <{name[:40]}>")
        if depth == 1 and name != "create":
            raise FormatError(
                f"must only create: got <{name[:40]}>; changes to what is mapped are not uploaded"
            )
        if depth == 2:
            self._element(name, attributes)
        elif depth == 3:
            self._content(self._path[2], name, attributes)
        elif depth > 3:
            raise FormatError(f"<{name[:40]}> has no place in <{self._path[2]}>")

    def end(self, name: str) -> None:
        self._path.pop()
        if len(self._path) != 2:
            return
        if name == "node" and self._tags:
            raise FormatError(f"node {self.nodes[-1]}: corners of buildings carry no tags")
        if name == "way":
            self.way_ends.append(len(self.way_nodes))
            self.way_tags.append(self._tags)
        if name == "relation":
            self.relations.append(
                Relation(id=self._relation_id, members=tuple(self._members), tags=self._tags)
            )

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        if name not in _KINDS:
            raise FormatError(f"elements are nodes, ways and relations, got <{name[:40]}>")
        element = _id(attributes, "id")
        self._tags, self._members = {}, []
        if name == "node":
            self.nodes.append(element)
            self.lonlat.append(_degrees_e7(attributes, "lon", 180))
            self.lonlat.append(_degrees_e7(attributes, "lat", 90))
        elif name == "way":
            self.ways.append(element)
        else:
            self._relation_id = element

    def _content(self, element: str, name: str, attributes: dict[str, str]) -> None:
        if name == "tag":
            key, value = attributes.get("k", ""), attributes.get("v", "")
            check_tag(key, value)
            if key in self._tags:
                raise FormatError(f"tag {key[:40]!r} comes twice in one {element}")
            self._tags[key] = value
        elif (element, name) == ("way", "nd"):
            self.way_nodes.append(_id(attributes, "ref"))
        elif (element, name) == ("relation", "member"):
            self._members.append(_member(attributes))
        else:
            raise FormatError(f"<{name[:40]}> has no place in <{element}>")


def _id(attributes: dict[str, str], key: str) -> int:
    text = attributes.get(key, "")
    digits = text.removeprefix("-")
    if len(digits) > 18 or not (digits.isascii() and digits.isdigit()) or not text[0] == "-":
        raise FormatError(
            f"{key} must be a negative whole number, that of a new object; got {text[:40]!r}"
        )
    if not int(digits):
        raise FormatError(f"{key} must be negative, got {text[:40]!r}")
    return int(text)


def _degrees_e7(attributes: dict[str, str], key: str, limit: int) -> int:
    text = attributes.get(key, "")
    try:
        degrees = float(text)
    except ValueError:
        degrees = math.nan
    if not abs(degrees) <= limit:
        raise FormatError(f"{key} must be degrees from -{limit} to {limit}, got {text[:40]!r}")
    return round(degrees * DEGREE_E7)


def _member(attributes: dict[str, str]) -> Member:
    kind, role = attributes.get("type", ""), attributes.get("role", "")
    if kind != "way":
        raise FormatError(f"members of a building are ways, got {kind[:40]!r}")
    if role not in {"outer", "inner"}:
        raise FormatError(f"a member's role must be outer or inner, got {role[:40]!r}")
    return Member(way_id=_id(attributes, "ref"), role=role)


def _assemble(reader: _Reader) -> OsmData:
    """Put elements in the order of their ids, and see that nothing is missing or too much."""
    nodes, ways = (np.array(ids, np.int64) for ids in (reader.nodes, reader.ways))
    relations = sorted(reader.relations, key=lambda relation: -relation.id)
    order, way_order = np.argsort(-nodes), np.argsort(-ways)
    ends = np.array(reader.way_ends, np.int64)
    counts = np.diff(ends)
    data = OsmData(
        node_ids=nodes[order],
        lonlat_e7=np.array(reader.lonlat, np.int64).reshape(-1, 2)[order],
        way_ids=ways[way_order],
        way_offsets=np.concatenate([[0], np.cumsum(counts[way_order])]).astype(np.int64),
        way_nodes=_gather(np.array(reader.way_nodes, np.int64), ends[:-1], counts, way_order),
        way_tags=tuple(reader.way_tags[i] for i in way_order.tolist()),
        relations=tuple(relations),
        sources=np.arange(len(ways) + len(relations), dtype=np.int64),
    )
    _check(data)
    return data


def _gather(
    values: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    order: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return runs of values in another order, one after the other."""
    lengths = counts[order]
    shift = np.repeat(starts[order] - (np.cumsum(lengths) - lengths), lengths)
    gathered: NDArray[np.int64] = values[np.arange(len(shift)) + shift]
    return gathered


def _check(data: OsmData) -> None:
    if not len(data.way_ids):
        raise FormatError("holds no building: nothing to upload")
    relation_ids = np.array([relation.id for relation in data.relations], np.int64)
    for kind, ids in zip(_KINDS, (data.node_ids, data.way_ids, relation_ids), strict=True):
        twice = np.flatnonzero(np.diff(ids) == 0)
        if len(twice):
            raise FormatError(f"{kind} {ids[twice[0]]} comes twice; ids must differ")
    _check_ways(data)
    _check_relations(data)
    _, first, counts = np.unique(data.lonlat_e7, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        node = data.node_ids[first[counts > 1][0]]
        raise FormatError(f"node {node} lies where another does; buildings share such nodes")


def _check_ways(data: OsmData) -> None:
    lengths = np.diff(data.way_offsets)
    bad = np.flatnonzero((lengths < 2) | (lengths > MAX_WAY_NODES))
    if len(bad):
        raise FormatError(
            f"way {data.way_ids[bad[0]]}: must have 2 to {MAX_WAY_NODES:,} nodes, "
            f"got {lengths[bad[0]]:,}"
        )
    absent = data.way_nodes[~np.isin(data.way_nodes, data.node_ids)]
    if len(absent):
        raise FormatError(f"node {absent[0]} is in a way but not in the file: it is not complete")
    alone = data.node_ids[~np.isin(data.node_ids, data.way_nodes)]
    if len(alone):
        raise FormatError(f"node {alone[0]} is in no way; buildings are ways and relations")


def _check_relations(data: OsmData) -> None:
    known = set(data.way_ids.tolist())
    used = {member.way_id for relation in data.relations for member in relation.members}
    if used - known:
        raise FormatError(f"way {max(used - known)} is a member but not in the file")
    for way, tags in zip(data.way_ids.tolist(), data.way_tags, strict=True):
        if not tags and way not in used:
            raise FormatError(f"way {way} has no tags and is in no relation: it says nothing")
    for relation in data.relations:
        if not relation.members or relation.tags.get("type") != "multipolygon":
            raise FormatError(f"relation {relation.id}: must be a multipolygon with members")
