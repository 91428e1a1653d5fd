"""Every option of a run, with its default and unit, and how a YAML file becomes one.

The dataclasses are the single definition: the command line's options, the keys of a config file
and `--set key=value` all end up here. pydantic only converts and checks types on the way in; ranges
are checked where they are used.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from geoseg.chips import CHIP_OVERLAP_PX
from geoseg.errors import ConfigError, InputNotFoundError
from geoseg.polygonize import PolygonizeOptions
from geoseg.stitch import StitchOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CONFIG_BYTES = 100_000
MAX_CONFIG_DEPTH = 8
MAX_READERS = 64
MAX_BATCH_SIZE = 4096
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
    score: float = 0.5
    """Least score of a detection, in [0, 1]."""
    readers: int = 2
    """Threads that read chips ahead of the network."""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ConfigError(f"score must be in [0, 1], got {self.score}")
        for name, most in (("batch_size", MAX_BATCH_SIZE), ("readers", MAX_READERS)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"{name} must be in [1, {most}], got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a run can be told."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    scene: SceneOptions = field(default_factory=SceneOptions)
    chips: ChipOptions = field(default_factory=ChipOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    stitch: StitchOptions = field(default_factory=StitchOptions)
    polygonize: PolygonizeOptions = field(default_factory=PolygonizeOptions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON or YAML."""
        return dataclasses.asdict(self)


def load_config(
    path: str | Path | None = None,
    *,
    defaults: dict[str, Any] | None = None,
    assignments: Iterable[str] = (),
    options: dict[str, Any] | None = None,
) -> Config:
    """Build a config: defaults, then the file, then `key=value` assignments, then options.

    Args:
        path: A YAML file whose sections and keys are those of `Config`.
        defaults: "section.key" to value, instead of the dataclasses' own.
        assignments: "section.key=value", the value read as YAML.
        options: "section.key" to value; None values are passed over.

    Raises:
        InputNotFoundError: There is no such file.
        ConfigError: A key is unknown or a value does not fit; the message names it.

    Example:
        >>> load_config(assignments=["chips.overlap_px=90"]).chips.overlap_px
        90
    """
    tree = _read(Path(path)) if path is not None else {}
    for key, value in (defaults or {}).items():
        _put(tree, key, value, over=False)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set must be section.key=value, got {assignment[:60]!r}")
        _put(tree, key.strip(), _yaml(text, what=f"--set {key.strip()[:60]!r}"))
    for key, value in (options or {}).items():
        if value is not None:
            _put(tree, key, value)
    return _validated(tree)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputNotFoundError(f"no config file {path}: check the path")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: a config must be at most {MAX_CONFIG_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be readable UTF-8 text, got: {error}") from error
    tree = _yaml(text, what=str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold sections of keys, got {type(tree).__name__}")
    return tree


def _yaml(text: str, *, what: str) -> Any:
    import yaml  # noqa: PLC0415 - only runs with a config or --set pay for the parser

    try:
        harm = _harm(yaml.parse(text, yaml.SafeLoader))
        tree = None if harm else yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first = " ".join(str(error).split())
        raise ConfigError(f"{what}: not valid YAML: {first[:160]}") from error
    if harm:
        raise ConfigError(f"{what}: {harm}")
    return tree


def _harm(events: Iterable[Any]) -> str | None:
    """Say what would cost a parser more than the file is long, before it is built."""
    depth = 0
    for event in events:
        name = type(event).__name__
        if name == "AliasEvent":  # merged again and again, they fill any memory
            return "aliases (*name) are not read; write the value out"
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > MAX_CONFIG_DEPTH:  # costs the square of the depth
            return "must hold sections of keys, nested no deeper"
    return None


def _put(tree: dict[str, Any], key: str, value: Any, *, over: bool = True) -> None:
    section, dot, name = key.partition(".")
    if not (section and dot and name) or "." in name:
        raise ConfigError(f"a key must be section.key, such as model.score; got {key[:60]!r}")
    keys = tree.setdefault(section, {})
    if keys is None:
        keys = tree[section] = {}
    if not isinstance(keys, dict):
        raise ConfigError(f"section {section!r} must hold keys, got {type(keys).__name__}")
    if over or name not in keys:
        keys[name] = value


def _validated(tree: dict[str, Any]) -> Config:
    import pydantic  # noqa: PLC0415 - keeps `import geoseg.config` quick

    known = {item.name for item in dataclasses.fields(Config)}
    for section in tree:
        if section not in known:
            raise ConfigError(
                f"unknown section {str(section)[:60]!r}; sections are {sorted(known)}"
            )
    tree = {section: keys for section, keys in tree.items() if keys is not None}
    try:
        return pydantic.TypeAdapter(Config).validate_python(tree)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:60] for part in first["loc"][:2])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {reason}") from error


def _is_range(low: float, high: float) -> bool:
    return -math.inf < low < high < math.inf
