"""Training: whether the network is kept busy, and what the loop adds to the bare network."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING

import torch

from benchmarks.rows import Row, at_most
from geoseg.config import load_train_config
from geoseg.train.batches import Shard, batches, to_device
from geoseg.train.network import build_network, free_layers, train_mode
from geoseg.train.optim import set_rate
from geoseg.train.sources import training_source
from geoseg.train.trainee import Trainee, autocast, make_trainee, take_step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geoseg.train.batches import Batch
    from geoseg.train.options import TrainConfig

MOST_WAITING = 0.1
MOST_OVER_BARE = 1.1
STEPS = 12


def training(folder: Path, *, steps: int = STEPS) -> list[Row]:
    """Measure the default recipe on synthetic towns, one loader process beside the trainer.

    Waiting is the share of a step that passes before its batch is there. The loop's step (batch,
    losses, gradients, clipping, moving average) is compared with forward, backward and step of the
    same network and optimiser on the same batches, in turn, pair by pair.
    """
    config = load_train_config(
        options={
            "data.towns": 4,
            "network.init": "random",
            "optim.ema": 0.998,
            "loop.batch_size": 4,
            "loop.steps": steps + 2,
        }
    )
    source, _ = training_source(config.data)
    module, _ = build_network(config.network, num_classes=2, size_px=config.data.size_px)
    trainee = make_trainee(module, config, torch.device("cpu"))
    free_layers(module, config.network.train_layers)
    train_mode(module, batch_norm=config.network.batch_norm)
    stream = batches(
        source,
        range(steps + 2),
        augment=config.data.augment,
        batch_size=config.loop.batch_size,
        seed=0,
        loaders=1,
        shard=Shard(),
    )
    waits, whole, bare = [], [], []
    for step in range(steps + 2):
        start = time.perf_counter()
        batch = next(stream)
        waited = time.perf_counter() - start
        whole.append(_seconds(lambda b=batch, s=step: take_step(trainee, [b], config, s)))
        bare.append(_seconds(lambda b=batch: _bare_step(trainee, b, config)))
        waits.append(waited)
    waits, whole, bare = waits[2:], whole[2:], bare[2:]  # the first ones warm up
    # In training there is no second step to read ahead in: what it hid is added back at worst.
    share = sum(waits) / (sum(waits) + sum(whole))
    ratios = [a / b for a, b in zip(whole, bare, strict=True)]
    making = _making(config)
    about = f"{steps} batches of {config.loop.batch_size} chips, {trainee.precision}"
    return [
        Row(
            benchmark="training",
            name="waiting for data, share of a step",
            value=round(max(share, making - statistics.median(whole), 0.0), 3),
            **at_most(MOST_WAITING),
            note=f"{about}; a batch takes {making:.2f} s to make, a step "
            f"{statistics.median(whole):.2f} s",
        ),
        Row(
            benchmark="training",
            name="step / bare forward, backward, step",
            value=round(statistics.median(ratios), 3),
            **at_most(MOST_OVER_BARE),
            note=f"{about}; pairs of {min(ratios):.2f}-{max(ratios):.2f}",
        ),
    ]


def _bare_step(trainee: Trainee, batch: Batch, config: TrainConfig) -> None:
    set_rate(trainee.optimizer, config.optim.lr)
    trainee.optimizer.zero_grad(set_to_none=True)
    with autocast(trainee):
        losses = trainee.module(*to_device(batch, trainee.device))
        loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    trainee.optimizer.step()


def _making(config: TrainConfig) -> float:
    """Return the median seconds that one process takes to make a batch."""
    source, _ = training_source(config.data)
    stream: Iterator[Batch] = batches(
        source, range(8), augment=config.data.augment, batch_size=4, seed=0, loaders=0
    )
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        for _ in itertools.islice(stream, 1):
            pass
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def _seconds(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start
