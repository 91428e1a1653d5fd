"""Half precision where it is harmless: box arithmetic stays in single."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchvision.models.detection._utils import BoxCoder

if TYPE_CHECKING:
    from torch import Tensor
    from torchvision.models.detection import MaskRCNN


class _SinglePrecisionCoder(BoxCoder):  # type: ignore[misc] # torchvision has no types
    """Under autocast torchvision decodes boxes in half precision, which rounds them to 0.25 px."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        decoded: Tensor = super().decode_single(rel_codes.float(), boxes.float())
        return decoded


def decode_in_single_precision(module: MaskRCNN) -> None:
    """Make a network decode boxes in single precision, whatever autocast says; changed in place."""
    for part in (module.rpn, module.roi_heads):
        coder = part.box_coder
        part.box_coder = _SinglePrecisionCoder(coder.weights, coder.bbox_xform_clip)
