"""Build: outlines become OSM objects: shared nodes, closed ways, multipolygons.

Frame: WGS84, whole 1e-7 degrees. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from geoseg.osm.elements import DEGREE_E7, MAX_WAY_NODES, Member, OsmData, Relation
from geoseg.osm.objects.outlines import ranges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.osm.elements import Tags
    from geoseg.osm.objects.outlines import Outlines

STEPS: Final = MAX_WAY_NODES - 1
"""Most edges of a way."""

MULTIPOLYGON: Final = {"type": "multipolygon"}
NO_TAGS: Final[Tags] = {}


def build(outlines: Outlines, tags: Sequence[Tags]) -> OsmData:
    """Make the objects of footprints.

    A footprint of one ring is a closed way; one with holes, with several parts or with a ring too
    long for a way is a multipolygon whose ways have no tags. Vertices at one place are one node,
    and a house that fills a courtyard is the courtyard's ring too, as one way. Ids and order follow
    the outlines', so the same footprints give the same objects.

    Args:
        outlines: Rings of at least 3 vertices.
        tags: (N,) of every footprint that `outlines.polygon_row` may name.

    Example:
        >>> import shapely
        >>> from geoseg.osm.objects.outlines import outlines_of
        >>> pair = np.array([shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)])
        >>> data = build(outlines_of(pair, np.arange(2)), [{"building": "yes"}] * 2)
        >>> len(data.node_ids), len(data.way_ids)
        (6, 2)
    """
    node, lonlat_e7 = _nodes(outlines.lonlat_e7)
    pieces = _pieces(outlines.ring_sizes)
    row = outlines.polygon_row[outlines.ring_polygon[pieces.ring]]
    held = np.bincount(row, minlength=len(tags)) > 1
    same = _same_rings(outlines, node, pieces, ~held[row])
    made = np.flatnonzero(same == np.arange(len(same)))
    number = (np.cumsum(same == np.arange(len(same))) - 1)[same]
    offsets, vertices = _walk(outlines, pieces, made)
    relations = _relations(row, held, number, outlines.is_outer[pieces.ring], tags)
    return OsmData(
        node_ids=-1 - np.arange(len(lonlat_e7)),
        lonlat_e7=lonlat_e7,
        way_ids=-1 - np.arange(len(made)),
        way_offsets=offsets,
        way_nodes=-1 - node[vertices],
        way_tags=tuple(
            NO_TAGS if in_relation else tags[i]
            for i, in_relation in zip(row[made].tolist(), held[row[made]].tolist(), strict=True)
        ),
        relations=relations,
        sources=np.concatenate([row[made], np.flatnonzero(held)]).astype(np.int64),
    )


def node_keys(lonlat_e7: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (V,) one number for each place."""
    lon, lat = lonlat_e7[:, 0] + 180 * DEGREE_E7, lonlat_e7[:, 1] + 90 * DEGREE_E7
    return np.asarray((lon << 31) | lat)


def _nodes(lonlat_e7: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the node of each vertex and the nodes' places, in the order they first come in."""
    _, first, inverse = np.unique(node_keys(lonlat_e7), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse], lonlat_e7[first[order]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pieces:
    """What rings are cut into so that no way is too long; most rings are one piece."""

    ring: NDArray[np.int64]
    start: NDArray[np.int64]
    """First vertex, counted in the ring."""
    steps: NDArray[np.int64]
    """Edges."""


def _pieces(ring_sizes: NDArray[np.int64]) -> _Pieces:
    counts = -(-ring_sizes // STEPS)
    ring = np.repeat(np.arange(len(ring_sizes)), counts)
    start = ranges(np.zeros_like(counts), counts) * STEPS
    return _Pieces(ring=ring, start=start, steps=np.minimum(STEPS, ring_sizes[ring] - start))


def _walk(
    outlines: Outlines, pieces: _Pieces, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each piece's vertices begin, and the vertices, both ends included."""
    counts = pieces.steps[chosen] + 1
    ring = np.repeat(pieces.ring[chosen], counts)
    along = ranges(pieces.start[chosen], counts) % outlines.ring_sizes[ring]
    return np.concatenate([[0], np.cumsum(counts)]), outlines.ring_offsets[ring] + along


def _same_rings(
    outlines: Outlines, node: NDArray[np.int64], pieces: _Pieces, tagged: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return for each piece the one that is its way: another where a hole is filled exactly.

    Editors take two ways through the same nodes for a mistake.
    """
    same = np.arange(len(pieces.ring))
    whole = pieces.steps == outlines.ring_sizes[pieces.ring]
    holes = whole & ~outlines.is_outer[pieces.ring]
    if not holes.any():
        return same
    lowest = np.minimum.reduceat(node, outlines.ring_offsets[:-1])[pieces.ring]
    rings: dict[tuple[int, ...], list[int]] = {}
    for piece in np.flatnonzero(whole & np.isin(lowest, lowest[holes])).tolist():
        ring = pieces.ring[piece]
        span = slice(outlines.ring_offsets[ring], outlines.ring_offsets[ring + 1])
        rings.setdefault(_turned(node[span].tolist()), []).append(piece)
    for equal in rings.values():
        if any(holes[equal]):
            same[equal] = max(equal, key=lambda piece: (tagged[piece], -piece))
    return same


def _turned(ring: list[int]) -> tuple[int, ...]:
    """Return a ring from its lowest node on, towards the lower of that one's neighbours."""
    first = ring.index(min(ring))
    turned = ring[first:] + ring[:first]
    return tuple(turned if turned[1] < turned[-1] else [turned[0], *turned[:0:-1]])


def _relations(
    row: NDArray[np.int64],
    held: NDArray[np.bool_],
    number: NDArray[np.int64],
    is_outer: NDArray[np.bool_],
    tags: Sequence[Tags],
) -> tuple[Relation, ...]:
    members: dict[int, list[Member]] = {}
    for piece in np.flatnonzero(held[row]).tolist():
        role = "outer" if is_outer[piece] else "inner"
        member = Member(way_id=-1 - int(number[piece]), role=role)
        members.setdefault(int(row[piece]), []).append(member)
    return tuple(
        Relation(id=-1 - i, members=tuple(ways), tags={**tags[of], **MULTIPOLYGON})
        for i, (of, ways) in enumerate(members.items())
    )
