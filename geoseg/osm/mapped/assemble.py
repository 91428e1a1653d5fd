"""Lines of ways and lists of members become polygons, whatever file they were read from.

Frame: that of the lines. Existing data is as people left it: rings that cross themselves are
mended, members that an extract has cut away are done without. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geoseg.osm.mapped.layers import Kind

_POLYGONAL = (3, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A multipolygon relation as it is written."""

    id: int
    kind: Kind
    roles: dict[int, str]
    """Role of each member way by its id, in the relation's order."""


def rings_to_polygons(lines: NDArray[Any]) -> NDArray[Any]:
    """Return (N,) valid polygons or multipolygons of closed (N,) lines; None where none is left.

    Example:
        >>> rings_to_polygons(np.array([shapely.LineString([(0, 0), (2, 0), (2, 2), (0, 0)])]))
        array([<POLYGON ((0 0, 2 0, 2 2, 0 0))>], dtype=object)
    """
    polygons = np.full(len(lines), None, object)
    enough = np.flatnonzero(shapely.get_num_coordinates(lines) >= 4)
    coordinates, owner = shapely.get_coordinates(lines[enough], return_index=True)
    if len(enough):
        polygons[enough] = shapely.polygons(shapely.linearrings(coordinates, indices=owner))
    return areas_only(polygons)


def assemble(relations: Sequence[Membership], lines: Mapping[int, Any]) -> NDArray[Any]:
    """Return the polygons of multipolygon relations.

    Inner rings are cut from outer ones, and an outer ring inside an inner one is an island. Where
    members are missing, rings that do not close are done without, and nothing but a known outer
    ring makes a building.

    Args:
        relations: (N,) what belongs together; whatever is not called `inner` is an outer ring.
        lines: Lines of ways by id, in one frame; missing ones were cut away.

    Returns:
        (N,) polygons or multipolygons, valid; None where no ring closes.
    """
    outer = _enclosed(relations, lines, inner=False)
    inner = _enclosed(relations, lines, inner=True)
    complete = np.array([all(way in lines for way in r.roles) for r in relations], np.bool_)
    shapes = outer.copy()
    for cut, operation in (
        (complete, shapely.symmetric_difference),
        (~complete, shapely.difference),
    ):
        both = np.flatnonzero(cut & ~shapely.is_missing(outer) & ~shapely.is_missing(inner))
        shapes[both] = operation(outer[both], inner[both])
    return areas_only(shapes)


def areas_only(shapes: NDArray[Any]) -> NDArray[Any]:
    """Return valid polygons and multipolygons; None in place of what has no area."""
    shapes = mended(shapes)
    areal = np.isin(shapely.get_type_id(shapes), _POLYGONAL) & ~shapely.is_empty(shapes)
    shapes[~areal] = None
    return shapes


def mended(shapes: NDArray[Any]) -> NDArray[Any]:
    """Return (N,) valid shapes: what crosses itself becomes what it encloses; None stays."""
    invalid = np.flatnonzero(~shapely.is_valid(shapes))
    valid = np.array(shapes, object)
    valid[invalid] = shapely.make_valid(valid[invalid], method="structure", keep_collapsed=False)
    return valid


def _enclosed(
    relations: Sequence[Membership], lines: Mapping[int, Any], *, inner: bool
) -> NDArray[Any]:
    """Return (N,) what the rings of one role enclose, valid; None where there is nothing."""
    parts: list[Any] = []
    owner: list[int] = []
    for i, relation in enumerate(relations):
        members = relation.roles.items()
        found = [lines.get(way) for way, role in members if (role == "inner") == inner]
        parts += [line for line in found if line is not None]
        owner += [i] * (len(parts) - len(owner))
    result = np.full(len(relations), None, object)
    if parts:
        rows, group = np.unique(owner, return_inverse=True)
        drawn = shapely.multilinestrings(parts, indices=group)
        result[rows] = shapely.build_area(shapely.node(drawn))
    return areas_only(result)
