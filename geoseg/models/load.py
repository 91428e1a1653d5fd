"""From a `--model` value to a network on a device, ready for inference."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN

from geoseg.errors import ConfigError, DeviceError, ModelError
from geoseg.models.architectures import MAX_SIZE_RATIO, build_architecture
from geoseg.models.catalogue import find_model
from geoseg.models.optimise import optimise_for_inference
from geoseg.models.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geoseg.models.spec import ModelSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A network in evaluation mode on its device, and what is known about it."""

    module: nn.Module
    spec: ModelSpec
    device: torch.device


def load_model(
    model: str,
    *,
    device: str = "auto",
    score_threshold: float | None = None,
    chip_size_px: int | None = None,
) -> LoadedModel:
    """Load a model for inference: evaluation mode, single precision, no gradients.

    Networks built here are also rearranged for speed (`optimise_for_inference`); a factory's
    network is switched to evaluation and moved, and a `MaskRCNN` among them gets the score
    threshold, but keeps its own resizing.

    Args:
        model: A bundled name, a `.safetensors` path with its spec beside it, or
            `package.module:factory`, a callable without arguments that returns a network with
            torchvision's detection contract.
        device: "auto" (cuda, then mps, then cpu), "cpu", "cuda", "cuda:1" or "mps".
        score_threshold: Detections below it are dropped by a torchvision network before their
            masks are computed, in [0, 1], the network's own score; None takes the spec's default
            or leaves the network's.
        chip_size_px: Side of the chips that will come, where it is not the spec's: they are then
            not resized either.

    Returns:
        The network, its spec and its device.

    Raises:
        ModelError: There is no such model, its weights do not fit, or its factory misbehaves.
        InputNotFoundError: The weights or their spec do not exist.
        FormatError: The weights or their spec are corrupt.
        DeviceError: The device is not there.
        ConfigError: A number is out of its range.

    Example:
        >>> load_model("maskrcnn_lite0", device="cpu", score_threshold=0.3).spec.num_classes
        2
    """
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ConfigError(f"score_threshold must be in [0, 1], got {score_threshold}")
    if chip_size_px is not None and chip_size_px < 1:
        raise ConfigError(f"chip_size_px must be at least 1, got {chip_size_px}")
    target = resolve_device(device)
    source = find_model(model)
    spec = source.spec
    if source.weights is not None:
        module = _from_weights(spec, source.weights)
    else:
        assert source.factory is not None, "a source has weights or a factory"
        module = _from_factory(source.factory, model)
    threshold = score_threshold
    if threshold is None and spec.default_score_threshold is not None:
        threshold = spec.raw_score(spec.default_score_threshold)
    # A factory's network keeps the size it was made for.
    size_px = chip_size_px if source.weights is not None else None
    _configure(module, score_threshold=threshold, chip_size_px=size_px)
    if source.weights is not None:
        module = optimise_for_inference(module.eval(), target)
    module = _move(module, target)
    log.debug("loaded %s on %s", spec.name, target)
    return LoadedModel(module=module, spec=spec, device=target)


def resolve_device(device: str = "auto") -> torch.device:
    """Return the torch device for a `--device` value.

    Args:
        device: "auto" (cuda, then mps, then cpu), "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        A device that exists.

    Raises:
        DeviceError: It is not one of these, or is not there; the message lists what is.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    there = _devices()
    if device == "auto":
        return torch.device(there[0])
    if device in there or (device == "cuda" and "cuda:0" in there):
        return torch.device(device)
    raise DeviceError(
        f"no device {device[:40]!r}: must be auto or one of {', '.join(there)}, found here"
    )


def visible_gpus(named: str) -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES may be set to each GPU of this machine.

    Args:
        named: What CUDA_VISIBLE_DEVICES is set to; empty for nothing.
    """
    count = torch.cuda.device_count()
    names = [name.strip() for name in named.split(",") if name.strip()]
    return names[:count] if len(names) >= count else [str(i) for i in range(count)]


def _devices() -> list[str]:
    """Return the devices of this machine, best first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def _from_weights(spec: ModelSpec, weights: Path) -> nn.Module:
    module = build_architecture(
        spec.architecture, num_classes=spec.num_classes, chip_size_px=spec.chip_size_px
    )
    load_weights(module, weights, sha256=spec.sha256)
    if isinstance(module, MaskRCNN):
        module.transform.image_mean = list(spec.mean)
        module.transform.image_std = list(spec.std)
    return module


def _from_factory(factory: Callable[[], object], model: str) -> nn.Module:
    try:
        module = factory()
    except Exception as e:
        # The factory is the user's code: whatever it raises, the user needs one line first.
        text = " ".join(str(e).split())[:200]
        raise ModelError(f"--model {model}: the factory raised {type(e).__name__}: {text}") from e
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"--model {model}: the factory must return a torch.nn.Module, "
            f"got {type(module).__name__}"
        )
    return module


def _configure(
    module: nn.Module, *, score_threshold: float | None, chip_size_px: int | None
) -> None:
    if not isinstance(module, MaskRCNN):
        return
    if score_threshold is not None:
        module.roi_heads.score_thresh = score_threshold
    if chip_size_px is not None:
        module.transform.min_size = (chip_size_px,)
        module.transform.max_size = MAX_SIZE_RATIO * chip_size_px


def _move(module: nn.Module, device: torch.device) -> nn.Module:
    try:
        module = module.eval().requires_grad_(requires_grad=False)
        return module.to(device=device, dtype=torch.float32)
    except (RuntimeError, torch.OutOfMemoryError) as e:
        text = " ".join(str(e).split())[:200]
        raise DeviceError(f"the model does not fit on {device}: {text}") from e
