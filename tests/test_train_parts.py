"""The parts of training: options, rates, averages, networks and checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch

from geoseg.data.samples import Sample, boxes_of
from geoseg.errors import (
    ConfigError,
    FormatError,
    InputNotFoundError,
    MissingExtraError,
    ModelError,
    OutputError,
    ReadError,
)
from geoseg.models import build_architecture, load_weights
from geoseg.models.spec import BUILDING, ModelSpec
from geoseg.models.weights import save_weights
from geoseg.train import loop
from geoseg.train import network as network_module
from geoseg.train.batches import Shard, batches, collate
from geoseg.train.checkpoint import (
    Progress,
    checkpoint_step,
    checkpoint_weights,
    load_checkpoint,
    save_checkpoint,
)
from geoseg.train.journal import LOSSES_FILE, RunJournal, read_rows
from geoseg.train.network import body_norms, build_network, fill, free_layers, train_mode
from geoseg.train.optim import Average, make_optimizer, rate_at
from geoseg.train.options import (
    DataOptions,
    LoopOptions,
    NetworkOptions,
    OptimOptions,
    TrainConfig,
)
from geoseg.train.trainee import Trainee

SLIM = "maskrcnn_lite0_slim"


def random_network(**words) -> torch.nn.Module:
    options = NetworkOptions(init="random", **words)
    return build_network(options, num_classes=2, size_px=96)[0]


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OptimOptions, {"lr": float("nan")}),
        (OptimOptions, {"lr": 0.0}),
        (OptimOptions, {"lr": float("inf")}),
        (OptimOptions, {"weight_decay": -1.0}),
        (OptimOptions, {"ema": 1.0}),
        (OptimOptions, {"accumulate": 0}),
        (OptimOptions, {"milestones": (0.5, 2.0)}),
        (LoopOptions, {"steps": 0}),
        (LoopOptions, {"batch_size": 0}),
        (LoopOptions, {"seed": -1}),
        (LoopOptions, {"log_every": 0}),
        (NetworkOptions, {"rois": 1}),
        (DataOptions, {"copy_paste": 1.5}),
        (DataOptions, {"loaders": -1}),
        (DataOptions, {"towns": -1}),
        (DataOptions, {"val_gsd_m": (0.15, 0.0)}),
        (DataOptions, {"val_gsd_m": (-0.3,)}),
        (DataOptions, {"val_gsd_m": (float("nan"),)}),
        (NetworkOptions, {"stages": ((0.5, "4+"), (2.0, "all"))}),
        (NetworkOptions, {"stages": ((1.0, "all"),)}),
        (NetworkOptions, {"stages": ((-0.1, "all"),)}),
    ],
)
def test_bad_options_are_refused_by_name(kind, words):
    with pytest.raises(ConfigError, match=next(iter(words))):
        kind(**words)


# --- rates and averages ------------------------------------------------------------------------


def test_rates_rise_and_fall():
    options = OptimOptions(lr=1.0, warmup_steps=100)
    rates = [rate_at(s, options, steps=1000) for s in range(1000)]
    assert np.argmax(rates) == 100
    assert (np.diff(rates[:100]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    steps = OptimOptions(lr=1.0, warmup_steps=0, schedule="step", milestones=(0.5, 0.75))
    assert [rate_at(s, steps, steps=8) for s in (0, 3, 4, 6)] == pytest.approx([1, 1, 0.1, 0.01])
    flat = OptimOptions(lr=1.0, warmup_steps=0, schedule="constant")
    assert rate_at(999, flat, steps=1000) == 1.0


def test_biases_and_norms_do_not_decay():
    module = random_network()
    optimizer = make_optimizer(module, OptimOptions(weight_decay=0.1))
    by_decay = {g["weight_decay"]: g["params"] for g in optimizer.param_groups}
    assert all(p.ndim > 1 for p in by_decay[0.1])
    assert all(p.ndim <= 1 for p in by_decay[0.0])
    assert sum(map(len, by_decay.values())) == len(list(module.parameters()))


def test_the_average_follows_and_gives_the_network_back():
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    average = Average(module, 0.9)
    expected = 0.0
    for step in range(5):
        with torch.no_grad():
            module.weight.fill_(step + 1.0)
        average.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert float(average.values["weight"]) == pytest.approx(expected)
    with average.applied(module):
        assert module.weight.item() == pytest.approx(expected)
    assert module.weight.item() == 5.0


# --- networks ----------------------------------------------------------------------------------


def test_imagenet_weights_fill_the_whole_body_and_nothing_else():
    module, result = build_network(NetworkOptions(), num_classes=2, size_px=96)
    body = [k for k in module.state_dict() if k.startswith("backbone.body.")]
    assert sorted(result.loaded) == sorted(body)
    assert not [k for k in result.left if k.startswith("backbone.body.")]
    # ImageNet's first layer is no noise: its filters differ in strength, some see colour.
    stem = module.state_dict()["backbone.body.conv_stem.weight"]
    assert float(stem.flatten(1).norm(dim=1).std()) > 0.5


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(network_module, "LITE0_PACKAGE", "no_such_package_here")
    with pytest.raises(MissingExtraError, match=r"geoseg\[train\]"):
        build_network(NetworkOptions(), num_classes=2, size_px=96)


def test_another_number_of_classes_leaves_out_the_predictors_alone():
    options = NetworkOptions(init="maskrcnn_lite0", architecture=SLIM)
    _, result = build_network(options, num_classes=4, size_px=96)
    assert sorted(result.left) == [
        "roi_heads.box_predictor.bbox_pred.bias",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.mask_predictor.mask_fcn_logits.bias",
        "roi_heads.mask_predictor.mask_fcn_logits.weight",
    ]
    assert sorted(result.unused) == sorted(result.left)
    assert "backbone.fpn.inner_blocks.0.0.weight" in result.loaded


def test_weights_that_fit_nothing_are_refused():
    module = random_network()
    with pytest.raises(ModelError, match=r"of another network \(0 of their 1 layers fit\)"):
        fill(module, {"something.else": torch.zeros(3)})


def test_weights_of_another_architecture_are_refused():
    options = NetworkOptions(init="maskrcnn_lite0", architecture="maskrcnn_resnet50_fpn")
    with pytest.raises(ModelError, match=r"of another network \(5 of .*check network.architecture"):
        build_network(options, num_classes=2, size_px=96)


def test_a_body_of_another_depth_is_refused():
    shallow, deep = (random_network(architecture=f"maskrcnn_resnet{n}_fpn") for n in (50, 101))
    for module, state in ((shallow, deep.state_dict()), (deep, shallow.state_dict())):
        with pytest.raises(ModelError, match=r"of another network \((307|291) of"):
            fill(module, state)


def test_a_body_with_and_without_counters_is_the_same():
    first, second = (random_network(architecture=f"maskrcnn_resnet50_fpn{v}") for v in ("", "_v2"))
    for module, other in ((first, second), (second, first)):
        body = {k for k in module.state_dict() if k.startswith("backbone.body.")}
        assert not body & set(fill(module, other.state_dict()).left)


def test_a_body_alone_is_enough():
    module = random_network(architecture="maskrcnn_resnet50_fpn")
    body = {k: v for k, v in module.state_dict().items() if k.startswith("backbone.body.")}
    assert len(fill(module, body).loaded) == len(body)


def test_unknown_first_weights_are_refused(tmp_path):
    for init, error in (
        ("nonsense", ModelError),
        (str(tmp_path / "a.safetensors"), InputNotFoundError),
    ):
        with pytest.raises(error):
            build_network(NetworkOptions(init=init), num_classes=2, size_px=96)
    with pytest.raises(ConfigError, match="init: coco is for"):
        build_network(NetworkOptions(init="coco"), num_classes=2, size_px=96)


RESNET = NetworkOptions(init="coco", architecture="maskrcnn_resnet50_fpn")
RESNET_FILE = Path("hub", "checkpoints", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_torchvisions_cache_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / RESNET_FILE).parent.mkdir(parents=True)
    torch.save({"a": Hostile(tmp_path / "ran")}, tmp_path / RESNET_FILE)
    with pytest.raises(FormatError, match="is not a checkpoint of plain tensors"):
        build_network(RESNET, num_classes=2, size_px=96)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash")])
def test_torchvisions_weights_that_cannot_be_fetched_are_said(tmp_path, monkeypatch, error):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fails(*_, **__):
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", fails)
    with pytest.raises(ModelError, match=r"COCO_V1 could not be fetched .*: go online once"):
        build_network(RESNET, num_classes=2, size_px=96)


def test_torchvisions_weights_are_fetched_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name, fetched = "backbone.fpn.inner_blocks.0.0.bias", []

    def fetch(url, path, digest, **_):
        fetched.append((url.rpartition("/")[2], digest))
        torch.save({name: torch.full((256,), 7.0)}, path)

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    for _ in range(2):
        module, result = build_network(RESNET, num_classes=2, size_px=96)
        assert result.loaded == (name,)
        assert (module.state_dict()[name] == 7).all()
    assert fetched == [(RESNET_FILE.name, "bf2d0c1e")]


def learning(module: torch.nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_layers_are_set_free_by_stage():
    module = random_network(architecture="maskrcnn_lite0")
    counts = [free_layers(module, k) for k in ("heads", "5+", "4+", "3+", "all")]
    assert counts == sorted(counts)
    assert len(set(counts)) == 5
    free_layers(module, "heads")
    assert not [n for n in learning(module) if n.startswith("backbone.body.")]
    assert any(n.startswith("rpn.") for n in learning(module))
    free_layers(module, r"^roi_heads\.mask")
    assert all(n.startswith("roi_heads.mask") for n in learning(module))


def test_stages_of_a_resnet_are_its_layers():
    module = build_architecture("maskrcnn_resnet50_fpn", chip_size_px=96)
    free_layers(module, "4+")
    body = {n.split(".")[2] for n in learning(module) if n.startswith("backbone.body.")}
    assert body == {"layer3", "layer4"}


@pytest.mark.parametrize(
    ("layers", "text"), [("[", "regular expression"), ("^nothing$", "no layer")]
)
def test_bad_layers_are_refused(layers, text):
    with pytest.raises(ConfigError, match=text):
        free_layers(random_network(), layers)


def test_frozen_norms_neither_learn_nor_follow_the_data():
    module = random_network()
    free_layers(module, "all", batch_norm="frozen")
    train_mode(module, batch_norm="frozen")
    norms = list(body_norms(module))
    assert len(norms) > 20
    assert not any(n.training or any(p.requires_grad for p in n.parameters()) for n in norms)
    free_layers(module, "all", batch_norm="trained")
    train_mode(module, batch_norm="trained")
    assert all(n.training for n in norms)


# --- batches -----------------------------------------------------------------------------------


class Noise:
    """Samples of noise with one square object."""

    def __init__(self, count: int = 6, size: int = 64) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        masks = np.zeros((1, self.size, self.size), bool)
        row, col = rng.integers(0, self.size - 24, 2)
        masks[0, row : row + 20, col : col + 24] = True
        image = rng.integers(0, 80, (3, self.size, self.size)).astype(np.uint8)
        image[:, masks[0]] += 120
        return Sample(image=image, masks=masks, labels=np.ones(1, np.int64))


def images_of(numbers: range, *, loaders: int = 0, shard: Shard | None = None) -> list[bytes]:
    stream = batches(
        Noise(), numbers, augment="aerial", batch_size=2, seed=4, loaders=loaders, shard=shard
    )
    return [image.numpy().tobytes() for batch in stream for image in batch[0]]


def test_batches_are_the_same_wherever_they_are_made():
    here = images_of(range(4))
    assert images_of(range(4), loaders=1) == here
    assert images_of(range(2, 4)) == here[4:]


class Truncated(Noise):
    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        raise ReadError(f"{index}.jpg: cannot be read (image file is truncated)")


@pytest.mark.parametrize("loaders", [0, 1])
def test_an_error_of_a_loader_comes_as_it_was_raised(loaders):
    stream = batches(Truncated(1), range(2), augment="none", batch_size=1, seed=0, loaders=loaders)
    with pytest.raises(ReadError) as caught:
        next(stream)
    assert str(caught.value) == "0.jpg: cannot be read (image file is truncated)"


def test_loaders_import_nothing_from_here_and_end_with_their_trainer(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "run.py").write_text(LOADING)
    (tmp_path / "cv2.py").write_text("raise RuntimeError('not the real one')")
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "code" / "run.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    group = os.getpgid(process.pid)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    ends = time.monotonic() + 60
    while _is_there(group):
        assert time.monotonic() < ends, "a loader outlives its trainer"
        time.sleep(0.2)


LOADING = """
import time

from geoseg.train.batches import batches
from tests.test_train_parts import Noise

if __name__ == "__main__":
    stream = batches(Noise(), range(99), augment="none", batch_size=1, seed=1, loaders=2)
    next(stream)
    print("ready", flush=True)
    time.sleep(600)
"""


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_share_the_samples_out():
    both = [images_of(range(3), shard=Shard(rank=r, world=2)) for r in (0, 1)]
    alone = images_of(range(6))
    mixed = [both[i // 2 % 2][i // 4 * 2 + i % 2] for i in range(12)]
    assert mixed == alone


def test_targets_are_torchvisions():
    sample = Noise().sample(0, np.random.default_rng(0))
    images, targets = collate([sample])
    assert images[0].dtype == torch.uint8
    assert targets[0]["boxes"].tolist() == boxes_of(sample.masks).tolist()
    assert targets[0]["masks"].dtype == torch.uint8
    empty = dataclasses.replace(
        sample, masks=np.zeros((0, 64, 64), bool), labels=np.zeros(0, np.int64)
    )
    assert collate([empty])[1][0]["boxes"].shape == (0, 4)


# --- checkpoints -------------------------------------------------------------------------------


class State:
    """A network that has moved, and all that goes with it."""

    def __init__(self, *, ema: bool = True, name: str = "adamw") -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        self.optimizer = make_optimizer(self.module, OptimOptions(name=name))
        self.average = Average(self.module, 0.9) if ema else None
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def move(self, steps: int = 3) -> None:
        for step in range(steps):
            self.optimizer.zero_grad()
            self.module(torch.rand(5, 3)).square().sum().backward()
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.module, step)

    def save(self, path, *, architecture: str = "net", step: int = 3) -> None:
        save_checkpoint(path, progress=Progress(step=step, best_ap=0.5), architecture=architecture,
                        module=self.module, optimizer=self.optimizer, average=self.average,
                        scaler=self.scaler)  # fmt: skip

    def load(self, path, *, architecture: str = "net") -> Progress:
        return load_checkpoint(path, architecture=architecture, module=self.module,
                               optimizer=self.optimizer, average=self.average,
                               scaler=self.scaler)  # fmt: skip


def parameters(state: State) -> list[torch.Tensor]:
    return [p.detach().clone() for p in state.module.parameters()]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_checkpoint_goes_on_as_if_nothing_had_been(tmp_path, name):
    straight, cut = State(name=name), State(name=name)
    torch.manual_seed(1)
    straight.move(6)
    torch.manual_seed(1)
    cut.move(3)
    cut.save(tmp_path / "c.safetensors")
    torch.manual_seed(99)
    again = State(name=name)
    assert again.load(tmp_path / "c.safetensors") == Progress(step=3, best_ap=0.5)
    assert checkpoint_step(tmp_path / "c.safetensors") == 3
    again.move(3)
    for a, b in zip(parameters(straight), parameters(again), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_begins_another_run_with_its_average(tmp_path):
    path = tmp_path / "last.safetensors"
    module = random_network()
    average = Average(module, 0.9)
    average.values["rpn.head.bbox_pred.bias"] += 1.0
    save_checkpoint(path, progress=Progress(step=3), architecture=SLIM, module=module,
                    optimizer=make_optimizer(module, OptimOptions()), average=average,
                    scaler=torch.amp.GradScaler("cpu", enabled=False))  # fmt: skip
    options = NetworkOptions(init=str(path), architecture=SLIM)
    begun, report = build_network(options, num_classes=2, size_px=96)
    assert not report.left
    own, state = module.state_dict(), begun.state_dict()
    assert torch.equal(state["rpn.head.bbox_pred.bias"], own["rpn.head.bbox_pred.bias"] + 1.0)
    norms = [name for name in own if name.endswith("running_mean")]
    assert norms
    assert all(torch.equal(state[name], own[name]) for name in norms)


def test_nothing_in_a_checkpoint_is_pickled(tmp_path):
    state = State()
    state.move()
    state.save(tmp_path / "c.safetensors")
    data = (tmp_path / "c.safetensors").read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert data[8:9] == b"{"
    assert b"pickle" not in data
    assert header < 20_000


def test_a_torn_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    State().save(path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\x00" * 100, whole[:-1]):
        path.write_bytes(broken)
        with pytest.raises(FormatError, match=r"c.safetensors is no whole checkpoint"):
            State().load(path)


GOOD = {"step": 3, "best_ap": 0.5, "best_step": 2, "stale": 0, "format": 1, "architecture": "net"}


@pytest.mark.parametrize(
    "about",
    [
        "[" * 200_000,
        "[]",
        "null",
        json.dumps(GOOD | {"step": "abc"}),
        json.dumps(GOOD | {"step": "7"}),
        json.dumps(GOOD | {"step": -1}),
        json.dumps(GOOD | {"step": 1.5}),
        json.dumps(GOOD | {"step": 10**30}),
        json.dumps(GOOD | {"step": True}),
        json.dumps(GOOD | {"stale": None}),
        json.dumps(GOOD | {"best_ap": "high"}),
        json.dumps(GOOD | {"best_ap": math.nan}),
        json.dumps(GOOD | {"best_ap": 10**400}),
        json.dumps(GOOD | {"architecture": 5}),
        json.dumps(GOOD | {"losses": 5}),
        json.dumps(GOOD | {"losses": {"loss": "low"}}),
        json.dumps(GOOD | {"losses": {"loss": math.nan}}),
        json.dumps(GOOD | {"losses": {"loss": 10**400}}),
    ],
    ids=lambda about: about[:90],
)
def test_a_strangers_header_is_refused_in_one_line(tmp_path, about):
    path = tmp_path / "c.safetensors"
    tensors = {"random.cpu": torch.get_rng_state()}
    safetensors.torch.save_file(tensors, path, metadata={"geoseg": about})
    for read in (checkpoint_step, checkpoint_weights, State().load):
        with pytest.raises(FormatError, match=r"c.safetensors is no whole checkpoint") as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200 + len(str(path))


def test_a_checkpoint_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    State().save(path)
    monkeypatch.setattr("geoseg.train.checkpoint.MAX_CHECKPOINT_BYTES", 1000)
    for read in (checkpoint_weights, State().load):
        with pytest.raises(FormatError, match=r"c.safetensors must be at most 1000 bytes, got \d"):
            read(path)


def test_plain_weights_are_no_checkpoint(tmp_path):
    spec = ModelSpec(name="a", architecture=SLIM, categories=(BUILDING,), chip_size_px=96,
                     gsd_range_m=None, mean=(0.5,) * 3, std=(0.5,) * 3, sha256=None,
                     licence="x", attribution=(), data="", version="1")  # fmt: skip
    save_weights(random_network(), spec, tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match="no whole checkpoint"):
        State().load(tmp_path / "w.safetensors")
    load_weights(build_architecture(SLIM, chip_size_px=96), tmp_path / "w.safetensors")


def test_a_checkpoint_of_another_network_says_what_differs(tmp_path):
    path = tmp_path / "c.safetensors"
    State().save(path)
    with pytest.raises(ModelError, match=re.escape("is a checkpoint of net, the run is of other")):
        State().load(path, architecture="other")
    other = State()
    other.module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    with pytest.raises(ModelError, match=r"3 layers differ, such as 0.bias \(must be 5, got 4\)"):
        other.load(path)
    with pytest.raises(InputNotFoundError):
        State().load(tmp_path / "none.safetensors")


def test_an_average_that_is_not_there_is_missed(tmp_path):
    path = tmp_path / "c.safetensors"
    State(ema=False).save(path)
    with pytest.raises(ModelError, match="no moving average"):
        State().load(path)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    state = State()
    state.save(path)
    good = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    state.move()
    with pytest.raises(OutputError, match="No space left"):
        state.save(path, step=9)
    assert path.read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_processes_draw_unlike_each_other_when_they_go_on(tmp_path):
    state = State()
    torch.manual_seed(5)
    state.save(tmp_path / loop.CHECKPOINT)
    draws = [torch.rand(3)]  # what the process that saved it would draw next
    trainee = Trainee(module=state.module, optimizer=state.optimizer, average=state.average,
                           device=torch.device("cpu"), precision="fp32", scaler=state.scaler,
                           forward=state.module)  # fmt: skip
    config = TrainConfig(network=NetworkOptions(architecture="net"))
    for rank in (0, 1, 2, 1):
        shard = Shard(rank=rank, world=3)
        assert loop._resume(trainee, config, tmp_path, shard).step == 3
        draws.append(torch.rand(3))
    saved, *others = [draw.tolist() for draw in draws]
    assert others[0] == saved
    assert others[1] == others[3], "a process that goes on twice draws the same"
    assert len({tuple(draw) for draw in others}) == 3


# --- the journal -------------------------------------------------------------------------------


LINE = {"loss": 1.5, "lr": 1e-3, "step_s": 0.1}


def journal(folder: Path, *, start: int = 0) -> RunJournal:
    return RunJournal(folder, start=start, say=lambda _: None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "step,lo",
        "step,loss,lr,step_s\n",
        "step,loss,lr,step_s\n20,2,0.001,0.1\n\n",
        "step,loss,lr,step_s\n20,2,0.001,0.1\n40",
        "step,loss,lr,step_s\n20,2,0.001,0.1\n40,1\n",
        "step,loss,lr,step_s\n20,2,0.001,0.1\n\0\0\0\0\n",
        "step,loss,lr,step_s\n20,2,0.001,0.1\n60,2,0.001,0.1\n",
    ],
)
def test_a_log_that_was_torn_goes_on(tmp_path, text):
    path = tmp_path / LOSSES_FILE
    path.write_text(text)
    with journal(tmp_path, start=40) as going_on:
        going_on.losses(60, LINE)
    steps = [row["step"] for row in read_rows(path)]
    assert steps == ([20, 60] if "20," in text else [60])
    assert path.read_text().startswith("step,loss,lr,step_s\n")


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / LOSSES_FILE
    path.write_text("step,loss,lr,step_s\n20,2,0.001,0.1\n60,2,0.001,0.1\n")
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(OutputError, match=r"losses.csv: cannot be written \(.*No space left"):
        journal(tmp_path, start=40).__enter__()
    assert path.read_bytes() == before


def no_space(path: Path, *_: object, **__: object) -> int:
    """Leave the file empty, as a disk that fills up does."""
    with path.open("w"):
        raise OSError(28, "No space left on device")


def test_first_losses_are_what_an_untrained_network_has():
    """A network that knows nothing takes each class for equally likely: -ln(1/2)."""
    module = random_network(architecture=SLIM, rois=16)
    torch.manual_seed(0)
    images, targets = collate([Noise(size=96).sample(0, np.random.default_rng(0))])
    losses = module([i.float() / 255 for i in images], targets)
    assert losses["loss_objectness"].item() == pytest.approx(math.log(2), rel=0.15)
