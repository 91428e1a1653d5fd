"""Models that know the answer: they read painted instance ids back from the pixels of a chip.

Any score below 1.0 with `oracle` is then the pipeline's own fault. Each factory returns a
`torch.nn.Module` with torchvision's detection contract, so it serves as
`--model geoseg.testing:oracle` on a raster that `ids_to_rgb` painted. Frame: pixels of the chip.
torch is imported inside the functions: importing this module does not cost its seconds.
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from scipy import ndimage

from geoseg.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    Masks: TypeAlias = NDArray[np.float32]
    Reading: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int32]]
    Boxes: TypeAlias = list[tuple[slice, slice]]
    Paint: TypeAlias = Callable[[NDArray[np.int32], NDArray[np.int32]], Masks]

SCORE = 0.9


def ids_to_rgb(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Paint instance ids as colours: id = r + 256 g + 65536 b.

    Args:
        ids: (H, W), 0 where there is no instance.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: An id is outside [0, 2**24).

    Example:
        >>> ids_to_rgb(np.array([[1, 256 * 7 + 3]], np.int32)).tolist()
        [[[1, 0, 0], [3, 7, 0]]]
    """
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << 24):
        raise ValueError(f"ids must be in [0, 2**24), got {ids.min()} to {ids.max()}")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def oracle() -> torch.nn.Module:
    """Build a model that returns the exact hard mask of every instance in the chip, score 0.9.

    Returns:
        A module: list of (3, H, W) floats in [0, 1] -> list of dicts of `boxes` (N, 4) xyxy pixel
        edges, `labels` (N,), `scores` (N,) and `masks` (N, 1, H, W), in order of id.

    Example:
        >>> import torch
        >>> rgb = ids_to_rgb(np.array([[7, 7, 0], [7, 7, 0]], np.int32))
        >>> oracle()([torch.from_numpy(rgb).permute(2, 0, 1) / 255])[0]["boxes"].tolist()
        [[0.0, 0.0, 2.0, 2.0]]
    """
    return _model_class()(_hard_masks)


def noisy_oracle() -> torch.nn.Module:
    """Build an oracle whose masks are each grown by 1 px, shrunk by 1 px or left alone.

    The choice depends on the chip's content and the id alone: runs repeat to the bit, and the same
    building differs from chip to chip.
    """
    return _model_class()(_noisy_masks)


def soft_oracle(*, sigma_px: float = 1.0) -> torch.nn.Module:
    """Build an oracle whose masks fall off smoothly: 0.5 on straight edges, a Gaussian around.

    Args:
        sigma_px: Standard deviation of the blur, px.
    """
    return _model_class()(functools.partial(_soft_masks, sigma_px=sigma_px))


def blank() -> torch.nn.Module:
    """Build a model that never finds anything."""
    return _model_class()(_no_masks)


@functools.cache
def _model_class() -> type[torch.nn.Module]:
    import torch  # noqa: PLC0415 - seconds to import, and only models need it

    class Oracle(torch.nn.Module):
        """Turns painted chips into detections; see the factories."""

        def __init__(self, paint: Paint) -> None:
            super().__init__()
            self._paint = paint

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            return [self._detect(image) for image in images]

        def _detect(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            ids, labels = read_ids(image.detach().float().cpu().numpy())
            masks = self._paint(ids, labels)
            masks = masks[masks.any(axis=(1, 2))]
            n = len(masks)
            found = {
                "boxes": torch.from_numpy(_boxes_xyxy(masks)),
                "labels": torch.ones(n, dtype=torch.int64),
                "scores": torch.full((n,), SCORE),
                "masks": torch.from_numpy(masks[:, None]),
            }
            return {name: tensor.to(image.device) for name, tensor in found.items()}

    return Oracle


def read_ids(image: NDArray[np.float32]) -> Reading:
    """Read painted ids back from a chip.

    Args:
        image: (3, H, W), 8-bit colours divided by 255.

    Returns:
        The ids in the chip, ascending, (N,); and (H, W) with k + 1 where the k-th of them lies.

    Raises:
        ModelError: The chip has not three bands.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ModelError(f"an oracle reads chips of shape (3, H, W), got {image.shape}")
    r, g, b = np.rint(image * 255).astype(np.int32)
    flat = (r | g << 8 | b << 16).ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])  # runs are far fewer than pixels
    ids, rank = np.unique(np.r_[0, flat[starts]], return_inverse=True)
    lengths = np.diff(np.r_[starts, flat.size])
    labels = np.repeat(rank[1:].astype(np.int32), lengths).reshape(r.shape)
    return ids[1:], labels


def _windows(labels: NDArray[np.int32], margin_px: int) -> Boxes:
    """Return each label's box grown by a margin inside the chip, as slices."""

    def grow(span: slice) -> slice:
        return slice(max(span.start - margin_px, 0), span.stop + margin_px)

    return [(grow(rows), grow(cols)) for rows, cols in ndimage.find_objects(labels)]


def _hard_masks(ids: NDArray[np.int32], labels: NDArray[np.int32]) -> Masks:
    masks = np.zeros((len(ids), *labels.shape), np.float32)
    for k, box in enumerate(_windows(labels, 0)):
        masks[k][box] = labels[box] == k + 1
    return masks


def _noisy_masks(ids: NDArray[np.int32], labels: NDArray[np.int32]) -> Masks:
    masks = np.zeros((len(ids), *labels.shape), np.float32)
    content = zlib.crc32(labels.tobytes(), zlib.crc32(ids.tobytes()))
    kernel = np.ones((3, 3), np.uint8)
    for k, box in enumerate(_windows(labels, 1)):
        hard = (labels[box] == k + 1).astype(np.uint8)
        choice = np.random.default_rng([content, int(ids[k])]).integers(3)
        change = (cv2.erode, cv2.dilate, lambda mask, _: mask)[choice]
        masks[k][box] = change(hard, kernel)
    return masks


def _soft_masks(ids: NDArray[np.int32], labels: NDArray[np.int32], *, sigma_px: float) -> Masks:
    masks = np.zeros((len(ids), *labels.shape), np.float32)
    reach = int(np.ceil(3 * sigma_px))
    for k, box in enumerate(_windows(labels, reach)):
        hard = (labels[box] == k + 1).astype(np.float32)
        masks[k][box] = cv2.GaussianBlur(
            hard, (2 * reach + 1,) * 2, sigma_px, borderType=cv2.BORDER_REPLICATE
        )
    return masks


def _no_masks(ids: NDArray[np.int32], labels: NDArray[np.int32]) -> Masks:
    return np.zeros((0, *labels.shape), np.float32)


def _boxes_xyxy(masks: Masks) -> NDArray[np.float32]:
    """Return the pixel-edge boxes of what is at least 0.5, or above 0 where nothing is, (N, 4)."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for k, mask in enumerate(masks):
        inside = mask >= min(0.5, float(mask.max()))
        rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        boxes[k] = cols[0], rows[0], cols[-1] + 1, rows[-1] + 1
    return boxes
