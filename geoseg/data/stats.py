"""Numbers of a set of annotated chips: how many, how large, how crowded. Must not import torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.data.plots import figure_class
from geoseg.errors import ConfigError, GeosegError
from geoseg.files import check_output, replacing
from geoseg.raster import Scene
from geoseg.raster.images import TIFF_SUFFIXES

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
    gsd_m: dict[str, float] | None
    """Least, median and greatest ground metres per pixel of the chips, where known."""
    side_px: dict[str, float]
    """Quantiles of the square root of the objects' areas."""
    side_m: dict[str, float] | None
    """The same on the ground, of the chips whose resolution is known."""
    aspect: dict[str, float]
    """Quantiles of the boxes' longer side over the shorter one."""
    touching_border: float
    """Share of objects that their chip's border probably cuts."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


def stats(annotations: Annotations, *, gsd_m: float | NDArray[np.float64] | None = None) -> Stats:
    """Measure a set of annotated chips.

    Args:
        annotations: The chips.
        gsd_m: Their ground metres per pixel, where known: one for all, or (I,), NaN where unknown.

    Raises:
        ConfigError: The ground metres per pixel are one number, and not above 0.
    """
    if isinstance(gsd_m, int | float) and not 0 < gsd_m < float("inf"):
        raise ConfigError(f"gsd must be more than 0 metres per pixel, got {gsd_m}")
    gsds = np.full(len(annotations.images), np.nan if gsd_m is None else gsd_m)
    known = gsds[~np.isnan(gsds)]
    things = annotations.where(~annotations.crowd)
    per_image = np.bincount(things.image_index, minlength=len(things.images))
    labels = np.bincount(things.labels, minlength=len(things.categories) + 1)[1:]
    sides = sides_px(things)
    sides_m = sides * gsds[things.image_index]
    return Stats(
        n_images=len(things.images),
        n_objects=len(things),
        n_crowds=int(annotations.crowd.sum()),
        n_empty_images=int((per_image == 0).sum()),
        objects_per_image=float(per_image.mean()) if len(per_image) else float("nan"),
        most_objects=int(per_image.max(initial=0)),
        by_category={c.name: int(n) for c, n in zip(things.categories, labels, strict=True)},
        gsd_m=_range(known) if len(known) else None,
        side_px=_quantiles(sides),
        side_m=_quantiles(sides_m[~np.isnan(sides_m)]) if len(known) else None,
        aspect=_quantiles(_aspects(things)),
        touching_border=float(_at_border(things).mean()) if len(things) else float("nan"),
    )


def chip_gsds_m(annotations: Annotations, folder: Path) -> NDArray[np.float64]:
    """Return ground metres per pixel (I,) of chips that are GeoTIFFs with a CRS, NaN of others.

    Args:
        annotations: The chips.
        folder: Where their file names begin.
    """
    return np.array([_gsd_m(folder / name) for name in annotations.images.file_names], np.float64)


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


def _gsd_m(path: Path) -> float:
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return float("nan")
    try:
        with Scene.open(str(path), rescale=(0, 1), gsd="native") as scene:
            return scene.grid.gsd_m
    except GeosegError:  # not there, no CRS: `check` tells of what is broken
        return float("nan")


def _range(values: NDArray[np.float64]) -> dict[str, float]:
    middle = float(np.median(values))
    return {"least": float(values.min()), "median": middle, "greatest": float(values.max())}


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
