"""Agreement of two pieces inside the strip that both their chips see.

Local to two pieces, hence the same whatever order, block or worker it is computed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.stitch.pieces import overlap, window_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.stitch.pieces import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How well two pieces agree where both chips look."""

    a: Piece
    b: Piece
    iou: float
    """Intersection over union of the parts inside the strip."""
    ios_a: float
    """Share of a's part that b covers."""
    ios_b: float

    @property
    def ios(self) -> float:
        """Intersection over the smaller part."""
        return max(self.ios_a, self.ios_b)


def find_links(new: Sequence[Piece], old: Sequence[Piece], *, least_ios: float) -> list[Link]:
    """Measure every pair with a piece of `new` that overlaps by `least_ios` or more.

    Pairs are of one label; both pieces of a pair may come from one chip (then the strip is the
    chip). Pieces of `old` are not paired among themselves.
    """
    pieces = [*new, *old]
    if not new:
        return []
    boxes = np.array([piece.box for piece in pieces], float)
    rectangles = shapely.box(*boxes.T)
    left, right = shapely.STRtree(rectangles).query(rectangles[: len(new)])
    once = left < right
    links = []
    for i, j in zip(left[once].tolist(), right[once].tolist(), strict=True):
        link = measure(pieces[i], pieces[j])
        if link is not None and link.ios >= least_ios:
            links.append(link)
    return links


def measure(a: Piece, b: Piece) -> Link | None:
    """Return the agreement of two pieces, or None where they share no pixel or label."""
    shared = overlap(a.box, b.box)
    if shared is None or a.label != b.label:
        return None
    both = int(np.count_nonzero(a.view(shared) & b.view(shared)))
    if both == 0:
        return None
    area_a, area_b = _area_seen_by(a, b), _area_seen_by(b, a)
    if b.key < a.key:
        a, b, area_a, area_b = b, a, area_b, area_a
    return Link(
        a=a,
        b=b,
        iou=both / (area_a + area_b - both),
        ios_a=both / area_a,
        ios_b=both / area_b,
    )


def _area_seen_by(piece: Piece, other: Piece) -> int:
    seen = overlap(piece.box, window_box(other.chip))
    assert seen is not None, "pieces that share a pixel are seen by each other's chip"
    if seen == piece.box:
        return piece.area
    return int(np.count_nonzero(piece.view(seen)))
