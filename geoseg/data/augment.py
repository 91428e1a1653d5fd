"""What is done to a sample before a network sees it: presets of torchvision's transforms.

Each preset is a list of steps on uint8 images and their masks; all chance comes from torch's
generator, which `augmented` seeds for every sample. Legend: images are (3, H, W), masks (N, H, W).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from geoseg.data.samples import LEAST_OBJECT_PX, Sample
from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class _Lighting(v2.Transform):  # type: ignore[misc] # torchvision has no types
    """A change of an image's values; masks pass as they are."""

    _transformed_types = (tv_tensors.Image,)


class QuarterTurn(v2.Transform):  # type: ignore[misc] # torchvision has no types
    """Turn image and masks by 0, 90, 180 or 270 degrees."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what this time is done."""
        return {"k": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Do it to an image or a mask."""
        return tv_tensors.wrap(torch.rot90(inpt, params["k"], (-2, -1)), like=inpt)


class Light(_Lighting):
    """Another sun and another camera: gamma, and a gain for each band.

    Args:
        gamma: Largest change of its logarithm.
        gain: Largest change of a band, as a share.
    """

    def __init__(self, *, gamma: float, gain: float) -> None:
        super().__init__()
        self.gamma, self.gain = gamma, gain

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what this time is done."""
        return {
            "gamma": float(torch.empty(()).uniform_(-self.gamma, self.gamma).exp()),
            "gain": torch.empty(3, 1, 1).uniform_(1 - self.gain, 1 + self.gain),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Do it to an image or a mask."""
        lit = (inpt.as_subclass(torch.Tensor) / 255.0).pow(params["gamma"]) * params["gain"]
        return tv_tensors.Image((lit * 255.0).round_().clamp_(0, 255).to(torch.uint8))


class Shadow(_Lighting):
    """Darken one side of a random line, as a cloud or a tall neighbour does.

    Args:
        darkest: What is left of the light at least, as a share.
    """

    def __init__(self, *, darkest: float) -> None:
        super().__init__()
        self.darkest = darkest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what this time is done."""
        height, width = v2.query_size(flat_inputs)
        angle = torch.empty(()).uniform_(-torch.pi, torch.pi)
        y = torch.linspace(-1, 1, height)[:, None] - torch.empty(()).uniform_(-0.7, 0.7)
        x = torch.linspace(-1, 1, width)[None] - torch.empty(()).uniform_(-0.7, 0.7)
        side = torch.sigmoid((x * angle.cos() + y * angle.sin()) * 60)
        depth = 1 - torch.empty(()).uniform_(self.darkest, 0.9)
        return {"factor": 1 - depth * side}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Do it to an image or a mask."""
        return tv_tensors.Image((inpt * params["factor"]).to(torch.uint8))


class Noise(_Lighting):
    """Add a sensor's noise, the same for no two pixels.

    Args:
        sigma: Largest standard deviation, in 1/255.
    """

    def __init__(self, *, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what this time is done."""
        return {"sigma": float(torch.empty(()).uniform_(0, self.sigma))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Do it to an image or a mask."""
        noisy = inpt.float() + torch.randn(inpt.shape) * params["sigma"]
        return tv_tensors.Image(noisy.round_().clamp_(0, 255).to(torch.uint8))


class Jpeg(_Lighting):
    """Compress and decompress, as torchvision's own way is deprecated.

    Args:
        worst: Least quality.
        best: Greatest quality, up to 100.
    """

    def __init__(self, *, worst: int, best: int) -> None:
        super().__init__()
        self.worst, self.best = worst, best

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what this time is done."""
        return {"quality": int(torch.randint(self.worst, self.best + 1, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Do it to an image."""
        pixels = inpt.as_subclass(torch.Tensor).permute(1, 2, 0).contiguous().numpy()
        done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, params["quality"]])
        assert done, "uint8 of three bands can be compressed"
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return tv_tensors.Image(torch.from_numpy(decoded).permute(2, 0, 1).contiguous())


class Cutout(_Lighting):
    """Black out a small rectangle, as a pole, a wire or a gap in a mosaic does.

    Args:
        chance: Share of images it is done to.
        largest: Side of the rectangle at most, as a share of the image's.
    """

    def __init__(self, *, chance: float, largest: float) -> None:
        super().__init__()
        self.chance, self.largest = chance, largest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw where, if at all."""
        height, width = v2.query_size(flat_inputs)
        rows, cols = (int(torch.empty(()).uniform_(0, self.largest) * n) for n in (height, width))
        top, left = int(torch.randint(height, ())), int(torch.randint(width, ()))
        kept = torch.ones(height, width, dtype=torch.uint8)
        if torch.rand(()) < self.chance:
            kept[top : top + rows, left : left + cols] = 0
        return {"kept": kept}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Do it to an image."""
        return tv_tensors.Image(inpt * params["kept"])


def _d4() -> list[Any]:
    return [v2.RandomHorizontalFlip(0.5), QuarterTurn()]


def _colour(strength: float) -> list[Any]:
    jitter = v2.ColorJitter(0.35 * strength, 0.35 * strength, 0.45 * strength, 0.05 * strength)
    light = Light(gamma=0.35 * strength, gain=0.15 * strength)
    return [v2.RandomApply([jitter], 0.8), v2.RandomApply([light], 0.5), v2.RandomGrayscale(0.06)]


def _sensor() -> list[Any]:
    return [
        v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.5))], 0.15),
        v2.RandomApply([v2.RandomAdjustSharpness(2.0, 1.0)], 0.1),
        v2.RandomApply([Noise(sigma=10.0)], 0.15),
        v2.RandomApply([Jpeg(worst=35, best=95)], 0.25),
    ]


def _zoom() -> list[Any]:
    return [v2.RandomApply([v2.RandomAffine(0, scale=(0.7, 1.5))], 0.5)]


def _occlusion() -> list[Any]:
    return [
        v2.RandomApply([Shadow(darkest=0.35)], 0.2),
        Cutout(chance=0.1, largest=0.2),
    ]


def presets() -> Mapping[str, list[Any]]:
    """Return the steps of each preset by name, in the order they are taken.

    `none` leaves samples as they are. `flips` adds the eight flips and turns. `light` adds
    colour. `aerial` adds what differs between sensors, suns and places. `aerial-zoom` also
    zooms, for chips that lie on disk at one resolution; scenes are drawn at many anyway.
    """
    aerial = [*_d4(), *_colour(1.0), *_sensor(), *_occlusion()]
    return {
        "none": [],
        "flips": _d4(),
        "light": [*_d4(), *_colour(0.5)],
        "aerial": aerial,
        "aerial-zoom": [*_zoom(), *aerial],
    }


def make_augmentation(name: str) -> v2.Transform:
    """Return the transform of a preset.

    Raises:
        ConfigError: There is no such preset; the message lists those there are.
    """
    known = presets()
    if name not in known:
        raise ConfigError(f"augment must be one of {', '.join(known)}, got {name[:60]!r}")
    return v2.Compose(known[name] or [v2.Identity()])


def augmented(sample: Sample, transform: v2.Transform, *, seed: int) -> Sample:
    """Return a sample changed by a transform; the same seed gives the same pixels.

    Objects of which fewer than 12 px are left are dropped.

    Args:
        sample: What to change; it stays as it is.
        transform: Of `make_augmentation`.
        seed: Of all chance in the transform.
    """
    image = tv_tensors.Image(torch.from_numpy(sample.image))
    masks = tv_tensors.Mask(torch.from_numpy(sample.masks))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image, masks = transform(image, masks)
    left = _plain(masks)
    kept = np.array([np.count_nonzero(mask) >= LEAST_OBJECT_PX for mask in left], bool)
    return Sample(
        image=_plain(functional.to_dtype(image, torch.uint8)),
        masks=left if kept.all() else left[kept],
        labels=sample.labels[kept],
        gsd_m=sample.gsd_m,
    )


def _plain(tensor: Tensor) -> Any:
    return tensor.as_subclass(torch.Tensor).contiguous().numpy()
