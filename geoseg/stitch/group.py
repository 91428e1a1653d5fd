"""Groups: which pieces are one building.

Links are taken from the best to the worst (a maximum spanning forest), and a link is refused when
it would put two pieces of one chip into one group: that chip saw two things. So one bad mask that
bridges a row of houses cannot fuse them; it is cut among the houses it bridges instead. Two pieces
of one chip may be united only as the legs of a building that joins outside the chip.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from geoseg.errors import ConfigError
from geoseg.stitch.pieces import overlap, window_box

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from geoseg.stitch.agree import Link
    from geoseg.stitch.pieces import Piece

Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchOptions:
    """When detections of different chips are one building."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    agree_iou: float = 0.4
    """Two pieces agree at this IoU inside the strip their chips share."""
    contain_ios: float = 0.7
    """... or when this share of a part that its chip's border cuts lies in the other."""
    duplicate_ios: float = 0.6
    """Of two instances that overlap by this share of the smaller, the weaker is dropped."""

    def __post_init__(self) -> None:
        for name in ("agree_iou", "contain_ios", "duplicate_ios"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ConfigError(f"{name} must be in (0, 1], got {value}")

    @property
    def least_ios(self) -> float:
        """Pairs that overlap less than this have nothing to do with each other."""
        return min(self.agree_iou, self.contain_ios, self.duplicate_ios)

    def joins(self, link: Link) -> bool:
        """Say whether a pair from two chips is one building, as far as the pair knows."""
        if link.a.chip == link.b.chip:
            return False
        contained = (link.a.cut and link.ios_a >= self.contain_ios) or (
            link.b.cut and link.ios_b >= self.contain_ios
        )
        return contained or link.iou >= self.agree_iou


def group_pieces(
    pieces: Iterable[Piece], links: Iterable[Link], *, options: StitchOptions
) -> list[list[Piece]]:
    """Partition the pieces of one component into buildings.

    The result depends on the pieces and links alone, not on their order.
    """
    ordered = sorted(pieces, key=lambda piece: piece.key)
    strong = sorted(
        (link for link in links if options.joins(link)),
        key=lambda link: (-link.iou, link.a.key, link.b.key),
    )
    groups = {piece.key: [piece] for piece in ordered}
    refused: list[Link] = []
    accepted: list[Link] = []
    for link in strong:
        one, two = groups[link.a.key], groups[link.b.key]
        if one is two:
            continue
        if _may_join(link, one, two):
            accepted.append(link)
            one.extend(two)
            groups.update((piece.key, one) for piece in two)
        else:
            refused.append(link)
    if refused:
        _cut_bridges(groups, accepted, refused)
    unique = {id(group): group for group in groups.values()}
    return [sorted(group, key=lambda piece: piece.key) for group in unique.values()]


def _may_join(link: Link, one: list[Piece], two: list[Piece]) -> bool:
    chips = {(piece.chip.row, piece.chip.col) for piece in one}
    if all((piece.chip.row, piece.chip.col) not in chips for piece in two):
        return True
    clashes = [(p, q) for p, q in itertools.product(one, two) if p.chip == q.chip]
    return all(_are_legs(p, q, link) for p, q in clashes)


def _are_legs(p: Piece, q: Piece, link: Link) -> bool:
    """Two pieces of one chip are legs of one building that joins where the chip does not look.

    Both are cut by the chip's border, and the link's other piece, which sees further, has them in
    parts that do not touch inside the strip.
    """
    if not (p.cut and q.cut):
        return False
    witness = link.a if q is link.b or p is link.b else link.b
    if witness.chip == p.chip:
        return False
    seen = overlap(witness.box, window_box(p.chip))
    if seen is None:
        return False
    _, parts = cv2.connectedComponents(witness.view(seen).astype(np.uint8), connectivity=8)
    under_p, under_q = _labels_under(parts, seen, p), _labels_under(parts, seen, q)
    return bool(under_p) and bool(under_q) and not under_p & under_q


def _labels_under(
    parts: NDArray[np.int32], box: tuple[int, int, int, int], piece: Piece
) -> set[int]:
    shared = overlap(box, piece.box)
    if shared is None:
        return set()
    x0, y0, x1, y1 = shared
    window = parts[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
    return set(np.unique(window[piece.view(shared)]).tolist()) - {0}


def _cut_bridges(
    groups: dict[Key, list[Piece]], accepted: list[Link], refused: list[Link]
) -> None:
    """Cut each piece that bridges several pieces of one chip; its parts join those pieces."""
    for bridge, rivals in _bridges(accepted, refused):
        home = groups[bridge.key]
        parts = _nearest_parts(bridge, rivals)
        home.remove(bridge)
        for rival, part in zip(rivals, parts, strict=True):
            if part is not None:
                groups[rival.key].append(part)
        groups[bridge.key] = groups[rivals[0].key]


def _bridges(accepted: list[Link], refused: list[Link]) -> list[tuple[Piece, list[Piece]]]:
    partners: dict[Key, dict[Key, Piece]] = {}
    by_key: dict[Key, Piece] = {}
    for link in itertools.chain(accepted, refused):
        for piece, other in ((link.a, link.b), (link.b, link.a)):
            by_key[piece.key] = piece
            partners.setdefault(piece.key, {})[other.key] = other
    suspects = sorted({key for link in refused for key in (link.a.key, link.b.key)})
    found = []
    for key in suspects:
        rivals = _most_rivals(partners[key].values())
        if len(rivals) > 1:
            found.append((by_key[key], rivals))
    bridging = {bridge.key for bridge, _ in found}
    return [
        (bridge, rivals)
        for bridge, rivals in found
        if not bridging & {rival.key for rival in rivals}
    ]


def _most_rivals(partners: Iterable[Piece]) -> list[Piece]:
    """Return the partners of the chip that sees most separate things under the bridge."""
    by_chip: dict[tuple[int, int], list[Piece]] = {}
    for piece in sorted(partners, key=lambda piece: piece.key):
        rivals = by_chip.setdefault((piece.chip.row, piece.chip.col), [])
        if all(not _same_thing(piece, rival) for rival in rivals):
            rivals.append(piece)
    return max(by_chip.values(), key=len)


def _same_thing(a: Piece, b: Piece) -> bool:
    shared = overlap(a.box, b.box)
    if shared is None:
        return False
    both = int(np.count_nonzero(a.view(shared) & b.view(shared)))
    return both > 0.5 * min(a.area, b.area)


def _nearest_parts(bridge: Piece, rivals: list[Piece]) -> list[Piece | None]:
    """Cut the bridge's mask: each pixel goes to the rival it is nearest to."""
    h, w = bridge.on.shape
    distances = np.full((len(rivals), h, w), np.inf, np.float32)
    for distance, rival in zip(distances, rivals, strict=True):
        off = np.ones((h, w), np.uint8)
        shared = overlap(bridge.box, rival.box)
        if shared is not None:
            x0, y0, x1, y1 = shared
            left, top = bridge.box[0], bridge.box[1]
            off[y0 - top : y1 - top, x0 - left : x1 - left] = ~rival.view(shared)
            distance[:] = cv2.distanceTransform(off, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    nearest = distances.argmin(axis=0)
    return [_part(bridge, nearest == i, number=i) for i in range(len(rivals))]


def _part(bridge: Piece, keep: NDArray[np.bool_], *, number: int) -> Piece | None:
    on = bridge.on & keep
    area = int(np.count_nonzero(on))
    if area == 0:
        return None
    index = bridge.index * 1000 + number
    return replace(bridge, index=index, soft=np.where(keep, bridge.soft, 0), on=on, area=area)
