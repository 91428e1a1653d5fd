"""`--model` and `--device` values: what they resolve to, and what a bad one says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_models_spec import make_spec
from torch import nn

import geoseg.models
from geoseg.errors import (
    ConfigError,
    DeviceError,
    FormatError,
    InputNotFoundError,
    ModelError,
)
from geoseg.models import (
    ModelSpec,
    build_architecture,
    describe_model,
    list_models,
    load_model,
    resolve_device,
    save_weights,
)
from geoseg.models import load as load_module
from geoseg.models.architectures import maskrcnn_lite0
from geoseg.models.weights import load_weights

BUNDLED = Path(geoseg.models.__file__).parent / "bundled"

FACTORIES = """
from torch import nn
from geoseg.models.architectures import maskrcnn_lite0
constant = 3
def good(): return nn.Conv2d(3, 1, 1).train().double()
def mask_rcnn(): return maskrcnn_lite0(2)
def wrong(): return {"not": "a module"}
def broken(): raise RuntimeError("first line\\nsecond line")
def hungry(argument): return nn.Identity()
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """An importable module of factories, good and bad."""
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "my_broken_module.py").write_text("1 / 0")
    (tmp_path / "my_odd_spec.py").write_text(FACTORIES + "\ngeoseg_spec = {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_factories", "my_broken_module", "my_odd_spec"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def my_model(tmp_path_factory):
    """A two-class network of random weights and its spec, as a user would bring them."""
    path = tmp_path_factory.mktemp("model") / "mine.safetensors"
    torch.manual_seed(0)
    spec = make_spec(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), default_score_threshold=0.4)
    save_weights(build_architecture("maskrcnn_lite0"), spec, path)
    return path


def test_describing_models_needs_no_torch():
    code = (
        "import sys, geoseg.models as m; m.describe_model(m.list_models()[0]);"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_exported_name_exists():
    assert all(hasattr(geoseg.models, name) for name in geoseg.models.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = geoseg.models.no_such_name


@pytest.mark.parametrize("name", list_models())
def test_bundled_model_loads_strictly_and_runs(name):
    loaded = load_model(name, device="cpu", score_threshold=0.3)
    assert not loaded.module.training
    assert all(p.dtype == torch.float32 for p in loaded.module.parameters())
    assert not any(p.requires_grad for p in loaded.module.parameters())
    with torch.inference_mode():
        (found,) = loaded.module([torch.full((3, 300, 300), 0.5)])
    assert set(found) == {"boxes", "labels", "scores", "masks"}


@pytest.mark.parametrize("name", list_models())
def test_bundled_model_is_small_attributed_and_carded(name):
    weights = BUNDLED / f"{name}.safetensors"
    spec = ModelSpec.read(weights.with_suffix(".json"))
    assert weights.stat().st_size <= 25e6
    assert spec.sha256 is not None
    assert spec.name == name
    assert any("OpenAerialMap" in line for line in spec.attribution)
    assert any("OpenStreetMap contributors" in line for line in spec.attribution)
    card = weights.with_suffix(".md").read_text()
    assert all(line in card for line in spec.attribution)


def test_optimised_bundled_model_detects_what_the_plain_one_does():
    plain = build_architecture("maskrcnn_lite0_slim")
    load_weights(plain, BUNDLED / "maskrcnn_lite0.safetensors")
    fast = load_model("maskrcnn_lite0", device="cpu", score_threshold=0.05).module
    # A bright roof with a shadow on grey ground: something the network has an opinion about.
    image = torch.full((3, 300, 300), 0.45)
    image[:, 100:160, 90:180] = 0.8
    image[:, 160:170, 95:185] = 0.1
    with torch.inference_mode():
        (old,), (new,) = plain.eval()([image]), fast([image])
    assert len(old["scores"]) > 0
    torch.testing.assert_close(new["scores"], old["scores"], atol=1e-3, rtol=0)
    torch.testing.assert_close(new["boxes"], old["boxes"], atol=0.05, rtol=0)
    torch.testing.assert_close(new["masks"], old["masks"], atol=1e-2, rtol=0)


def test_description_holds_the_spec_and_is_json():
    described = describe_model("maskrcnn_lite0")
    assert described["source"] == "bundled"
    assert described["gsd_range_m"] == [0.25, 0.38]
    assert json.loads(json.dumps(described)) == described


def test_weights_path_loads_with_its_spec(my_model):
    loaded = load_model(str(my_model), device="cpu")
    assert loaded.spec.name == "mine"
    assert loaded.module.transform.image_mean == [0.1, 0.2, 0.3]
    assert loaded.module.roi_heads.score_thresh == 0.4
    assert describe_model(str(my_model))["source"] == "file"


def test_options_override_the_spec(my_model):
    loaded = load_model(str(my_model), device="cpu", score_threshold=0.0, chip_size_px=640)
    assert loaded.module.roi_heads.score_thresh == 0.0
    assert loaded.module.transform.min_size == (640,)
    with pytest.raises(ConfigError, match="score_threshold"):
        load_model(str(my_model), score_threshold=1.5)
    with pytest.raises(ConfigError, match="chip_size_px"):
        load_model(str(my_model), chip_size_px=0)


def test_missing_pieces_of_a_weights_path_are_told_apart(tmp_path):
    path = tmp_path / "lonely.safetensors"
    with pytest.raises(InputNotFoundError, match="no weights file"):
        load_model(str(path))
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputNotFoundError, match=r"no model spec .*lonely\.json"):
        load_model(str(path))
    path.with_suffix(".json").write_text(make_spec(architecture="nonesuch").to_json())
    with pytest.raises(ModelError, match="architecture must be one of"):
        load_model(str(path))
    path.with_suffix(".json").write_text(make_spec().to_json())
    with pytest.raises(FormatError, match="sha256"):
        load_model(str(path))
    path.with_suffix(".json").write_text(make_spec(sha256=None).to_json())
    with pytest.raises(ModelError, match=r"missing: .* more; unexpected: a"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nonesuch", "must be one of maskrcnn_lite0"),
        ("", "must be one of"),
        ("weights.pth", "import-weights"),
        ("no_such_package.x:f", "'no_such_package.x' cannot be imported"),
        (":f", "cannot be imported"),
        (".relative:f", "cannot be imported"),
        ("my_broken_module:f", "ZeroDivisionError"),
        ("my_factories:", "has no ''"),
        ("my_factories:absent", "has no 'absent'"),
        ("my_factories:constant", "'constant' must be callable, got int"),
        ("my_factories:wrong", "must return a torch.nn.Module, got dict"),
        ("my_factories:broken", "the factory raised RuntimeError: first line second line"),
        ("my_factories:hungry", "the factory raised TypeError"),
        ("my_odd_spec:good", "geoseg_spec must be a ModelSpec, got dict"),
    ],
)
@pytest.mark.usefixtures("factories")
def test_bad_model_values_say_what_is_wrong(model, says):
    with pytest.raises(ModelError, match=says) as e:
        load_model(model, device="cpu")
    assert "\n" not in str(e.value)


@pytest.mark.usefixtures("factories")
def test_factory_network_is_made_ready_but_not_rearranged():
    loaded = load_model("my_factories:good", device="cpu")
    assert isinstance(loaded.module, nn.Conv2d)
    assert not loaded.module.training
    assert loaded.module.weight.dtype == torch.float32
    assert not loaded.module.weight.requires_grad
    assert loaded.spec.sha256 is None
    assert loaded.spec.gsd_range_m is None
    network = load_model("my_factories:mask_rcnn", device="cpu", score_threshold=0.7).module
    assert network.roi_heads.score_thresh == 0.7
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def test_factory_module_may_bring_its_spec(factories):
    text = "from test_models_spec import make_spec\ngeoseg_spec = make_spec(name='brought')\n"
    (factories / "my_specced.py").write_text(FACTORIES + text)
    try:
        assert load_model("my_specced:good", device="cpu").spec.name == "brought"
        assert describe_model("my_specced:good")["source"] == "factory"
    finally:
        sys.modules.pop("my_specced", None)


def test_devices_resolve_in_order(monkeypatch):
    monkeypatch.setattr(load_module, "_devices", lambda: ["cuda:0", "cuda:1", "cpu"])
    assert resolve_device("auto") == torch.device("cuda:0")
    assert resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == torch.device("cpu")
    for absent in ("cuda:2", "mps", "", "tpu", "cuda:-1", "meta"):
        with pytest.raises(DeviceError, match="cuda:0, cuda:1, cpu, found here"):
            resolve_device(absent)


def test_cpu_is_always_there():
    assert resolve_device("cpu").type == "cpu"
    assert load_module._devices()[-1] == "cpu"


def test_network_too_large_for_its_device_is_a_device_error():
    class Huge(nn.Module):
        def _apply(self, *_, **__):
            raise torch.OutOfMemoryError("out of memory\nTried to allocate")

    with pytest.raises(DeviceError, match="does not fit on cpu: out of memory Tried"):
        load_module._move(Huge(), torch.device("cpu"))


def test_a_factorys_network_keeps_its_own_resizing() -> None:
    module = load_model("test_models_load:resizing", device="cpu", chip_size_px=300).module
    assert module.transform.min_size == (800,)


def resizing() -> nn.Module:
    module = maskrcnn_lite0(2)
    module.transform.min_size = (800,)
    return module


def test_folding_is_checked_before_the_network_moves(monkeypatch):
    """A GPU's convolutions round so much that folding would look like a change there."""
    monkeypatch.setattr(load_module, "resolve_device", lambda _: torch.device("meta"))
    module = load_model("maskrcnn_lite0").module
    assert not any("BatchNorm" in type(layer).__name__ for layer in module.modules())
    assert {p.device.type for p in module.parameters()} == {"meta"}
