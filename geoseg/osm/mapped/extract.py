"""OSM files read through osmium: one pass for nodes and tagged ways, others for relations only.

Frame: WGS84 degrees. Memory holds what is near the footprints. Where every node lies is kept in a
file where that is too much for memory.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import osmium
import shapely
from osmium.osm import NODE, RELATION, WAY

from geoseg.errors import FormatError
from geoseg.osm.mapped.assemble import Membership, assemble, rings_to_polygons
from geoseg.osm.mapped.layers import KEYS, KINDS, Kind, Mapped, encloses, kind_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.osm.mapped.near import Near

LARGE_BYTES: Final = 300_000_000
"""Larger files have places of nodes on disk: a .pbf of this size holds about 40 million nodes."""
_FORMATS: Final = ("osm", "pbf", "o5m", "opl", "gz", "bz2")
_BATCH: Final = 20_000
_AREAS: Final[frozenset[Kind]] = frozenset({"building", "water"})


def read_extract(
    path: Path, near: Near, *, kinds: Collection[Kind], scratch: Path | None = None
) -> Mapped:
    """Read what is near from an .osm or .osm.pbf file, compressed or not.

    Args:
        path: The file. Its closed ways and multipolygon relations become polygons.
        near: What is read for.
        kinds: What is read.
        scratch: Folder with room for 16 bytes a node, used for files above `LARGE_BYTES`; by
            default the system's temporary folder.

    Returns:
        Ways in the file's order, then relations. Where an extract has cut nodes away, a way is
        made of those that are left.

    Raises:
        FormatError: It is torn, no OSM file, or holds changes or history.
    """
    with _as_format_error(path), _places(path, scratch) as places:
        relations = _relations(path, _AREAS & set(kinds))
        ways = _Ways(near=near)
        only_ways = osmium.filter.EntityFilter(WAY)
        tagged = _objects(path, NODE | WAY, places.handler, only_ways, _with_keys(kinds))
        for way in tagged:
            kind = kind_of(way.tags.get, kinds)
            if kind is None:
                continue
            areal = way.is_closed() and encloses(way.tags.get, kind)
            if areal or kind != "building":
                ways.add(way.id, kind, places.line(way), areal=areal)
        return Mapped.concat([*ways.finish(), _assembled(relations, places, near)])


def ways_to_mapped(
    ids: NDArray[np.int64],
    kinds: NDArray[np.int8],
    areal: NDArray[np.bool_],
    lines: NDArray[Any],
    near: Near,
) -> Mapped:
    """Return the ways that are near, areas as polygons.

    Args:
        ids: (N,) ids of ways.
        kinds: (N,) positions in `KINDS`.
        areal: (N,) whether each stands for what it encloses.
        lines: (N,) lines in longitude and latitude; None where there is none.
        near: What is read for.
    """
    kept = near.touches(shapely.bounds(lines))
    ids, kinds, shapes = ids[kept], kinds[kept], lines[kept]
    areal = areal[kept]
    shapes[areal] = rings_to_polygons(shapes[areal])
    there = ~shapely.is_missing(shapes)
    names = [f"way/{i}" for i in ids[there].tolist()]
    return Mapped.of_columns(names, kinds[there], shapes[there])


def relations_to_mapped(relations: list[Membership], lines: dict[int, Any], near: Near) -> Mapped:
    """Return the multipolygons that are near, made of their members' lines by id."""
    shapes = assemble(relations, lines)
    kept = np.flatnonzero(near.touches(shapely.bounds(shapes))).tolist()
    return Mapped.of_columns(
        [f"relation/{relations[i].id}" for i in kept],
        [KINDS.index(relations[i].kind) for i in kept],
        shapes[kept],
    )


@dataclass(slots=True, kw_only=True)
class _Places:
    """Where the nodes of a file lie."""

    path: Path
    handler: osmium.NodeLocationsForWays
    """Filled by the pass that reads nodes; gives them to ways."""
    wkb: osmium.geom.WKBFactory = field(default_factory=osmium.geom.WKBFactory)
    _new: tuple[NDArray[Any], NDArray[Any]] | None = None

    def line(self, way: Any) -> str | None:
        """Return a way's line as hexadecimal WKB; None where fewer than two places are known."""
        try:
            return str(self.wkb.create_linestring(way))
        except (osmium.InvalidLocationError, RuntimeError):
            points = [place for node in way.nodes if (place := self._place(node)) is not None]
        if way.is_closed() and points and points[0] != points[-1]:
            points.append(points[0])  # the node it begins and ends with was cut away
        return str(shapely.to_wkb(shapely.LineString(points), hex=True)) if points[1:] else None

    def _place(self, node: Any) -> tuple[float, float] | None:
        if node.location.valid():
            return node.location.lon, node.location.lat
        if node.ref >= 0:
            return None
        if self._new is None:
            self._new = _new_nodes(self.path)
        ids, lonlat = self._new
        at = int(np.searchsorted(ids, node.ref))
        return tuple(lonlat[at].tolist()) if at < len(ids) and ids[at] == node.ref else None


@dataclass(slots=True, kw_only=True)
class _Ways:
    """Ways on their way to columns, a batch at a time."""

    near: Near
    ids: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    areal: list[bool] = field(default_factory=list)
    wkb: list[str | None] = field(default_factory=list)
    parts: list[Mapped] = field(default_factory=list)

    def add(self, way_id: int, kind: Kind, wkb: str | None, *, areal: bool) -> None:
        """Take a way."""
        self.ids.append(way_id)
        self.kinds.append(KINDS.index(kind))
        self.areal.append(areal)
        self.wkb.append(wkb)
        if len(self.ids) == _BATCH:
            self._flush()

    def finish(self) -> list[Mapped]:
        """Return what is near."""
        self._flush()
        return self.parts

    def _flush(self) -> None:
        self.parts.append(
            ways_to_mapped(
                np.array(self.ids, np.int64),
                np.array(self.kinds, np.int8),
                np.array(self.areal, np.bool_),
                _lines(self.wkb),
                self.near,
            )
        )
        for column in (self.ids, self.kinds, self.areal, self.wkb):
            column.clear()


def _objects(path: Path, entities: Any, *handlers: Any) -> Iterator[Any]:
    """Yield what passes osmium's filters; each object lives until the next is asked for.

    The generator keeps the handlers alive, which osmium's own iterator does not.
    """
    packed = [part for part in path.name.lower().split(".")[1:] if part in _FORMATS]
    file = osmium.io.File(str(path), ".".join(packed))  # by itself it knows lower case only
    with osmium.io.Reader(file, entities) as reader:
        yield from osmium.OsmFileIterator(reader, *handlers)


def _with_keys(kinds: Collection[Kind]) -> osmium.filter.KeyFilter:
    return osmium.filter.KeyFilter(*(key for kind in kinds for key in KEYS[kind]))


def _relations(path: Path, kinds: Collection[Kind]) -> list[Membership]:
    if not kinds:
        return []
    found = []
    for relation in _objects(path, RELATION, _with_keys(kinds)):
        kind = kind_of(relation.tags.get, kinds)
        if kind is not None and relation.tags.get("type") == "multipolygon":
            members = {m.ref: m.role for m in relation.members if m.type == "w"}
            found.append(Membership(id=relation.id, kind=kind, roles=members))
    return found


def _assembled(relations: list[Membership], places: _Places, near: Near) -> Mapped:
    """Make the relations that are near; where members lie is looked up first, lines after."""
    bounds: dict[int, NDArray[np.float64]] = {}
    for ids, lines in _member_lines(relations, places):
        bounds.update(zip(ids, shapely.bounds(lines), strict=True))
    touched = near.touches(np.array([_union(r, bounds) for r in relations]).reshape(-1, 4))
    chosen = [relation for relation, is_near in zip(relations, touched, strict=True) if is_near]
    known: dict[int, Any] = {}
    for ids, lines in _member_lines(chosen, places):
        known.update((i, line) for i, line in zip(ids, lines, strict=True) if line is not None)
    return relations_to_mapped(chosen, known, near)


def _union(relation: Membership, bounds: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    found = np.array([bounds[way] for way in relation.roles if way in bounds]).reshape(-1, 4)
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found):
        return np.full(4, np.nan)
    return np.concatenate([found[:, :2].min(axis=0), found[:, 2:].max(axis=0)])


def _member_lines(
    relations: list[Membership], places: _Places
) -> Iterator[tuple[list[int], NDArray[Any]]]:
    """Yield ids and lines of the ways that are members, in batches."""
    if not relations:
        return
    wanted = {way for relation in relations for way in relation.roles}
    by_id = min(wanted, default=0) >= 0  # osmium's sets hold no new objects, whose ids are negative
    chosen = osmium.filter.IdFilter(wanted) if by_id else osmium.filter.EntityFilter(WAY)
    ids: list[int] = []
    wkb: list[str | None] = []
    for way in _objects(places.path, WAY, places.handler, chosen):
        if way.id in wanted:
            ids.append(way.id)
            wkb.append(places.line(way))
        if len(ids) == _BATCH:
            yield ids, _lines(wkb)
            ids, wkb = [], []
    yield ids, _lines(wkb)


def _lines(wkb: list[str | None]) -> NDArray[Any]:
    return np.asarray(shapely.from_wkb(np.array(wkb, object)), object)


def _new_nodes(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ids and places of nodes that no server knows: osmium keeps no places of those."""
    kind = np.dtype([("id", np.int64), ("lonlat", np.float64, 2)])
    new = (node for node in _objects(path, NODE) if node.id < 0 and node.location.valid())
    found = np.fromiter(((node.id, (node.lon, node.lat)) for node in new), kind)
    found.sort(order="id")
    return found["id"], found["lonlat"]


@contextlib.contextmanager
def _places(path: Path, scratch: Path | None) -> Iterator[_Places]:
    with contextlib.ExitStack() as stack:
        store = "flex_mem"
        if path.stat().st_size > LARGE_BYTES:
            folder = tempfile.TemporaryDirectory(prefix=".geoseg-", dir=scratch)
            store = f"sparse_file_array,{stack.enter_context(folder)}/nodes"
        handler = osmium.NodeLocationsForWays(osmium.index.create_map(store))
        handler.ignore_errors()
        yield _Places(path=path, handler=handler)


@contextlib.contextmanager
def _as_format_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, osmium.InvalidLocationError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} is torn or no OSM file: {reason}") from error
