"""Rearrange a network for inference without changing what it says.

What is done here is kept because it was measured to help on CPU; what it does to the outputs is
checked on the spot, each time.
"""

from __future__ import annotations

import copy
import itertools
import logging
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.norm_act import BatchNormAct2d, FrozenBatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.detection import MaskRCNN
from torchvision.ops import FrozenBatchNorm2d

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

log = logging.getLogger(__name__)

FOLD_TOLERANCE = 1e-4
"""Largest change of a feature map that folding may make, relative to the map's largest value."""

_TRIAL_SIZE_PX = 64  # two cells of the coarsest level: enough to exercise every layer
_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d, BatchNormAct2d, FrozenBatchNormAct2d)
"""All hold weight, bias, running_mean, running_var and eps; timm's also an activation."""


def optimise_for_inference(module: nn.Module, device: torch.device) -> nn.Module:
    """Fold batch norms into convolutions and lay weights out channels-last.

    Folding is tried on a copy of the backbone and kept only where its feature maps stay the same
    to `FOLD_TOLERANCE`. Channels-last is for cpu and cuda, whose convolutions are faster with it;
    mps keeps its layout. Networks other than torchvision's `MaskRCNN` come back as they are.

    Args:
        module: A network in evaluation mode, still on the CPU: convolutions of a GPU may round to
            ten bits, which looks like a change. It is changed; its state dict no longer fits its
            architecture, so save weights before.
        device: Where it will run.

    Returns:
        The network.

    Example:
        >>> from geoseg.models.architectures import maskrcnn_lite0
        >>> fast = optimise_for_inference(maskrcnn_lite0(2).eval(), torch.device("cpu"))
        >>> any(isinstance(layer, nn.BatchNorm2d) for layer in fast.modules())
        False
    """
    if not isinstance(module, MaskRCNN):
        return module
    assert not module.training, "batch norm can only be folded in evaluation mode"
    folded = fold_batch_norms(copy.deepcopy(module.backbone))
    if _same_features(module.backbone, folded):
        module.backbone = folded
    else:
        log.warning("batch norms of this backbone cannot be folded exactly: left as they are")
    if device.type in {"cpu", "cuda"}:
        module = module.to(memory_format=torch.channels_last)
    return module


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution that its parent lists just before it.

    An activation inside the norm layer (timm's) takes the norm's place. That neighbours in the
    list are neighbours in the computation holds for ResNets, EfficientNets and `Sequential`, not
    for every network: compare outputs.

    Args:
        module: A network in evaluation mode, changed in place.

    Returns:
        The network.
    """
    for parent in list(module.modules()):
        for conv, name, norm in list(_foldable(parent)):
            _fold_into(conv, norm)
            setattr(parent, name, _rest_of(norm))
    return module


def _foldable(parent: nn.Module) -> Iterator[tuple[nn.Conv2d, str, Any]]:
    norm: Any
    for (_, conv), (name, norm) in itertools.pairwise(parent.named_children()):
        if (
            isinstance(conv, nn.Conv2d)
            and isinstance(norm, _NORMS)
            and isinstance(norm.running_mean, torch.Tensor)
            and norm.running_mean.shape[0] == conv.out_channels
        ):
            yield conv, name, norm


@torch.no_grad()
def _fold_into(conv: nn.Conv2d, norm: Any) -> None:
    """Scale and shift a convolution as the norm would; in float64, to round only once."""
    dtype = conv.weight.dtype
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        None if conv.bias is None else conv.bias.double(),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        None if norm.weight is None else norm.weight.double(),
        None if norm.bias is None else norm.bias.double(),
    )
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=conv.weight.requires_grad)


def _rest_of(norm: nn.Module) -> nn.Module:
    """Return what a norm layer does after normalising: timm's carry the activation."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()


@torch.inference_mode()
def _same_features(before: nn.Module, after: nn.Module) -> bool:
    generator = torch.Generator().manual_seed(0)
    images_bchw = torch.randn(1, 3, _TRIAL_SIZE_PX, _TRIAL_SIZE_PX, generator=generator)
    old: Mapping[str, Tensor] = before(images_bchw)
    new: Mapping[str, Tensor] = after(images_bchw)
    changes = [
        (new[level] - old[level]).abs().max() / old[level].abs().max().clamp_min(1e-12)
        for level in old
    ]
    # One synchronisation; NaN (networks of random weights can overflow) compares as not the same.
    return bool(torch.stack(changes).max() <= FOLD_TOLERANCE)
