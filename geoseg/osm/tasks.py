"""Tasks: which footprints one mapper looks at together, and where JOSM is to look.

Frame: metres for grouping, WGS84 degrees for links. What touches stays together, as buildings that
share a wall are mapped together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import numpy as np
import shapely

from geoseg.components import components
from geoseg.errors import ConfigError
from geoseg.grid import METRES_PER_DEGREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

JOSM: Final = "http://127.0.0.1:8111"
"""Where JOSM's remote control listens; by number, as browsers may refuse the name."""
AROUND_M: Final = 50.0
"""JOSM loads this much around a task."""
TOUCH_M: Final = 0.25
"""Footprints this near to each other share a wall: what is exported snaps that far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How large a task is, and what its changeset will say."""

    per_task: int = 1
    """Most footprints of a task; more only where they touch."""
    span_m: float = 500.0
    """Longest side of a task; longer only where footprints touch."""
    comment: str = ""
    """Changeset comment that JOSM proposes."""
    source: str = ""
    """Changeset source that JOSM proposes: the imagery."""
    hashtags: str = ""
    """Changeset hashtags that JOSM proposes."""

    def __post_init__(self) -> None:
        if self.per_task < 1:
            raise ConfigError(f"per_task must be at least 1, got {self.per_task}")
        if not 1 <= self.span_m <= 100_000:
            raise ConfigError(f"span_m must be in [1, 100000] metres, got {self.span_m}")


def group_by_place(shapes: NDArray[Any], options: TaskOptions) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of each task, ascending; every row is in one.

    The land is cut in two along its longer side, so that half of the footprints lie on each, until
    a part is small enough.

    Args:
        shapes: (N,) polygons in metres.
        options: Most footprints and longest side.

    Example:
        >>> row = shapely.box([0, 10, 90, 100], 0, [10, 20, 95, 105], 9)
        >>> [task.tolist() for task in group_by_place(row, TaskOptions(per_task=2))]
        [[0, 1], [2, 3]]
    """
    if not len(shapes):
        return
    block = _touching(shapes)
    order = np.argsort(block, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(block[order]) > 0])
    members = np.split(order, starts[1:])
    low, high = shapely.bounds(shapes)[order].reshape(-1, 2, 2).transpose(1, 0, 2)
    blocks = _Blocks(
        count=np.diff(np.r_[starts, len(order)]),
        low=np.minimum.reduceat(low, starts),
        high=np.maximum.reduceat(high, starts),
    )
    for part in _halved(blocks, options):
        yield np.sort(np.concatenate([members[i] for i in part]))


def josm_link(bounds: tuple[float, float, float, float], options: TaskOptions) -> str:
    """Return a link that makes JOSM load a place and propose what the changeset says.

    Args:
        bounds: West, south, east, north in degrees.
        options: Comment, source and hashtags; empty ones are left out.

    Example:
        >>> josm_link((10, 50, 10.1, 50.1), TaskOptions(comment="Houses of Ulm"))[:45]
        'http://127.0.0.1:8111/load_and_zoom?left=9.99'
    """
    west, south, east, north = bounds
    lat_pad = AROUND_M / METRES_PER_DEGREE
    lon_pad = lat_pad / max(0.01, float(np.cos(np.radians(max(abs(south), abs(north))))))
    place = {
        "left": west - lon_pad,
        "right": east + lon_pad,
        "top": min(90.0, north + lat_pad),
        "bottom": max(-90.0, south - lat_pad),
    }
    words = {
        "changeset_comment": options.comment,
        "changeset_source": options.source,
        "changeset_hashtags": options.hashtags,
    }
    query = {key: f"{value:.6f}" for key, value in place.items()}
    query |= {key: value for key, value in words.items() if value}
    return f"{JOSM}/load_and_zoom?{urlencode(query, quote_via=quote)}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blocks:
    """Groups of footprints that touch."""

    count: NDArray[np.int64]
    low: NDArray[np.float64]
    """(B, 2) least x and y."""
    high: NDArray[np.float64]


def _touching(shapes: NDArray[Any]) -> NDArray[np.int64]:
    """Return (N,) the number of the group that each is in, by first member."""
    i, j = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=TOUCH_M)
    return components(len(shapes), i, j)


def _halved(blocks: _Blocks, options: TaskOptions) -> Iterator[NDArray[np.intp]]:
    waiting = [np.arange(len(blocks.count))]
    while waiting:
        part = waiting.pop()
        sides = blocks.high[part].max(axis=0) - blocks.low[part].min(axis=0)
        small = blocks.count[part].sum() <= options.per_task and sides.max() <= options.span_m
        if small or len(part) == 1:
            yield part
            continue
        centre = (blocks.low[part] + blocks.high[part])[:, int(np.argmax(sides))]
        order = part[np.argsort(centre, kind="stable")]
        half = np.searchsorted(np.cumsum(blocks.count[order]), blocks.count[order].sum() / 2)
        cut = min(max(1, int(half) + 1), len(order) - 1)
        waiting += [order[cut:], order[:cut]]
