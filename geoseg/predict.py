"""Run a network over chips and hand back detections with cropped soft masks.

Frame: detections in the frame of their chip's window. Shapes: B chips, S chip side, N detections,
M mask head side (28). A torchvision Mask R-CNN is stopped before it pastes: only detections above
the score threshold get a mask, and masks leave the device as (M, M). Any other network with
torchvision's detection contract has its full masks cropped.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.transform import resize_boxes

from geoseg.detections import Detections, crop_masks, paste_masks
from geoseg.errors import ConfigError, DeviceError, ModelError
from geoseg.models.precision import decode_in_single_precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from geoseg.chips import Chip, ChipBatch
    from geoseg.models import LoadedModel

log = logging.getLogger(__name__)

CPU_BATCH = 4
CUDA_BATCH_PER_GIB = 1.0
MAX_BATCH = 32
_KEYS = ("boxes", "labels", "scores", "masks")
MASK_ROUNDING = 1e-3  # half precision rounds a sum of weights to a little over 1


class Predictor:
    """A network with its batch size, ready to stream chips through.

    Args:
        model: The network on its device.
        score_threshold: Least score of a detection, in [0, 1].
        batch_size: Chips per forward pass; None chooses by device. Halved when memory runs out.

    Raises:
        ConfigError: A number is out of its range.
    """

    def __init__(
        self, model: LoadedModel, *, score_threshold: float, batch_size: int | None = None
    ) -> None:
        if not 0 <= score_threshold <= 1:
            raise ConfigError(f"score_threshold must be in [0, 1], got {score_threshold}")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.score_threshold = score_threshold
        self.batch_size = batch_size or default_batch_size(model.device)
        self._cropped = isinstance(model.module, MaskRCNN)
        if self._cropped:
            decode_in_single_precision(model.module)

    def stream(self, batches: Iterable[ChipBatch]) -> Iterator[tuple[Chip, Detections]]:
        """Yield each chip with what was found in it, in the order the chips come.

        Raises:
            ModelError: The network's output is not torchvision's detection contract.
            DeviceError: Not even one chip fits in the device's memory.
        """
        for batch in batches:
            yield from self._predict_fitting(batch)

    def predict(self, batch: ChipBatch) -> list[Detections]:
        """Run one batch as it is.

        Returns:
            One `Detections` per chip, in its window's frame, scores at or above the threshold.
        """
        images = torch.from_numpy(batch.images).to(self.model.device, non_blocking=True)
        with torch.inference_mode(), self._autocast():
            images_BCHW = images.to(torch.float32).div_(255.0)
            if self._cropped:
                outputs = _forward_unpasted(self.model.module, images_BCHW)
            else:
                outputs = _forward_foreign(self.model.module, images_BCHW)
            side_hw = None if self._cropped else (int(images.shape[2]), int(images.shape[3]))
            _check_contract(outputs, len(batch), side_hw)
            if self.model.device.type == "cpu":  # nothing to carry: joining would only copy masks
                hosted = [_to_host([output], self.score_threshold)[0] for output in outputs]
            else:
                hosted = _to_host(outputs, self.score_threshold)
        return [
            self._to_detections(chip, output)
            for chip, output in zip(batch.chips, hosted, strict=True)
        ]

    def _to_detections(self, chip: Chip, output: dict[str, NDArray[Any]]) -> Detections:
        masks = output.pop("masks")
        if not all(
            np.isfinite(values).all() for values in (masks, output["boxes"], output["scores"])
        ):
            raise ModelError(
                "the model returned NaN or infinite boxes, scores or masks: check its weights"
            )
        low, high = (float(masks.min()), float(masks.max())) if masks.size else (0.0, 0.0)
        if low < 0 or high > 1 + MASK_ROUNDING:
            raise ModelError(f"masks must be probabilities in [0, 1], got {low:.3g} to {high:.3g}")
        masks = np.minimum(masks, 1)
        if self._cropped:
            found = paste_masks(chip.scene_id, chip.window, probs=masks, **output)
        else:
            found = crop_masks(chip.scene_id, chip.window, masks=masks, **output)
        return self._mask_scored(found) if self.model.spec.mask_scores else found

    def _mask_scored(self, found: Detections) -> Detections:
        scored = replace(found, scores=found.scores * np.sqrt(found.expected_ious()))
        keep = scored.scores >= self.score_threshold
        return scored if keep.all() else scored.take(keep)

    def _predict_fitting(self, batch: ChipBatch) -> Iterator[tuple[Chip, Detections]]:
        pending = batch.split(self.batch_size)
        while pending:
            part = pending.pop(0)
            found = self._predict_if_it_fits(part)
            if found is not None:
                yield from zip(part.chips, found, strict=True)
            else:
                size = self._halve(len(part))
                pending = [smaller for each in (part, *pending) for smaller in each.split(size)]

    def _predict_if_it_fits(self, batch: ChipBatch) -> list[Detections] | None:
        """Return None when memory runs out; the error, which holds on to tensors, is let go."""
        try:
            return self.predict(batch)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return None

    def _halve(self, size: int) -> int:
        if size == 1:
            raise DeviceError(
                f"one chip does not fit in the memory of {self.model.device}: "
                "use smaller chips, a smaller model or --device cpu"
            )
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_size = size // 2
        log.warning("out of memory with %d chips a batch; going on with %d", size, self.batch_size)
        return self.batch_size

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.model.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.float16)
        return contextlib.nullcontext()


def default_batch_size(device: torch.device) -> int:
    """Choose chips per forward pass: by free memory on CUDA, small elsewhere."""
    if device.type != "cuda":
        return CPU_BATCH
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MAX_BATCH, int(free_bytes / 2**30 * CUDA_BATCH_PER_GIB)))


def _forward_unpasted(module: MaskRCNN, images_BCHW: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Run torchvision's own forward up to, and without, pasting the masks."""
    sizes = [(int(images_BCHW.shape[2]), int(images_BCHW.shape[3]))] * len(images_BCHW)
    images, _ = module.transform(list(images_BCHW.unbind()), None)
    features = module.backbone(images.tensors)
    if isinstance(features, torch.Tensor):
        features = {"0": features}
    # torchvision drops NaN scores itself: an overflow would look like an empty map.
    if not bool(torch.stack([f.float().sum() for f in features.values()]).isfinite().all()):
        raise ModelError(
            "the model's features are NaN or infinite: check its weights, or try --device cpu"
        )
    proposals, _ = module.rpn(images, features, None)
    outputs, _ = module.roi_heads(features, proposals, images.image_sizes, None)
    for output, resized, size in zip(outputs, images.image_sizes, sizes, strict=True):
        if resized != size:
            output["boxes"] = resize_boxes(output["boxes"], list(resized), list(size))
    return list(outputs)


def _forward_foreign(module: torch.nn.Module, images_BCHW: torch.Tensor) -> Any:
    try:
        return module(list(images_BCHW.unbind()))
    except Exception as error:
        # The network is the user's code: whatever it raises, the user needs one line first.
        if isinstance(error, RuntimeError) and _is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"the model raised {type(error).__name__}: {text}") from error


def _check_contract(outputs: Any, count: int, side_hw: tuple[int, int] | None) -> None:
    """Check outputs for `count` chips; `side_hw` is the masks' shape, None for a mask head's."""
    good = isinstance(outputs, list | tuple) and len(outputs) == count
    if not good or not all(
        isinstance(output, dict) and all(torch.is_tensor(output.get(key)) for key in _KEYS)
        for output in outputs
    ):
        raise ModelError(
            f"the model must return one dict of {', '.join(_KEYS)} per image "
            "(torchvision's detection contract)"
        )
    for output in outputs:
        shapes = {key: tuple(output[key].shape) for key in _KEYS}
        n = shapes["labels"][0] if shapes["labels"] else 0
        masks_good = shapes["masks"][:2] == (n, 1) and len(shapes["masks"]) == 4
        if n and side_hw is not None:
            masks_good = shapes["masks"] == (n, 1, *side_hw)
        agree = (shapes["boxes"], shapes["labels"], shapes["scores"]) == ((n, 4), (n,), (n,))
        if not (agree and masks_good):
            raise ModelError(
                "the model's boxes (N, 4), labels (N,), scores (N,) and masks (N, 1, H, W) "
                f"disagree with each other or the chip: {shapes}"
            )


def _to_host(
    outputs: list[dict[str, torch.Tensor]], threshold: float
) -> list[dict[str, NDArray[Any]]]:
    """Bring a batch's detections at or above the threshold to the host, joined: one trip each."""
    counts = [len(output["scores"]) for output in outputs]
    full = [output for output in outputs if len(output["scores"])]
    if not full:
        return [_nothing() for _ in outputs]
    joined = {key: _joined([output[key] for output in full]) for key in _KEYS}
    keep = ~(joined["scores"] < threshold)  # NaN is kept, to be found
    owner = torch.repeat_interleave(torch.tensor(counts)).to(keep.device)
    joined["masks"] = joined["masks"][:, 0]
    joined["owner"] = owner
    if not bool(keep.all()):
        joined = {key: values[keep] for key, values in joined.items()}
    kept = {key: values.cpu() for key, values in joined.items()}
    host = {key: (v.float() if v.is_floating_point() else v).numpy() for key, v in kept.items()}
    host["scores"] = host["scores"].clip(0, 1)
    ends = np.searchsorted(host.pop("owner"), np.arange(len(outputs) + 1))
    return [{key: values[a:b] for key, values in host.items()} for a, b in itertools.pairwise(ends)]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _nothing() -> dict[str, NDArray[Any]]:
    floats = np.zeros(0, np.float32)
    return {
        "boxes": floats.reshape(0, 4),
        "labels": np.zeros(0, np.int64),
        "scores": floats,
        "masks": floats.reshape(0, 1, 1),
    }


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text
