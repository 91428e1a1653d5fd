"""Overpass JSON: what `out geom`, or `out body` with the nodes, answers.

Frame: WGS84 degrees. Held in memory as a whole, as an answer of Overpass is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import shapely

from geoseg.errors import FormatError
from geoseg.osm.mapped.assemble import Membership
from geoseg.osm.mapped.extract import relations_to_mapped, ways_to_mapped
from geoseg.osm.mapped.layers import KINDS, Kind, Mapped, encloses, kind_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.osm.mapped.near import Near

    LonLat = tuple[float, float]


class _Point(msgspec.Struct, frozen=True):
    lat: float
    lon: float


class _Member(msgspec.Struct, frozen=True):
    type: str
    ref: int
    role: str = ""
    geometry: list[_Point | None] = []


class _Element(msgspec.Struct, frozen=True):
    type: str
    id: int
    lat: float | None = None
    lon: float | None = None
    nodes: list[int] = []
    geometry: list[_Point | None] = []
    members: list[_Member] = []
    tags: dict[str, str] = {}


class _Answer(msgspec.Struct, frozen=True):
    elements: list[_Element]
    remark: str = ""


def read_overpass(path: Path, near: Near, *, kinds: Collection[Kind]) -> Mapped:
    """Read what is near from an answer of Overpass in JSON.

    Args:
        path: The answer.
        near: What is read for.
        kinds: What is read.

    Returns:
        Ways in the file's order, then relations.

    Raises:
        FormatError: It is no such answer, was cut short by the server, or tells no places.
    """
    try:
        answer = msgspec.json.decode(path.read_bytes(), type=_Answer)
    except msgspec.MsgspecError as error:
        raise FormatError(f"{path} is no answer of Overpass in JSON: {error}") from error
    if "error" in answer.remark:
        reason = " ".join(answer.remark.split())[:160]
        raise FormatError(f"{path} is not a whole answer, the server says: {reason}; ask again")
    nodes = {
        e.id: (e.lon, e.lat)
        for e in answer.elements
        if e.type == "node" and e.lon is not None and e.lat is not None
    }
    ways = {e.id: e for e in answer.elements if e.type == "way"}
    lines = _lines(dict(_courses(answer.elements, nodes)))
    if ways and not lines:
        raise FormatError(
            f"{path} says of no way where it lies: ask with 'out geom;' or with the nodes"
        )
    relations = _relations(answer.elements, kinds)
    return Mapped.concat(
        [_tagged(ways, lines, near, kinds), relations_to_mapped(relations, lines, near)]
    )


def _courses(
    elements: Sequence[_Element], nodes: Mapping[int, LonLat]
) -> Iterator[tuple[int, list[LonLat]]]:
    """Yield where ways run, by id: members of relations first, ways themselves after."""
    for element in elements:
        for member in element.members:
            if member.type == "way":
                yield member.ref, _points(member.geometry)
    for element in elements:
        if element.type == "way":
            known = _points(element.geometry)
            yield element.id, known or [nodes[n] for n in element.nodes if n in nodes]


def _points(geometry: Sequence[_Point | None]) -> list[LonLat]:
    return [(point.lon, point.lat) for point in geometry if point is not None]


def _lines(courses: Mapping[int, list[LonLat]]) -> dict[int, Any]:
    known = {way: points for way, points in courses.items() if len(points) > 1}
    if not known:
        return {}
    counts = [len(points) for points in known.values()]
    flat = np.array([point for points in known.values() for point in points], np.float64)
    lines = shapely.linestrings(flat, indices=np.repeat(np.arange(len(known)), counts))
    return dict(zip(known, lines, strict=True))


def _tagged(
    ways: Mapping[int, _Element], lines: Mapping[int, Any], near: Near, kinds: Collection[Kind]
) -> Mapped:
    found: list[tuple[int, int, bool]] = []
    for way_id, way in ways.items():
        kind = kind_of(way.tags.get, kinds)
        if kind is None or way_id not in lines:
            continue
        areal = _is_closed(way, lines[way_id]) and encloses(way.tags.get, kind)
        if areal or kind != "building":
            found.append((way_id, KINDS.index(kind), areal))
    ids, codes, areal_flags = (
        np.array(column) for column in (zip(*found, strict=True) if found else ([], [], []))
    )
    shapes: NDArray[Any] = np.empty(len(found), object)
    shapes[:] = [_closed(lines[i]) if is_area else lines[i] for i, _, is_area in found]
    return ways_to_mapped(
        ids.astype(np.int64), codes.astype(np.int8), areal_flags.astype(np.bool_), shapes, near
    )


def _is_closed(way: _Element, line: Any) -> bool:
    return way.nodes[0] == way.nodes[-1] if way.nodes else bool(shapely.is_closed(line))


def _closed(line: Any) -> Any:
    """Return the line closed, where the node it begins and ends with was not in the answer."""
    points = shapely.get_coordinates(line)
    return line if shapely.is_closed(line) else shapely.LineString([*points, points[0]])


def _relations(elements: Sequence[_Element], kinds: Collection[Kind]) -> list[Membership]:
    found = []
    for element in elements:
        if element.type == "relation" and element.tags.get("type") == "multipolygon":
            kind = kind_of(element.tags.get, kinds)
            if kind in {"building", "water"}:
                roles = {m.ref: m.role for m in element.members if m.type == "way"}
                found.append(Membership(id=element.id, kind=kind, roles=roles))
    return found
