"""A training run as a folder: what it was told, how it went, and the weights it ends with.

Run again with the same config, it goes on from its last checkpoint. Several processes that
`torchrun` starts train together; only the first one writes.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg import __version__
from geoseg.config import dump_config, load_train_config
from geoseg.data.augment import make_augmentation
from geoseg.errors import ConfigError, OutputError
from geoseg.files import check_parent, output_errors, replacing
from geoseg.models import BUILDING, ModelSpec
from geoseg.models.weights import save_weights
from geoseg.train.checkpoint import checkpoint_step
from geoseg.train.journal import RunJournal
from geoseg.train.loop import CHECKPOINT, train
from geoseg.train.network import build_network, check_layers, initial_spec
from geoseg.train.options import UNKNOWN
from geoseg.train.processes import describe_devices, joined_processes
from geoseg.train.sources import training_source, validation_set
from geoseg.train.trainee import Trainee, make_trainee
from geoseg.train.validate import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from geoseg.models import Category
    from geoseg.train.checkpoint import Progress
    from geoseg.train.network import Initialised
    from geoseg.train.options import TrainConfig

CONFIG_FILE = "run.yaml"
ENVIRONMENT_FILE = "environment.json"
WEIGHTS_FILE = "model.safetensors"
LATER = {
    "loop": ("steps", "device", "threads", "log_every", "checkpoint_every", "patience"),
    "data": ("loaders",),
}
"""What may differ when a run goes on."""
BEFORE = {"network.mask_scores": False}
"""What runs did before there was an option for it: their config lacks the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """What a run came to."""

    folder: Path
    progress: Progress
    spec: ModelSpec | None
    """Of the weights; None in the processes that do not write."""
    left: tuple[str, ...]
    """Layers that the initial weights did not fill."""


def train_run(
    config: TrainConfig, folder: Path, *, say: Callable[[str], None] = lambda _: None
) -> TrainSummary:
    """Train a network and leave its weights, logs and checkpoints in a folder.

    `model.safetensors` and its spec hold the weights with the best AP, or the last ones where
    no validation had any.

    Args:
        config: What to do.
        folder: The run folder; made if it is not there.
        say: Told lines for people who watch.

    Returns:
        Where it stands, and the spec of the weights.

    Raises:
        ConfigError: The folder holds a run of another config, there is nothing to train on or
            to measure, or no such augmentation or layers; no run is left.
        ModelError: The initial weights do not fit, or the loss or the weights are no numbers any
            more.
        KeyboardInterrupt: It was interrupted; the message says how it goes on.
        OutputError: The folder cannot be written to.
        DeviceError: The device is not there.
    """
    with joined_processes(config.loop) as (shard, device):
        if shard.rank == 0:
            _open_folder(folder, config)
        source, categories = training_source(config.data)
        checks = validation_set(config.data, categories) if shard.rank == 0 else None
        module, initial = build_network(
            config.network, num_classes=len(categories) + 1, size_px=config.data.size_px
        )
        if shard.rank == 0:
            _tell(initial, say)
        make_augmentation(config.data.augment)
        check_layers(module, config.network)
        spec = _spec(config, categories, module)
        trainee = make_trainee(module, config, device)
        if shard.rank == 0:
            _describe(folder, config)
        to_write = _journal(folder, say) if shard.rank == 0 else nullcontext()
        with _resumable(folder), to_write as journal:
            validator = Validator(checks, spec=spec) if checks else None
            progress = train(
                trainee,
                source,
                config,
                folder=folder,
                journal=journal,
                validate=validator,
                keep_best=lambda best: _keep(best, spec, folder),
                shard=shard,
            )
        written = None
        if shard.rank == 0:
            if not progress.best_step:
                _keep_last(trainee, spec, folder)
            written = ModelSpec.read((folder / WEIGHTS_FILE).with_suffix(".json"))
        return TrainSummary(folder=folder, progress=progress, spec=written, left=initial.left)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        step = checkpoint_step(folder / CHECKPOINT)
        kept = f"holds a checkpoint of step {step}" if step else "has no checkpoint yet"
        goes_on = "goes on from there" if step else "begins anew"
        raise KeyboardInterrupt(f"{folder} {kept}: the same command again {goes_on}") from error


def _journal(folder: Path, say: Callable[[str], None]) -> RunJournal:
    return RunJournal(folder, start=checkpoint_step(folder / CHECKPOINT), say=say)


def _open_folder(folder: Path, config: TrainConfig) -> None:
    """Make the folder, or check that the run in it is this one."""
    path = folder / CONFIG_FILE
    if path.exists():
        _check_same(path, config)
    elif folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} must be empty or hold a run: choose another --run-dir")
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    check_parent(path)


def _describe(folder: Path, config: TrainConfig) -> None:
    """Write what a run was told, once there is all it needs: what is refused leaves no run."""
    with output_errors(folder):
        _put(folder / CONFIG_FILE, dump_config(config))
        _put(folder / ENVIRONMENT_FILE, json.dumps(_environment(), indent=2) + "\n")


def _put(path: Path, text: str) -> None:
    """Write a file whole or not at all, and only if that changes it."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _check_same(path: Path, config: TrainConfig) -> None:
    before, now = load_train_config(path, defaults=BEFORE).to_dict(), config.to_dict()
    for section, keys in now.items():
        for key, value in keys.items():
            was = before[section][key]
            if was != value and key not in LATER.get(section, ()):
                raise ConfigError(
                    f"{path.parent} holds a run with {section}.{key} {str(was)[:60]}, now it is "
                    f"{str(value)[:60]}: go on with the same config, or choose another --run-dir"
                )


def _environment() -> dict[str, Any]:
    packages = ("torch", "torchvision", "timm", "numpy", "rasterio", "opencv-python-headless")
    return {
        "geoseg": __version__,
        "git": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **describe_devices(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _git_revision() -> str | None:
    """Return the revision of the source, where it is a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _tell(initial: Initialised, say: Callable[[str], None]) -> None:
    """Name what was left random, by the parts of the network."""
    if not (initial.loaded and initial.left):
        return
    left = Counter(map(_part, initial.left))
    every = left + Counter(map(_part, initial.loaded))
    parts = ", ".join(f"{part} ({count} of {every[part]})" for part, count in left.items())
    say(
        f"initial weights: {len(initial.loaded)} tensors loaded, {len(initial.left)} left random: "
        f"{parts}"
    )


def _part(name: str) -> str:
    """Return which part of a network a layer is in, such as roi_heads.box_predictor."""
    return ".".join(name.split(".")[:2])


def _spec(config: TrainConfig, categories: tuple[Category, ...], module: Any) -> ModelSpec:
    """Return the spec of the run's weights; licence and credits of those it begins with stay."""
    about, first = config.about, initial_spec(config.network)
    licence, credits_ = about.licence, about.attribution
    if first is not None:
        licence = first.licence if licence == UNKNOWN else licence
        credits_ = tuple(dict.fromkeys((*first.attribution, *credits_)))
    mean, std = module.transform.image_mean, module.transform.image_std
    return ModelSpec(
        name=about.name,
        architecture=config.network.architecture,
        categories=categories or (BUILDING,),
        chip_size_px=config.data.size_px,
        gsd_range_m=about.gsd_range_m or config.data.gsd_range_m,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        sha256=None,
        licence=licence,
        attribution=credits_,
        data=about.data,
        version="1",
        mask_scores=config.network.mask_scores,
    )


def _keep(module: Any, spec: ModelSpec, folder: Path) -> None:
    save_weights(module, spec, folder / WEIGHTS_FILE)


def _keep_last(trainee: Trainee, spec: ModelSpec, folder: Path) -> None:
    if trainee.average is None:
        _keep(trainee.module, spec, folder)
        return
    with trainee.average.applied(trainee.module):
        _keep(trainee.module, spec, folder)
