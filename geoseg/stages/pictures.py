"""Folders of pictures as chips: any size, any mode, each with the id that results name it by.

Frame: pixels of each picture. A few pictures are in memory at a time.
"""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from geoseg.chips import Chip, ChipBatch
from geoseg.errors import InputNotFoundError, ReadError
from geoseg.grid import Window
from geoseg.raster import read_chip_image
from geoseg.raster.images import (
    MAX_SIDE_PX,
    PICTURE_SUFFIXES,
    TIFF_SUFFIXES,
    UNREADABLE,
    is_picture,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.data.annotations import Annotations

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
AHEAD = 4  # pictures read before they are asked for: the largest are 0.25 GiB each
MAX_BATCH_PX = 4096 * 4096  # of all pictures of a batch: 5 GiB in the bundled network on a CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One file of a folder."""

    path: Path
    image_id: int

    @property
    def name(self) -> str:
        """File name, without its folder."""
        return self.path.name


def list_pictures(folder: Path) -> tuple[list[Picture], str | None]:
    """Return the pictures of a folder, sorted by name, and why their ids are not their names.

    The id is the number that the file's stem is, as in the crowdAI mapping challenge
    (000000015998.jpg). Where a stem is no whole number, or two are the same one, all get running
    numbers from 1 in order of their names.

    Returns:
        The pictures; and None, or the first name that is to blame.

    Raises:
        InputNotFoundError: There is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"no folder {folder}: check the path")
    paths = sorted(p for p in folder.iterdir() if is_picture(p.name))
    if not paths:
        raise InputNotFoundError(
            f"{folder} must hold at least one picture ({', '.join(PICTURE_SUFFIXES)})"
        )
    ids: dict[int, str] = {}
    blame = None
    for path in paths:
        number = _number(path.stem)
        if number is None or number in ids:
            blame = path.name
            break
        ids[number] = path.name
    numbers = list(ids) if blame is None else range(1, len(paths) + 1)
    return [Picture(path=p, image_id=i) for p, i in zip(paths, numbers, strict=True)], blame


def document_pictures(annotations: Annotations, folder: Path) -> list[Picture]:
    """Return the pictures that a document names, with its ids, in its order.

    Raises:
        InputNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"no folder {folder}: check the path")
    images = annotations.images
    return [
        Picture(path=folder / name, image_id=i)
        for name, i in zip(images.file_names, images.ids.tolist(), strict=True)
    ]


def read_picture(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read a picture of any mode as RGB.

    Grey becomes three equal bands; transparent pixels are not valid and 0; values of 16 bits are
    divided by 257; rasters with more bands than four show their first three.

    Returns:
        Image (3, h, w) and valid (h, w).

    Raises:
        ReadError: It is not there, no picture, truncated or too large.
    """
    try:
        with Image.open(path) as image:
            rgba = _rgba(image)
    except FileNotFoundError as error:
        raise ReadError(f"{path}: no such picture") from error
    except (
        *UNREADABLE,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,  # where warnings are errors; too large all the same
    ) as error:
        if path.suffix.lower() in TIFF_SUFFIXES and path.is_file():
            return read_chip_image(path)
        reason = " ".join(str(error).split())[:120]
        raise ReadError(f"{path}: must be a readable picture, got: {reason}") from error
    valid = rgba[3] > 0
    pixels = rgba[:3]
    pixels[:, ~valid] = 0
    return pixels, valid


def picture_batches(
    pictures: Sequence[Picture],
    *,
    batch_size: int,
    threads: int = 2,
    on_error: Callable[[Picture, ReadError], None],
) -> Iterator[tuple[list[Picture], ChipBatch]]:
    """Yield pictures with their pixels, in order; neighbours of one size share a batch.

    Args:
        pictures: What to read.
        batch_size: Most pictures of a batch.
        threads: That read ahead.
        on_error: Told of each picture that cannot be read, which is then left out.
    """
    group: list[tuple[Picture, NDArray[np.uint8], NDArray[np.bool_]]] = []
    for picture, read in _read_ahead(pictures, threads):
        if isinstance(read, ReadError):
            on_error(picture, read)
            continue
        if group and not _fits(group, read[0], batch_size):
            yield _batch(group)
            group = []
        group.append((picture, *read))
    if group:
        yield _batch(group)


def _fits(
    group: list[tuple[Picture, NDArray[np.uint8], NDArray[np.bool_]]],
    pixels: NDArray[np.uint8],
    batch_size: int,
) -> bool:
    _, height, width = pixels.shape
    most = min(batch_size, MAX_BATCH_PX // (height * width))
    return len(group) < most and group[0][1].shape == pixels.shape


def _number(stem: str) -> int | None:
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) < 19 else None


def _rgba(image: Image.Image) -> NDArray[np.uint8]:
    if max(image.size) > MAX_SIDE_PX:
        raise ValueError(f"{image.height}x{image.width} px, more than {MAX_SIDE_PX} a side")
    if image.mode in DEEP_MODES:
        deep = np.nan_to_num(np.array(image, np.float64))
        grey = np.clip(deep / 257 if deep.max(initial=0) > 255 else deep, 0, 255).astype(np.uint8)
        return np.stack([grey, grey, grey, np.full_like(grey, 255)])
    rgba = np.array(image.convert("RGBA"), np.uint8)
    return np.ascontiguousarray(rgba.transpose(2, 0, 1))


def _read_ahead(
    pictures: Sequence[Picture], threads: int
) -> Iterator[tuple[Picture, tuple[NDArray[np.uint8], NDArray[np.bool_]] | ReadError]]:
    waiting = iter(pictures)
    with ThreadPoolExecutor(threads, thread_name_prefix="pictures") as pool:
        first = itertools.islice(waiting, AHEAD)
        reads = deque((p, pool.submit(_try_read, p.path)) for p in first)
        while reads:
            picture, read = reads.popleft()
            yield picture, read.result()
            for following in waiting:
                reads.append((following, pool.submit(_try_read, following.path)))
                break


def _try_read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | ReadError:
    try:
        return read_picture(path)
    except ReadError as error:
        return error


def _batch(
    group: list[tuple[Picture, NDArray[np.uint8], NDArray[np.bool_]]],
) -> tuple[list[Picture], ChipBatch]:
    _, height, width = group[0][1].shape
    window = Window(row_off=0, col_off=0, height=height, width=width)
    chips = [
        Chip(scene_id=p.name, row=0, col=i, window=window, core=window)
        for i, (p, _, _) in enumerate(group)
    ]
    batch = ChipBatch(
        chips=tuple(chips),
        images=np.stack([pixels for _, pixels, _ in group]),
        valid=np.stack([valid for _, _, valid in group]),
    )
    return [p for p, _, _ in group], batch
