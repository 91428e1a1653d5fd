"""Which models there are: bundled names, `.safetensors` paths and `package.module:factory`.

Finding and describing a model needs no torch and builds no network. A factory's module is
imported, since that is the only way to learn about it, but the factory is not called.
"""

from __future__ import annotations

import importlib
import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import InputNotFoundError, ModelError
from geoseg.models.spec import BUILDING, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_MODEL = "maskrcnn_lite0"

_SPEC_ATTRIBUTE = "geoseg_spec"
_PICKLES = (".pth", ".pt", ".pkl", ".ckpt", ".bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model comes from: exactly one of `weights` and `factory` is set."""

    spec: ModelSpec
    weights: Path | None = None
    factory: Callable[[], object] | None = None


def list_models() -> tuple[str, ...]:
    """Return the names of the bundled models, sorted.

    Example:
        >>> "maskrcnn_lite0" in list_models()
        True
    """
    return tuple(sorted(path.stem for path in _bundled_dir().glob("*.safetensors")))


def describe_model(model: str) -> dict[str, Any]:
    """Return what is known about a model without building its network.

    Args:
        model: A bundled name, a `.safetensors` path or `package.module:factory`.

    Returns:
        JSON-ready values: `source` ("bundled", "file" or "factory"), `path` and `size_bytes` of
        the weights (None for a factory), and the keys of `ModelSpec`.

    Raises:
        ModelError: There is no such model.
        InputNotFoundError: The weights or their spec do not exist.
        FormatError: The spec is not one.

    Example:
        >>> describe_model("maskrcnn_lite0")["chip_size_px"]
        300
    """
    found = find_model(model)
    if found.weights is None:
        kind, path, size = "factory", None, None
    else:
        kind = "bundled" if model in list_models() else "file"
        path, size = str(found.weights), found.weights.stat().st_size
    return {"source": kind, "path": path, "size_bytes": size, **found.spec.to_dict()}


def find_model(model: str) -> Source:
    """Resolve a `--model` value to a spec and either a weights file or a factory.

    Args:
        model: A bundled name, a `.safetensors` path or `package.module:factory`.

    Returns:
        Where the model comes from; neither weights nor network are loaded.

    Raises:
        ModelError: There is no such model, or the factory cannot be imported.
        InputNotFoundError: The weights or their spec do not exist.
        FormatError: The spec is not one.
    """
    if model in list_models():
        return _from_file(_bundled_dir() / f"{model}.safetensors")
    if model.endswith(".safetensors"):
        return _from_file(Path(model))
    if model.endswith(_PICKLES):
        raise ModelError(
            f"{model}: pickled weights are not loaded directly: "
            "convert them with `geoseg import-weights` first"
        )
    if ":" in model:
        return _from_factory(model)
    raise ModelError(
        f"no model {model[:120]!r}: must be one of {', '.join(list_models())}, "
        "a .safetensors file, or package.module:factory"
    )


def _bundled_dir() -> Path:
    # geoseg is installed as files, never run from a zip: torch could not be either.
    return Path(str(importlib.resources.files("geoseg.models") / "bundled"))


def _from_file(weights: Path) -> Source:
    if not weights.is_file():
        raise InputNotFoundError(f"no weights file {weights}: check the path")
    return Source(spec=ModelSpec.read(weights.with_suffix(".json")), weights=weights)


def _from_factory(model: str) -> Source:
    module_name, _, attribute = model.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as e:
        raise ModelError(
            f"--model {model}: {module_name!r} cannot be imported ({_what(e)}): "
            "check the name and PYTHONPATH"
        ) from e
    factory = getattr(module, attribute, None)
    if factory is None:
        raise ModelError(f"--model {model}: module {module_name!r} has no {attribute!r}")
    if not callable(factory):
        raise ModelError(
            f"--model {model}: {attribute!r} must be callable, got {type(factory).__name__}"
        )
    spec = getattr(module, _SPEC_ATTRIBUTE, None)
    if spec is None:
        spec = _factory_spec(model)
    if not isinstance(spec, ModelSpec):
        raise ModelError(
            f"--model {model}: {module_name}.{_SPEC_ATTRIBUTE} must be a ModelSpec, "
            f"got {type(spec).__name__}"
        )
    return Source(spec=spec, factory=factory)


def _factory_spec(model: str) -> ModelSpec:
    return ModelSpec(
        name=model,
        architecture=model,
        categories=(BUILDING,),
        chip_size_px=300,
        gsd_range_m=None,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        sha256=None,
        licence="unknown",
        attribution=(),
        data="unknown",
        version="unknown",
    )


def _what(error: BaseException) -> str:
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
