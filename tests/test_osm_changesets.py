"""Changesets: complete, within their limits, compact, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import ConfigError
from geoseg.osm.changesets import KM_PER_DEGREE, split_changesets
from geoseg.osm.elements import DEGREE_E7, Member, OsmData, Relation

TAGS = {"building": "yes"}


def make_terraces(
    rows: int, cols: int, *, joined: int = 1, step_e7: int = 20_000, relations: int = 0
) -> OsmData:
    """Build rows x cols squares, `joined` neighbours of a row sharing their walls.

    The first `relations` of them are two squares held by a multipolygon each.
    """
    keys: dict[tuple[int, int], int] = {}
    ways: list[list[int]] = []
    for row in range(rows):
        for col in range(cols):
            x = (col // joined) * step_e7 * joined + (col % joined) * 1000
            ring = [(x, row * step_e7), (x + 1000, row * step_e7)]
            ring += [(px, py + 1000) for px, py in ring[::-1]]
            ids = [keys.setdefault(key, -1 - len(keys)) for key in ring]
            ways.append([*ids, ids[0]])
    held = tuple(
        Relation(
            id=-1 - i,
            members=(
                Member(way_id=-1 - 2 * i, role="outer"),
                Member(way_id=-2 - 2 * i, role="outer"),
            ),
            tags={"type": "multipolygon", **TAGS},
        )
        for i in range(relations)
    )
    return OsmData(
        node_ids=-np.arange(1, len(keys) + 1),
        lonlat_e7=np.array(list(keys)),
        way_ids=-np.arange(1, len(ways) + 1),
        way_offsets=np.arange(len(ways) + 1) * 5,
        way_nodes=np.concatenate(ways),
        way_tags=tuple({} if i < 2 * relations else TAGS for i in range(len(ways))),
        relations=held,
        sources=np.arange(len(ways) + relations),
    )


def contents(data: OsmData) -> dict[str, object]:
    """Return every object of some data by kind and id, in plain values."""
    nodes = {
        f"n{i}": tuple(at)
        for i, at in zip(data.node_ids.tolist(), data.lonlat_e7.tolist(), strict=True)
    }
    ways = {
        f"w{name}": (data.nodes_of(i).tolist(), data.way_tags[i], int(data.sources[i]))
        for i, name in enumerate(data.way_ids.tolist())
    }
    after = len(data.way_ids)
    held = {f"r{r.id}": (r, int(data.sources[after + i])) for i, r in enumerate(data.relations)}
    return {**nodes, **ways, **held}


def assert_complete(data: OsmData) -> None:
    assert set(data.way_nodes.tolist()) <= set(data.node_ids.tolist())
    ways = set(data.way_ids.tolist())
    assert {m.way_id for r in data.relations for m in r.members} <= ways
    for ids in (data.node_ids, data.way_ids, np.array([r.id for r in data.relations])):
        assert (np.diff(ids) < 0).all()


@settings(max_examples=50)
@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    joined=st.integers(1, 4),
    relations=st.integers(0, 4),
    most=st.integers(1, 60),
)
def test_parts_are_complete_and_hold_everything_once(rows, cols, joined, relations, most):
    relations = min(relations, rows * cols // 2)
    data = make_terraces(rows, cols, joined=joined, relations=relations)
    parts = split_changesets(data, max_elements=most)
    for part in parts:
        assert_complete(part)
    together = [contents(part) for part in parts]
    assert sum(map(len, together)) == data.n_elements
    assert {key: value for part in together for key, value in part.items()} == contents(data)


def test_changesets_are_within_the_limit_and_few():
    data = make_terraces(60, 60)
    parts = split_changesets(data, max_elements=700)
    assert max(part.n_elements for part in parts) <= 700
    assert len(parts) <= 1.15 * data.n_elements / 700


def test_changesets_are_compact():
    data = make_terraces(64, 64)
    for part in split_changesets(data, max_elements=5 * 64):
        width, height = np.ptp(part.lonlat_e7, axis=0)
        assert max(width, height) <= 2.5 * min(width, height)


def test_bounding_boxes_are_within_the_limit():
    data = make_terraces(30, 30, step_e7=500_000)
    parts = split_changesets(data, max_bbox_km=25.0)
    for part in parts:
        width, height = np.ptp(part.lonlat_e7, axis=0) / DEGREE_E7 * KM_PER_DEGREE
        assert max(width, height) <= 25.0
    assert len(parts) <= 64


def test_both_sides_of_the_antimeridian_are_two_changesets():
    data = make_terraces(1, 2)
    at = data.lonlat_e7.copy()
    at[:4, 0] += 1_799_900_000
    at[4:, 0] -= 1_800_000_000
    moved = OsmData(**{name: getattr(data, name) for name in OsmData.__slots__} | {"lonlat_e7": at})
    assert [part.way_ids.tolist() for part in split_changesets(moved)] in (
        [[-1], [-2]],
        [[-2], [-1]],
    )


def test_a_terrace_larger_than_the_limit_stays_whole():
    data = make_terraces(2, 40, joined=40)
    parts = split_changesets(data, max_elements=50)
    assert [len(part.way_ids) for part in parts] == [40, 40]


def test_what_fits_is_one_changeset_with_the_same_objects():
    data = make_terraces(3, 3, relations=2)
    (part,) = split_changesets(data)
    assert contents(part) == contents(data)


def test_nothing_gives_no_changeset():
    data = make_terraces(1, 1)
    empty = OsmData(
        node_ids=data.node_ids[:0],
        lonlat_e7=data.lonlat_e7[:0],
        way_ids=data.way_ids[:0],
        way_offsets=data.way_offsets[:1],
        way_nodes=data.way_nodes[:0],
        way_tags=(),
    )
    assert split_changesets(empty) == []


@pytest.mark.parametrize(
    "limits", [{"max_elements": 0}, {"max_bbox_km": 0.0}, {"max_bbox_km": np.nan}]
)
def test_limits_must_be_positive(limits):
    with pytest.raises(ConfigError, match="must be"):
        split_changesets(make_terraces(1, 1), **limits)
