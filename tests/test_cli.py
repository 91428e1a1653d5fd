"""The verbs as a user chains them, on a small town that the oracle knows."""

from __future__ import annotations

import contextlib
import json
import os
import pty
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from cli_support import (
    BLANK,
    ORACLE,
    assert_one_line,
    call,
    snapshot,
    spawn,
    succeed,
    town,
    town_pixels,
    write_scene,
)
from PIL import Image
from pycocotools.coco import COCO
from rasterio.features import rasterize

from geoseg.cli import VERBS
from geoseg.cli.report import TerminalProgress
from geoseg.evaluate import evaluate_footprints
from geoseg.models import build_architecture
from geoseg.testing import assert_footprints_valid, assert_no_overlaps, oracle
from geoseg.vector import footprints_info

if TYPE_CHECKING:
    from pathlib import Path

Capture = pytest.CaptureFixture[str]
N_BUILDINGS = 71


def read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path)


def assert_same(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> None:
    """Assert equal rows in equal order, geometry to the bit."""
    assert one.drop(columns="geometry").equals(other.drop(columns="geometry"))
    assert shapely.equals_exact(one.geometry.to_numpy(), other.geometry.to_numpy()).all()
    assert one.crs.equals(other.crs, ignore_axis_order=True)


def test_run_maps_the_town_exactly(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "o.parquet"
    outcome = succeed(capsys, "run", write_scene(tmp_path / "s.tif"), "-o", out, *ORACLE)
    footprints = read(out)
    assert_footprints_valid(footprints)
    assert_no_overlaps(footprints)
    result = evaluate_footprints(footprints, town().truth)
    assert (result.n_pred, result.n_truth) == (N_BUILDINGS, N_BUILDINGS)
    assert result.at(0.5).f1 == 1.0
    assert result.area_ratio == pytest.approx(1, abs=0.01)
    assert set(footprints["label"]) == {"building"}
    assert set(footprints["scene"]) == {"s"}
    assert f"{N_BUILDINGS} footprints" in outcome.out
    assert "9 chips: 9 done, 0 without data, 0 failed, 0.032 km2" in outcome.out


def test_verbs_chained_give_what_run_gives(tmp_path: Path, capsys: Capture) -> None:
    scene, chips = write_scene(tmp_path / "s.tif"), tmp_path / "chips"
    succeed(capsys, "run", scene, "-o", tmp_path / "run.parquet", *ORACLE)
    succeed(capsys, "tile", scene, "-o", chips)
    succeed(capsys, "tile", scene, "-o", tmp_path / "geo", "--format", "tif")
    expected = read(tmp_path / "run.parquet")
    for name, source in (("a", chips), ("b", scene), ("c", tmp_path / "geo")):
        found, prints = tmp_path / f"{name}.d.parquet", tmp_path / f"{name}.parquet"
        succeed(capsys, "infer", source, "-o", found, *ORACLE)
        succeed(capsys, "footprints", found, "-o", prints)
        assert_same(read(prints), expected)
    succeed(capsys, "run", chips, "-o", tmp_path / "folder.parquet", *ORACLE)
    assert_same(read(tmp_path / "folder.parquet"), expected)
    for suffix in ("parquet", "gpkg", "fgb"):
        out = tmp_path / f"exported.{suffix}"
        succeed(capsys, "export", tmp_path / "a.parquet", "-o", out)
        again = read(out) if suffix == "parquet" else gpd.read_file(out)
        assert sorted(again["id"]) == sorted(expected["id"])
    succeed(capsys, "export", tmp_path / "a.parquet", "-o", tmp_path / "a.geojson")
    succeed(capsys, "run", scene, "-o", tmp_path / "run.geojson", *ORACLE)
    exported, direct = (
        json.loads((tmp_path / name).read_text())["features"]
        for name in ("a.geojson", "run.geojson")
    )
    assert exported == direct


def test_runs_repeat_to_the_byte(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    for name, words in (("a", ()), ("b", ("--batch-size", "1", "--set", "model.readers=5"))):
        succeed(capsys, "run", scene, "-o", tmp_path / f"{name}.geojsonl", *ORACLE, *words)
    assert (tmp_path / "a.geojsonl").read_bytes() == (tmp_path / "b.geojsonl").read_bytes()


def test_aoi_limits_the_chips_and_clips_nothing(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    x, y = town().grid.xy(10, 10)
    point = gpd.GeoDataFrame(geometry=[shapely.Point(x, y)], crs=town().grid.crs)
    point.to_crs(4326).to_file(tmp_path / "aoi.geojson", driver="GeoJSON")
    words = ("--aoi", tmp_path / "aoi.geojson", "--json")
    outcome = succeed(capsys, "run", scene, "-o", tmp_path / "o.parquet", *ORACLE, *words)
    assert (outcome.json["chips"], outcome.json["inferred"]) == (1, 1)
    window = shapely.box(*town().grid.bounds)
    chip = shapely.box(window.bounds[0], window.bounds[3] - 300 * 0.3, *window.bounds[2:])
    footprints = read(tmp_path / "o.parquet")
    inside = town().truth.geometry.within(chip.buffer(-0.3))
    assert 0 < len(footprints) <= int(town().truth.geometry.intersects(chip).sum())
    assert len(footprints) >= int(inside.sum()) * 0.4
    succeed(capsys, "tile", scene, "-o", tmp_path / "chips")
    words = ("-o", tmp_path / "d.parquet", *ORACLE, *words)
    assert succeed(capsys, "infer", tmp_path / "chips", *words).json["chips"] == 1


def test_gsd_resamples_the_scene(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    words = ("-o", tmp_path / "o.fgb", "--mask", tmp_path / "m.tif", "--gsd", "0.6", "--json")
    outcome = succeed(capsys, "run", scene, *words, *BLANK)
    assert outcome.json["chips"] == 1
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert mask.shape == (300, 300)
    assert outcome.json["km2"] == pytest.approx(0.0324, abs=2e-4)


def test_bands_choose_what_the_model_sees(tmp_path: Path, capsys: Capture) -> None:
    pixels = town_pixels()
    shuffled = np.stack([np.full_like(pixels[0], 9), pixels[2], pixels[0], pixels[1]])
    scene = write_scene(tmp_path / "s.tif", shuffled)
    words = ("--bands", "3,4,2", *ORACLE)
    succeed(capsys, "run", scene, "-o", tmp_path / "o.parquet", *words)
    assert len(read(tmp_path / "o.parquet")) == N_BUILDINGS


def test_rescale_maps_sixteen_bits(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif", town_pixels().astype(np.uint16) * 10 + 1000)
    words = ("--rescale", "1000,3550", *ORACLE)
    succeed(capsys, "run", scene, "-o", tmp_path / "o.parquet", *words)
    assert len(read(tmp_path / "o.parquet")) == N_BUILDINGS
    succeed(capsys, "run", scene, "-o", tmp_path / "auto.parquet", *BLANK)


@pytest.mark.parametrize("least_m2", ["5", "60"])
def test_mask_ids_are_the_rows_of_the_file(least_m2: str, tmp_path: Path, capsys: Capture) -> None:
    scene, out = write_scene(tmp_path / "s.tif"), tmp_path / "o.parquet"
    words = ("--mask", tmp_path / "m.tif", "--min-area", least_m2, "--tolerance", "0")
    succeed(capsys, "run", scene, "-o", out, *words, *ORACLE)
    footprints = read(out)
    assert (len(footprints) < N_BUILDINGS) == (least_m2 == "60")
    shapes = zip(footprints.geometry, range(1, len(footprints) + 1), strict=True)
    expected = rasterize(shapes, out_shape=(600, 600), transform=town().grid.transform)
    with rasterio.open(tmp_path / "m.tif") as mask:
        burnt = mask.read(1)
    missed = (expected > 0) & (burnt != expected)
    assert missed.mean() < 1e-4
    assert set(np.unique(burnt)) == set(range(len(footprints) + 1))
    succeed(capsys, "export", out, "-o", tmp_path / "e.fgb", "--mask", tmp_path / "e.tif")
    with rasterio.open(tmp_path / "e.tif") as mask:
        assert np.array_equal(mask.read(1), expected)


def test_mask_of_probability(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    words = ("--mask", tmp_path / "m.tif", "--mask-kind", "probability", *ORACLE)
    succeed(capsys, "run", scene, "-o", tmp_path / "o.fgb", *words)
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert np.array_equal(mask.read(1) >= 128, town().ids > 0)


def test_preview_is_a_png_from_every_verb(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif", town().image.transpose(2, 0, 1))
    ids = write_scene(tmp_path / "ids.tif")
    picture = tmp_path / "p.png"
    words = ("--preview", picture)
    succeed(capsys, "infer", ids, "-o", tmp_path / "d.parquet", *ORACLE)
    for verb in (
        ("run", ids, "-o", tmp_path / "o.fgb", *ORACLE),
        ("footprints", tmp_path / "d.parquet", "-o", tmp_path / "o.parquet"),
        ("export", tmp_path / "o.parquet", "-o", tmp_path / "o.geojson"),
        ("export", tmp_path / "o.geojson", "-o", tmp_path / "e.fgb", "--scene", scene),
    ):
        picture.unlink(missing_ok=True)
        succeed(capsys, *verb, *words)
        with Image.open(picture) as image:
            assert (image.format, image.size) == ("PNG", (600, 600))
            assert len(image.getcolors(1 << 24)) > 100


def test_a_picture_without_its_scene_is_refused_before_work(
    tmp_path: Path, capsys: Capture
) -> None:
    scene = write_scene(tmp_path / "s.tif")
    succeed(capsys, "tile", scene, "-o", tmp_path / "chips")
    scene.unlink()
    words = ("-o", tmp_path / "o.fgb", "--preview", tmp_path / "p.png", *ORACLE)
    before = snapshot(tmp_path)
    assert_one_line(call(capsys, "run", tmp_path / "chips", *words), "s.tif", "--scene")
    assert snapshot(tmp_path) == before


def test_labels_become_coco(tmp_path: Path, capsys: Capture) -> None:
    scene, chips = write_scene(tmp_path / "s.tif"), tmp_path / "chips"
    town().truth.to_crs(4326).to_file(tmp_path / "labels.geojson", driver="GeoJSON")
    succeed(capsys, "tile", scene, "-o", chips, "--labels", tmp_path / "labels.geojson")
    coco = COCO(str(chips / "annotation.json"))
    capsys.readouterr()
    assert len(coco.getImgIds()) == 9
    assert coco.loadCats(coco.getCatIds()) == [
        {"id": 100, "name": "building", "supercategory": "building"}
    ]
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(chips / "images" / image["file_name"]) as pixels:
            painted = np.array(pixels.convert("RGB")).any(axis=2)
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert all(item["iscrowd"] == 0 for item in found)
        drawn = np.any([coco.annToMask(item) for item in found], axis=0)
        assert (drawn != painted).mean() < 0.02


def test_tile_replaces_only_its_own_folder(tmp_path: Path, capsys: Capture) -> None:
    scene, chips = write_scene(tmp_path / "s.tif"), tmp_path / "chips"
    chips.mkdir()
    (tmp_path / "link").symlink_to(chips)
    succeed(capsys, "tile", scene, "-o", tmp_path / "link")
    outcome = call(capsys, "tile", scene, "-o", chips)
    assert_one_line(outcome, "--overwrite")
    assert outcome.code == 2
    words = ("--overwrite", "--chip-size", "600", "--json")
    assert succeed(capsys, "tile", scene, "-o", chips, *words).json["inferred"] == 1
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (chips / "images").iterdir()] == ["r00000_c00000.png"]


def test_options_of_a_scene_are_not_silently_lost_on_chips(tmp_path: Path, capsys: Capture) -> None:
    succeed(capsys, "tile", write_scene(tmp_path / "s.tif"), "-o", tmp_path / "chips")
    words = ("-o", tmp_path / "d.parquet", *BLANK, "--bands", "3,2,1")
    outcome = call(capsys, "infer", tmp_path / "chips", *words)
    assert outcome.code == 0
    assert outcome.err.startswith("warning: ")
    assert "geoseg tile" in outcome.err


def test_config_file_set_and_options_rank_in_that_order(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    config = tmp_path / "c.yaml"
    config.write_text(
        "model: {name: 'geoseg.testing:oracle', score: 0.95}\nchips: {size_px: 200, overlap_px: 50}"
    )

    def run(*words: object) -> tuple[int, int]:
        all_words = ("-o", tmp_path / "o.fgb", "--config", config, "--json", *words)
        summary = succeed(capsys, "run", scene, *all_words).json
        return summary["chips"], summary["footprints"]

    assert run() == (16, 0)
    assert run("--set", "model.score=0.9") == (16, N_BUILDINGS)
    assert run("--set", "model.score=0.99", "--score", "0.5") == (16, N_BUILDINGS)
    assert run("--score", "0.5", "--chip-size", "300") == (9, N_BUILDINGS)


def test_json_summary_says_what_happened(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    words = ("-o", tmp_path / "o.fgb", "--mask", tmp_path / "m.tif", "--json")
    summary = succeed(capsys, "run", scene, *words, *ORACLE).json
    assert set(summary) == {
        "exit_code", "outputs", "chips", "inferred", "skipped", "failed", "detections",
        "footprints", "km2", "seconds", "chips_per_s",
    }  # fmt: skip
    assert summary["outputs"] == [str(tmp_path / "o.fgb"), str(tmp_path / "m.tif")]
    assert set(summary["seconds"]) == {
        "load", "read", "infer", "stitch", "polygonize", "write", "neighbours", "total",
    }  # fmt: skip
    assert summary["chips"] == summary["inferred"] == 9
    assert (summary["footprints"], summary["exit_code"]) == (N_BUILDINGS, 0)
    assert summary["chips_per_s"] > 0


def test_info_describes_everything(tmp_path: Path, capsys: Capture) -> None:
    scene, chips = write_scene(tmp_path / "s.tif"), tmp_path / "chips"
    found, prints = tmp_path / "d.parquet", tmp_path / "o.parquet"
    succeed(capsys, "tile", scene, "-o", chips)
    succeed(capsys, "infer", chips, "-o", found, *ORACLE)
    succeed(capsys, "footprints", found, "-o", prints)
    facts = succeed(capsys, "info", scene, "--json").json
    assert facts["size_px"] == [600, 600]
    assert "32736" in facts["crs"]
    assert facts["gsd_m"] == pytest.approx(0.3, abs=1e-3)
    assert succeed(capsys, "info", chips, "--json").json["chips"] == 9
    facts = succeed(capsys, "info", found, "--json").json
    assert facts["detections"] > N_BUILDINGS
    assert facts["model"]["name"] == "geoseg.testing:oracle"
    for suffix in ("parquet", "geojson", "geojsonl", "gpkg", "fgb"):
        out = tmp_path / f"info.{suffix}"
        succeed(capsys, "export", prints, "-o", out)
        facts = succeed(capsys, "info", out, "--json").json
        assert facts["footprints"] == N_BUILDINGS
    for model in ("model", "maskrcnn_lite0", "geoseg.testing:oracle"):
        assert succeed(capsys, "info", model, "--json").json["chip_size_px"] == 300
    assert "maskrcnn_lite0" in succeed(capsys, "info", "model").out


class Danger:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_import_weights_converts_and_runs_nothing(tmp_path: Path, capsys: Capture) -> None:
    network = build_architecture("maskrcnn_lite0", num_classes=2, chip_size_px=300)
    torch.save(network.state_dict(), tmp_path / "good.pth")
    torch.save({"model": Danger(tmp_path / "pwned")}, tmp_path / "bad.pth")
    words = ("--architecture", "maskrcnn_lite0", "-o")
    good = tmp_path / "good.safetensors"
    outcome = succeed(capsys, "import-weights", tmp_path / "good.pth", *words, good)
    assert "sha256" in outcome.out
    assert succeed(capsys, "info", good, "--json").json["architecture"] == "maskrcnn_lite0"
    scene = write_scene(tmp_path / "s.tif", np.zeros((3, 64, 64), np.uint8))
    succeed(capsys, "run", scene, "-o", tmp_path / "o.fgb", "--model", good, "--gsd", "native")
    before = snapshot(tmp_path)
    outcome = call(
        capsys, "import-weights", tmp_path / "bad.pth", *words, tmp_path / "bad.safetensors"
    )
    assert_one_line(outcome, "bad.pth")
    assert outcome.code == 1
    misfit = ("--architecture", "maskrcnn_resnet50_fpn", "-o", tmp_path / "x.safetensors")
    outcome = call(capsys, "import-weights", tmp_path / "good.pth", *misfit)
    assert_one_line(outcome, "backbone", "does not fit")
    outcome = call(capsys, "import-weights", tmp_path / "good.pth", *words, tmp_path / "x.pth")
    assert_one_line(outcome, ".safetensors")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_of_every_verb(verb: str | None, capsys: Capture) -> None:
    for flag in ("-h", "--help"):
        outcome = succeed(capsys, *([verb] if verb else []), flag)
        assert outcome.out.startswith("Usage: geoseg")
        assert "\\b" not in outcome.out
    if verb is None:
        places = [outcome.out.index(f"\n  {name} ") for name in VERBS]
        assert places == sorted(places)


def test_no_words_at_all_show_the_help(capsys: Capture) -> None:
    outcome = call(capsys)
    assert outcome.code == 2
    assert outcome.err.startswith("Usage: geoseg")


def test_version(capsys: Capture) -> None:
    assert succeed(capsys, "--version").out == "geoseg, version 0.1.0\n"


def test_help_imports_nothing_heavy_and_completion_is_printed() -> None:
    code = (
        "import sys\nfrom geoseg.cli import main\ntry: main(['-h'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'rasterio', 'geopandas', 'yaml', 'pydantic'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    process = spawn(code=code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Verbs, in pipeline order" in out
    process = spawn(env={**os.environ, "_GEOSEG_COMPLETE": "bash_source"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "_geoseg_completion" in out


def test_progress_is_plain_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("geoseg.cli.report.LOG_EVERY_S", 0.0)
    with TerminalProgress() as progress:
        progress.start("infer", 10)
        progress.advance(0)
        progress.advance(4)
        progress.advance(6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "infer: 4 of 10 chips",
        "infer: 10 of 10 chips",
    ]
    assert all("chips/s" in line and "s left" in line for line in lines)


def test_progress_is_a_bar_on_a_terminal() -> None:
    code = (
        "from geoseg.cli.report import TerminalProgress\n"
        "with TerminalProgress() as progress:\n"
        "    progress.start('infer', 10)\n"
        "    progress.advance(10)\n"
    )
    ours, theirs = pty.openpty()
    process = spawn(code=code, stderr=theirs)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # the terminal ends with its process
        while chunk := os.read(ours, 65_536):
            shown += chunk.decode()
    os.close(ours)
    process.wait(timeout=60)
    process.stdout.close()
    assert "infer" in shown
    assert "10/10" in shown
    assert "chip/s" in shown


def test_an_unforeseen_error_is_one_line_and_verbose_shows_where(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug\nof ours")

    monkeypatch.setattr("geoseg.stages.run.make_all", broken)
    words = ("run", write_scene(tmp_path / "s.tif"), "-o", tmp_path / "o.fgb", *ORACLE)
    before = snapshot(tmp_path)
    assert_one_line(call(capsys, *words), "ZeroDivisionError", "-v")
    outcome = call(capsys, *words, "-v")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert snapshot(tmp_path) == before


def test_module_runs_as_the_command() -> None:
    process = spawn(code="import runpy; runpy.run_module('geoseg', run_name='__main__')")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err[:13]) == (2, "Usage: geoseg")


def test_footprints_keeps_the_score_of_infer(tmp_path: Path, capsys: Capture) -> None:
    found, out = tmp_path / "d.parquet", tmp_path / "f.parquet"
    scene = write_scene(tmp_path / "s.tif")
    timid = ("--model", "test_cli:timid_oracle")
    succeed(capsys, "infer", scene, "-o", found, "--score", "0.2", *timid)
    succeed(capsys, "footprints", found, "-o", out)
    assert len(read(out)) == N_BUILDINGS
    succeed(capsys, "footprints", found, "-o", out, "--score", "0.5", "--min-area", "7")
    assert len(read(out)) == 0
    config = json.loads(footprints_info(out).metadata["origin"])["config"]
    assert config["model"]["score"] == 0.5
    assert config["polygonize"]["min_area_m2"] == 7


def timid_oracle() -> torch.nn.Module:
    """Build an oracle that is right at a score of 0.3."""

    class Timid(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.oracle = oracle()

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            outputs = self.oracle(images)
            return [{**o, "scores": torch.full_like(o["scores"], 0.3)} for o in outputs]

    return Timid()
