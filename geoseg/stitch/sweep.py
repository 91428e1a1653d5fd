"""The row sweep: chips in, row by row; instances out as soon as no later chip can touch them.

Memory is the chip rows still in touch plus the buildings that reach into them. The instances are
the same whatever the order inside a row, and each comes out exactly once. Slivers at a chip's
border that the chip beside it, which sees more, does not find are noise and left out.

A part of a scene is swept in the same way: what chips outside the part may have seen too is handed
on instead of being decided, and whoever sweeps all the parts' rest gets the same instances as from
the whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import ConfigError
from geoseg.stitch.agree import find_links
from geoseg.stitch.group import StitchOptions, group_pieces
from geoseg.stitch.merge import Instance, drop_duplicates, merge
from geoseg.stitch.pieces import is_sliver, make_pieces, overlap, window_box

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from geoseg.chips import Chip
    from geoseg.detections import Detections
    from geoseg.stitch.agree import Link
    from geoseg.stitch.pieces import Key, Piece


class _Component:
    """Pieces that are linked, however weakly, and hence decided together."""

    __slots__ = ("links", "pieces", "row_stop")

    def __init__(self, piece: Piece) -> None:
        self.pieces = [piece]
        self.links: list[Link] = []
        self.row_stop = piece.chip.window.row_stop

    def absorb(self, other: _Component) -> None:
        self.pieces.extend(other.pieces)
        self.links.extend(other.links)
        self.row_stop = max(self.row_stop, other.row_stop)


class Stitcher:
    """Stitch one scene's chip rows, top to bottom.

    Args:
        shape_hw: Shape of the scene's working grid, px.
        options: When detections are one building.
        unshared: Where a part of a scene is swept: xyxy pixel edges of what no chip outside the
            part sees. What is linked to anything beyond goes to `handed_on` undecided.

    Attributes:
        handed_on: Pieces that chips outside the part may have seen too; whoever takes them empties
            the list.

    Example:
        >>> stitcher = Stitcher(shape_hw=(900, 900))
        >>> stitcher.push_row([]), stitcher.finish()
        ([], [])
    """

    def __init__(
        self,
        *,
        shape_hw: tuple[int, int],
        options: StitchOptions | None = None,
        unshared: tuple[int, int, int, int] | None = None,
    ) -> None:
        self.handed_on: list[Piece] = []
        self._unshared = unshared or (0, 0, shape_hw[1], shape_hw[0])
        self._shape_hw = shape_hw
        self._options = options or StitchOptions()
        self._open: dict[Key, _Component] = {}
        self._row_off = -1
        self._windows: dict[tuple[int, int], tuple[int, int, int, int]] = {}

    def push_row(self, row: Sequence[tuple[Chip, Detections]]) -> list[Instance]:
        """Add the chips of one row; return the instances that no later row can change.

        Args:
            row: Chips with one `window.row_off`, below every chip pushed before, and what was
                found in each, in the chip's frame.

        Returns:
            Finished instances, in their order: ascending over all calls.

        Raises:
            ConfigError: The chips are not one row, or not below the last.
        """
        if not row:
            return []
        tops = {chip.window.row_off for chip, _ in row}
        if len(tops) != 1 or min(tops) <= self._row_off:
            raise ConfigError(f"chip rows must come from top to bottom, got rows at {sorted(tops)}")
        self._row_off = min(tops)
        finished = self._close(self._row_off)
        self._windows.update(((chip.row, chip.col), window_box(chip)) for chip, _ in row)
        new = [
            piece
            for chip, detections in sorted(row, key=lambda item: item[0].col)
            for piece in make_pieces(chip, detections, shape_hw=self._shape_hw)
        ]
        self._add(new)
        return finished

    def finish(self) -> list[Instance]:
        """Return the instances still open; the stitcher is empty afterwards."""
        return self._close(None)

    def _add(self, new: list[Piece]) -> None:
        old = [
            piece
            for component in {id(c): c for c in self._open.values()}.values()
            for piece in component.pieces
            if piece.chip.window.row_stop > self._row_off
        ]
        links = find_links(new, old, least_ios=self._options.least_ios)
        self._open.update((piece.key, _Component(piece)) for piece in new)
        for link in links:
            one, two = self._open[link.a.key], self._open[link.b.key]
            if one is not two:
                if len(one.pieces) < len(two.pieces):
                    one, two = two, one
                one.absorb(two)
                self._open.update((piece.key, one) for piece in two.pieces)
            one.links.append(link)

    def _close(self, row_off: int | None) -> list[Instance]:
        components = {id(c): c for c in self._open.values()}.values()
        done = [c for c in components if row_off is None or c.row_stop <= row_off]
        finished: list[Instance] = []
        for component in done:
            for piece in component.pieces:
                del self._open[piece.key]
            if all(self._is_unshared(piece) for piece in component.pieces):
                finished.extend(self._instances(component))
            else:
                self.handed_on.extend(component.pieces)
        self._forget(row_off)
        return sorted(finished, key=lambda instance: instance.order)

    def _is_unshared(self, piece: Piece) -> bool:
        return overlap(piece.box, self._unshared) == piece.box

    def _instances(self, component: _Component) -> list[Instance]:
        groups = [[piece] for piece in component.pieces]
        if len(component.pieces) > 1:
            groups = group_pieces(component.pieces, component.links, options=self._options)
        merged = [
            (group[0].key, merge(group, shape_hw=self._shape_hw))
            for group in groups
            if not self._is_unconfirmed(group)
        ]
        if not merged:
            return []
        kept = drop_duplicates(merged, least_ios=self._options.duplicate_ios)
        return [
            replace(instance, order=(component.row_stop, *key[:2], *_place(instance)))
            for key, instance in kept
        ]

    def _is_unconfirmed(self, group: list[Piece]) -> bool:
        """Say whether a group is slivers at chips' borders that a chip which sees more denies."""
        chips = {(piece.chip.row, piece.chip.col) for piece in group}
        return all(is_sliver(piece) and self._is_seen_beside(piece, chips) for piece in group)

    def _is_seen_beside(self, piece: Piece, chips: set[tuple[int, int]]) -> bool:
        row, col = piece.chip.row, piece.chip.col
        beside = {(row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} - chips
        windows = (self._windows[at] for at in beside if at in self._windows)
        return any(overlap(piece.box, window) == piece.box for window in windows)

    def _forget(self, row_off: int | None) -> None:
        """Drop the windows that no open piece lies beside."""
        rows = [row for row, *_ in self._open]
        if row_off is not None and self._windows:
            first = min([*rows, max(row for row, _ in self._windows)]) - 1
            self._windows = {at: box for at, box in self._windows.items() if at[0] >= first}
        else:
            self._windows.clear()


def _place(instance: Instance) -> tuple[int, ...]:
    window = instance.window
    weight = int(instance.soft.sum(dtype=np.int64))
    return -weight, window.row_off, window.col_off, window.height, window.width


def stitch(
    found: Iterable[tuple[Chip, Detections]],
    *,
    shape_hw: tuple[int, int],
    options: StitchOptions | None = None,
) -> list[Instance]:
    """Stitch detections that are all in memory, in any order. See `Stitcher`."""
    rows: dict[int, list[tuple[Chip, Detections]]] = {}
    for chip, detections in found:
        rows.setdefault(chip.window.row_off, []).append((chip, detections))
    stitcher = Stitcher(shape_hw=shape_hw, options=options)
    instances = [instance for top in sorted(rows) for instance in stitcher.push_row(rows[top])]
    return instances + stitcher.finish()
