"""Samples as batches of tensors, made by processes beside the one that trains.

Legend: a batch is torchvision's: a list of float (3, H, W) in [0, 1], and a list of dicts of
`boxes` (N, 4) xyxy pixel edges, `labels` (N,) and `masks` (N, H, W) uint8.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from geoseg.data.augment import augmented, make_augmentation
from geoseg.data.samples import Sample, boxes_of, draw
from geoseg.errors import GeosegError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from geoseg.data.samples import SampleSource

Batch = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]
PREFETCH_BATCHES = 4
SAFE_PATH = "PYTHONSAFEPATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Which numbers of the endless sequence of samples a process takes."""

    rank: int = 0
    world: int = 1

    def numbers(self, step: int, batch_size: int) -> range:
        """Return the samples of a batch: with W processes, batch b of process r is b W + r."""
        first = (step * self.world + self.rank) * batch_size
        return range(first, first + batch_size)


class _Batches(Dataset[Batch | GeosegError]):
    """Batch number -> batch, or why it cannot be made.

    The error is handed over, not raised: torch would make its loader's traceback the message.
    """

    def __init__(
        self, source: SampleSource, *, augment: str, batch_size: int, seed: int, shard: Shard
    ) -> None:
        self.source = source
        self.augment = augment
        self.batch_size = batch_size
        self.seed = seed
        self.shard = shard
        self._transform: Any = None

    def __getitem__(self, number: int) -> Batch | GeosegError:
        if self._transform is None:
            self._transform = make_augmentation(self.augment)
        numbers = self.shard.numbers(number, self.batch_size)
        try:
            return collate([self._sample(n) for n in numbers])
        except GeosegError as error:
            return error

    def _sample(self, number: int) -> Sample:
        sample = draw(self.source, number, seed=self.seed)
        chance = int(np.random.default_rng([self.seed, 2, number]).integers(2**31))
        return augmented(sample, self._transform, seed=chance)


def batches(
    source: SampleSource,
    numbers: range,
    *,
    augment: str,
    batch_size: int,
    seed: int,
    loaders: int,
    shard: Shard | None = None,
) -> Iterator[Batch]:
    """Yield the batches with the given numbers, in order.

    The same number gives the same batch whatever `loaders` is, so a run may begin anywhere.

    Args:
        source: Where samples come from.
        numbers: Of the batches.
        augment: Preset of `make_augmentation`.
        batch_size: Chips in a batch.
        seed: Of the sequence of samples.
        loaders: Processes that make them; 0 makes them here.
        shard: This process's place among several that train together.

    Raises:
        ConfigError: The preset is unknown.
        GeosegError: A chip is not there, cannot be read or is not what its document says.
    """
    make_augmentation(augment)
    dataset = _Batches(
        source, augment=augment, batch_size=batch_size, seed=seed, shard=shard or Shard()
    )
    loader: DataLoader[Batch | GeosegError] = DataLoader(
        dataset,
        sampler=numbers,
        batch_size=None,
        num_workers=loaders,
        prefetch_factor=PREFETCH_BATCHES if loaders else None,
        worker_init_fn=_begin_loader,
        multiprocessing_context=_context() if loaders else None,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # the network's must not notice when a loader begins
    )
    for batch in loader:
        if isinstance(batch, GeosegError):
            raise batch
        yield batch


def _context() -> Any:
    """Return how loaders begin: from a process that has imported all they need, where that is safe.

    Spawned loaders import torch one after the other, since each is handed its source before the
    next begins; a GPU with a dozen of them waits for minutes. The process that they are forked from
    is started once and keeps the environment of that time. Forks of one that holds torch are
    for Linux only.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver  # noqa: PLC0415 - not for every system

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "geoseg.train.sources"])
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"  # or else it would import what lies in the current folder
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before
    return context


def collate(samples: list[Sample]) -> Batch:
    """Return samples as a batch, images as uint8 still."""
    images = [torch.from_numpy(s.image) for s in samples]
    return images, [_target(s) for s in samples]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to the device and its images to floats in [0, 1]."""
    images, targets = batch
    moved = [i.to(device, non_blocking=True).float().div_(255) for i in images]
    return moved, [{k: v.to(device, non_blocking=True) for k, v in t.items()} for t in targets]


def _target(sample: Sample) -> dict[str, Tensor]:
    count = len(sample)
    boxes = boxes_of(sample.masks) if count else np.zeros((0, 4), np.float32)
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(sample.labels),
        "masks": torch.from_numpy(sample.masks.view(np.uint8)),
    }


def _begin_loader(_: int) -> None:
    """Keep a loader on one core, the others are the network's; and end it with its trainer."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the trainer's end, however it comes; torch looks at the process that forked."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "loaders are processes of their own"
    parent.join()
    os._exit(1)


def _as_it_is(batch: Any) -> Any:
    return batch
