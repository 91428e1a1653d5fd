"""A network that learns, and one step of it: forward, loss, gradient, new weights."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from geoseg.errors import ModelError
from geoseg.train.batches import to_device
from geoseg.train.optim import Average, make_optimizer, rate_at, set_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn
    from torchvision.models.detection import MaskRCNN

    from geoseg.train.batches import Batch
    from geoseg.train.options import TrainConfig

MAX_LOSS = 1e6
"""No network that learns has more: untrained ones begin with 4 to 46, a ResNet-101 of random
weights, whose norms do not hold its values down, with up to 60,000."""
MAX_WEIGHT = 1e6
"""Nor such a weight: those of the architectures begin below 12."""
REMEDY = "lower optim.lr or raise optim.warmup_steps"


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


def take_step(
    trainee: Trainee, parts: Sequence[Batch], config: TrainConfig, step: int
) -> dict[str, float]:
    """Move the weights once.

    Args:
        trainee: The network, changed in place.
        parts: Batches whose gradients are added up.
        config: Of the run.
        step: How many steps were taken before.

    Returns:
        Each loss and their sum, `loss`: means over the batches.

    Raises:
        ModelError: The loss is no number, or above `MAX_LOSS`; nothing was moved.
    """
    rate = rate_at(step, config.optim, steps=config.loop.steps)
    set_rate(trainee.optimizer, rate)
    trainee.optimizer.zero_grad(set_to_none=True)
    totals: dict[str, torch.Tensor] = {}
    for number, part in enumerate(parts):
        with autocast(trainee), _unsynced(trainee, last=number == len(parts) - 1):
            losses = trainee.forward(*to_device(part, trainee.device))
            loss = torch.stack(list(losses.values())).sum() / len(parts)
            trainee.scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch's
        for name, value in losses.items():
            totals[name] = totals.get(name, torch.zeros(())) + value.detach().float().cpu()
    means = {name.removeprefix("loss_"): float(v) / len(parts) for name, v in totals.items()}
    means["loss"] = sum(means.values())
    if not means["loss"] <= MAX_LOSS:  # NaN is not either
        raise ModelError(
            f"the loss is {means['loss']:.3g} at step {step + 1} with a learning rate of "
            f"{rate:.2g}: {REMEDY}"
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


def check_weights(module: nn.Module, step: int) -> None:
    """Refuse weights that a step threw away, before anything is done with them.

    Raises:
        ModelError: A weight is no number, or beyond `MAX_WEIGHT`.
    """
    largest = float(torch.stack([p.detach().abs().max() for p in module.parameters()]).max())
    if not largest <= MAX_WEIGHT:
        raise ModelError(f"the weights are up to {largest:.3g} after step {step}: {REMEDY}")


def autocast(trainee: Trainee) -> contextlib.AbstractContextManager[Any]:
    """Return the context that a forward pass of the network runs in."""
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


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii") as file:  # noqa: PTH123 - a pseudo file
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""
