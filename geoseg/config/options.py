"""Every option of a mapping run, with its default and unit.

The dataclasses are the single definition: the command line's options, the keys of a config file
and `--set key=value` all end up here. Ranges are checked where they are used.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from geoseg.chips import CHIP_OVERLAP_PX
from geoseg.errors import ConfigError
from geoseg.morphology import MorphologyOptions
from geoseg.osm.conflate.rules import ConflateOptions
from geoseg.polygonize import PolygonizeOptions
from geoseg.regularize import RegularizeOptions
from geoseg.stitch import StitchOptions
from geoseg.topology import TopologyOptions
from geoseg.tta import TtaOptions

MAX_READERS = 64
MAX_BATCH_SIZE = 4096
MAX_WORKERS = 4096
_ADDRESS = re.compile(r"[a-z]+://\S+|[^\s:/]+:\d+")
_STRICT: dict[str, str] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """How a raster is read."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    bands: tuple[int, ...] | None = None
    """Three 1-based bands shown to the model as red, green, blue; by default the first three."""
    rescale: Literal["auto"] | tuple[float, float] = "auto"
    """Values that become 0 and 255; auto: uint8 as it is, else 2nd to 98th percentile per band."""
    gsd: Literal["auto", "native"] | float = "auto"
    """Ground metres per pixel the scene is read at; auto: clamped to what the model knows."""
    aoi: str | None = None
    """Vector file; only chips that touch it are mapped."""

    def __post_init__(self) -> None:
        if self.bands is not None and (len(self.bands) != 3 or min(self.bands) < 1):
            raise ConfigError(f"bands must be three numbers from 1, got {list(self.bands)}")
        if not isinstance(self.rescale, str) and not _is_range(*self.rescale):
            raise ConfigError(f"rescale must be MIN,MAX with MIN < MAX, got {self.rescale}")
        if not isinstance(self.gsd, str) and not (math.isfinite(self.gsd) and self.gsd > 0):
            raise ConfigError(f"gsd must be auto, native or metres above 0, got {self.gsd}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipOptions:
    """How a scene is cut."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    size_px: int | None = None
    """Side of a chip; by default the side the model was trained on, 300."""
    overlap_px: int = CHIP_OVERLAP_PX
    """Least overlap of neighbouring chips."""

    def __post_init__(self) -> None:
        if self.size_px is not None and self.size_px < 1:
            raise ConfigError(f"size_px must be at least 1, got {self.size_px}")
        if not 0 <= self.overlap_px < (self.size_px or math.inf):
            below = "the chip's side" if self.size_px is None else f"size_px={self.size_px}"
            raise ConfigError(f"overlap_px must be in [0, {below}), got {self.overlap_px}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which network runs, where and how."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    name: str = "maskrcnn_lite0"
    """A bundled name, a .safetensors path with its spec beside it, or package.module:factory."""
    device: str = "auto"
    """auto (cuda, then mps, then cpu), cpu, cuda, cuda:1 or mps."""
    batch_size: int | None = None
    """Chips per forward pass; by default chosen by device. Halved when memory runs out."""
    score: float | None = None
    """Least score, in [0, 1]; by default what the model's spec says, else 0.5."""
    calibrate: bool = True
    """Scores are probabilities, where the model's spec says which; else they are the network's."""
    readers: int = 2
    """Threads that read chips ahead of the network."""

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 1:
            raise ConfigError(f"score must be in [0, 1], got {self.score}")
        for name, most in (("batch_size", MAX_BATCH_SIZE), ("readers", MAX_READERS)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"{name} must be in [1, {most}], got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOptions:
    """Who does the work, in which pieces. None of it changes a result."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    workers: int | None = None
    """Processes on this machine; with gpus or devices those that read, stitch and write."""
    gpus: int | None = None
    """GPUs of this machine, a process each."""
    devices: tuple[str, ...] | None = None
    """Devices of this machine, a process each, instead of gpus: cpu, cuda:1, mps."""
    scheduler: str | None = None
    """Address of a Dask cluster that runs already, such as tcp://head:8786."""
    run_dir: str | None = None
    """Folder of finished blocks, seen by all workers; by default beside the output, and removed."""
    block_chips: int = 16
    """Chips a side of a block, the unit of work."""
    block_limit_s: float = 1800.0
    """Seconds after which a worker that hangs on a block is ended; 0 is no limit."""
    strict: bool = False
    """Stop at the first chip that cannot be read, instead of mapping the rest."""
    overlapping_scenes: Literal["merge", "keep"] = "merge"
    """Buildings that two scenes show: one footprint of both, or one each."""

    def __post_init__(self) -> None:
        for name, most in (("workers", MAX_WORKERS), ("gpus", MAX_WORKERS), ("block_chips", 256)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"{name} must be in [1, {most}], got {value}")
        if not 0 <= self.block_limit_s < math.inf:
            raise ConfigError(f"block_limit_s must be 0 or more, got {self.block_limit_s}")
        if self.gpus is not None and self.devices is not None:
            raise ConfigError("give gpus or devices, not both")
        if self.devices is not None and not 1 <= len(self.devices) <= MAX_WORKERS:
            raise ConfigError(f"devices must name 1 to {MAX_WORKERS}, got {len(self.devices)}")
        if self.scheduler is not None and not _ADDRESS.fullmatch(self.scheduler):
            raise ConfigError(
                f"scheduler must be an address such as tcp://head:8786, got {self.scheduler[:60]!r}"
            )
        local = (self.workers, self.gpus, self.devices)
        if self.scheduler is not None and any(value is not None for value in local):
            raise ConfigError(
                "workers, gpus and devices are of this machine: with scheduler, start them there"
            )

    @property
    def in_blocks(self) -> bool:
        """Whether the work is to be done in blocks, instead of streamed in one process."""
        asked = (self.workers, self.gpus, self.devices, self.scheduler, self.run_dir)
        return self.strict or any(value is not None for value in asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a run can be told."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    scene: SceneOptions = field(default_factory=SceneOptions)
    chips: ChipOptions = field(default_factory=ChipOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    tta: TtaOptions = field(default_factory=TtaOptions)
    morphology: MorphologyOptions = field(default_factory=MorphologyOptions)
    stitch: StitchOptions = field(default_factory=StitchOptions)
    polygonize: PolygonizeOptions = field(default_factory=PolygonizeOptions)
    regularize: RegularizeOptions = field(default_factory=RegularizeOptions)
    topology: TopologyOptions = field(default_factory=TopologyOptions)
    conflate: ConflateOptions = field(default_factory=ConflateOptions)
    scale: ScaleOptions = field(default_factory=ScaleOptions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON or YAML."""
        return dataclasses.asdict(self)

    def recorded(self) -> dict[str, Any]:
        """Return what footprints depend on, as it is kept with them."""
        later = {"conflate", "scale"}
        return {name: values for name, values in self.to_dict().items() if name not in later}


def _is_range(low: float, high: float) -> bool:
    return -math.inf < low < high < math.inf
