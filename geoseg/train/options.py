"""Every option of a training run, with its default and unit. No torch here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from geoseg.errors import ConfigError

UNKNOWN = "unknown"
_STRICT: dict[str, str] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneData:
    """A scene with outlines."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    raster: str
    """GeoTIFF or anything else that opens as a scene."""
    labels: str
    """Vector file of outlines, any CRS."""
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Left, top, right, bottom of the part that is used, as shares of the scene."""
    weight: float = 1.0
    """Share of samples, in any unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """What is learnt from, and what it is checked against."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    root: str | None = None
    """Folder in crowdAI's layout: train/ and val/, each with images/ and annotation.json."""
    manifest: str | None = None
    """Split manifest of `geoseg data dedupe`; chips that it leaves out are not used."""
    small: bool = False
    """Read annotation-small.json."""
    scenes: tuple[SceneData, ...] = ()
    """Scenes to train on, beside or instead of `root`."""
    val_scenes: tuple[SceneData, ...] = ()
    """Scenes to check against; must share no ground with `scenes`."""
    towns: int = 0
    """Synthetic towns to train on, each from another seed."""
    towns_weight: float = 1.0
    """Share of samples from the towns, in the unit of the scenes' weights."""
    val_towns: int = 0
    """Synthetic towns to check against, none of them trained on."""
    size_px: int = 300
    """Side of a chip."""
    gsd_range_m: tuple[float, float] | None = (0.13, 0.4)
    """Ground metres per pixel that scenes are drawn at, finest and coarsest."""
    val_gsd_m: tuple[float, ...] = (0.15, 0.3)
    """Resolutions that the validation scenes are cut at."""
    val_limit: int = 1000
    """Most chips of a validation."""
    near_object: float = 0.85
    """Share of windows placed around an object, in [0, 1]."""
    rotate: float = 0.5
    """Share of windows turned by any angle, in [0, 1]."""
    augment: str = "aerial"
    """Preset: none, flips, light, aerial or aerial-zoom."""
    copy_paste: float = 0.0
    """Share of samples with objects of another pasted onto them, in [0, 1]."""
    loaders: int = 1
    """Processes that make samples beside the training process; 0 makes them in it."""

    def __post_init__(self) -> None:
        _between("loaders", self.loaders, 0, 64)
        _between("towns", self.towns, 0, 1000)
        _between("val_towns", self.val_towns, 0, 1000)
        _between("val_limit", self.val_limit, 1, 10**6)
        _between("copy_paste", self.copy_paste, 0, 1)
        for gsd_m in self.val_gsd_m:
            if not 0 < gsd_m < math.inf:
                raise ConfigError(f"val_gsd_m must be above 0, got {gsd_m}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Which network is trained, from what."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    architecture: str = "maskrcnn_lite0_slim"
    """A key of `geoseg.models.ARCHITECTURES`."""
    init: str = "imagenet"
    """imagenet (the body), coco (all but the predictors), random, a bundled name or a .safetensors
    file, a checkpoint's average too: layers that do not fit are left as they are, and named."""
    train_layers: str = "all"
    """all, heads, 5+, 4+, 3+ or a regular expression of layer names; the others stay."""
    stages: tuple[tuple[float, str], ...] = ()
    """(share of the run at which it begins, train_layers) of stages after the first."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """Whether the body's batch norm follows the data; small batches need it frozen."""
    rois: int = 128
    """Proposals a chip that the box head learns from; a third of them objects at most."""
    proposals: int = 400
    """Proposals a chip that those are chosen from."""
    mask_scores: bool = True
    """Whether finds are scored by class and mask, as the spec beside the weights will say; false:
    by class alone."""

    def __post_init__(self) -> None:
        _between("rois", self.rois, 4, 4096)
        _between("proposals", self.proposals, 4, 10_000)
        _between("stages", len(self.stages), 0, 20)
        for share, _ in self.stages:
            if not 0 <= share < 1:
                raise ConfigError(f"stages must begin at shares in [0, 1) of the run, got {share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimOptions:
    """How weights move."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 5e-4
    """Highest learning rate."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.02
    """Not applied to biases and norms."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.66, 0.89)
    """Of `step`: shares of the run after which the rate falls to a tenth."""
    warmup_steps: int = 100
    """Steps over which the rate rises from a thousandth."""
    clip_norm: float = 5.0
    """Largest norm of all gradients together; 0 does not clip."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is checked and kept; 0 keeps the weights."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr must be a number above 0, got {self.lr}")
        _between("momentum", self.momentum, 0, 0.9999)
        _between("weight_decay", self.weight_decay, 0, 10)
        _between("ema", self.ema, 0, 0.99999)
        _between("clip_norm", self.clip_norm, 0, 1e6)
        _between("accumulate", self.accumulate, 1, 1024)
        _between("warmup_steps", self.warmup_steps, 0, 10**6)
        for share in self.milestones:
            _between("milestones", share, 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """How long it runs, where, and what it leaves."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    steps: int = 2000
    """Weight updates."""
    batch_size: int = 4
    """Chips a batch and process."""
    device: str = "auto"
    """auto (cuda, then mps, then cpu), cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; auto: half where the device is faster with it."""
    threads: int = 0
    """CPU threads of torch; 0 leaves its choice."""
    seed: int = 0
    """Of samples, weights and the network's own draws."""
    log_every: int = 20
    """Steps between lines of the log."""
    validate_every: int = 500
    """Steps between validations; 0: only at the end."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    patience: int = 0
    """Validations without a better AP after which the run ends; 0: never."""

    def __post_init__(self) -> None:
        _between("steps", self.steps, 1, 10**8)
        _between("batch_size", self.batch_size, 1, 4096)
        _between("threads", self.threads, 0, 1024)
        _between("seed", self.seed, 0, 2**31 - 1)
        for name in ("log_every", "checkpoint_every"):
            _between(name, getattr(self, name), 1, 10**8)
        for name in ("validate_every", "patience"):
            _between(name, getattr(self, name), 0, 10**8)


@dataclass(frozen=True, slots=True, kw_only=True)
class AboutOptions:
    """What the spec beside the weights will say."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    name: str = "model"
    licence: str = UNKNOWN
    """Where unknown, that of the weights it begins with, if they have a spec."""
    attribution: tuple[str, ...] = ()
    """Lines to show wherever results of the model are published, after those of the weights it
    begins with."""
    data: str = ""
    """What it was trained on, in a sentence."""
    gsd_range_m: tuple[float, float] | None = None
    """Ground metres per pixel it does best at; by default those it saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything a training run can be told."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    data: DataOptions = field(default_factory=DataOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    loop: LoopOptions = field(default_factory=LoopOptions)
    about: AboutOptions = field(default_factory=AboutOptions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON or YAML."""
        return dataclasses.asdict(self)


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must be in [{low:g}, {high:g}], got {value}")
