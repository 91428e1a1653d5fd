from __future__ import annotations

import sys

import pytest

from geoseg.config import load_train_config
from geoseg.errors import (
    ConfigError,
    GeosegError,
    InputNotFoundError,
    MissingExtraError,
    ModelError,
)
from geoseg.stages.sweep import PLOT_FILE, TABLE_FILE, read_grid, sweep
from geoseg.stages.train import WEIGHTS_FILE
from tests.cli_support import call
from tests.test_house import ROOT
from tests.test_stages_train import crowdai

QUICK = ("data.size_px=96", "data.loaders=0", "network.init=random", "network.rois=16",
         "network.proposals=50", "loop.steps=1", "loop.batch_size=1", "loop.device=cpu",
         "loop.precision=fp32")  # fmt: skip


def test_each_point_is_trained_once_and_compared(tmp_path):
    root = crowdai(tmp_path / "data")
    words = (*QUICK, f"data.root={root}")
    grid = {"optim.lr": [1e-4, 1e-3], "data.augment": ["none", "flips"]}
    runs = sweep(grid, tmp_path / "sweep", assignments=words)
    assert len(runs) == 4
    assert {run.values["optim.lr"] for run in runs} == {1e-4, 1e-3}
    assert [run.ap for run in runs] == sorted((run.ap for run in runs), reverse=True)
    rows = (tmp_path / "sweep" / TABLE_FILE).read_text().splitlines()
    assert rows[0] == "run,optim.lr,data.augment,ap"
    assert len(rows) == 5
    assert (tmp_path / "sweep" / PLOT_FILE).stat().st_size > 3000
    weights = [tmp_path / "sweep" / run.name / WEIGHTS_FILE for run in runs]
    before = [path.read_bytes() for path in weights]
    again = sweep(grid, tmp_path / "sweep", assignments=words)
    assert [run.name for run in again] == [run.name for run in runs]
    assert [path.read_bytes() for path in weights] == before


DIVERGING = (*QUICK, "data.towns=1", "optim.warmup_steps=0", "loop.steps=2")


def test_a_point_that_fails_is_told_and_the_others_are_trained(tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text("optim.lr: [1.0e+30, 1.0e-4]")
    folder = tmp_path / "sweep"
    words = ("sweep", tmp_path / "grid.yaml", *DIVERGING, "--run-dir", folder, "--json")
    for _ in range(2):
        done = call(capsys, *words)
        assert done.code == 3
        sound, failed = done.json.values()
        assert (sound["optim.lr"], "failed" in sound) == (1e-4, False)
        assert (failed["optim.lr"], failed["ap"]) == (1e30, None)
        assert "lower optim.lr" in failed["failed"]
    assert f"failed: {failed['failed']}" in done.err
    rows = (folder / TABLE_FILE).read_text().splitlines()
    assert rows[1:] == ["lr-0.0001,0.0001,nan", "lr-1e+30,1e+30,nan"]
    assert (folder / PLOT_FILE).exists()


def test_a_sweep_of_which_nothing_came_says_why(tmp_path):
    with pytest.raises(ModelError, match=r"lower optim\.lr"):
        sweep({"optim.lr": [1e30, 1e29]}, tmp_path / "sweep", assignments=DIVERGING)
    assert not (tmp_path / "sweep" / TABLE_FILE).exists()


@pytest.mark.parametrize(
    "text",
    ["", "optim.lr: 3", "lr: [1]", "optim.lr: []", "- 1", "a.b: [1]\nc.d: [" + "1," * 2000 + "]"],
)
def test_what_is_no_grid_is_refused(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_grid(path)


def test_an_option_that_is_none_stops_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"optim: lr must be"):
        sweep({"optim.lr": [1e-4, -1]}, tmp_path / "sweep", assignments=QUICK)
    assert not (tmp_path / "sweep").exists()
    with pytest.raises(InputNotFoundError):
        read_grid(tmp_path / "none.yaml")


def test_a_plot_that_cannot_be_drawn_stops_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="need matplotlib"):
        sweep({"optim.speed": [1]}, tmp_path / "sweep", assignments=QUICK)
    assert not (tmp_path / "sweep").exists()


MAPPING = {
    "footprints",
    "osm-import",
    "postprocess-open-solution",
}  # configs of runs, not of training
RECIPES = [
    path
    for path in sorted((ROOT / "configs").glob("*.yaml"))
    if path.stem not in MAPPING | {"sweep"} and not path.stem.startswith("cluster-")
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_hold_only_known_options(path):
    config = load_train_config(path)
    assert config.about.name != "model"
    assert "nobody" not in path.read_text()


def test_the_grid_that_comes_along_is_one():
    assert read_grid(ROOT / "configs" / "sweep.yaml")
    assert issubclass(ConfigError, GeosegError)
