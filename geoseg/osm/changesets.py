"""Split OSM objects into changesets: small, compact, and each complete in itself.

Frame: WGS84, whole 1e-7 degrees; lengths in kilometres on the ground. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from geoseg.components import components
from geoseg.errors import ConfigError
from geoseg.grid import METRES_PER_DEGREE
from geoseg.osm.elements import DEGREE_E7, OsmData

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ELEMENTS: Final = 5000
"""Most elements of a changeset by default: half of what the live server takes."""

MAX_BBOX_KM: Final = 50.0
"""Longest side of a changeset's bounding box by default: an area that one person can look at."""

FILL: Final = 0.95
"""How full changesets are planned: what hangs together does not divide evenly."""

KM_PER_DEGREE: Final = METRES_PER_DEGREE / 1000


def split_changesets(
    data: OsmData, *, max_elements: int = MAX_ELEMENTS, max_bbox_km: float = MAX_BBOX_KM
) -> list[OsmData]:
    """Split objects into changesets that can be uploaded in any order.

    What hangs together stays together: a way with its nodes, a relation with its ways, buildings
    that share nodes. Only such a group that is too large by itself gives a changeset beyond the
    limits. The area is halved across its longer side until everything fits, so changesets are
    compact and few; the same objects give the same changesets.

    Args:
        data: What is to be created.
        max_elements: Most nodes, ways and relations of a changeset together.
        max_bbox_km: Longest side of a changeset's bounding box, km.

    Returns:
        Changesets with the ids of `data`, so no id comes twice; none where `data` is empty.

    Raises:
        ConfigError: A limit is not positive.

    Example:
        >>> import numpy as np
        >>> from geoseg.osm.elements import OsmData
        >>> corners = np.array([[0, 0], [900, 0], [900, 900], [0, 900]])
        >>> two = OsmData(
        ...     node_ids=-np.arange(1, 9),
        ...     lonlat_e7=np.concatenate([corners, corners + 50_000]),
        ...     way_ids=np.array([-1, -2]),
        ...     way_offsets=np.array([0, 5, 10]),
        ...     way_nodes=-np.array([1, 2, 3, 4, 1, 5, 6, 7, 8, 5]),
        ...     way_tags=({"building": "yes"},) * 2,
        ...     sources=np.array([0, 1]),
        ... )
        >>> [part.way_ids.tolist() for part in split_changesets(two, max_elements=5)]
        [[-1], [-2]]
    """
    if max_elements < 1:
        raise ConfigError(f"max_elements must be at least 1, got {max_elements}")
    if not max_bbox_km > 0:
        raise ConfigError(f"max_bbox_km must be above 0, got {max_bbox_km}")
    if not len(data.node_ids):
        return []
    unit = _units(data)
    part = _parts(_describe(data, unit), max_elements, max_bbox_km)[unit]
    return _select(data, part)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Units:
    """Groups of objects that must not be parted."""

    weight: NDArray[np.int64]
    """(U,) elements of each."""
    low: NDArray[np.int64]
    """(U, 2) least longitude and latitude, 1e-7 degrees."""
    high: NDArray[np.int64]
    """(U, 2) greatest longitude and latitude, 1e-7 degrees."""


def _units(data: OsmData) -> NDArray[np.int64]:
    """Return the group of every element: nodes, then ways, then relations."""
    n, w = len(data.node_ids), len(data.way_ids)
    ways = np.repeat(np.arange(w), np.diff(data.way_offsets))
    nodes = positions(data.node_ids, data.way_nodes)
    counts = [len(relation.members) for relation in data.relations]
    relations = np.repeat(np.arange(len(counts)), counts)
    members = [member.way_id for relation in data.relations for member in relation.members]
    parts = positions(data.way_ids, np.array(members, np.int64))
    parts_at, whole_at = [nodes, n + parts], [n + ways, n + w + relations]
    return components(data.n_elements, np.concatenate(parts_at), np.concatenate(whole_at))


def positions(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where ids stand in a strictly descending array that holds all of them."""
    found = np.minimum(np.searchsorted(-ids, -wanted), max(0, len(ids) - 1))
    assert np.array_equal(ids[found], wanted), "what is referred to is part of the data"
    return np.asarray(found, np.int64)


def _describe(data: OsmData, unit: NDArray[np.int64]) -> _Units:
    of_node = unit[: len(data.node_ids)]
    order = np.argsort(of_node, kind="stable")
    starts = np.searchsorted(of_node[order], np.arange(int(unit.max()) + 1))
    lonlat = data.lonlat_e7[order]
    return _Units(
        weight=np.bincount(unit),
        low=np.minimum.reduceat(lonlat, starts),
        high=np.maximum.reduceat(lonlat, starts),
    )


def _parts(units: _Units, max_elements: int, max_bbox_km: float) -> NDArray[np.int64]:
    """Return the part of every unit, numbered along the halving."""
    part = np.zeros(len(units.weight), np.int64)
    waiting = [np.arange(len(part))]
    count = 0
    while waiting:
        members = waiting.pop()
        halves = _halves(units, members, max_elements, max_bbox_km)
        if halves is None:
            part[members] = count
            count += 1
        else:
            waiting += halves[::-1]
    return part


def _halves(
    units: _Units, members: NDArray[np.int64], max_elements: int, max_bbox_km: float
) -> list[NDArray[np.int64]] | None:
    """Cut units in two across their longer side; None where they fit, or are only one."""
    low, high = units.low[members], units.high[members]
    sides_km = _sides_km(low.min(axis=0), high.max(axis=0))
    weight = units.weight[members]
    total = int(weight.sum())
    if len(members) == 1 or (total <= max_elements and sides_km.max() <= max_bbox_km):
        return None
    axis = int(np.argmax(sides_km))
    middle = (low + high)[:, axis]
    order = np.lexsort((members, middle))
    if total > max_elements:
        # A share of whole changesets, so that the last ones are not left nearly empty.
        n_parts = int(np.ceil(total / (FILL * max_elements)))
        share = total * (n_parts // 2) / n_parts
        cut = int(np.searchsorted(np.cumsum(weight[order]), share, side="right"))
    else:
        centre = (int(middle.min()) + int(middle.max())) / 2
        cut = int(np.searchsorted(middle[order], centre, side="right"))
    cut = min(max(cut, 1), len(members) - 1)
    return [np.sort(members[order[:cut]]), np.sort(members[order[cut:]])]


def _sides_km(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return width and height of a box in 1e-7 degrees, the width where it is widest."""
    south, north = float(low[1]) / DEGREE_E7, float(high[1]) / DEGREE_E7
    nearest = 0.0 if south <= 0.0 <= north else min(abs(south), abs(north))
    scale = np.array([np.cos(np.radians(nearest)), 1.0])
    return np.asarray((high - low) / DEGREE_E7 * KM_PER_DEGREE * scale)


def _select(data: OsmData, part: NDArray[np.int64]) -> list[OsmData]:
    n, w = len(data.node_ids), len(data.way_ids)
    groups = (part[:n], part[n : n + w], part[n + w :])
    nodes, ways, relations = (_by_part(group, int(part.max()) + 1) for group in groups)
    return [_take(data, *chosen) for chosen in zip(nodes, ways, relations, strict=True)]


def _by_part(group: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    order = np.argsort(group, kind="stable")
    return np.split(order, np.searchsorted(group[order], np.arange(1, count)))


def _take(
    data: OsmData,
    nodes: NDArray[np.int64],
    ways: NDArray[np.int64],
    relations: NDArray[np.int64],
) -> OsmData:
    sizes = np.diff(data.way_offsets)[ways]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    places = np.arange(offsets[-1]) + np.repeat(data.way_offsets[ways] - offsets[:-1], sizes)
    sources = np.concatenate([ways, len(data.way_ids) + relations])
    return OsmData(
        node_ids=data.node_ids[nodes],
        lonlat_e7=data.lonlat_e7[nodes],
        way_ids=data.way_ids[ways],
        way_offsets=offsets,
        way_nodes=data.way_nodes[places],
        way_tags=tuple(data.way_tags[i] for i in ways.tolist()),
        relations=tuple(data.relations[i] for i in relations.tolist()),
        sources=data.sources[sources] if len(data.sources) else data.sources,
    )
