"""The command line at scale: several scenes, workers, a folder of its own, status."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import geopandas as gpd
import pytest
from cli_support import (
    ORACLE,
    assert_one_line,
    break_tiles,
    call,
    spawn,
    succeed,
    write_scene,
)

from geoseg.config import load_config

ROOT = Path(__file__).resolve().parents[1]
TESTS = Path(__file__).parent
SMALL = ("--chip-size", 150, "--overlap", 30, "--set", "scale.block_chips=2", "--device", "cpu")
Capture = pytest.CaptureFixture[str]


def test_several_scenes_go_to_a_folder_a_file_each(tmp_path: Path, capsys: Capture) -> None:
    scenes = [write_scene(tmp_path / f"{name}.tif") for name in ("a", "b")]
    keep = ("--set", "scale.overlapping_scenes=keep", "--format", ".gpkg")
    outcome = succeed(capsys, "run", *scenes, "-o", tmp_path / "out", *keep, *ORACLE, "--json")
    assert outcome.json["outputs"] == [str(tmp_path / "out" / f"{name}.gpkg") for name in "ab"]
    assert outcome.json["footprints"] == 142
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.gpkg", "b.gpkg"]
    both = succeed(capsys, "run", *scenes, "-o", tmp_path / "one", *ORACLE, "--json")
    assert both.json["footprints"] == 71, "two scenes of one place show each building twice"


def test_one_scene_to_a_folder_is_named_after_it(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "town.tif")
    succeed(capsys, "run", scene, "-o", f"{tmp_path}/out/", *ORACLE)
    assert len(gpd.read_parquet(tmp_path / "out" / "town.parquet")) == 71


def test_outputs_that_do_not_fit_several_scenes_are_wrong_use(
    tmp_path: Path, capsys: Capture
) -> None:
    scenes = [write_scene(tmp_path / f"{name}.tif") for name in ("a", "b")]
    one_file = call(capsys, "run", *scenes, "-o", tmp_path / "o.parquet", *ORACLE)
    assert one_file.code == 2
    assert_one_line(one_file, "several scenes need a folder")
    mask = call(capsys, "run", *scenes, "-o", tmp_path / "o", "--mask", tmp_path / "m.tif", *ORACLE)
    assert mask.code == 2
    assert_one_line(mask, "for one scene")
    wrong = call(capsys, "run", *scenes, "-o", tmp_path / "new", "--format", ".doc", *ORACLE)
    assert wrong.code == 2
    assert_one_line(wrong, ".doc")
    assert not (tmp_path / "new").exists()
    twice = call(capsys, "run", scenes[0], scenes[0], "-o", tmp_path / "o", *ORACLE)
    assert twice.code == 2
    assert_one_line(twice, "different file names")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--workers", 0), "workers must be in"),
        (("--gpus", 1, "--devices", "cpu"), "gpus or devices, not both"),
        (("--scheduler", "tcp://head:1", "--workers", 2), "of this machine"),
        (("--devices", "cpu,,cpu"), "names such as"),
        (("--scheduler", "nonsense"), "tcp://head:8786"),
        (("--devices", "cuda:99"), "found"),
        (("--gpus", 99), "--gpus 99: found"),
    ],
)
def test_wrong_numbers_of_workers_are_one_line(
    tmp_path: Path, capsys: Capture, words: tuple[object, ...], says: str
) -> None:
    scene = write_scene(tmp_path / "s.tif")
    outcome = call(capsys, "run", scene, "-o", tmp_path / "o.parquet", *ORACLE, *words)
    assert outcome.code in (1, 2)
    assert_one_line(outcome, says)
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]


def test_a_missing_scene_leaves_no_folder(tmp_path: Path, capsys: Capture) -> None:
    scenes = (write_scene(tmp_path / "s.tif"), tmp_path / "none.tif")
    outcome = call(capsys, "run", *scenes, "-o", f"{tmp_path}/out/", *ORACLE)
    assert outcome.code == 2
    assert_one_line(outcome, "none.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]


def test_failed_chips_give_code_3_and_strict_stops(tmp_path: Path, capsys: Capture) -> None:
    scene = break_tiles(write_scene(tmp_path / "s.tif"), [12])
    words = ("run", scene, "-o", tmp_path / "o.parquet", *ORACLE, *SMALL)
    partial = call(capsys, *words, "--run-dir", tmp_path / "run")
    assert partial.code == 3
    assert "failed" in partial.err
    assert (tmp_path / "o.parquet").exists()
    status = succeed(capsys, "status", tmp_path / "run")
    assert "failed: r" in status.out
    (tmp_path / "o.parquet").unlink()
    strict = call(capsys, *words, "--strict")
    assert strict.code == 1
    assert_one_line(strict, "s.tif")
    assert not (tmp_path / "o.parquet").exists()


def test_status_tells_of_a_run_that_is_done(tmp_path: Path, capsys: Capture) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    words = ("run", scene, "-o", tmp_path / "o.parquet", "--run-dir", run_dir, *ORACLE, *SMALL)
    succeed(capsys, *words)
    text = succeed(capsys, "status", run_dir).out
    assert text.startswith("done after")
    assert "infer: 9 of 9 blocks done, 0 failed, 0 left" in text
    succeed(capsys, *words)
    values = succeed(capsys, "status", run_dir, "--json").json
    assert values["state"] == "done"
    assert (values["stages"]["infer"]["done"], values["stages"]["infer"]["reused"]) == (0, 9)


def test_status_works_while_a_run_lasts_and_after_an_interrupt(
    tmp_path: Path, capsys: Capture
) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    words = ["run", scene, "-o", tmp_path / "o.parquet", "--run-dir", run_dir, *SMALL]
    words += ["--model", "stubs:slow_oracle", "--batch-size", 1]
    env = {**os.environ, "PYTHONPATH": str(TESTS), "GEOSEG_TEST_SECONDS": "0.5"}
    process = spawn(*words, env=env)
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if list(run_dir.glob("infer/*/b*.parquet")):
            break
        time.sleep(0.05)
    lasts = succeed(capsys, "status", run_dir, "--json").json
    assert (lasts["state"], lasts["pid"]) == ("running", process.pid)
    refused = call(capsys, *words)
    assert refused.code == 1
    assert_one_line(refused, f"in use by pid {process.pid} on")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted; what is done is kept in" in err.splitlines()[-1]
    after = succeed(capsys, "status", run_dir)
    assert after.out.startswith("interrupted after")
    assert "goes on from here" in after.out


def test_status_of_no_run_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, "status", tmp_path)
    assert outcome.code == 2
    assert_one_line(outcome, "not the folder of a run")
    (tmp_path / "manifest.json").write_text('{"stages": 7}')
    outcome = call(capsys, "status", tmp_path)
    assert outcome.code == 1
    assert_one_line(outcome, "damaged")


def test_infer_in_blocks_feeds_footprints(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    found = tmp_path / "d.parquet"
    keep = ("--run-dir", tmp_path / "run")
    succeed(capsys, "infer", scene, "-o", found, *ORACLE, *SMALL, *keep)
    succeed(capsys, "footprints", found, "-o", tmp_path / "o.parquet")
    assert len(gpd.read_parquet(tmp_path / "o.parquet")) == 71


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("cluster-*.yaml")))
def test_cluster_configs_hold_only_known_options(path: Path) -> None:
    config = load_config(path)
    assert config.scale.in_blocks
    assert all("#" in line for line in path.read_text().splitlines() if ": " in line[2:])


def test_metadata_does_not_tell_who_worked(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    succeed(capsys, "run", scene, "-o", tmp_path / "o.geojson", *ORACLE)
    text = json.dumps(json.loads((tmp_path / "o.geojson").read_text())["geoseg"])
    assert "workers" not in text
    assert "overlap_px" in text


def test_stages_find_each_others_files_without_names(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene(tmp_path / "s.tif")
    monkeypatch.chdir(tmp_path)
    succeed(capsys, "tile", "s.tif")
    succeed(capsys, "infer", "chips/", *ORACLE)
    succeed(capsys, "footprints", "detections.parquet", "-o", "o.parquet")
    assert len(gpd.read_parquet("o.parquet")) == 71
