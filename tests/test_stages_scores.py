"""A model whose scores stand for probabilities: the same footprints, the same rule, everywhere."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
from cli_support import call, succeed, write_scene
from PIL import Image

from geoseg.config import Config, load_config
from geoseg.errors import FormatError, GeosegWarning
from geoseg.models.spec import BUILDING, ModelSpec
from geoseg.scores import ScoreMap
from geoseg.stages.base import Silence
from geoseg.stages.blocks.job import run_blocks
from geoseg.stages.blocks.rundir import RunManifest
from geoseg.stages.footprints import footprints
from geoseg.stages.infer import infer
from geoseg.stages.maps import footprints_origin
from geoseg.stages.origin import Origin
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.stages.scores import least_raw, settled
from geoseg.stages.store import detections_origin, read_detections
from geoseg.testing import ids_to_rgb, make_town, oracle

if TYPE_CHECKING:
    from pathlib import Path

RAW = 0.9  # what the oracle says of everything
SURE = 0.6  # what that stands for here
MAP = ScoreMap(scores=(0.0, RAW, 1.0), probabilities=(0.0, SURE, 1.0))
SPEC = ModelSpec(
    name="modest", architecture="modest:oracle", categories=(BUILDING,), chip_size_px=300,
    gsd_range_m=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), sha256=None, licence="x",
    attribution=(), data="", version="1", default_score_threshold=0.4, calibration=MAP,
)  # fmt: skip
NAME = "modest_model:oracle"


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Make an oracle that says of itself what its scores stand for."""
    module = types.ModuleType("modest_model")
    module.oracle = oracle
    module.geoseg_spec = SPEC
    monkeypatch.setitem(sys.modules, "modest_model", module)
    return module


def config(**options: Any) -> Config:
    plain = {"model.name": NAME, "model.device": "cpu"}
    return load_config(options=plain | {k.replace("__", "."): v for k, v in options.items()})


def scores(path: Path) -> set[float]:
    return set(gpd.read_parquet(path)["score"].round(6))


def test_a_score_is_the_users_or_the_specs_or_a_half() -> None:
    plain = replace(SPEC, calibration=None, default_score_threshold=None)
    for spec, options, score, raw in [
        (SPEC, {}, 0.4, MAP.invert(0.4)),
        (SPEC, {"model__score": 0.3}, 0.3, MAP.invert(0.3)),
        (SPEC, {"model__calibrate": False}, MAP.invert(0.4), MAP.invert(0.4)),
        (SPEC, {"model__calibrate": False, "model__score": 0.3}, 0.3, 0.3),
        (plain, {}, 0.5, 0.5),
        (replace(plain, default_score_threshold=0.7), {}, 0.7, 0.7),
    ]:
        found = settled(config(**options), spec)
        assert found.model.score == pytest.approx(score)
        assert least_raw(found.model, spec.calibration) == pytest.approx(raw)


def test_streamed_or_in_blocks_footprints_carry_probabilities(tmp_path: Path) -> None:
    scene = str(write_scene(tmp_path / "s.tif"))
    plans = [OutputPlan(vector=tmp_path / name) for name in ("a.parquet", "b.parquet")]
    run(scene, plans[0], config())
    run_blocks([scene], [plans[1]], config(scale__block_chips=1), progress=Silence())
    one, other = (gpd.read_parquet(plan.vector) for plan in plans)
    assert len(one) > 50
    assert scores(plans[0].vector) == {SURE}
    assert one.equals(other)
    origin = footprints_origin(plans[0].vector)
    assert origin is not None
    assert (origin.calibration, origin.is_calibrated, origin.config["model"]["score"]) == (
        MAP,
        True,
        0.4,
    )


def test_the_least_score_is_a_probability_unless_told_otherwise(tmp_path: Path) -> None:
    scene = str(write_scene(tmp_path / "s.tif"))
    plan = OutputPlan(vector=tmp_path / "o.parquet")
    whole = run(scene, plan, config()).footprints
    assert run(scene, plan, config(model__score=SURE - 1e-3)).footprints == whole
    assert run(scene, plan, config(model__score=SURE + 1e-3)).footprints == 0
    raw = config(model__calibrate=False, model__score=SURE + 1e-3)
    assert run(scene, plan, raw).footprints == whole
    assert scores(plan.vector) == {RAW}


def test_detections_keep_the_networks_scores_and_serve_either_way(tmp_path: Path) -> None:
    scene, path = str(write_scene(tmp_path / "s.tif")), tmp_path / "d.parquet"
    infer(scene, path, config())
    found = np.concatenate([f.scores for _, f in read_detections(path)])
    assert found == pytest.approx(RAW, abs=1e-6)
    assert detections_origin(path).least_raw == pytest.approx(MAP.invert(0.4))
    plan = OutputPlan(vector=tmp_path / "o.parquet")
    whole = footprints(path, plan, load_config()).footprints
    assert scores(plan.vector) == {SURE}
    again = footprints(path, plan, load_config(options={"model.calibrate": False}))
    assert (again.footprints, scores(plan.vector)) == (whole, {RAW})
    origin = footprints_origin(plan.vector)
    assert origin is not None
    assert origin.config["model"]["score"] == pytest.approx(MAP.invert(0.4))
    assert not origin.is_calibrated
    assert footprints(path, plan, load_config(options={"model.score": 0.7})).footprints == 0


@pytest.mark.parametrize(("calibrate", "kept"), [(True, 0.4), (False, MAP.invert(0.4))])
def test_a_score_below_what_was_kept_is_warned_of_and_not_believed(
    tmp_path: Path, calibrate: bool, kept: float
) -> None:
    path, plan = tmp_path / "d.parquet", OutputPlan(vector=tmp_path / "o.parquet")
    infer(str(write_scene(tmp_path / "s.tif")), path, config())
    asked = {"model.score": 0.1, "model.calibrate": calibrate}
    with pytest.warns(GeosegWarning, match=r"d\.parquet.*nothing lower"):
        footprints(path, plan, load_config(options=asked))
    origin = footprints_origin(plan.vector)
    assert origin is not None
    assert origin.config["model"]["score"] == pytest.approx(kept)
    assert origin.least_raw == pytest.approx(MAP.invert(0.4))
    footprints(path, plan, load_config(options=asked | {"model.score": kept}))  # no warning


def test_another_calibration_needs_no_second_look(tmp_path: Path, model: types.ModuleType) -> None:
    scene, folder = str(write_scene(tmp_path / "s.tif")), tmp_path / "run"
    plan = OutputPlan(vector=tmp_path / "o.parquet")
    cfg = config(scale__run_dir=str(folder), model__score=0.3)
    run_blocks([scene], [plan], cfg, progress=Silence())
    bolder = ScoreMap(scores=(0.0, RAW, 1.0), probabilities=(0.0, 0.8, 1.0))
    model.geoseg_spec = replace(SPEC, calibration=bolder)
    higher = config(scale__run_dir=str(folder), model__score=0.5)
    run_blocks([scene], [plan], higher, progress=Silence())
    stages = RunManifest.load(folder).stages
    assert (stages["infer"].done, stages["stitch"].reused) == (0, 0)
    assert scores(plan.vector) == {0.8}


def test_pictures_of_a_folder_are_scored_alike(tmp_path: Path, capsys) -> None:
    town = make_town(size_px=300, seed=3)
    (tmp_path / "images").mkdir()
    Image.fromarray(ids_to_rgb(town.ids)).save(tmp_path / "images" / "1.png")
    for words, expected in (((), SURE), (("--set", "model.calibrate=false"), RAW)):
        out = tmp_path / "p.json"
        succeed(capsys, "predict-dir", tmp_path / "images", "-o", out, "--model", NAME, *words)
        records = json.loads(out.read_text())
        assert len(records) > 5
        assert {round(r["score"], 4) for r in records} == {expected}
    none = ("--model", NAME, "--score", SURE + 1e-3)
    succeed(capsys, "predict-dir", tmp_path / "images", "-o", out, *none)
    assert json.loads(out.read_text()) == []


def test_info_says_what_scores_stand_for(capsys) -> None:
    facts = call(capsys, "info", NAME, "--json").json
    assert facts["calibration"] == MAP.to_dict()


@pytest.mark.parametrize(
    "about", [{"scores": [0, 1]}, {"scores": [0, 2], "probabilities": [0, 1]}, "yes", 3]
)
def test_a_damaged_calibration_in_a_file_is_one_error(about: object) -> None:
    text = Origin(
        scene_id="s",
        scene_path="s.tif",
        grid=make_town(size_px=300).grid,
        labels={},
        model={"calibration": about},
        config={},
    ).to_json()
    with pytest.raises(FormatError, match="damaged"):
        Origin.from_json(text)
