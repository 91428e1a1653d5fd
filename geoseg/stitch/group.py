"""Groups: which pieces are one building.

Links are taken from the best to the worst (a maximum spanning forest), and a link is refused when
it would put two pieces of one chip into one group: that chip saw two things. So one bad mask that
bridges a row of houses cannot fuse them: it is set aside, the rest is grouped without it, and then
it is cut among the houses it bridges. Two pieces of one chip may be united only as the legs of a
building that joins outside the chip.
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
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from geoseg.stitch.agree import Link
    from geoseg.stitch.pieces import Key, Piece

LEAST_TRUST = 0.9
"""A mask is not cut on the word of pieces that score less than this share of its own score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchOptions:
    """When detections of different chips are one building."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    agree_iou: float = 0.4
    """Two pieces agree at this IoU inside the strip their chips share."""
    contain_ios: float = 0.8
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
    across = sorted(
        (link for link in links if link.a.chip != link.b.chip),
        key=lambda link: (-link.iou, link.a.key, link.b.key),
    )
    bridges = _bridges(across, options)
    kept = [piece for piece in ordered if piece.key not in bridges]
    groups = _unite(
        kept,
        (
            link
            for link in across
            if options.joins(link) and link.a.key not in bridges and link.b.key not in bridges
        ),
    )
    unique = list({id(group): group for group in groups.values()}.values())
    unique += _share_out(bridges, groups, _partners(across, options))
    return [sorted(group, key=lambda piece: piece.key) for group in unique]


def _unite(pieces: Iterable[Piece], strong: Iterable[Link]) -> dict[Key, list[Piece]]:
    """Take links in order where they may be taken; return each piece's group."""
    groups = {piece.key: [piece] for piece in pieces}
    for link in strong:
        one, two = groups[link.a.key], groups[link.b.key]
        if one is not two and _may_join(one, two):
            one.extend(two)
            groups.update((piece.key, one) for piece in two)
    return groups


def _may_join(one: list[Piece], two: list[Piece]) -> bool:
    chips = {(piece.chip.row, piece.chip.col) for piece in one}
    if all((piece.chip.row, piece.chip.col) not in chips for piece in two):
        return True
    clashes = [(p, q) for p, q in itertools.product(one, two) if p.chip == q.chip]
    return all(_are_legs(p, q, one + two) for p, q in clashes)


def _are_legs(p: Piece, q: Piece, pieces: list[Piece]) -> bool:
    """Two pieces of one chip are legs of one building that joins where the chip does not look.

    Both are cut by the chip's border, and the pieces that other chips saw of the building lie under
    them in parts that do not touch as far as the chip looks.
    """
    if not (p.cut and q.cut):
        return False
    box = window_box(p.chip)
    seen = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    for piece in pieces:
        shared = overlap(piece.box, box)
        if shared is not None and piece.chip != p.chip:
            part = seen[shared[1] - box[1] : shared[3] - box[1], shared[0] - box[0] :]
            part[:, : shared[2] - shared[0]] |= piece.view(shared)
    parts = np.asarray(cv2.connectedComponents(seen, connectivity=8)[1], np.int32)
    under_p, under_q = _labels_under(parts, box, p), _labels_under(parts, box, q)
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


def _partners(
    across: Iterable[Link], options: StitchOptions
) -> dict[Key, tuple[Piece, list[Piece]]]:
    """Return each piece with the pieces of other chips that it joins or covers."""
    partners: dict[Key, tuple[Piece, list[Piece]]] = {}
    for link in across:
        joins = options.joins(link)
        for piece, other, covered in ((link.a, link.b, link.ios_b), (link.b, link.a, link.ios_a)):
            if joins or covered >= options.contain_ios:
                partners.setdefault(piece.key, (piece, []))[1].append(other)
    return partners


def _bridges(across: Sequence[Link], options: StitchOptions) -> dict[Key, Piece]:
    """Return the pieces that lie over several things which another chip sees apart.

    A piece whose rivals are bridges themselves is judged again without them.
    """
    bridges: dict[Key, Piece] = {}
    partners = _partners(across, options)
    while True:
        width: dict[Key, tuple[int, int, Key]] = {}
        rivals: dict[Key, list[Piece]] = {}
        for key, (piece, others) in partners.items():
            if key not in bridges:
                rivals[key] = _most_rivals(piece, [p for p in others if p.key not in bridges])
                if len(rivals[key]) > 1:
                    width[key] = (len(rivals[key]), piece.area, key)
        widest = [
            key for key in width if all(width[key] > width.get(p.key, ()) for p in rivals[key])
        ]
        if not widest:
            return bridges
        bridges.update((key, partners[key][0]) for key in widest)


def _most_rivals(bridge: Piece, partners: Iterable[Piece]) -> list[Piece]:
    """Return the partners of the chip that sees most separate things under the bridge.

    Networks tear buildings that a chip's border cuts: a mask that sees its building whole is not
    cut on the word of such fragments alone.
    """
    by_chip: dict[tuple[int, int], list[Piece]] = {}
    for piece in sorted(partners, key=lambda piece: (-piece.area, piece.key)):
        if piece.score < LEAST_TRUST * bridge.score:
            continue
        rivals = by_chip.setdefault((piece.chip.row, piece.chip.col), [])
        if not any(_same_thing(piece, p) or _are_legs(piece, p, [bridge]) for p in rivals):
            rivals.append(piece)
    heard = (r for r in by_chip.values() if bridge.cut or not all(piece.cut for piece in r))
    return max(heard, key=len, default=[])


def _same_thing(a: Piece, b: Piece) -> bool:
    shared = overlap(a.box, b.box)
    if shared is None:
        return False
    both = int(np.count_nonzero(a.view(shared) & b.view(shared)))
    return both > 0.5 * min(a.area, b.area)


def _share_out(
    bridges: dict[Key, Piece],
    groups: dict[Key, list[Piece]],
    partners: dict[Key, tuple[Piece, list[Piece]]],
) -> list[list[Piece]]:
    """Cut each bridge among the groups it lies over; return what is left over, alone."""
    shares: list[tuple[list[Piece], Piece]] = []
    alone: list[list[Piece]] = []
    for key, bridge in sorted(bridges.items()):
        others = [groups[other.key] for other in partners[key][1] if other.key in groups]
        under = list({id(group): group for group in others}.values())
        *parts, rest = _cut(bridge, under)
        shares += zip(under, parts, strict=True)
        if rest.area > 0:
            alone.append([rest])
    for group, part in shares:
        if part.area > 0:
            group.append(part)
    return alone


def _cut(bridge: Piece, groups: list[list[Piece]]) -> list[Piece]:
    """Cut the bridge's mask: each pixel goes to the group it is nearest to.

    Where nobody else looks, a group gets no more than the rest of one building: what is more goes
    into a last part, which may be several buildings, but of these nobody knows better.
    """
    if not groups:
        return [bridge]
    nearest = _distances(bridge, groups).argmin(axis=0)
    unseen = bridge.on.copy()
    for piece in itertools.chain(*groups):
        shared = overlap(bridge.box, window_box(piece.chip))
        if shared is not None and piece.chip != bridge.chip:
            unseen[_slices(bridge, shared)] = False
    largest = max(piece.area for piece in itertools.chain(*groups))
    for i in range(len(groups)):
        excess = unseen & (nearest == i)
        if np.count_nonzero(excess) > largest:
            nearest[excess] = len(groups)
    return [_part(bridge, nearest == i) for i in range(len(groups) + 1)]


def _distances(bridge: Piece, groups: list[list[Piece]]) -> NDArray[np.float32]:
    """Return how far each pixel of the bridge's box is from each group, px, (G, h, w)."""
    distances = np.full((len(groups), *bridge.on.shape), np.inf, np.float32)
    for distance, group in zip(distances, groups, strict=True):
        off = np.ones(bridge.on.shape, np.uint8)
        for piece in group:
            shared = overlap(bridge.box, piece.box)
            if shared is not None:
                off[_slices(bridge, shared)] &= ~piece.view(shared)
        if not off.all():
            distance[:] = cv2.distanceTransform(off, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distances


def _slices(piece: Piece, box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    left, top = piece.box[0], piece.box[1]
    return slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


def _part(bridge: Piece, keep: NDArray[np.bool_]) -> Piece:
    on = bridge.on & keep
    soft = np.where(keep, bridge.soft, np.uint8(0))
    return replace(bridge, soft=soft, on=on, area=int(np.count_nonzero(on)))
