"""Find chips that are in a data set twice, turned or mirrored or not, and in which splits.

Two chips are duplicates when one of the square's eight symmetries makes their thumbnails the same
but for brightness, contrast and compression. Candidates share a band of a perceptual hash: the
signs of a thumbnail's low frequencies (Zauner 2010, "Implementation and benchmarking of perceptual
image hash functions"), which the symmetries only reorder and negate. Thumbnails then decide. Chips
without structure, such as open water, are compared by their pixels alone. Must not import torch.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from geoseg.components import components
from geoseg.data.manifest import Manifest, SplitChoice
from geoseg.errors import ConfigError, InputNotFoundError, ReadError
from geoseg.raster import read_chip_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

THUMB_PX = 32
LOW_FREQUENCIES = 8
BANDS = 4  # of 16 bits: two hashes that differ in up to 3 bits share one
MOST_BITS = 10  # two thumbnails that are the same differ in fewer
LEAST_CORRELATION = 0.985
LEAST_FINE_CORRELATION = 0.9  # of what a blur takes away: places alike at large differ in this
LEAST_CONTRAST = 3.0  # standard deviation of a thumbnail, 1/255; below it there is no structure
PAIRS_AT_ONCE = 2_000_000
_ONES = np.array([i.bit_count() for i in range(256)], np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prints:
    """What chips are compared by."""

    names: tuple[str, ...]
    """Split and file name, as `train/images/1.jpg`."""
    splits: tuple[str, ...]
    thumbs: NDArray[np.uint8]
    """(N, 32, 32) grey."""
    digests: tuple[bytes, ...]
    """Of the thumbnail and the first bytes of the file: exact copies share it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Duplicates:
    """Groups of chips that show the same."""

    prints: Prints
    group: NDArray[np.int64]
    """(N,) number of each chip's group; most groups have one chip."""

    @property
    def n_groups(self) -> int:
        """How many different chips there are."""
        return int(self.group.max(initial=-1)) + 1

    def sizes(self) -> NDArray[np.int64]:
        """Return how many chips each group has."""
        return np.bincount(self.group, minlength=self.n_groups)

    def leaks(self) -> dict[tuple[str, str], int]:
        """Return, for each pair of splits, how many chips of the first the second has too."""
        kinds = sorted(set(self.prints.splits))
        splits = np.array(self.prints.splits)
        found = {}
        for one in kinds:
            for other in kinds:
                if one != other:
                    also = np.isin(self.group[splits == one], self.group[splits == other])
                    found[one, other] = int(also.sum())
        return found


def take_prints(
    chips: Mapping[str, Sequence[Path]],
    *,
    folders: Mapping[str, Path] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Prints:
    """Read the thumbnails of all chips.

    Args:
        chips: Split to the paths of its chips.
        folders: Split to the folder that its chips' names start from; by default a chip is called
            by its file's name alone.
        advance: Told how many more were read.

    Raises:
        InputNotFoundError: A chip is not there.
        ReadError: A chip cannot be read.
    """
    names: list[str] = []
    splits: list[str] = []
    thumbs: list[NDArray[np.uint8]] = []
    digests: list[bytes] = []
    for split, paths in chips.items():
        for path in paths:
            grey = read_grey(path)
            home = (folders or {}).get(split, path.parent)
            names.append(path.relative_to(home).as_posix())
            splits.append(split)
            thumbs.append(_thumb(grey))
            digests.append(hashlib.blake2b(grey.tobytes(), digest_size=16).digest())
            advance(1)
    stacked = np.stack(thumbs) if thumbs else np.zeros((0, THUMB_PX, THUMB_PX), np.uint8)
    return Prints(names=tuple(names), splits=tuple(splits), thumbs=stacked, digests=tuple(digests))


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read a chip in grey, JPEGs at a quarter of their size, which is quicker.

    Raises:
        InputNotFoundError: It is not there.
        ReadError: It cannot be read.
    """
    if not path.is_file():
        raise InputNotFoundError(f"{path}: no such chip image; run geoseg data check")
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        grey = cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_4)
        if grey is None:
            raise ReadError(f"{path}: must be a readable JPEG; run geoseg data check")
        return np.asarray(grey, np.uint8)
    pixels, _ = read_chip_image(path)
    return np.asarray(cv2.cvtColor(pixels.transpose(1, 2, 0), cv2.COLOR_RGB2GRAY), np.uint8)


def find_duplicates(prints: Prints) -> Duplicates:
    """Group chips that show the same under one of the eight symmetries."""
    count = len(prints.names)
    pairs = [_same_digest(prints.digests)]
    structured = np.flatnonzero(prints.thumbs.std(axis=(1, 2)) >= LEAST_CONTRAST)
    coefficients = _low_frequencies(prints.thumbs[structured])
    for symmetry in range(8):
        for a, b in _candidates(coefficients, symmetry):
            same = _alike(prints.thumbs, structured[a], structured[b], symmetry)
            pairs.append(np.stack([structured[a[same]], structured[b[same]]], axis=1))
    edges = np.concatenate(pairs)
    return Duplicates(prints=prints, group=components(count, *edges.T))


def clean_manifest(duplicates: Duplicates, *, drop_from: str = "train") -> Manifest:
    """Keep one chip of each group.

    Args:
        duplicates: The groups.
        drop_from: The split that loses chips which another one has too, so that the others stay
            as their publisher made them but for their own copies.

    Raises:
        ConfigError: There is no such split.
    """
    prints = duplicates.prints
    kinds = sorted(set(prints.splits))
    if drop_from not in kinds:
        raise ConfigError(f"drop_from must be one of {', '.join(kinds)}, got {drop_from!r}")
    kept_of = dict[int, int]()
    order = sorted(range(len(prints.names)), key=lambda i: (prints.splits[i] == drop_from, i))
    kept: dict[str, list[str]] = {k: [] for k in kinds}
    dropped: dict[str, dict[str, str]] = {k: {} for k in kinds}
    for i in order:
        first = kept_of.setdefault(int(duplicates.group[i]), i)
        split = prints.splits[i]
        if first == i:
            kept[split].append(prints.names[i])
        else:
            dropped[split][prints.names[i]] = (
                f"same as {prints.splits[first]}/{prints.names[first]}"
            )
    return Manifest(splits={k: SplitChoice(kept=tuple(kept[k]), dropped=dropped[k]) for k in kinds})


def turned(thumbs: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    """Return thumbnails (N, h, h) under one of the eight symmetries, numbered 0 to 7."""
    if symmetry & 4:
        thumbs = thumbs.swapaxes(-1, -2)
    if symmetry & 2:
        thumbs = thumbs[..., ::-1, :]
    if symmetry & 1:
        thumbs = thumbs[..., ::-1]
    return thumbs


def _thumb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = cv2.resize(grey, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _same_digest(digests: Sequence[bytes]) -> NDArray[np.int64]:
    first = dict[bytes, int]()
    pairs = [(first.setdefault(d, i), i) for i, d in enumerate(digests)]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _low_frequencies(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the first 8 x 8 coefficients (N, 8, 8) of the cosine transform, the mean left out."""
    k, x = np.arange(LOW_FREQUENCIES)[:, None], np.arange(THUMB_PX)[None]
    basis = np.cos(np.pi * k * (2 * x + 1) / (2 * THUMB_PX)).astype(np.float32)
    coefficients = np.empty((len(thumbs), LOW_FREQUENCIES, LOW_FREQUENCIES), np.float32)
    for at in range(0, len(thumbs), 10_000):
        part = thumbs[at : at + 10_000].astype(np.float32)
        coefficients[at : at + 10_000] = basis @ part @ basis.T
    coefficients[:, 0, 0] = 0
    return coefficients


def _turned_frequencies(coefficients: NDArray[np.float32], symmetry: int) -> NDArray[np.float32]:
    """Return the coefficients of the thumbnails turned: mirroring negates odd frequencies."""
    odd = np.where(np.arange(LOW_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    if symmetry & 4:
        coefficients = coefficients.swapaxes(-1, -2)
    if symmetry & 2:
        coefficients = coefficients * odd[:, None]
    if symmetry & 1:
        coefficients = coefficients * odd
    return coefficients


def _hashes(coefficients: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (N, 8) bytes: the signs of the coefficients."""
    return np.packbits(coefficients.reshape(len(coefficients), 64) > 0, axis=1)


def _candidates(
    coefficients: NDArray[np.float32], symmetry: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (a, b) of chips where b, turned, has nearly the hash of a; a comes before b."""
    plain = _hashes(coefficients)
    other = _hashes(_turned_frequencies(coefficients, symmetry))
    for band in range(BANDS):
        keys = np.ascontiguousarray(plain[:, 2 * band : 2 * band + 2]).view(np.uint16)[:, 0]
        wanted = np.ascontiguousarray(other[:, 2 * band : 2 * band + 2]).view(np.uint16)[:, 0]
        order = np.argsort(keys, kind="stable")
        first = np.searchsorted(keys, wanted, side="left", sorter=order)
        last = np.searchsorted(keys, wanted, side="right", sorter=order)
        for rows in _portions(last - first):
            lengths = (last - first)[rows]
            b = np.repeat(rows, lengths)
            starts = np.repeat(first[rows] - np.r_[0, np.cumsum(lengths)[:-1]], lengths)
            a = order[np.arange(lengths.sum()) + starts]
            ahead = a < b
            a, b = a[ahead], b[ahead]
            near = _ONES[plain[a] ^ other[b]].sum(axis=1) <= MOST_BITS
            yield a[near], b[near]


def _portions(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield rows whose lengths add up to no more than is held in memory at once."""
    ends = np.cumsum(lengths)
    start, done = 0, 0
    while start < len(lengths):
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        yield np.arange(start, stop)
        start, done = stop, int(ends[stop - 1])


def _alike(
    thumbs: NDArray[np.uint8], a: NDArray[np.int64], b: NDArray[np.int64], symmetry: int
) -> NDArray[np.bool_]:
    """Say which pairs of thumbnails are the same, coarse and fine, when b is turned."""
    same = np.zeros(len(a), np.bool_)
    for at in range(0, len(a), 20_000):
        part = slice(at, at + 20_000)
        one = thumbs[a[part]].astype(np.float32)
        other = turned(thumbs[b[part]], symmetry).astype(np.float32)
        same[part] = _correlation(one, other) >= LEAST_CORRELATION
        fine = _correlation(_fine(one), _fine(other))
        same[part] &= fine >= LEAST_FINE_CORRELATION
    return same


def _fine(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return thumbnails less their mean over 4 x 4 pixels."""
    n = THUMB_PX // 4
    coarse = thumbs.reshape(-1, n, 4, n, 4).mean(axis=(2, 4))
    return np.asarray(thumbs - coarse.repeat(4, axis=1).repeat(4, axis=2), np.float32)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    one = one - one.mean(axis=(1, 2), keepdims=True)
    other = other - other.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt(np.square(one).sum(axis=(1, 2)) * np.square(other).sum(axis=(1, 2)))
    return np.asarray((one * other).sum(axis=(1, 2)) / np.maximum(norm, 1e-6), np.float32)
