"""Mask R-CNN networks by name, with random weights: nothing is ever downloaded here.

All follow torchvision's detection contract: a list of float32 (3, H, W) in [0, 1] in; a list of
dicts of `boxes` (N, 4) xyxy pixel edges, `labels`, `scores` and `masks` (N, 1, H, W) out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

import timm
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from geoseg.chips import CHIP_SIZE_PX
from geoseg.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SIZE_RATIO = 4
"""Images are shrunk only where their long side exceeds this many chips: a chip never is."""

TEST_TIME: Mapping[str, int | float] = {
    "rpn_pre_nms_top_n_test": 600,  # per level; torchvision's 1000 costs time, finds no more
    "rpn_post_nms_top_n_test": 300,  # per chip: three for each building of a dense town
    "box_detections_per_img": 150,  # torchvision's 100 cuts off dense towns
    "box_score_thresh": 0.05,
}
"""Limits at inference, shared by all architectures."""

LITE0_ANCHORS_PX = (12, 24, 48, 96, 192)  # one size a level: a shed to a warehouse at 0.1-0.4 m
LITE0_FPN_CHANNELS = 128
LITE0_BOX_CHANNELS = 512
LITE0_MASK_CHANNELS = 128
LITE0_BOX_NMS = 0.55  # IoU; torchvision's 0.5 drops neighbours in rows that stand askew
SLIM_MASK_CHANNELS = (96, 96, 96)  # a third of the layers' width: masks were 3/4 of the time


class Builder(Protocol):
    """What `ARCHITECTURES` holds."""

    def __call__(self, num_classes: int, chip_size_px: int = CHIP_SIZE_PX) -> nn.Module:
        """Return the network with random weights, in training mode."""
        ...


class _TimmFpn(nn.Module):
    """A timm feature extractor under a feature pyramid: levels "0".."3" and "pool"."""

    def __init__(self, body_name: str, *, out_channels: int) -> None:
        super().__init__()
        body: Any = timm.create_model(
            body_name, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)
        )
        self.body: nn.Module = body
        self.fpn = FeaturePyramidNetwork(
            body.feature_info.channels(), out_channels, extra_blocks=LastLevelMaxPool()
        )
        self.out_channels = out_channels

    def forward(self, images_bchw: Tensor) -> dict[str, Tensor]:
        features = self.body(images_bchw)
        levels: dict[str, Tensor] = self.fpn(
            OrderedDict((str(i), feature) for i, feature in enumerate(features))
        )
        return levels


def maskrcnn_lite0(num_classes: int, chip_size_px: int = CHIP_SIZE_PX) -> nn.Module:
    """Build the small network: EfficientNet-Lite0 body, 128-channel FPN, 9.4 M parameters.

    Args:
        num_classes: Classes of the output, background included.
        chip_size_px: Side of a chip; images of this size are not resized.

    Returns:
        A torchvision `MaskRCNN` with random weights, in training mode.

    Raises:
        ConfigError: A number is out of its range.

    Example:
        >>> sum(p.numel() for p in maskrcnn_lite0(2).parameters())
        9439131
    """
    return _maskrcnn_lite0(
        num_classes,
        chip_size_px,
        mask_predictor=MaskRCNNPredictor(256, LITE0_MASK_CHANNELS, num_classes),
    )


def maskrcnn_lite0_slim(num_classes: int, chip_size_px: int = CHIP_SIZE_PX) -> nn.Module:
    """Build the small network with a slimmer mask head: the default's architecture.

    Three convolutions of 96 channels instead of four of 256, an eighth of the work per mask.

    Args:
        num_classes: Classes of the output, background included.
        chip_size_px: Side of a chip; images of this size are not resized.

    Returns:
        A torchvision `MaskRCNN` with random weights, in training mode.

    Raises:
        ConfigError: A number is out of its range.

    Example:
        >>> sum(p.numel() for p in maskrcnn_lite0_slim(2).parameters())
        7556187
    """
    width = SLIM_MASK_CHANNELS[-1]
    return _maskrcnn_lite0(
        num_classes,
        chip_size_px,
        mask_head=MaskRCNNHeads(LITE0_FPN_CHANNELS, SLIM_MASK_CHANNELS, dilation=1),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes),
    )


def _maskrcnn_lite0(num_classes: int, chip_size_px: int, **mask_parts: nn.Module) -> nn.Module:
    sizes = _image_sizes(num_classes, chip_size_px)
    channels = LITE0_FPN_CHANNELS
    backbone = _TimmFpn("tf_efficientnet_lite0", out_channels=channels)
    module: nn.Module = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(
            sizes=tuple((size,) for size in LITE0_ANCHORS_PX),
            aspect_ratios=((0.5, 1.0, 2.0),) * len(LITE0_ANCHORS_PX),
        ),
        box_head=TwoMLPHead(channels * 7 * 7, LITE0_BOX_CHANNELS),
        box_predictor=FastRCNNPredictor(LITE0_BOX_CHANNELS, num_classes),
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        box_nms_thresh=LITE0_BOX_NMS,
        **mask_parts,
        **sizes,
        **TEST_TIME,
    )
    return module


def maskrcnn_resnet50_fpn(num_classes: int, chip_size_px: int = CHIP_SIZE_PX) -> nn.Module:
    """Build torchvision's Mask R-CNN with a ResNet-50 body, 44 M parameters.

    Layers and anchors are torchvision's, so its checkpoints fit. Batch norm of the body is frozen:
    start training from trained weights.

    Args:
        num_classes: Classes of the output, background included.
        chip_size_px: Side of a chip; images of this size are not resized.

    Returns:
        A torchvision `MaskRCNN` with random weights, in training mode.

    Raises:
        ConfigError: A number is out of its range.
    """
    return _maskrcnn_resnet("resnet50", num_classes, chip_size_px)


def maskrcnn_resnet50_fpn_v2(num_classes: int, chip_size_px: int = CHIP_SIZE_PX) -> nn.Module:
    """Build torchvision's improved ResNet-50 Mask R-CNN (batch norm in every head).

    Args:
        num_classes: Classes of the output, background included.
        chip_size_px: Side of a chip; images of this size are not resized.

    Returns:
        A torchvision `MaskRCNN` with random weights, in training mode.

    Raises:
        ConfigError: A number is out of its range.
    """
    sizes = _image_sizes(num_classes, chip_size_px)
    module: nn.Module = detection.maskrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=num_classes, **sizes, **TEST_TIME
    )
    return module


def maskrcnn_resnet101_fpn(num_classes: int, chip_size_px: int = CHIP_SIZE_PX) -> nn.Module:
    """Build Mask R-CNN with a ResNet-101 body, 63 M parameters: the crowdAI baseline's size.

    Batch norm of the body is frozen: start training from trained weights.

    Args:
        num_classes: Classes of the output, background included.
        chip_size_px: Side of a chip; images of this size are not resized.

    Returns:
        A torchvision `MaskRCNN` with random weights, in training mode.

    Raises:
        ConfigError: A number is out of its range.
    """
    return _maskrcnn_resnet("resnet101", num_classes, chip_size_px)


ARCHITECTURES: Mapping[str, Builder] = {
    "maskrcnn_lite0": maskrcnn_lite0,
    "maskrcnn_lite0_slim": maskrcnn_lite0_slim,
    "maskrcnn_resnet50_fpn": maskrcnn_resnet50_fpn,
    "maskrcnn_resnet50_fpn_v2": maskrcnn_resnet50_fpn_v2,
    "maskrcnn_resnet101_fpn": maskrcnn_resnet101_fpn,
}


def build_architecture(
    name: str, *, num_classes: int = 2, chip_size_px: int = CHIP_SIZE_PX
) -> nn.Module:
    """Build a network by name, with random weights.

    Args:
        name: A key of `ARCHITECTURES`.
        num_classes: Classes of the output, background included.
        chip_size_px: Side of a chip; images of this size are not resized.

    Returns:
        The network in training mode.

    Raises:
        ModelError: There is no such architecture; the message lists those there are.
        ConfigError: A number is out of its range.
    """
    builder = ARCHITECTURES.get(name)
    if builder is None:
        raise ModelError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}, got {name[:80]!r}"
        )
    return builder(num_classes, chip_size_px)


def _maskrcnn_resnet(body_name: str, num_classes: int, chip_size_px: int) -> nn.Module:
    sizes = _image_sizes(num_classes, chip_size_px)
    backbone = resnet_fpn_backbone(backbone_name=body_name, weights=None, trainable_layers=5)
    module: nn.Module = MaskRCNN(backbone, num_classes=num_classes, **sizes, **TEST_TIME)
    return module


def _image_sizes(num_classes: int, chip_size_px: int) -> dict[str, int]:
    """Return resize limits; torchvision's own would enlarge a 300-px chip 2.7 times."""
    if num_classes < 2:
        raise ConfigError(f"num_classes must be at least 2 (background counts), got {num_classes}")
    if chip_size_px < 1:
        raise ConfigError(f"chip_size_px must be at least 1, got {chip_size_px}")
    return {"min_size": chip_size_px, "max_size": MAX_SIZE_RATIO * chip_size_px}
