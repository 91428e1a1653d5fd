"""Networks, their weights and what is known about them.

`spec` and `catalogue` read descriptions and need no torch; `architectures`, `weights`, `optimise`
and `load` do, and are imported on first use of a name below.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geoseg.models.catalogue import DEFAULT_MODEL, describe_model, find_model, list_models
from geoseg.models.spec import BUILDING, Category, ModelSpec

if TYPE_CHECKING:
    from geoseg.models.architectures import ARCHITECTURES, build_architecture
    from geoseg.models.load import LoadedModel, load_model, resolve_device, visible_gpus
    from geoseg.models.optimise import optimise_for_inference
    from geoseg.models.weights import import_pickled, load_weights, save_weights

__all__ = [
    "ARCHITECTURES",
    "BUILDING",
    "DEFAULT_MODEL",
    "Category",
    "LoadedModel",
    "ModelSpec",
    "build_architecture",
    "describe_model",
    "find_model",
    "import_pickled",
    "list_models",
    "load_model",
    "load_weights",
    "optimise_for_inference",
    "resolve_device",
    "save_weights",
    "visible_gpus",
]

_NEEDS_TORCH = {
    "ARCHITECTURES": "architectures",
    "build_architecture": "architectures",
    "LoadedModel": "load",
    "load_model": "load",
    "resolve_device": "load",
    "visible_gpus": "load",
    "optimise_for_inference": "optimise",
    "import_pickled": "weights",
    "load_weights": "weights",
    "save_weights": "weights",
}


def __getattr__(name: str) -> Any:
    module = _NEEDS_TORCH.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
