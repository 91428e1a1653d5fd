"""How YAML files, `key=value` words and options become a config.

pydantic only converts and checks types on the way in.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from geoseg.config.options import Config
from geoseg.errors import ConfigError, InputNotFoundError
from geoseg.train.options import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CONFIG_BYTES = 100_000
MAX_CONFIG_DEPTH = 8

C = TypeVar("C", Config, TrainConfig)


def load_config(
    path: str | Path | None = None,
    *,
    defaults: dict[str, Any] | None = None,
    assignments: Iterable[str] = (),
    options: dict[str, Any] | None = None,
) -> Config:
    """Build the config of a mapping run.

    Defaults come first, then the file, then `key=value` assignments, then options.

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
    return _load(Config, path, defaults=defaults, assignments=assignments, options=options)


def load_train_config(
    path: str | Path | None = None,
    *,
    defaults: dict[str, Any] | None = None,
    assignments: Iterable[str] = (),
    options: dict[str, Any] | None = None,
) -> TrainConfig:
    """Build the config of a training run, as `load_config` does that of a mapping run.

    Raises:
        InputNotFoundError: There is no such file.
        ConfigError: A key is unknown or a value does not fit; the message names it.

    Example:
        >>> load_train_config(assignments=["optim.lr=1e-3"]).optim.lr
        0.001
    """
    return _load(TrainConfig, path, defaults=defaults, assignments=assignments, options=options)


def dump_config(config: Config | TrainConfig) -> str:
    """Return a config as YAML that `load_config` or `load_train_config` reads back.

    Example:
        >>> dump_config(Config()).splitlines()[0]
        'scene:'
    """
    import yaml  # noqa: PLC0415 - only runs that keep their config pay for the emitter

    # Through JSON, as YAML's safe emitter knows no tuples.
    text: str = yaml.safe_dump(json.loads(json.dumps(config.to_dict())), sort_keys=False)
    return text


def _load(
    kind: type[C],
    path: str | Path | None,
    *,
    defaults: dict[str, Any] | None = None,
    assignments: Iterable[str] = (),
    options: dict[str, Any] | None = None,
) -> C:
    tree = read_yaml(Path(path)) if path is not None else {}
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
    return _validated(kind, tree)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; empty where the file is.

    Raises:
        InputNotFoundError: There is no such file.
        ConfigError: It is too large, no YAML or no mapping.
    """
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


def _validated(kind: type[C], tree: dict[str, Any]) -> C:
    import pydantic  # noqa: PLC0415 - keeps `import geoseg.config` quick

    known = {item.name for item in dataclasses.fields(kind)}
    for section in tree:
        if section not in known:
            raise ConfigError(
                f"unknown section {str(section)[:60]!r}; sections are {sorted(known)}"
            )
    tree = {section: keys for section, keys in tree.items() if keys is not None}
    try:
        return pydantic.TypeAdapter(kind).validate_python(tree)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:60] for part in first["loc"][:2])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {reason}") from error
