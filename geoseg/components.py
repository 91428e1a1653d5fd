"""Connected components: which things hang together, when it is known of pairs.

Imports numpy and scipy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def components(count: int, one: ArrayLike, other: ArrayLike) -> NDArray[np.int64]:
    """Number the connected components of a graph.

    Args:
        count: How many nodes there are.
        one: (P,) an end of each edge, from 0.
        other: (P,) the other end; edges may come twice, and in any direction.

    Returns:
        (count,) the component of each node, numbered by first node.

    Example:
        >>> components(5, [3, 1], [1, 4]).tolist()
        [0, 1, 2, 1, 1]
    """
    one, other = np.asarray(one, np.int64), np.asarray(other, np.int64)
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
