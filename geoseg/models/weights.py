"""Weights on disk: safetensors in and out, and the one guarded door for pickled checkpoints.

A weights file is data from strangers: it is bounded in size, hashed before it is used, never
unpickled, and fits its network exactly or is refused with one line that names the layers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError

from geoseg.errors import FormatError, InputNotFoundError, ModelError, OutputError
from geoseg.files import replacing
from geoseg.models.architectures import build_architecture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from geoseg.models.spec import ModelSpec

MAX_WEIGHTS_BYTES = 2 << 30
"""Larger than any Mask R-CNN; a file that is larger is not read into memory."""

NAMED_LAYERS = 3  # how many layers an error names before it counts the rest

_HALF_MAX = float(torch.finfo(torch.float16).max)
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_COUNTER = ".num_batches_tracked"  # batch norm's step counter: no part in the output


def load_weights(module: nn.Module, path: Path, *, sha256: str | None = None) -> None:
    """Load a safetensors file into a network, strictly.

    Half-precision values are cast to the network's type. Where this raises ModelError the network
    may hold part of the new weights.

    Args:
        module: The network, changed in place.
        path: A `.safetensors` file.
        sha256: What the file's hash must be; None leaves it unchecked.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: The file is not safetensors, is cut short, is too large or is not the file
            that the hash belongs to.
        ModelError: Layers are missing, unexpected or of another shape, or hold NaN or infinity.
    """
    state = read_state(path, sha256=sha256)
    _fit(module, state, source=path)


def read_state(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name in alphabetical order.

    Args:
        path: A `.safetensors` file.
        sha256: What the file's hash must be; None leaves it unchecked.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: As for `load_weights`.
    """
    data = _read_bounded(path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise FormatError(
            f"{path} is not the file its spec describes: sha256 must be {sha256[:12]}..., "
            f"got {found[:12]}...: fetch both again"
        )
    try:
        return dict(sorted(safetensors.torch.load(data).items()))
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as e:
        raise FormatError(
            f"{path} is not a valid safetensors file ({_one_line(e)}): fetch it again"
        ) from e


def read_pickled_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.pth`/`.pt` checkpoint, in its order, without running code in it.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: The file holds anything but tensors, is corrupt or is too large.
    """
    return _tensors_of(_unpickle_tensors(path), source=path)


def save_weights(module: nn.Module, spec: ModelSpec, path: Path, *, half: bool = True) -> ModelSpec:
    """Write a network's weights and, beside them, their spec.

    Save before `optimise_for_inference`: folded layers are not those of the architecture. Tensors
    that do not fit in half precision stay in single.

    Args:
        module: The network.
        spec: What the weights are; its sha256 is replaced by that of the file written.
        path: The `.safetensors` file to write; the spec goes to the same name with `.json`.
        half: Whether to store floating-point values in half precision.

    Returns:
        The spec as written.

    Raises:
        OutputError: The suffix is not `.safetensors`, or the files cannot be written.
    """
    if path.suffix != ".safetensors":
        raise OutputError(f"weights must be written to a .safetensors file, got {path}")
    stored = {name: _storable(value, half=half) for name, value in module.state_dict().items()}
    data = safetensors.torch.save(stored)
    written = dataclasses.replace(spec, sha256=hashlib.sha256(data).hexdigest())
    with replacing(path.with_suffix(".json")) as new_spec, replacing(path) as new:
        new.write_bytes(data)
        new_spec.write_text(written.to_json(), encoding="utf-8")
    return written


def import_pickled(path: Path, out: Path, *, spec: ModelSpec, half: bool = True) -> ModelSpec:
    """Convert a `.pth`/`.pt` checkpoint to safetensors, without running any code in it.

    Accepts a state dict, or one under the key `model` or `state_dict`; prefixes `module.` that
    DataParallel leaves are stripped. The weights must fit the spec's architecture.

    Args:
        path: The checkpoint, as `torch.save` wrote it.
        out: The `.safetensors` file to write; its spec goes beside it.
        spec: What the weights are; its sha256 is replaced by that of the file written.
        half: Whether to store floating-point values in half precision.

    Returns:
        The spec as written.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: The file holds anything but tensors, is corrupt or is too large.
        ModelError: The tensors do not fit the architecture.
        OutputError: The result cannot be written.
    """
    state = read_pickled_state(path)
    module = build_architecture(
        spec.architecture, num_classes=spec.num_classes, chip_size_px=spec.chip_size_px
    )
    _fit(module, state, source=path)
    return save_weights(module, spec, out, half=half)


def _read_bounded(path: Path) -> bytes:
    _check_size(path)
    try:
        return path.read_bytes()
    except OSError as e:
        raise FormatError(f"{path} cannot be read: {e.strerror}") from e


def _check_size(path: Path) -> None:
    if not path.exists():
        raise InputNotFoundError(f"no weights file {path}: check the path")
    if not path.is_file():
        raise FormatError(f"{path} must be a file, but it is a folder or a device")
    size = path.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise FormatError(f"{path} must be at most {MAX_WEIGHTS_BYTES} bytes, got {size}")


def _fit(module: nn.Module, state: Mapping[str, Tensor], *, source: Path) -> None:
    _check_tensors(state, like=module.state_dict(), source=source)
    try:
        # Not strict here: torchvision renames layers of its older checkpoints while it loads, and
        # what then remains unmatched is judged below.
        result = module.load_state_dict(dict(state), strict=False)
    except RuntimeError as e:
        raise ModelError(f"{source} does not fit {type(module).__name__} ({_one_line(e)})") from e
    missing = [name for name in result.missing_keys if not name.endswith(_COUNTER)]
    unexpected = [name for name in result.unexpected_keys if not name.endswith(_COUNTER)]
    if missing or unexpected:
        raise ModelError(_misfit(source, [("missing", missing), ("unexpected", unexpected)]))


def _check_tensors(
    state: Mapping[str, Tensor], *, like: Mapping[str, Tensor], source: Path
) -> None:
    shared = [name for name in state if name in like]
    misshaped = [
        f"{name} (must be {_shape(like[name])}, got {_shape(state[name])})"
        for name in shared
        if like[name].shape != state[name].shape
    ]
    mistyped = [
        f"{name} ({state[name].dtype})"
        for name in shared
        if like[name].is_floating_point() and state[name].dtype not in _FLOATS
    ]
    if misshaped or mistyped:
        raise ModelError(_misfit(source, [("wrong shape", misshaped), ("wrong type", mistyped)]))
    broken = [
        name
        for name, value in state.items()
        if value.dtype in _FLOATS and not torch.isfinite(value).all()
    ]
    if broken:
        raise ModelError(f"{source} holds NaN or infinity in {_first_few(broken)}")


def _misfit(source: Path, groups: Iterable[tuple[str, list[str]]]) -> str:
    layers = "; ".join(f"{what}: {_first_few(names)}" for what, names in groups if names)
    return f"{source} does not fit the architecture of its spec; {layers}"


def _first_few(names: list[str]) -> str:
    shown = ", ".join(_one_line(name) for name in names[:NAMED_LAYERS])
    rest = len(names) - NAMED_LAYERS
    return f"{shown} and {rest} more" if rest > 0 else shown


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _storable(value: Tensor, *, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
    fits = value.is_floating_point() and value.numel() and float(value.abs().max()) <= _HALF_MAX
    return value.half() if half and fits else value


def _unpickle_tensors(path: Path) -> object:
    _check_size(path)
    _check_zip_size(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        # A broken or hostile pickle can make the reader raise almost anything.
        raise FormatError(
            f"{path} is not a checkpoint of plain tensors ({_one_line(e)}): "
            "save module.state_dict() with torch.save, and import that"
        ) from e


def _check_zip_size(path: Path) -> None:
    """Refuse archives that inflate beyond the bound; older checkpoints are no archives."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError) as e:
        raise FormatError(f"{path} is a corrupt archive ({_one_line(e)})") from e
    if size > MAX_WEIGHTS_BYTES:
        raise FormatError(f"{path} must hold at most {MAX_WEIGHTS_BYTES} bytes, holds {size}")


def _tensors_of(loaded: object, *, source: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise FormatError(f"{source} must hold a state dict, got {type(loaded).__name__}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise FormatError(
                f"{source} must hold tensors by layer name, "
                f"got {type(value).__name__} under {_one_line(repr(name))}"
            )
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:120]
