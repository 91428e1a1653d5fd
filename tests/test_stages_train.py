"""Training as its user runs it: on synthetic towns and crowdAI folders, small and on CPU."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from geoseg.config import dump_config, load_train_config
from geoseg.data.cocowrite import write_coco
from geoseg.data.collect import Collector
from geoseg.data.manifest import Manifest, SplitChoice, write_manifest
from geoseg.errors import ConfigError, FormatError, InputNotFoundError, ModelError, OutputError
from geoseg.models import ARCHITECTURES, find_model, load_model
from geoseg.models.spec import Category
from geoseg.stages.train import CONFIG_FILE, ENVIRONMENT_FILE, WEIGHTS_FILE, train_run
from geoseg.testing import make_town, write_town
from geoseg.train import loop
from geoseg.train.checkpoint import Progress, checkpoint_step
from geoseg.train.journal import LOSSES_FILE, VALIDATIONS_FILE, read_rows
from geoseg.train.options import DataOptions, SceneData, TrainConfig
from geoseg.train.sources import training_source, validation_set
from geoseg.train.trainee import make_trainee
from geoseg.vector import read_vector
from tests.cli_support import call
from tests.test_house import ROOT
from tests.test_train_parts import Noise, no_space

if TYPE_CHECKING:
    from pathlib import Path


def quick(**changes) -> TrainConfig:
    """Build a config of a tiny run; `section__key` changes a key."""
    defaults = {
        "data.towns": 1, "data.size_px": 96, "data.loaders": 0, "data.augment": "flips",
        "network.init": "random", "network.rois": 16, "network.proposals": 50,
        "optim.warmup_steps": 2, "loop.steps": 4, "loop.batch_size": 1, "loop.log_every": 1,
        "loop.checkpoint_every": 2, "loop.precision": "fp32", "loop.device": "cpu",
        "loop.threads": 1,
    }  # fmt: skip
    return load_train_config(
        options=defaults | {k.replace("__", "."): v for k, v in changes.items()}
    )


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> SceneData:
    files = write_town(make_town(size_px=256, seed=5), tmp_path_factory.mktemp("town"))
    return SceneData(raster=str(files.image), labels=str(files.truth))


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder / LOSSES_FILE)]


def test_a_run_leaves_weights_that_load_and_what_it_did(tmp_path, town):
    config = quick(data__val_scenes=[dataclasses.asdict(town)], data__val_gsd_m=[0.3],
                   loop__validate_every=2, about__name="tiny", about__licence="CC0-1.0",
                   optim__ema=0.9)  # fmt: skip
    said = []
    summary = train_run(config, tmp_path / "run", say=said.append)
    assert summary.progress.step == 4
    model = load_model(str(tmp_path / "run" / WEIGHTS_FILE), device="cpu")
    assert (model.spec.name, model.spec.licence, model.spec.chip_size_px) == ("tiny", "CC0-1.0", 96)
    assert model.spec.mask_scores, "unless the config says otherwise"
    assert len(losses(tmp_path / "run")) == 4
    validations = read_rows(tmp_path / "run" / VALIDATIONS_FILE)
    assert [row["step"] for row in validations] == [2, 4]
    assert {"ap", "ap50", "ar"} <= validations[0].keys()
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment
    assert load_train_config(tmp_path / "run" / CONFIG_FILE) == config
    assert any("step 4: loss" in line for line in said)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    with Image.open(tmp_path / "run" / "pictures" / "step-0000004.png") as picture:
        assert picture.height == 96
        assert picture.width == 6 * 96


@pytest.mark.parametrize("log_every", [1, 3])
def test_a_run_that_was_cut_has_the_losses_of_one_that_was_not(tmp_path, monkeypatch, log_every):
    config = quick(loop__steps=6, loop__log_every=log_every, optim__ema=0.9, data__augment="aerial")
    train_run(config, tmp_path / "straight")

    step, calls = loop.take_step, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(loop, "take_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path / "cut")
    monkeypatch.setattr(loop, "take_step", step)
    torch.rand(7)  # the generator is somewhere else by now
    train_run(config, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "straight")
    ends = [(tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("cut", "straight")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (0, "has no checkpoint yet: the same command again begins anew"),
        (3, "holds a checkpoint of step 2: the same command again goes on from there"),
    ],
)
def test_a_run_that_is_interrupted_says_how_it_goes_on(tmp_path, monkeypatch, capsys, last, says):
    (tmp_path / "config.yaml").write_text(dump_config(quick()))
    step = loop.take_step

    def dies(trainee, parts, config, number):
        if number == last:
            raise KeyboardInterrupt
        return step(trainee, parts, config, number)

    monkeypatch.setattr(loop, "take_step", dies)
    words = ("--config", tmp_path / "config.yaml", "--run-dir", tmp_path / "run")
    done = call(capsys, "train", *words)
    assert done.code == 1
    assert done.err.splitlines()[-1] == f"geoseg: interrupted; {tmp_path / 'run'} {says}"


def test_a_finished_run_may_be_made_longer(tmp_path):
    train_run(quick(loop__steps=2), tmp_path)
    summary = train_run(quick(loop__steps=3), tmp_path)
    assert summary.progress.step == 3
    assert [row["step"] for row in read_rows(tmp_path / LOSSES_FILE)] == [1, 2, 3]


def test_a_full_disk_leaves_what_a_run_was_told(tmp_path, monkeypatch):
    train_run(quick(loop__steps=1), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in (CONFIG_FILE, ENVIRONMENT_FILE)}
    monkeypatch.setattr("geoseg.stages.train._environment", lambda: {"another": "machine"})
    for config in (quick(loop__steps=2), quick(loop__steps=1)):
        with monkeypatch.context() as full:
            full.setattr("pathlib.Path.write_text", no_space)
            with pytest.raises(OutputError, match="No space left on device"):
                train_run(config, tmp_path)
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert train_run(quick(loop__steps=1), tmp_path).progress.step == 1


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    train_run(quick(loop__steps=1), tmp_path)
    with pytest.raises(ConfigError, match=r"holds a run with optim.lr 0.0005, now it is 0.1"):
        train_run(quick(optim__lr=0.1), tmp_path)


def test_a_run_from_before_an_option_goes_on_with_what_it_did(tmp_path):
    """Scores were of the class alone when the option was not there yet."""
    config = quick(loop__steps=1, network__mask_scores=False)
    (tmp_path / CONFIG_FILE).write_text(
        dump_config(config).replace("  mask_scores: false\n", "", 1)
    )
    with pytest.raises(ConfigError, match=r"network.mask_scores False, now it is True: go on with"):
        train_run(quick(loop__steps=1), tmp_path)
    summary = train_run(config, tmp_path)
    assert summary.spec is not None
    assert not summary.spec.mask_scores


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(OutputError, match="must be empty or hold a run"):
        train_run(quick(), tmp_path)


def test_nothing_to_train_on_is_said_and_leaves_the_folder_for_another_try(tmp_path):
    with pytest.raises(ConfigError, match="nothing to train on"):
        train_run(quick(data__towns=0), tmp_path / "run")
    with pytest.raises(InputNotFoundError):
        train_run(quick(network__init="none.safetensors"), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    assert train_run(quick(loop__steps=1), tmp_path / "run").progress.step == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__augment": "foo"}, "augment must be one of none, .*got 'foo'"),
        ({"network__train_layers": "nomatch"}, "train_layers 'nomatch' matches no layer"),
        ({"network__stages": [[0.5, "4+"], [0.9, "nomatch"]]}, "'nomatch' matches no layer"),
        ({"network__stages": [[0.9, "["]]}, "regular expression, got '\\['"),
    ],
)
def test_what_is_refused_leaves_the_folder_for_the_mended_command(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        train_run(quick(**changes), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    forward = make_trainee

    def poisoned(module, config, device):
        trainee = forward(module, config, device)
        with torch.no_grad():
            module.rpn.head.cls_logits.bias.fill_(float("nan"))
        return trainee

    monkeypatch.setattr("geoseg.stages.train.make_trainee", poisoned)
    with pytest.raises(ModelError, match=r"the loss is nan at step 1 .*lower optim.lr"):
        train_run(quick(), tmp_path / "run")
    assert not (tmp_path / "run" / WEIGHTS_FILE).exists()


@pytest.mark.parametrize("changes", [
    {"loop__steps": 1}, {"loop__checkpoint_every": 1}, {"loop__steps": 1, "optim__ema": 0.9},
])  # fmt: skip
def test_weights_that_a_step_threw_away_are_not_kept(tmp_path, changes):
    config = quick(optim__lr=1e30, optim__warmup_steps=0, **changes)
    with pytest.raises(ModelError, match=r"weights are up to 1.06e\+30 after step 1: lower"):
        train_run(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_gradients_of_several_batches_make_one_step(tmp_path):
    """Two batches of one chip move the weights as a batch of two: losses are means over chips."""
    config = quick(loop__steps=2, optim__accumulate=2)
    train_run(config, tmp_path / "run")
    numbers = read_rows(tmp_path / "run" / LOSSES_FILE)
    assert len(numbers) == 2
    assert numbers[0]["loss"] > 0


def test_layers_are_set_free_in_stages(tmp_path, caplog):
    config = quick(network__train_layers="heads", network__stages=[[0.5, "all"]])
    with caplog.at_level("INFO", logger="geoseg"):
        train_run(config, tmp_path / "run")
    said = [r.getMessage() for r in caplog.records if "learn" in r.getMessage()]
    assert ["step 0" in said[0], "step 2" in said[1]] == [True, True]


def test_a_run_ends_early_when_it_gets_no_better(tmp_path, town):
    config = quick(data__val_scenes=[dataclasses.asdict(town)], data__val_gsd_m=[0.3],
                   data__val_limit=1, loop__validate_every=1, loop__patience=1,
                   loop__steps=20, optim__lr=1e-9)  # fmt: skip
    assert train_run(config, tmp_path / "run").progress.step == 2


def one_corner(town: SceneData, folder: Path) -> SceneData:
    """Return the scene with its last outline alone, so that its first chip holds no object."""
    frame = read_vector(town.labels)
    edges = frame.geometry.bounds
    last = int(np.argmax(edges.minx - edges.maxy))
    frame.iloc[[last]].to_file(folder / "corner.geojson")
    return dataclasses.replace(town, labels=str(folder / "corner.geojson"))


def test_a_run_that_no_validation_could_measure_keeps_its_last_weights(tmp_path, town):
    """Chips without an object have no AP, which is neither better nor worse."""
    scene = one_corner(town, tmp_path)
    config = quick(data__val_scenes=[dataclasses.asdict(scene)], data__val_gsd_m=[0.3],
                   data__val_limit=1, loop__validate_every=1, loop__patience=1,
                   loop__steps=3)  # fmt: skip
    summary = train_run(config, tmp_path / "run")
    assert [math.isnan(row["ap"]) for row in read_rows(tmp_path / "run" / VALIDATIONS_FILE)] == [
        True, True, True]  # fmt: skip
    assert summary.progress == Progress(step=3)
    load_model(str(tmp_path / "run" / WEIGHTS_FILE), device="cpu")


def test_validation_chips_without_an_object_are_refused_at_once(tmp_path):
    root = crowdai(tmp_path / "data")
    path = root / "val" / "annotation.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"annotations": document["annotations"][1:2]}))
    config = quick(data__root=str(root), data__towns=0, data__val_limit=2)
    with pytest.raises(ConfigError, match="none of the 2 validation chips holds an object"):
        train_run(config, tmp_path / "run")
    train_run(quick(data__root=str(root), data__towns=0, loop__steps=1), tmp_path / "whole")


def crowdai(root: Path, *, splits: tuple[str, ...] = ("train", "val"), classes: int = 1) -> Path:
    """Write a data set in crowdAI's layout: noise with one bright square a chip."""
    kinds = tuple(Category(label=i + 1, id=100 + i, name=f"kind{i}") for i in range(classes))
    for split in splits:
        (root / split / "images").mkdir(parents=True)
        collector = Collector(kinds)
        for i in range(4):
            sample = Noise(size=96).sample(i, np.random.default_rng(i))
            name = f"{i:012d}.png"
            pixels = np.ascontiguousarray(sample.image.transpose(1, 2, 0))
            Image.fromarray(pixels).save(root / split / "images" / name)
            collector.add_sample(name, dataclasses.replace(
                sample, labels=np.full(1, 1 + i % classes)))  # fmt: skip
        write_coco(root / split / "annotation.json", collector.finish())
    return root


def test_crowdais_layout_is_trained_and_validated_on(tmp_path):
    root = crowdai(tmp_path / "data", classes=2)
    config = quick(data__root=str(root), data__towns=0, loop__steps=2)
    summary = train_run(config, tmp_path / "run")
    assert summary.spec is not None
    assert [c.name for c in summary.spec.categories] == ["kind0", "kind1"]
    assert len(read_rows(tmp_path / "run" / VALIDATIONS_FILE)) == 1


BUNDLED = "maskrcnn_lite0"


def test_weights_begun_from_others_keep_their_licence_and_credits(tmp_path):
    theirs = find_model(BUNDLED).spec
    root = crowdai(tmp_path / "data", classes=2)
    said: list[str] = []
    lines = [theirs.attribution[1], "Outlines: my town"]
    config = quick(data__root=str(root), data__towns=0, loop__steps=1, network__init=BUNDLED,
                   about__attribution=lines)  # fmt: skip
    spec = train_run(config, tmp_path / "run", say=said.append).spec
    assert spec is not None
    assert spec.licence == theirs.licence
    assert spec.attribution == (*theirs.attribution, "Outlines: my town")
    left = "roi_heads.box_predictor (4 of 4), roi_heads.mask_predictor (2 of 4)"
    assert [line for line in said if "6 left random" in line and line.endswith(left)]

    weights = str(tmp_path / "run" / WEIGHTS_FILE)
    config = quick(loop__steps=1, network__init=weights, about__licence="CC0-1.0")
    again = train_run(config, tmp_path / "again").spec
    assert again is not None
    assert (again.licence, again.attribution) == ("CC0-1.0", spec.attribution)

    config = quick(loop__steps=1, network__init=str(tmp_path / "run" / loop.CHECKPOINT))
    average = train_run(config, tmp_path / "average").spec
    assert average is not None
    assert (average.licence, average.attribution) == (spec.licence, spec.attribution)

    (tmp_path / "run" / WEIGHTS_FILE).with_suffix(".json").unlink()
    config = quick(loop__steps=1, network__init=weights)
    bare = train_run(config, tmp_path / "bare").spec
    assert bare is not None
    assert (bare.licence, bare.attribution) == ("unknown", ())


def only(document: Path, *ids: int) -> None:
    """Leave in a document the categories with these ids, and what is of them."""
    text = json.loads(document.read_text())
    text["categories"] = [c for c in text["categories"] if c["id"] in ids]
    text["annotations"] = [a for a in text["annotations"] if a["category_id"] in ids]
    document.write_text(json.dumps(text))


def test_validation_has_the_labels_of_training(tmp_path):
    root = crowdai(tmp_path / "data", classes=3)
    only(root / "train" / "annotation.json", 100, 101)
    only(root / "val" / "annotation.json", 101, 102)
    options = DataOptions(root=str(root), size_px=96)
    _, categories = training_source(options)
    assert [(c.label, c.name) for c in categories] == [(1, "kind0"), (2, "kind1")]
    checks = validation_set(options, categories)
    assert [c.cut().labels.tolist() for c in checks] == [[], [2], [], []]
    assert [c.empty for c in checks] == [True, False, True, True]


def test_validation_of_other_classes_is_refused(tmp_path):
    root = crowdai(tmp_path / "data", classes=3)
    only(root / "train" / "annotation.json", 100, 101)
    only(root / "val" / "annotation.json", 102)
    options = DataOptions(root=str(root), size_px=96)
    with pytest.raises(ConfigError, match=r"kind0 \(100\), kind1 \(101\).*shows kind2 \(102\)"):
        validation_set(options, training_source(options)[1])


@pytest.mark.parametrize("part", ["towns", "val_towns", "scenes", "val_scenes"])
def test_outlines_without_a_class_join_a_single_one_only(tmp_path, town, part):
    with_outlines = {part: (town,) if "scenes" in part else 1}
    several = crowdai(tmp_path / "several", classes=2)
    options = DataOptions(root=str(several), size_px=96, **with_outlines)
    with pytest.raises(ConfigError, match=r"data.root must have a single class.*kind0"):
        training_source(options)
    one = crowdai(tmp_path / "one")
    assert len(training_source(DataOptions(root=str(one), size_px=96, **with_outlines))[1]) == 1


def test_a_manifest_chooses_the_chips(tmp_path):
    root = crowdai(tmp_path / "data")
    for split in ("train", "val"):
        (root / split / "images" / f"{0:012d}.png").unlink()
    kept = SplitChoice(kept=tuple(f"{i:012d}.png" for i in (1, 2)))
    write_manifest(tmp_path / "m.json", Manifest(splits={"train": kept, "val": kept}))
    config = quick(data__root=str(root), data__towns=0, data__manifest=str(tmp_path / "m.json"))
    train_run(config, tmp_path / "run")


@pytest.mark.parametrize("other", [{"data__towns": 0}, {"data__towns": 1}])
def test_a_split_without_chips_is_refused(tmp_path, other):
    root = crowdai(tmp_path / "data")
    choices = {"train": SplitChoice(kept=("elsewhere.png",)), "val": SplitChoice(kept=())}
    write_manifest(tmp_path / "m.json", Manifest(splits=choices))
    chosen = quick(data__root=str(root), data__manifest=str(tmp_path / "m.json"), **other)
    with pytest.raises(ConfigError, match=r"m.json keeps none of the chips of .*annotation.json"):
        train_run(chosen, tmp_path / "run")
    path = root / "train" / "annotation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [], "annotations": []}))
    with pytest.raises(ConfigError, match=r"train.annotation.json holds no chip"):
        train_run(quick(data__root=str(root), **other), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_chip_of_another_size_than_its_document_says_is_named(tmp_path):
    root = crowdai(tmp_path / "data")
    for path in (root / "train" / "images").iterdir():
        Image.new("RGB", (50, 40)).save(path)
    config = quick(data__root=str(root), data__towns=0)
    with pytest.raises(FormatError, match=r"png: must be 96x96 px .*got 40x50"):
        train_run(config, tmp_path / "run")


def test_training_learns(tmp_path):
    """A hundred steps on one town halve the loss of the masks and of the objectness."""
    config = quick(data__size_px=128, network__init="imagenet", loop__steps=60,
                   loop__batch_size=2, optim__lr=1e-3, loop__log_every=10)  # fmt: skip
    train_run(config, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / LOSSES_FILE)
    assert rows[-1]["objectness"] < 0.5 * rows[0]["objectness"]
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_trains(tmp_path, name):
    config = quick(network__architecture=name, loop__steps=2, network__batch_norm="frozen")
    summary = train_run(config, tmp_path / "run")
    assert summary.spec is not None
    assert summary.spec.architecture == name
    load_model(str(tmp_path / "run" / WEIGHTS_FILE), device="cpu")


@pytest.mark.slow
def test_the_smoke_recipe_does_what_it_says(tmp_path):
    config = load_train_config(ROOT / "configs" / "smoke.yaml", options={"loop.device": "cpu"})
    train_run(config, tmp_path / "run")
    means = losses(tmp_path / "run")
    assert means[-1] < 0.7 * means[0]
    (validation,) = read_rows(tmp_path / "run" / VALIDATIONS_FILE)
    assert validation["ap50"] > 0.5


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(quick(network__init="imagenet")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    train = ["geoseg", "train", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [*torchrun, *train, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4, "one of them speaks"
    assert done.stderr.count("initial weights") == 1
    assert len(losses(tmp_path / "run")) == 4
    load_model(str(tmp_path / "run" / WEIGHTS_FILE), device="cpu")


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind_and_goes_on(tmp_path):
    changes = {"data__loaders": 1, "loop__steps": 100_000}
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(quick(**changes)))
    words = [sys.executable, "-m", "geoseg", "train", "--config", str(config)]
    words += ["--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL)
    group = os.getpgid(process.pid)
    wait_for((tmp_path / "run" / "last.safetensors").exists, seconds=120)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(group), seconds=60)
    done = checkpoint_step(tmp_path / "run" / "last.safetensors")
    shorter = quick(**changes | {"loop__steps": done + 2})
    assert train_run(shorter, tmp_path / "run").progress.step == done + 2


def test_the_first_of_several_processes_tells_their_errors(monkeypatch, capsys):
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        done = call(capsys, "train", "optim.lr=-1", "--json")
        assert done.code == 2
        assert len(done.out.splitlines()) == lines


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, *, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.2)
