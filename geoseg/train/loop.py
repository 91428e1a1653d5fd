"""The training loop: batch, loss, gradient, step; now and then a checkpoint and a validation.

Every batch is decided by its number and the network's own draws by the generator that checkpoints
keep, so a run that was cut goes on with the losses of one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch

from geoseg.train.batches import batches
from geoseg.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from geoseg.train.network import free_layers, train_mode
from geoseg.train.optim import rate_at
from geoseg.train.trainee import check_weights, take_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torchvision.models.detection import MaskRCNN

    from geoseg.data.samples import SampleSource
    from geoseg.train.batches import Batch, Shard
    from geoseg.train.options import TrainConfig
    from geoseg.train.trainee import Trainee

log = logging.getLogger(__name__)

CHECKPOINT = "last.safetensors"


class Journal(Protocol):
    """Who is told how a run goes."""

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Take the mean losses since the last call, the rate and seconds of a step."""
        ...

    def validated(self, step: int, values: Mapping[str, float], *, best: bool) -> None:
        """Take the figures of a validation."""
        ...

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        """Take a picture (H, W, 3) of what a validation looked like."""
        ...


class Validation(Protocol):
    """Measures a network."""

    def __call__(self, module: MaskRCNN) -> Mapping[str, float]:
        """Return figures of a network, `ap` among them."""
        ...

    def picture(self) -> NDArray[np.uint8]:
        """Return what it looked like, (H, W, 3)."""
        ...


def train(
    trainee: Trainee,
    source: SampleSource,
    config: TrainConfig,
    *,
    folder: Path,
    journal: Journal | None,
    validate: Validation | None,
    keep_best: Callable[[MaskRCNN], None],
    shard: Shard,
) -> Progress:
    """Train until the steps are done or validations stop getting better.

    Goes on from the checkpoint in `folder` where there is one.

    Args:
        trainee: The network; holds the last weights afterwards.
        source: Where samples come from.
        config: Of the run.
        folder: Where checkpoints lie.
        journal: Told how it goes; None in processes that do not write.
        validate: Measures a network; None: there is nothing to validate with.
        keep_best: Called with the network that is the best so far.
        shard: This process's place among several; only the first writes and validates.

    Raises:
        ModelError: The loss or the weights are no numbers any more, or absurd ones.
        OutputError: A checkpoint cannot be written; the last good one is left.
    """
    progress = _resume(trainee, config, folder, shard)
    ends, saved_every = config.loop.steps, config.loop.checkpoint_every
    stages = Stages(config)
    losses = Losses.going_on(progress.losses)
    for step, parts in _steps(source, config, shard, start=progress.step):
        stages.enter(trainee.module, step)
        losses.add(take_step(trainee, parts, config, step))
        progress = dataclasses.replace(progress, step=step + 1, losses={})
        done = progress.step
        if any(_due(done, n, ends) for n in (config.loop.validate_every, saved_every)):
            check_weights(trainee.module, done)
        if journal is not None and _due(done, config.loop.log_every, ends):
            journal.losses(done, losses.take() | {"lr": rate_at(step, config.optim, steps=ends)})
        if (
            journal is not None
            and validate is not None
            and _due(done, config.loop.validate_every, ends)
        ):
            progress = _validate(trainee, progress, validate, journal, keep_best)
            train_mode(trainee.module, batch_norm=config.network.batch_norm)
        if journal is not None and _due(done, saved_every, ends):
            _save(trainee, config, folder, dataclasses.replace(progress, losses=losses.kept()))
        if _is_stale(progress, config, trainee.device):
            log.info("no better AP in %d validations: the run ends early", progress.stale)
            break
    return progress


@dataclass(slots=True)
class Losses:
    """Means of what the steps since the last line of the log had."""

    totals: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0
    since: float = dataclasses.field(default_factory=time.perf_counter)

    @classmethod
    def going_on(cls, kept: Mapping[str, float]) -> Self:
        """Return what `kept` said when a checkpoint was made."""
        totals = dict(kept)
        steps, seconds = int(totals.pop("steps", 0)), totals.pop("seconds", 0.0)
        return cls(totals=totals, steps=steps, since=time.perf_counter() - seconds)

    def kept(self) -> dict[str, float]:
        """Return the totals for a checkpoint, with the steps and seconds they are of."""
        if not self.steps:
            return {}
        seconds = time.perf_counter() - self.since
        return {**self.totals, "steps": self.steps, "seconds": seconds}

    def add(self, values: Mapping[str, float]) -> None:
        """Add a step's."""
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Return the means, and begin again."""
        means = {name: total / self.steps for name, total in self.totals.items()}
        now = time.perf_counter()
        means["step_s"] = (now - self.since) / self.steps
        self.totals, self.steps, self.since = {}, 0, now
        return means


class Stages:
    """Which layers learn when.

    Args:
        config: Of the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        later = sorted(config.network.stages)
        self._plan = [(0.0, config.network.train_layers), *later]
        self._steps = config.loop.steps
        self._batch_norm = config.network.batch_norm
        self._now: str | None = None

    def enter(self, module: torch.nn.Module, step: int) -> None:
        """Set free what learns at a step, where that changed."""
        layers = [name for share, name in self._plan if step >= share * self._steps][-1]
        if layers != self._now:
            count = free_layers(module, layers, batch_norm=self._batch_norm)
            train_mode(module, batch_norm=self._batch_norm)
            log.info("step %d: layers %r learn, %d parameters", step, layers, count)
            self._now = layers


def _steps(
    source: SampleSource, config: TrainConfig, shard: Shard, *, start: int
) -> Iterator[tuple[int, list[Batch]]]:
    """Yield (step, its batches) from `start` to the end."""
    each = config.optim.accumulate
    stream = batches(
        source,
        range(start * each, config.loop.steps * each),
        augment=config.data.augment,
        batch_size=config.loop.batch_size,
        seed=config.loop.seed,
        loaders=config.data.loaders,
        shard=shard,
    )
    for step in range(start, config.loop.steps):
        yield step, [next(stream) for _ in range(each)]


def _due(done: int, every: int, ends: int) -> bool:
    return done == ends or (every > 0 and done % every == 0)


def _validate(
    trainee: Trainee,
    progress: Progress,
    validate: Validation,
    journal: Journal,
    keep_best: Callable[[MaskRCNN], None],
) -> Progress:
    """Check the weights that would be kept: the average where there is one.

    Without an object to find the AP is no number, which is neither better nor worse.
    """
    random_state = torch.get_rng_state()
    average = trainee.average
    kept = average.applied(trainee.module) if average else contextlib.nullcontext()
    with kept:
        figures = validate(trainee.module.eval())
        best = figures["ap"] > progress.best_ap
        if best:
            keep_best(trainee.module)
    torch.set_rng_state(random_state)
    journal.validated(progress.step, figures, best=best)
    journal.picture(progress.step, validate.picture())
    if best:
        return dataclasses.replace(
            progress, best_ap=figures["ap"], best_step=progress.step, stale=0
        )
    worse = not math.isnan(figures["ap"])
    return dataclasses.replace(progress, stale=progress.stale + worse)


def _is_stale(progress: Progress, config: TrainConfig, device: torch.device) -> bool:
    """Say whether to stop; all processes hear what the first one found."""
    if not config.loop.patience:
        return False
    stale = torch.tensor([progress.stale], device=device)
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(stale, src=0)
    return int(stale) >= config.loop.patience


def _resume(trainee: Trainee, config: TrainConfig, folder: Path, shard: Shard) -> Progress:
    path = folder / CHECKPOINT
    if not path.exists():
        return Progress()
    progress = load_checkpoint(
        path,
        module=trainee.module,
        optimizer=trainee.optimizer,
        average=trainee.average,
        scaler=trainee.scaler,
        architecture=config.network.architecture,
    )
    if shard.rank:
        # The generator in the checkpoint is the first process's, and draws must differ.
        torch.manual_seed(_seed(config.loop.seed, shard.rank, progress.step))
    log.info("going on from step %d of %s", progress.step, path)
    return progress


def _seed(seed: int, rank: int, step: int) -> int:
    return int(np.random.default_rng([seed, 3, rank, step]).integers(2**31))


def _save(trainee: Trainee, config: TrainConfig, folder: Path, progress: Progress) -> None:
    save_checkpoint(
        folder / CHECKPOINT,
        module=trainee.module,
        optimizer=trainee.optimizer,
        average=trainee.average,
        scaler=trainee.scaler,
        progress=progress,
        architecture=config.network.architecture,
    )
