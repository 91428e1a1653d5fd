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
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from geoseg.errors import ModelError
from geoseg.train.batches import batches, to_device
from geoseg.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from geoseg.train.network import free_layers, train_mode
from geoseg.train.optim import Average, make_optimizer, rate_at, set_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torchvision.models.detection import MaskRCNN

    from geoseg.data.samples import SampleSource
    from geoseg.train.batches import Batch, Shard
    from geoseg.train.options import TrainConfig

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainee:
    """A network and all that changes while it learns."""

    module: MaskRCNN
    optimizer: torch.optim.Optimizer
    average: Average | None
    device: torch.device
    precision: str
    """fp32, bf16 or fp16."""
    scaler: torch.amp.GradScaler
    """Keeps small gradients of fp16 from vanishing; does nothing for the others."""
    forward: Callable[..., dict[str, torch.Tensor]]
    """The module, or what wraps it for several processes."""


def make_trainee(module: MaskRCNN, config: TrainConfig, device: torch.device) -> Trainee:
    """Return a network on its device, with its optimiser."""
    layout = torch.preserve_format if device.type == "mps" else torch.channels_last
    module = module.to(device, memory_format=layout)
    precision = choose_precision(config.loop.precision, device)
    forward: Any = module
    if torch.distributed.is_initialized():
        forward = torch.nn.parallel.DistributedDataParallel(
            module,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=True,  # frozen layers, and heads on chips without objects
        )
    return Trainee(
        module=module,
        optimizer=make_optimizer(module, config.optim),
        average=Average(module, config.optim.ema) if config.optim.ema else None,
        device=device,
        precision=precision,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        forward=forward,
    )


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16: for "auto" the one the device is fastest with."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device.type == "cpu" and "avx512_bf16" in _cpu_flags():
        return "bf16"
    return "fp32"


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
        ModelError: The loss is no number any more.
        OutputError: A checkpoint cannot be written; the last good one is left.
    """
    progress = _resume(trainee, config, folder, shard)
    ends = config.loop.steps
    stages = Stages(config)
    losses = Losses()
    for step, parts in _steps(source, config, shard, start=progress.step):
        stages.enter(trainee.module, step)
        losses.add(_step(trainee, parts, config, step))
        progress = dataclasses.replace(progress, step=step + 1)
        done = progress.step
        if journal is not None and _due(done, config.loop.log_every, ends):
            journal.losses(done, losses.take() | {"lr": rate_at(step, config.optim, steps=ends)})
        if (
            journal is not None
            and validate is not None
            and _due(done, config.loop.validate_every, ends)
        ):
            progress = _validate(trainee, progress, validate, journal, keep_best)
            train_mode(trainee.module, batch_norm=config.network.batch_norm)
        if journal is not None and _due(done, config.loop.checkpoint_every, ends):
            _save(trainee, config, folder, progress)
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


def _step(trainee: Trainee, parts: list[Batch], config: TrainConfig, step: int) -> dict[str, float]:
    """Move the weights once; return the losses."""
    rate = rate_at(step, config.optim, steps=config.loop.steps)
    set_rate(trainee.optimizer, rate)
    trainee.optimizer.zero_grad(set_to_none=True)
    totals: dict[str, torch.Tensor] = {}
    for number, part in enumerate(parts):
        with _autocast(trainee), _unsynced(trainee, last=number == len(parts) - 1):
            losses = trainee.forward(*to_device(part, trainee.device))
            loss = torch.stack(list(losses.values())).sum() / len(parts)
            trainee.scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch's
        for name, value in losses.items():
            totals[name] = totals.get(name, torch.zeros(())) + value.detach().float().cpu()
    means = {name.removeprefix("loss_"): float(v) / len(parts) for name, v in totals.items()}
    means["loss"] = sum(means.values())
    if not math.isfinite(means["loss"]):
        raise ModelError(
            f"the loss is {means['loss']} at step {step + 1} with a learning rate of {rate:.2g}: "
            "lower optim.lr or raise optim.warmup_steps; the last checkpoint is from before"
        )
    if config.optim.clip_norm:
        trainee.scaler.unscale_(trainee.optimizer)
        learning = [p for p in trainee.module.parameters() if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(learning, config.optim.clip_norm)
    trainee.scaler.step(trainee.optimizer)
    trainee.scaler.update()
    if trainee.average is not None:
        trainee.average.update(trainee.module, step)
    return means


def _autocast(trainee: Trainee) -> contextlib.AbstractContextManager[Any]:
    if trainee.precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if trainee.precision == "bf16" else torch.float16
    return torch.autocast(trainee.device.type, dtype=dtype)


def _unsynced(trainee: Trainee, *, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Exchange gradients between processes with the last batch of a step only."""
    if last or not hasattr(trainee.forward, "no_sync"):
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = trainee.forward.no_sync()
    return context


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


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii") as file:  # noqa: PTH123 - a pseudo file
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""
