"""Building objects: shared nodes, closed ways, multipolygons, and the shapes they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files_support import YES, house, objects, outlines

from geoseg.osm.elements import MAX_WAY_NODES, OsmData
from geoseg.osm.objects.build import build, node_keys
from geoseg.osm.objects.outlines import NO_OUTLINES, outlines_of


def assembled(data: OsmData) -> dict[int, shapely.Geometry]:
    """Return each footprint's shape, put together as a map renderer does."""
    at = dict(zip(data.node_ids.tolist(), data.lonlat_e7.tolist(), strict=True))
    lines = [
        shapely.LineString([at[i] for i in data.nodes_of(k).tolist()])
        for k in range(len(data.way_ids))
    ]
    shapes = {}
    for k, line in enumerate(lines):
        if data.way_tags[k]:
            shapes[int(data.sources[k])] = shapely.Polygon(line)
    for k, relation in enumerate(data.relations):
        parts = {"outer": [], "inner": []}
        for member in relation.members:
            parts[member.role].append(lines[-1 - member.way_id])
        outer, inner = (shapely.polygonize(parts[role]) for role in ("outer", "inner"))
        shape = shapely.difference(shapely.union_all(outer), shapely.union_all(inner))
        shapes[int(data.sources[len(lines) + k])] = shape
    return shapes


def circle(n: int, radius: float = 300_000.0) -> shapely.Polygon:
    angle = np.arange(n) / n * 2 * np.pi
    ring = np.rint(radius * np.column_stack([np.cos(angle), np.sin(angle)]))
    return shapely.Polygon(ring)


def test_a_terrace_of_two_and_a_courtyard_share_their_corners():
    yard = shapely.Polygon(house(0, 20, 30, 30).exterior, [house(10, 30).exterior])
    data = objects([house(0, 0), house(10, 0), yard])
    assert len(data.node_ids) == 14
    assert [len(data.nodes_of(k)) for k in range(4)] == [5] * 4
    (relation,) = data.relations
    assert [member.role for member in relation.members] == ["outer", "inner"]
    assert relation.tags == {"building": "yes", "type": "multipolygon"}
    assert data.way_tags == (YES, YES, {}, {})
    assert data.sources.tolist() == [0, 1, 2, 2, 2]
    assert data.n_elements == 14 + 4 + 1


def test_a_footprint_of_two_parts_is_one_relation():
    data = objects([shapely.MultiPolygon([house(0, 0), house(50, 0)])])
    (relation,) = data.relations
    assert [member.role for member in relation.members] == ["outer", "outer"]


def test_a_house_that_fills_its_courtyard_is_the_courtyards_ring():
    filled = house(10, 10)
    yard = shapely.Polygon(house(0, 0, 30, 30).exterior, [filled.exterior])
    for shapes in ([yard, filled], [filled, yard]):
        data = objects(shapes)
        assert sorted(map(bool, data.way_tags)) == [False, True]
        (relation,) = data.relations
        inner = next(m.way_id for m in relation.members if m.role == "inner")
        assert data.way_tags[data.way_ids.tolist().index(inner)] == YES
        found = assembled(data)
        flat = outlines(shapes)
        for polygon, row in zip(flat.polygons(), flat.polygon_row.tolist(), strict=True):
            assert found[row].equals(polygon)


def test_a_courtyard_in_a_courtyard_shares_its_ring():
    outer = shapely.Polygon(house(0, 0, 30, 30).exterior, [house(5, 5, 20, 20).exterior])
    inner = shapely.Polygon(house(5, 5, 20, 20).exterior, [house(10, 10).exterior])
    data = objects([outer, inner])
    assert len(data.way_ids) == 3
    first, second = data.relations
    assert first.members[1].way_id == second.members[0].way_id
    assert (first.members[1].role, second.members[0].role) == ("inner", "outer")


@pytest.mark.parametrize("n", [4, 1998, 1999, 2000, 2001, 3998, 3999, 10_000])
def test_no_way_is_too_long_and_nothing_is_lost(n):
    ring = circle(n)
    data = build(outlines_of(np.array([ring]), np.array([0])), [YES])
    sizes = np.diff(data.way_offsets)
    assert sizes.max() <= MAX_WAY_NODES
    assert sizes.min() > 1
    assert bool(data.relations) == (n + 1 > MAX_WAY_NODES)
    assert assembled(data)[0].equals(ring)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)), max_size=12))
def test_shapes_come_back_whatever_they_share(cells):
    shapes = []
    for x, y, kind in cells:
        body = house(10 * x, 8 * y)
        hole = house(10 * x + 3, 8 * y + 3, 2, 2)
        shapes.append([body, shapely.Polygon(body.exterior, [hole.exterior])][kind > 0])
    flat = outlines(shapes)
    data = build(flat, [YES] * len(shapes))
    found = assembled(data)
    for polygon, row in zip(flat.polygons(), flat.polygon_row.tolist(), strict=True):
        assert found[row].equals(polygon)
    assert len(np.unique(node_keys(data.lonlat_e7))) == len(data.node_ids)


def test_ids_descend_and_nodes_stand_in_order_of_appearance():
    data = objects([house(0, 0), house(10, 0), house(50, 50)])
    for ids in (data.node_ids, data.way_ids):
        assert ids.tolist() == list(range(-1, -1 - len(ids), -1))
    first_seen = list(dict.fromkeys(data.way_nodes.tolist()))
    assert first_seen == data.node_ids.tolist()


def test_nothing_gives_no_objects():
    assert build(NO_OUTLINES, []).n_elements == 0


def test_places_have_numbers_of_their_own():
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)]) * (1_800_000_000, 900_000_000)
    keys = node_keys(corners)
    assert (keys >= 0).all()
    assert len(np.unique(keys)) == 5


def test_a_row_without_outlines_is_no_object():
    data = objects([house(0, 0), shapely.Point(0, 0), house(50, 0)])
    assert data.sources.tolist() == [0, 2]
