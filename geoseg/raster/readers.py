"""Reader threads that stay a bounded number of batches ahead of the network.

Threads read runs of neighbouring chips, so that a block they share is decoded once; the consumer
gets full batches in chip order whatever the threads do. Works on anything that can read a chip.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from geoseg.chips import ChipBatch
from geoseg.errors import ConfigError, ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from geoseg.chips import Chip

RUN_CHIPS = 8  # chips a thread reads in one go: long enough to share blocks, short enough to spread


class ChipSource(Protocol):
    """Anything chips can be read from, by several threads at once."""

    def read_chip(self, chip: Chip) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a chip's image (3, h, w) and valid (h, w), or raise ReadError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Read:
    """One chip as it was read: an image and its validity, or why there is none."""

    chip: Chip
    image: NDArray[np.uint8] | None = None
    valid: NDArray[np.bool_] | None = None
    error: ReadError | None = None


def read_batches(
    source: ChipSource,
    chips: Sequence[Chip],
    *,
    batch_size: int,
    size_px: int,
    threads: int = 2,
    ahead: int = 2,
    on_error: Callable[[Chip, ReadError], None] | None = None,
    on_empty: Callable[[Chip], None] | None = None,
) -> Generator[ChipBatch, None, None]:
    """Yield batches of chips in the order given, read by threads ahead of the consumer.

    Chips without a valid pixel are left out, and the gap is filled by the chips that follow: all
    batches but the last are full. The threads end when the iterator does, is closed or dropped.

    Args:
        source: Where the pixels are, for example a `Scene`.
        chips: The chips to read.
        batch_size: Chips in a batch.
        size_px: Side of the batch's frame, px; smaller chips lie in its top-left corner.
        threads: Reader threads.
        ahead: Batches that may be read ahead: with the one in use, they bound the memory.
        on_error: Called, in the consumer's thread and in chip order, for each chip that cannot be
            read, which is then left out; without it the error is raised.
        on_empty: Called likewise for each chip without a valid pixel.

    Raises:
        ConfigError: A number is less than 1, or a chip does not fit into `size_px`.
        ReadError: A chip cannot be read and there is no `on_error`.
    """
    for name, value in [("batch_size", batch_size), ("threads", threads), ("ahead", ahead)]:
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    for chip in chips:
        if max(chip.window.height, chip.window.width) > size_px:
            raise ConfigError(
                f"chips must fit into size_px={size_px}, "
                f"got {chip.window.height}x{chip.window.width} at {chip.name}"
            )
    reads = _read_ahead(source, chips, threads=threads, chips_ahead=ahead * batch_size)
    kept = _kept(reads, on_error=on_error, on_empty=on_empty)
    return _batches(kept, batch_size=batch_size, size_px=size_px)


def _read_ahead(
    source: ChipSource, chips: Sequence[Chip], *, threads: int, chips_ahead: int
) -> Generator[_Read, None, None]:
    """Read chips in threads, at most about `chips_ahead` of them ahead, and yield them in order."""
    run = max(1, min(RUN_CHIPS, chips_ahead // threads))
    runs = (chips[i : i + run] for i in range(0, len(chips), run))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="geoseg-read")
    pending: deque[Future[list[_Read]]] = deque()
    try:
        for _ in range(max(threads, chips_ahead // run)):
            _submit_next(pool, pending, source, runs)
        while pending:
            reads = pending.popleft().result()
            _submit_next(pool, pending, source, runs)
            yield from reads
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit_next(
    pool: ThreadPoolExecutor,
    pending: deque[Future[list[_Read]]],
    source: ChipSource,
    runs: Iterator[Sequence[Chip]],
) -> None:
    run = next(runs, None)
    if run is not None:
        pending.append(pool.submit(_read_run, source, run))


def _read_run(source: ChipSource, chips: Sequence[Chip]) -> list[_Read]:
    return [_read_one(source, chip) for chip in chips]


def _read_one(source: ChipSource, chip: Chip) -> _Read:
    try:
        image, valid = source.read_chip(chip)
    except ReadError as error:
        return _Read(chip=chip, error=error)
    if not valid.any():
        return _Read(chip=chip)
    return _Read(chip=chip, image=image, valid=valid)


def _kept(
    reads: Generator[_Read, None, None],
    *,
    on_error: Callable[[Chip, ReadError], None] | None,
    on_empty: Callable[[Chip], None] | None,
) -> Generator[_Read, None, None]:
    with closing(reads):
        for read in reads:
            if read.error is not None:
                if on_error is None:
                    raise read.error
                on_error(read.chip, read.error)
            elif read.image is not None:
                yield read
            elif on_empty is not None:
                on_empty(read.chip)


def _batches(
    reads: Generator[_Read, None, None], *, batch_size: int, size_px: int
) -> Generator[ChipBatch, None, None]:
    with closing(reads):
        group: list[_Read] = []
        for read in reads:
            group.append(read)
            if len(group) == batch_size:
                yield _stacked(group, size_px)
                group = []
        if group:
            yield _stacked(group, size_px)


def _stacked(reads: Sequence[_Read], size_px: int) -> ChipBatch:
    """Lay the chips into one frame; zero and not valid where a chip is smaller."""
    images = np.zeros((len(reads), 3, size_px, size_px), np.uint8)
    valid = np.zeros((len(reads), size_px, size_px), np.bool_)
    for i, read in enumerate(reads):
        assert read.image is not None, "chips without pixels are left out before stacking"
        assert read.valid is not None, "an image comes with its validity"
        height, width = read.valid.shape
        images[i, :, :height, :width] = read.image
        valid[i, :height, :width] = read.valid
    return ChipBatch(chips=tuple(read.chip for read in reads), images=images, valid=valid)
