"""Numbers of a set of annotated chips: how many, how large, how crowded. Must not import torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.data.plots import figure_class
from geoseg.files import check_output, replacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.data.annotations import Annotations

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BORDER_PX = 1.0  # a box this near its chip's border is taken to be cut by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a set of annotated chips is like; NaN where there is nothing to measure."""

    n_images: int
    n_objects: int
    """Crowds not counted."""
    n_crowds: int
    n_empty_images: int
    objects_per_image: float
    most_objects: int
    by_category: dict[str, int]
    side_px: dict[str, float]
    """Quantiles of the square root of the objects' areas."""
    side_m: dict[str, float] | None
    """The same on the ground, where the resolution is known."""
    aspect: dict[str, float]
    """Quantiles of the boxes' longer side over the shorter one."""
    touching_border: float
    """Share of objects that their chip's border probably cuts."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


def stats(annotations: Annotations, *, gsd_m: float | None = None) -> Stats:
    """Measure a set of annotated chips.

    Args:
        annotations: The chips.
        gsd_m: Their ground metres per pixel, where known.
    """
    things = annotations.where(~annotations.crowd)
    per_image = np.bincount(things.image_index, minlength=len(things.images))
    labels = np.bincount(things.labels, minlength=len(things.categories) + 1)[1:]
    side_px = _quantiles(sides_px(things))
    return Stats(
        n_images=len(things.images),
        n_objects=len(things),
        n_crowds=int(annotations.crowd.sum()),
        n_empty_images=int((per_image == 0).sum()),
        objects_per_image=float(per_image.mean()) if len(per_image) else float("nan"),
        most_objects=int(per_image.max(initial=0)),
        by_category={c.name: int(n) for c, n in zip(things.categories, labels, strict=True)},
        side_px=side_px,
        side_m=None if gsd_m is None else {k: v * gsd_m for k, v in side_px.items()},
        aspect=_quantiles(_aspects(things)),
        touching_border=float(_at_border(things).mean()) if len(things) else float("nan"),
    )


def sides_px(annotations: Annotations) -> NDArray[np.float64]:
    """Return the square root of each object's area (N,), px."""
    return np.sqrt(np.maximum(annotations.areas_px2, 0))


def plot_stats(annotations: Annotations, path: Path) -> None:
    """Draw histograms of objects per chip and of their sizes, as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    figure = figure_class()(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    things = annotations.where(~annotations.crowd)
    per_image = np.bincount(things.image_index, minlength=len(things.images))
    left.hist(per_image, bins=np.arange(per_image.max(initial=0) + 2) - 0.5, color="#4472a8")
    left.set(xlabel="objects in a chip", ylabel="chips")
    right.hist(sides_px(things), bins=50, color="#4472a8")
    right.set(xlabel="square root of the area, px", ylabel="objects")
    with replacing(check_output(path, (".png",))) as temporary:
        figure.savefig(temporary, dpi=110)


def _aspects(annotations: Annotations) -> NDArray[np.float64]:
    sides = annotations.boxes_xywh[:, 2:].astype(float)
    sides = sides[(sides > 0).all(axis=1)]
    return np.asarray(sides.max(axis=1) / sides.min(axis=1)) if len(sides) else np.zeros(0)


def _at_border(annotations: Annotations) -> NDArray[np.bool_]:
    boxes = annotations.boxes_xywh.astype(float)
    sizes = annotations.images.sizes_hw[annotations.image_index].astype(float)[:, ::-1]
    near = (boxes[:, :2] < BORDER_PX) | (boxes[:, :2] + boxes[:, 2:] > sizes - BORDER_PX)
    return np.asarray(near.any(axis=1), np.bool_)


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    known = np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)
    return {f"{q:.0%}": float(v) for q, v in zip(QUANTILES, known, strict=True)}
