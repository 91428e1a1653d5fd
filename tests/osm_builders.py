"""Files of new buildings made by hand, and what a map must hold once they are there."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 1000  # 1e-7 degrees, about 11 m


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """An osmChange text with the buildings in it."""

    text: str
    buildings: list[tuple[Any, ...]]
    """As `FakeOsm.buildings()` tells them."""
    n_elements: int


def place(value: int) -> str:
    """Return 1e-7 degrees as a server writes them."""
    sign, value = "-" if value < 0 else "", abs(value)
    return f"{sign}{value // 10**7}.{value % 10**7:07d}"


def draw(*, terraces: int = 2, courtyards: int = 1, lon: int = 267_000_000) -> Drawn:
    """Draw terraces of two houses that share a wall, and courtyard blocks, in a row.

    Args:
        terraces: How many pairs of houses: 6 nodes and 2 ways each.
        courtyards: How many blocks with a hole: 8 nodes, 2 ways and a relation each.
        lon: Longitude of the first, 1e-7 degrees.
    """
    nodes: list[tuple[int, int]] = []
    ways: list[str] = []
    relations: list[str] = []
    buildings: list[tuple[Any, ...]] = []

    def add(*corners: tuple[int, int]) -> list[int]:
        nodes.extend(corners)
        return [-(len(nodes) - len(corners) + 1 + i) for i in range(len(corners))]

    def way(refs: list[int], tags: str) -> tuple[tuple[str, str], ...]:
        refs = [*refs, refs[0]]
        inner = "".join(f'<nd ref="{ref}"/>' for ref in refs)
        ways.append(f'<way id="-{len(ways) + 1}" version="1">{inner}{tags}</way>')
        return tuple((place(nodes[-ref - 1][0]), place(nodes[-ref - 1][1])) for ref in refs)

    yes = '<tag k="building" v="yes"/>'
    for i in range(terraces + courtyards):
        x, y = lon + i * 100_000, 608_000_000
        a, b, c, d = add((x, y), (x + SIDE, y), (x + SIDE, y + SIDE), (x, y + SIDE))
        if i < terraces:
            e, f = add((x + 2 * SIDE, y), (x + 2 * SIDE, y + SIDE))
            houses = ([a, b, c, d], [b, e, f, c])
            buildings += [("way", way(refs, yes), (("building", "yes"),)) for refs in houses]
            continue
        q = SIDE // 4
        hole = add(
            (x + q, y + q), (x + q, y + 3 * q), (x + 3 * q, y + 3 * q), (x + 3 * q, y + q)
        )  # fmt: skip
        outer, inner = way([a, b, c, d], ""), way(hole, "")
        buildings += [("way", outer, ()), ("way", inner, ())]
        refs = "".join(
            f'<member type="way" ref="-{len(ways) - 1 + k}" role="{role}"/>'
            for k, role in enumerate(("outer", "inner"))
        )
        relations.append(
            f'<relation id="-{len(relations) + 1}" version="1">{refs}{yes}'
            '<tag k="type" v="multipolygon"/></relation>'
        )
        tags = (("building", "yes"), ("type", "multipolygon"))
        buildings.append(("relation", (("outer", outer), ("inner", inner)), tags))
    lines = [
        f'<node id="-{i + 1}" version="1" lat="{place(lat)}" lon="{place(lon_)}"/>'
        for i, (lon_, lat) in enumerate(nodes)
    ]
    body = "\n".join([*lines, *ways, *relations])
    return Drawn(
        text=f'<osmChange version="0.6"><create>\n{body}\n</create></osmChange>',
        buildings=sorted(buildings),
        n_elements=len(nodes) + len(ways) + len(relations),
    )


def write_osc(path: Path, drawn: Drawn) -> Path:
    """Write a drawing as `.osc` or `.osc.gz`."""
    data = drawn.text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
