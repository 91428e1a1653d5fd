"""From a run's data options to its sources of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoseg.data.cocofile import read_coco
from geoseg.data.copypaste import CopyPaste
from geoseg.data.folder import AnnotatedChips
from geoseg.data.layout import find_split
from geoseg.data.manifest import read_manifest
from geoseg.data.samples import Mixture
from geoseg.data.scenes import LabelledScene, WindowOptions
from geoseg.data.towns import FIRST_VAL_SEED, TOWN_GSD_M, make_towns
from geoseg.errors import ConfigError
from geoseg.evaluate.classes import class_names, relabelled
from geoseg.models import BUILDING

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoseg.data.annotations import Annotations
    from geoseg.data.samples import Sample, SampleSource
    from geoseg.models import Category
    from geoseg.train.options import DataOptions, SceneData


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Check:
    """One chip of a validation."""

    group: str
    """What it is counted with, beside all together: the resolution of a scene, or the split."""
    cut: Callable[[], Sample]
    empty: bool = False
    """Whether its document says that it holds no object; of scenes only cutting tells."""


def training_source(options: DataOptions) -> tuple[SampleSource, tuple[Category, ...]]:
    """Return where a run's samples come from, and the classes in them.

    Raises:
        ConfigError: There is nothing to train on, train has no chips, or outlines without a class
            meet chips of other classes than theirs.
        VectorError: Outlines cannot be read or do not touch their scene.
        SceneError: A raster cannot be used.
        InputNotFoundError: A file does not exist.
        FormatError: A document is no COCO.
    """
    windows = window_options(options)
    sources: list[SampleSource] = [open_scene(s, windows) for s in options.scenes]
    weights = [s.weight for s in options.scenes]
    categories: tuple[Category, ...] = (BUILDING,)
    if options.towns:
        sources += make_towns(options.towns, options=windows)
        weights += [options.towns_weight / options.towns] * options.towns
    if options.root is not None:
        chips = _split(options, "train")
        _check_chips(options, chips)
        categories = chips.annotations.categories
        _check_classes(options, categories)
        sources.append(chips)
        weights.append(1.0)
    if not sources:
        raise ConfigError("there is nothing to train on: set data.root, data.scenes or data.towns")
    mixture = Mixture(sources=tuple(sources), weights=tuple(weights))
    if options.copy_paste:
        return CopyPaste(source=mixture, chance=options.copy_paste), categories
    return mixture, categories


def _check_chips(options: DataOptions, chips: AnnotatedChips) -> None:
    if len(chips):
        return
    document = find_split(Path(str(options.root)), "train", small=options.small).document
    if options.manifest is not None:
        raise ConfigError(
            f"{options.manifest} keeps none of the chips of {document}: make it with "
            "geoseg data dedupe from the same folder"
        )
    raise ConfigError(f"{document} holds no chip to train on: check data.root")


def _check_classes(options: DataOptions, categories: tuple[Category, ...]) -> None:
    """Refuse to mix labels: outlines have no class, and are label 1 whatever that is in `root`."""
    outlines = options.scenes or options.towns or options.val_scenes or options.val_towns
    if outlines and len(categories) != 1:
        raise ConfigError(
            "data.root must have a single class beside scenes and towns, as outlines have none; "
            f"it has {class_names(categories)[:200]}"
        )


def validation_set(options: DataOptions, categories: tuple[Category, ...]) -> list[Check]:
    """Return the chips that a run is checked with, none if it has nothing to check with.

    Scenes are covered by chips that do not overlap, at each resolution. Where there are more than
    `val_limit`, every n-th is taken.

    Args:
        options: Of the run.
        categories: The classes that are learnt; chips get their labels, whatever those of their own
            document are.

    Raises:
        ConfigError: None of the chips holds an object of these classes, so there is nothing to
            measure.
        Otherwise as `training_source`.
    """
    checks: list[Check] = []
    windows = window_options(options)
    for item in options.val_scenes:
        scene = open_scene(item, windows)
        for gsd_m in options.val_gsd_m:
            group = f"{gsd_m:g} m"
            checks += [
                Check(group=group, cut=partial(scene.cut, place)) for place in scene.tiles(gsd_m)
            ]
    for town in make_towns(options.val_towns, options=windows, first_seed=FIRST_VAL_SEED):
        checks += [Check(group="towns", cut=partial(town.cut, p)) for p in town.tiles(TOWN_GSD_M)]
    if options.root is not None:
        chips = _in_classes(_split(options, "val"), categories)
        shown = _with_objects(chips.annotations)
        checks += [
            Check(group="val", cut=partial(_chip, chips, i), empty=i not in shown)
            for i in range(len(chips))
        ]
    checks = checks[:: max(1, math.ceil(len(checks) / options.val_limit))]
    if checks and all(check.empty for check in checks):
        raise ConfigError(
            f"none of the {len(checks)} validation chips holds an object, so no AP can be "
            "computed: annotate some, raise data.val_limit, or add data.val_scenes"
        )
    return checks


def _in_classes(chips: AnnotatedChips, categories: tuple[Category, ...]) -> AnnotatedChips:
    found = relabelled(chips.annotations, categories)
    if found is None:
        raise ConfigError(
            f"data.root: val must show a class of train ({class_names(categories)[:200]}), "
            f"it shows {class_names(chips.annotations.categories)[:200]}"
        )
    return replace(chips, annotations=found)


def _with_objects(annotations: Annotations) -> set[int]:
    """Return the rows of the chips with an object; crowds are none."""
    return set(annotations.image_index[~annotations.crowd].tolist())


def _chip(chips: AnnotatedChips, index: int) -> Sample:
    return chips.sample(index, np.random.default_rng(0))


def _split(options: DataOptions, name: str) -> AnnotatedChips:
    assert options.root is not None, "there is a folder of splits"
    split = find_split(Path(options.root), name, small=options.small)
    annotations = read_coco(split.document)
    if options.manifest is not None:
        annotations = annotations.keep(read_manifest(Path(options.manifest)).kept(name))
    return AnnotatedChips(annotations=annotations, folder=split.images, size_px=options.size_px)


def window_options(options: DataOptions) -> WindowOptions:
    """Return how windows are drawn from scenes."""
    return WindowOptions(
        size_px=options.size_px,
        gsd_range_m=options.gsd_range_m,
        near_object=options.near_object,
        rotate=options.rotate,
    )


def open_scene(scene: SceneData, windows: WindowOptions) -> LabelledScene:
    """Open one scene of the options."""
    return LabelledScene.open(scene.raster, scene.labels, part=scene.part, options=windows)
