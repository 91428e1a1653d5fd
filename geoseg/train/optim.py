"""How weights move: the optimiser, the rate over the run, the moving average."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from geoseg.train.options import OptimOptions

FIRST_SHARE = 1e-3  # of the highest rate, at the first step of the warm-up
LAST_SHARE = 0.01  # of the highest rate, at the end of a cosine
EMA_WARMUP = 10.0  # the average follows closely at first, when weights change most


def make_optimizer(module: nn.Module, options: OptimOptions) -> torch.optim.Optimizer:
    """Return the optimiser over all of a network's parameters, in the order of their names.

    Parameters that do not learn now are in it too, as they may be set free later; they have no
    gradient and are passed over. Biases and norms have no weight decay.
    """
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    return torch.optim.AdamW(groups, lr=options.lr)


def rate_at(step: int, options: OptimOptions, *, steps: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Example:
        >>> from geoseg.train.options import OptimOptions
        >>> options = OptimOptions(lr=1.0, warmup_steps=10)
        >>> [round(rate_at(s, options, steps=110), 2) for s in (0, 5, 10, 60, 109)]
        [0.0, 0.5, 1.0, 0.51, 0.01]
    """
    if step < options.warmup_steps:
        return options.lr * (FIRST_SHARE + (1 - FIRST_SHARE) * step / options.warmup_steps)
    share = (step - options.warmup_steps) / max(1, steps - options.warmup_steps)
    if options.schedule == "constant":
        return options.lr
    if options.schedule == "step":
        return options.lr * 0.1 ** sum(step >= m * steps for m in options.milestones)
    fall = 0.5 * (1 + math.cos(math.pi * share))
    return options.lr * (LAST_SHARE + (1 - LAST_SHARE) * fall)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of an optimiser the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """The moving average of a network's parameters; buffers are the network's own.

    Args:
        module: The network.
        decay: Of the average, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: p.detach().clone() for k, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the network's parameters after a step."""
        decay = ema_decay_at(step, self.decay)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self.values[name].lerp_(parameter, 1 - decay)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Give the network the average, and its own parameters back afterwards."""
        own = {k: p.detach().clone() for k, p in module.named_parameters()}
        _copy(self.values, module)
        try:
            yield
        finally:
            _copy(own, module)


@torch.no_grad()
def _copy(values: Mapping[str, torch.Tensor], module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        parameter.copy_(values[name])


def ema_decay_at(step: int, decay: float) -> float:
    """Return the decay of a step: less at first, so that early weights are soon forgotten."""
    return min(decay, (1 + step) / (EMA_WARMUP + step))
