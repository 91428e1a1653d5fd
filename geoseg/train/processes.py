"""This process's place among those that train together: alone, or one of torchrun's."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from geoseg.models import resolve_device
from geoseg.train.batches import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geoseg.train.options import LoopOptions


PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one validates alone meanwhile."""


@contextmanager
def joined_processes(options: LoopOptions) -> Iterator[tuple[Shard, torch.device]]:
    """Join the processes that torchrun started, if any, and yield the place and device of this one.

    Raises:
        DeviceError: The device is not there.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        torch.manual_seed(options.seed)
        yield Shard(), resolve_device(options.device)
        return
    cuda = options.device in {"auto", "cuda"} and torch.cuda.is_available()
    device = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu")
    torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        rank = torch.distributed.get_rank()
        # Weights become equal when they are wrapped; the network's own draws must differ.
        torch.manual_seed(options.seed + rank)
        yield Shard(rank=rank, world=world), device
    finally:
        torch.distributed.destroy_process_group()


def describe_devices() -> dict[str, object]:
    """Return what torch computes with, for the record."""
    return {
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
