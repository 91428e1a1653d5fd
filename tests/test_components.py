"""Connected components against a flood fill."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geoseg.components import components

COUNT = 12
EDGES = st.lists(st.tuples(*[st.integers(0, COUNT - 1)] * 2), max_size=15)


def flooded(count: int, edges: list[tuple[int, int]]) -> list[int]:
    found = [-1] * count
    for number, start in enumerate(range(count)):
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if found[node] < 0:
                found[node] = number
                waiting += [b for a, b in edges if a == node] + [a for a, b in edges if b == node]
    order = sorted(set(found))
    return [order.index(number) for number in found]


@given(edges=EDGES)
def test_components_are_numbered_by_their_first_node(edges: list[tuple[int, int]]) -> None:
    one, other = [a for a, _ in edges], [b for _, b in edges]
    assert components(COUNT, one, other).tolist() == flooded(COUNT, edges)


def test_nothing_has_no_components() -> None:
    assert components(0, [], []).tolist() == []
