"""Weights files: they fit exactly or are refused by layer name, and no pickle ever runs code."""

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_spec import make_spec
from torch import nn

from geoseg.errors import FormatError, InputNotFoundError, ModelError, OutputError
from geoseg.models import weights as weights_module
from geoseg.models.architectures import ARCHITECTURES, build_architecture
from geoseg.models.spec import ModelSpec
from geoseg.models.weights import import_pickled, load_weights, save_weights


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 2))
    ).eval()


def make_file(path, state=None):
    safetensors.torch.save_file(make_net().state_dict() if state is None else state, path)
    return path


@pytest.fixture
def small_architecture(monkeypatch):
    """A registry entry of a few numbers, so that imports need no 40 MB file."""
    monkeypatch.setitem(ARCHITECTURES, "small", lambda num_classes, chip_size_px=300: make_net(1))
    return make_spec(architecture="small", sha256=None)


def same_state(a, b, atol=0.0):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=atol, rtol=0) for k in a)


def test_saved_weights_load_again(tmp_path):
    path = tmp_path / "mine.safetensors"
    spec = save_weights(make_net(), make_spec(), path, half=False)
    other = make_net(1)
    load_weights(other, path, sha256=spec.sha256)
    assert same_state(other, make_net())
    assert spec.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ModelSpec.read(path.with_suffix(".json")) == spec
    assert {p.name for p in tmp_path.iterdir()} == {"mine.safetensors", "mine.json"}


def test_half_precision_is_cast_back_and_large_values_stay_single(tmp_path):
    net = make_net()
    net.norm.running_var.fill_(1e6)  # beyond half precision
    path = tmp_path / "mine.safetensors"
    save_weights(net, make_spec(), path)
    assert safetensors.torch.load_file(path)["conv.weight"].dtype == torch.float16
    other = make_net(1)
    load_weights(other, path)
    assert other.conv.weight.dtype == torch.float32
    assert float(other.norm.running_var[0]) == 1e6
    assert same_state(other, net, atol=1e-3)


def test_shared_tensors_can_be_saved(tmp_path):
    net = make_net()
    net.again = net.head
    save_weights(net, make_spec(), tmp_path / "mine.safetensors")
    load_weights(net, tmp_path / "mine.safetensors")


def drop(state):
    del state["conv.weight"], state["head.bias"]


def add(state):
    state.update({f"extra{i}": torch.zeros(1) for i in range(5)})


def reshape(state):
    state["head.weight"] = torch.zeros(7, 4)


def retype(state):
    state["conv.bias"] = torch.zeros(4, dtype=torch.complex64)


def spoil(state):
    state["conv.bias"] = torch.full((4,), torch.nan)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, r"missing: conv\.weight, head\.bias$"),
        (add, "unexpected: extra0, extra1, extra2 and 2 more$"),
        (reshape, r"wrong shape: head\.weight \(must be 2x4, got 7x4\)$"),
        (retype, r"wrong type: conv\.bias \(torch.complex64\)$"),
        (spoil, r"NaN or infinity in conv\.bias$"),
    ],
)
def test_wrong_layers_are_named(tmp_path, change, says):
    state = make_net().state_dict()
    change(state)
    path = make_file(tmp_path / "w.safetensors", dict(state))
    with pytest.raises(ModelError, match=says) as e:
        load_weights(make_net(), path)
    assert "\n" not in str(e.value)


def test_batch_counters_are_no_layers(tmp_path):
    state = make_net().state_dict()
    del state["norm.num_batches_tracked"]
    state["conv.num_batches_tracked"] = torch.tensor(3)
    load_weights(make_net(), make_file(tmp_path / "w.safetensors", dict(state)))


def test_hash_of_another_file_is_refused(tmp_path):
    path = make_file(tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match="sha256 must be"):
        load_weights(make_net(), path, sha256="00" * 32)


def header(values):
    text = json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"12345",
        b"PK\x03\x04 not this",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        header({"conv.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 999]}}),
        header({"conv.weight": {"dtype": "Q7", "shape": [1], "data_offsets": [0, 0]}}),
        header({"conv.weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}),
        header({"conv.weight": 3}),
    ],
)
def test_what_is_no_safetensors_is_one_line(tmp_path, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="not a valid safetensors file") as e:
        load_weights(make_net(), path)
    assert "\n" not in str(e.value)


@settings(max_examples=60)
@given(data=st.data())
def test_damage_never_escapes_as_another_error(tmp_path_factory, data):
    whole = safetensors.torch.save(make_net().state_dict())
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, max(cut - 1, 0)))
    broken = bytearray(whole[:cut])
    broken[at : at + 1] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    path.write_bytes(broken)
    try:
        load_weights(make_net(), path)
    except (FormatError, ModelError) as e:
        assert "\n" not in str(e)  # noqa: PT017 - damage inside the values may load


def test_absent_folder_and_oversized_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputNotFoundError, match="no weights file"):
        load_weights(make_net(), tmp_path / "none.safetensors")
    with pytest.raises(FormatError, match="folder"):
        load_weights(make_net(), tmp_path)
    path = make_file(tmp_path / "w.safetensors")
    monkeypatch.setattr(weights_module, "MAX_WEIGHTS_BYTES", 100)
    with pytest.raises(FormatError, match="at most 100 bytes"):
        load_weights(make_net(), path)


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="cannot be written"):
        save_weights(make_net(), make_spec(), tmp_path / "none" / "w.safetensors")
    with pytest.raises(OutputError, match=r"\.safetensors"):
        save_weights(make_net(), make_spec(), tmp_path / "w.pth")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_weights(make_net(), make_spec(), tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"state_dict": s},
        lambda s: OrderedDict(("module." + k, v) for k, v in s.items()),
        lambda s: {"state_dict": {"module." + k: v for k, v in s.items()}},
    ],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_checkpoints_convert(tmp_path, small_architecture, wrap, new_format):
    source, out = tmp_path / "old.pth", tmp_path / "new.safetensors"
    torch.save(wrap(make_net().state_dict()), source, _use_new_zipfile_serialization=new_format)
    spec = import_pickled(source, out, spec=small_architecture, half=False)
    net = make_net(2)
    load_weights(net, out, sha256=spec.sha256)
    assert same_state(net, make_net())


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle", "inside"])
def test_malicious_pickle_runs_nothing(tmp_path, small_architecture, how):
    source, trap = tmp_path / "evil.pth", tmp_path / "trap"
    payload = Malicious(trap)
    if how == "pickle":
        source.write_bytes(pickle.dumps(payload))
    else:
        content = make_net().state_dict() | {"x": payload} if how == "inside" else payload
        torch.save(content, source, _use_new_zipfile_serialization=how != "legacy")
    with pytest.raises(FormatError, match="not a checkpoint of plain tensors") as e:
        import_pickled(source, tmp_path / "out.safetensors", spec=small_architecture)
    assert "\n" not in str(e.value)
    assert {p.name for p in tmp_path.iterdir()} == {"evil.pth"}
    if how == "pickle":  # the trap is real: plain unpickling springs it
        pickle.loads(source.read_bytes())
        assert trap.exists()


@pytest.mark.parametrize(
    "content", [3, [], {}, {"model": 3}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3), "text"]
)
def test_what_is_no_state_dict_is_refused(tmp_path, small_architecture, content):
    source = tmp_path / "odd.pth"
    torch.save(content, source)
    with pytest.raises(FormatError, match="must hold") as e:
        import_pickled(source, tmp_path / "out.safetensors", spec=small_architecture)
    assert "\n" not in str(e.value)


def test_checkpoint_of_another_network_is_refused_by_layer(tmp_path, small_architecture):
    source = tmp_path / "other.pth"
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, source)
    with pytest.raises(ModelError, match=r"unexpected: backbone\.conv1\.weight"):
        import_pickled(source, tmp_path / "out.safetensors", spec=small_architecture)
    assert [p.name for p in tmp_path.iterdir()] == ["other.pth"]


@pytest.mark.parametrize("data", [b"", b"junk", b"\x80\x02.", b"PK\x03\x04" + b"\x00" * 60])
def test_corrupt_checkpoint_is_one_line(tmp_path, small_architecture, data):
    source = tmp_path / "bad.pth"
    source.write_bytes(data)
    with pytest.raises(FormatError) as e:
        import_pickled(source, tmp_path / "out.safetensors", spec=small_architecture)
    assert "\n" not in str(e.value)


def test_archive_that_inflates_is_refused(tmp_path, small_architecture, monkeypatch):
    source = tmp_path / "bomb.pth"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 1_000_000)
    monkeypatch.setattr(weights_module, "MAX_WEIGHTS_BYTES", 100_000)
    with pytest.raises(FormatError, match="must hold at most"):
        import_pickled(source, tmp_path / "out.safetensors", spec=small_architecture)


def test_older_torchvision_layer_names_load(tmp_path):
    module = build_architecture("maskrcnn_resnet50_fpn")
    state = {}
    for name, value in module.state_dict().items():
        old = name
        for i in range(4):
            old = old.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
            old = old.replace(f"_blocks.{i}.0.", f"_blocks.{i}.")
        old = old.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        state[old] = value
    assert state.keys() != module.state_dict().keys()
    load_weights(module, make_file(tmp_path / "old.safetensors", state))
