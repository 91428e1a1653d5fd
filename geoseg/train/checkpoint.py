"""Checkpoints: all that a run needs to go on as if it had not stopped.

Tensors in safetensors, everything else as JSON in its header: nothing is pickled, so a checkpoint
of a stranger runs no code. Files are written beside their place and moved there, so the last good
one survives a full disk.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from geoseg.errors import FormatError, InputNotFoundError, ModelError
from geoseg.files import replacing
from geoseg.models.weights import MAX_WEIGHTS_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from geoseg.train.optim import Average

FORMAT = 1
MAX_CHECKPOINT_BYTES = 4 * MAX_WEIGHTS_BYTES
"""Weights, their average and the optimiser's two moments; a larger file is not read into memory."""
MAX_STEPS = 10**8  # as many as a run can be told to do
MAX_TOTAL = 1e15  # of the losses of so many steps
_META = "geoseg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands."""

    step: int = 0
    """Weight updates done."""
    best_ap: float = -1.0
    """Of the validations so far."""
    best_step: int = 0
    stale: int = 0
    """Validations since the best."""
    losses: dict[str, float] = field(default_factory=dict)
    """Totals since the last line of the log, and how many `steps` and `seconds` they are of."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return what a checkpoint's header says.

        Raises:
            KeyError: A value is missing.
            TypeError: The losses are no totals by name.
            ValueError: A value is not what it must be; the message names it.
        """
        found = {name: values[name] for name in ("step", "best_ap", "best_step", "stale")}
        losses = dict(values.get("losses", {}))  # older checkpoints have none
        for name, value in found.items():
            low, high = (-1, 1) if name == "best_ap" else (0, MAX_STEPS)
            _check_number(name, value, low, high, whole=name != "best_ap")
        for name, value in losses.items():
            _check_number(f"losses {name[:40]}", value, 0, MAX_TOTAL, whole=name == "steps")
        return cls(**found, losses=losses)


def _check_number(name: str, value: Any, low: float, high: float, *, whole: bool) -> None:
    if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {str(value)[:40]!r}")


def save_checkpoint(
    path: Path,
    *,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    architecture: str,
) -> None:
    """Write a checkpoint atomically.

    Raises:
        OutputError: It cannot be written; what was there before still is.
    """
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"optim.{k}": v for k, v in _optimizer_tensors(optimizer).items()}
    if average is not None:
        tensors |= {f"ema.{k}": v for k, v in average.values.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    if scaler.is_enabled():
        tensors |= {f"scaler.{k}": torch.tensor(v) for k, v in scaler.state_dict().items()}
    about = dataclasses.asdict(progress) | {"format": FORMAT, "architecture": architecture}
    data = safetensors.torch.save(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
        metadata={_META: json.dumps(about)},
    )
    with replacing(path) as new:
        new.write_bytes(data)


def is_checkpoint(path: Path) -> bool:
    """Say whether a file is a run's checkpoint, whole or not, rather than a network's weights."""
    try:
        with safe_open(path, framework="pt") as file:
            return _META in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def checkpoint_weights(path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's network by layer names: the moving average, where it has one.

    Raises:
        FormatError: It is no checkpoint, or cut short.
    """
    _, tensors = _read(path)
    return _part(tensors, "model.") | _part(tensors, "ema.")


def checkpoint_step(path: Path) -> int:
    """Return the step a checkpoint was made at, 0 where there is none.

    Raises:
        FormatError: It is no checkpoint, or cut short.
    """
    return int(_about(path)["step"]) if path.exists() else 0


def load_checkpoint(
    path: Path,
    *,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    scaler: torch.amp.GradScaler,
    architecture: str,
) -> Progress:
    """Bring network, optimiser, average and the generator to where a checkpoint left them.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is no checkpoint, or cut short.
        ModelError: It is of another architecture, or of other options; the message says what
            differs.
    """
    about, tensors = _read(path)
    if about["architecture"] != architecture:
        raise ModelError(
            f"{path} is a checkpoint of {str(about['architecture'])[:60]}, the run is of "
            f"{architecture}: use another run folder"
        )
    _load_model(module, _part(tensors, "model."), path)
    _load_optimizer(optimizer, _part(tensors, "optim."), path)
    if average is not None:
        ema = _part(tensors, "ema.")
        if ema.keys() != average.values.keys():
            raise ModelError(f"{path} holds no moving average: set optim.ema as it was")
        average.values = {k: v.to(average.values[k].device) for k, v in ema.items()}
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    if scaler.is_enabled() and (state := _part(tensors, "scaler.")):
        scaler.load_state_dict({k: v.item() for k, v in state.items()})
    return Progress.of(about)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise InputNotFoundError(f"no checkpoint {path}: check the path")
    size = path.stat().st_size
    if size > MAX_CHECKPOINT_BYTES:
        raise FormatError(f"{path} must be at most {MAX_CHECKPOINT_BYTES} bytes, got {size}")
    about = _about(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise _broken(path, error) from error
    if "random.cpu" not in tensors:
        raise _broken(path, "the generator's state is missing")
    return about, tensors


def _about(path: Path) -> dict[str, Any]:
    """Return what the header of a checkpoint says, checked."""
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})[_META])
        Progress.of(about)
        known = about["format"] == FORMAT and isinstance(about["architecture"], str)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError) as error:
        raise _broken(path, error) from error
    if not known:
        raise _broken(path, f"format {about['format']!r}")
    return about


def _broken(path: Path, reason: object) -> FormatError:
    text = " ".join(str(reason).split())[:100]
    return FormatError(f"{path} is no whole checkpoint of this program ({text})")


def _load_model(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    differs = [k for k in own.keys() | state.keys() if _shape(own, k) != _shape(state, k)]
    if differs:
        first = min(differs)
        raise ModelError(
            f"{path} does not fit the network: {len(differs)} layers differ, such as {first} "
            f"(must be {_shape(own, first)}, got {_shape(state, first)})"
        )
    module.load_state_dict(dict(state))


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return "x".join(map(str, state[name].shape)) or "scalar" if name in state else "missing"


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `index.key`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, values in state.items()
        for key, value in values.items()
        if value is not None
    }


def _load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    if state and max(state) >= sum(len(g["params"]) for g in groups):
        raise ModelError(f"{path} is of another optimiser: set optim.name as it was")
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError) as error:
        raise ModelError(f"{path} is of another optimiser: {str(error)[:100]}") from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
