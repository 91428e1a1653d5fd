"""OSM objects to be created, as a struct of arrays: nodes, ways and multipolygon relations.

Frame: WGS84, whole 1e-7 degrees. Ids are negative, as those of objects that no server knows yet;
what is referred to stands before what refers to it. Must not import osmium.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Tags = Mapping[str, str]

DEGREE_E7: Final = 10_000_000
"""Whole units of a degree: the resolution OSM stores."""

MAX_WAY_NODES: Final = 2000
"""Most nodes of a way; the server refuses more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A way in a relation, or a tag-less hole of it."""

    way_id: int
    role: str
    """`outer` or `inner`, never empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A multipolygon: a building with holes, with several parts, or too long for one way."""

    id: int
    members: tuple[Member, ...]
    tags: Tags
    """With `type=multipolygon`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OsmData:
    """Objects to be created, each complete: every node of a way and way of a relation is here."""

    node_ids: NDArray[np.int64]
    """(N,) negative, strictly descending: -1, -2, ..."""
    lonlat_e7: NDArray[np.int64]
    """(N, 2) longitude and latitude in 1e-7 degrees, no two rows alike."""
    way_ids: NDArray[np.int64]
    """(W,) negative, strictly descending."""
    way_offsets: NDArray[np.int64]
    """(W + 1,) where each way's nodes begin in `way_nodes`."""
    way_nodes: NDArray[np.int64]
    """Node ids of all ways, one after the other; a closed way repeats its first."""
    way_tags: tuple[Tags, ...]
    """(W,) tags of each way; empty for the member of a relation."""
    relations: tuple[Relation, ...] = ()
    """Negative, strictly descending ids."""
    sources: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(W + R,) row of the footprint that each way, then each relation, was made of."""

    @property
    def n_elements(self) -> int:
        """Nodes, ways and relations together, as a server counts them."""
        return len(self.node_ids) + len(self.way_ids) + len(self.relations)

    def nodes_of(self, way: int) -> NDArray[np.int64]:
        """Return the node ids of the way at a position, a view."""
        return self.way_nodes[self.way_offsets[way] : self.way_offsets[way + 1]]
