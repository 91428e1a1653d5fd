"""What a weights file is: the JSON that lies beside every `.safetensors`.

`ModelSpec` says which architecture the weights fit, what they were trained on and under which
licence they may be used. Reading one needs neither torch nor the weights; a spec comes with files
from strangers, so every value is checked and every error is one line that names the key.
"""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from geoseg.errors import ConfigError, FormatError, InputNotFoundError
from geoseg.scores import ScoreMap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_SPEC_BYTES = 1 << 20
"""No honest spec is larger than 1 MiB; a file that is, is not read."""

MAX_CHIP_SIZE_PX = 8192
MIN_CHIP_SIZE_PX = 32  # the coarsest feature map has a stride of 32 px

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One class the model tells apart: the network's label and the data set's COCO id."""

    label: int
    """Index in the network's output, from 1; 0 is background."""
    id: int
    """COCO category id, for example 100 for crowdAI's `building`."""
    name: str

    def __post_init__(self) -> None:
        _check_int("label", self.label, 1, 32767)
        _check_int("id", self.id, 0, 2**31 - 1)
        _check_text("name", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything there is to know about a set of weights except the weights.

    Raises:
        ConfigError: A value is of the wrong type or out of its range; the message names it.

    Example:
        >>> spec = ModelSpec(
        ...     name="mine", architecture="maskrcnn_lite0", categories=(BUILDING,),
        ...     chip_size_px=300, gsd_range_m=(0.1, 0.4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        ...     sha256=None, licence="CC-BY-4.0", attribution=(), data="my town", version="1",
        ... )
        >>> ModelSpec.from_json(spec.to_json()) == spec
        True
    """

    name: str
    architecture: str
    """A key of `architectures.ARCHITECTURES`, or the import path of a factory."""
    categories: tuple[Category, ...]
    """Ordered by label, labels 1, 2, ... without a gap."""
    chip_size_px: int
    gsd_range_m: tuple[float, float] | None
    """Ground metres per pixel it does best at, (finest, coarsest); None where unknown. `--gsd auto`
    resamples scenes into this range: it may be narrower than what was seen in training."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float]
    """RGB is divided by it after the mean is subtracted."""
    sha256: str | None
    """Of the `.safetensors` file; None for a factory, which has no file."""
    licence: str
    attribution: tuple[str, ...]
    """Lines to show wherever results of the model are published."""
    data: str
    """What it was trained on, in a sentence."""
    version: str
    default_score_threshold: float | None = None
    """Least score of a find where nobody asks for another: a probability with a calibration, else
    the network's own."""
    calibration: ScoreMap | None = None
    """What the network's scores stand for: how probably a footprint is a building, matched at IoU
    .5; None where nobody measured it. It holds for scores made as `mask_scores` says."""
    mask_scores: bool = False
    """Whether the score of a find is its class's times the square root of the IoU that its mask is
    expected to have (`Detections.expected_ious`), which ranks better; else the class's alone, as
    torchvision's."""

    def __post_init__(self) -> None:
        for key in ("name", "architecture", "licence", "version"):
            _check_text(key, getattr(self, key))
        _check_text("data", self.data, least=0)
        _check_tuple("attribution", self.attribution, str)
        for line in self.attribution:
            _check_text("attribution", line)
        _check_categories(self.categories)
        _check_int("chip_size_px", self.chip_size_px, MIN_CHIP_SIZE_PX, MAX_CHIP_SIZE_PX)
        _check_gsd_range(self.gsd_range_m)
        _check_floats("mean", self.mean, count=3, lo=-1e3, hi=1e3)
        _check_floats("std", self.std, count=3, lo=1e-6, hi=1e3)
        if self.sha256 is not None and not (
            isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)
        ):
            raise ConfigError(f"sha256 must be 64 lower-case hex digits, got {_show(self.sha256)}")
        if self.default_score_threshold is not None:
            _check_float("default_score_threshold", self.default_score_threshold, 0.0, 1.0)
        if self.calibration is not None and not isinstance(self.calibration, ScoreMap):
            raise ConfigError(f"calibration must be a ScoreMap, got {_show(self.calibration)}")
        if not isinstance(self.mask_scores, bool):
            raise ConfigError(f"mask_scores must be true or false, got {_show(self.mask_scores)}")

    @property
    def num_classes(self) -> int:
        """Classes of the network's output, background included."""
        return len(self.categories) + 1

    def raw_score(self, score: float) -> float:
        """Return the network's own score for one that is a probability, where they differ."""
        return score if self.calibration is None else self.calibration.invert(score)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready values, keys in the order of the fields."""
        values = asdict(self)
        listed = {k: list(v) for k, v in values.items() if isinstance(v, tuple)}
        calibration = None if self.calibration is None else self.calibration.to_dict()
        return values | listed | {"calibration": calibration}

    def to_json(self) -> str:
        """Return the spec as indented JSON, ASCII only, with a final newline."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelSpec:
        """Build a spec from JSON text.

        Raises:
            FormatError: Not JSON, or a key is missing, unknown, doubled or has a bad value.
        """
        values = _parse_object(text)
        _check_keys(values, known=[f.name for f in fields(cls)], optional=_OPTIONAL, what="key")
        try:
            values["categories"] = tuple(map(_category, _as_list(values, "categories")))
            for key in ("mean", "std", "attribution"):
                values[key] = tuple(_as_list(values, key))
            if values["gsd_range_m"] is not None:
                values["gsd_range_m"] = tuple(_as_list(values, "gsd_range_m"))
            if values.get("calibration") is not None:
                values["calibration"] = ScoreMap.from_dict(values["calibration"])
            return cls(**values)
        except ConfigError as e:
            raise FormatError(f"bad model spec: {e}") from e

    @classmethod
    def read(cls, path: Path) -> ModelSpec:
        """Read a spec from a file.

        Raises:
            InputNotFoundError: There is no such file.
            FormatError: It is too large, not JSON or not a spec; the message names the file.
        """
        try:
            with path.open("rb") as file:
                text = file.read(MAX_SPEC_BYTES + 1)
        except FileNotFoundError as e:
            raise InputNotFoundError(
                f"no model spec {path}: weights need a .json of the same name beside them"
            ) from e
        except OSError as e:
            raise FormatError(f"{path} cannot be read: {e.strerror}") from e
        if len(text) > MAX_SPEC_BYTES:
            raise FormatError(f"{path}: a model spec must be at most {MAX_SPEC_BYTES} bytes")
        try:
            return cls.from_json(text)
        except FormatError as e:
            raise FormatError(f"{path}: {e}") from e


_OPTIONAL = frozenset({"default_score_threshold", "calibration", "mask_scores"})


def _parse_object(text: str | bytes) -> dict[str, Any]:
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as e:  # bad JSON, bad UTF-8, absurd numbers or nesting
        raise FormatError(f"bad model spec: not valid JSON ({_one_line(e)})") from e
    if not isinstance(values, dict):
        raise FormatError(f"bad model spec: must be a JSON object, got {_show(values)}")
    return values


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {_show(doubled)} appears twice")
    return values


def _check_keys(
    values: Mapping[str, Any], *, known: Sequence[str], optional: frozenset[str], what: str
) -> None:
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise FormatError(f"bad model spec: unknown {what} {_show(unknown)}")
    missing = next((key for key in known if key not in values and key not in optional), None)
    if missing is not None:
        raise FormatError(f"bad model spec: {what} {missing!r} is missing")


def _category(values: object) -> Category:
    if not isinstance(values, dict):
        raise ConfigError(f"categories must hold objects, got {_show(values)}")
    names = [f.name for f in fields(Category)]
    _check_keys(values, known=names, optional=frozenset(), what="category key")
    try:
        return Category(**values)
    except ConfigError as e:
        raise ConfigError(f"categories: {e}") from e


def _as_list(values: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(values[key], list):
        raise ConfigError(f"{key} must be a list, got {_show(values[key])}")
    return list(values[key])


def _check_categories(categories: tuple[Category, ...]) -> None:
    _check_tuple("categories", categories, Category)
    labels = [c.label for c in categories]
    if not labels or labels != list(range(1, len(labels) + 1)):
        raise ConfigError(f"categories must have labels 1, 2, ... in order, got {_show(labels)}")


def _check_gsd_range(gsd_range_m: tuple[float, float] | None) -> None:
    if gsd_range_m is None:
        return
    _check_floats("gsd_range_m", gsd_range_m, count=2, lo=1e-3, hi=1e3)
    if gsd_range_m[0] > gsd_range_m[1]:
        raise ConfigError(f"gsd_range_m must be (finest, coarsest), got {gsd_range_m}")


def _check_text(key: str, value: object, *, least: int = 1) -> None:
    # Printable text only: these strings reach terminals, logs and file attributes.
    if not isinstance(value, str) or len(value) < least or not value.isprintable():
        raise ConfigError(f"{key} must be text on one line, got {_show(value)}")


def _check_tuple(key: str, value: object, of: type) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, of) for item in value):
        raise ConfigError(f"{key} must be a list of {of.__name__}, got {_show(value)}")


def _check_int(key: str, value: object, lo: int, hi: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lo <= value <= hi:
        raise ConfigError(f"{key} must be a whole number in [{lo}, {hi}], got {_show(value)}")


def _check_float(key: str, value: object, lo: float, hi: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not lo <= value <= hi:
        raise ConfigError(f"{key} must be a number in [{lo:g}, {hi:g}], got {_show(value)}")


def _check_floats(key: str, value: object, *, count: int, lo: float, hi: float) -> None:
    if not isinstance(value, tuple) or len(value) != count:
        raise ConfigError(f"{key} must be {count} numbers, got {_show(value)}")
    for number in value:
        _check_float(key, number, lo, hi)


def _show(value: object) -> str:
    """Return a short one-line repr; hostile values may be long or deep."""
    return _one_line(reprlib.repr(value))


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:120]


BUILDING = Category(label=1, id=100, name="building")
"""The category of the crowdAI mapping challenge."""
