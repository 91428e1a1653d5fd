"""`--compare`: two maps of a town whose differences are known, in numbers and in a picture."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
from cli_support import ORACLE, assert_one_line, call, snapshot, succeed
from PIL import Image
from shapely.geometry import box

from geoseg.cli import main
from geoseg.testing import make_town, write_town

if TYPE_CHECKING:
    from pathlib import Path

TOWN = make_town(size_px=420, seed=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Map a painted town: detections, and footprints made of them."""
    folder = tmp_path_factory.mktemp("town")
    town = write_town(TOWN, folder)
    for words in (
        ("infer", town.ids, "-o", folder / "d.parquet", *ORACLE),
        ("footprints", folder / "d.parquet", "-o", folder / "raw.parquet"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(w) for w in words])
        assert ended.value.code == 0
    shutil.copy(town.truth, folder / "t.geojson")
    return folder


def test_a_run_says_what_it_changed(capsys, files: Path, tmp_path: Path) -> None:
    words = ("--compare", files / "raw.parquet", "--truth", files / "t.geojson")
    out, sheet = tmp_path / "o.parquet", tmp_path / "sheet.png"
    told = succeed(
        capsys, "footprints", files / "d.parquet", "-o", out, "--min-area", "60", *words,
        "--gallery", sheet, "--json",
    ).json  # fmt: skip
    raw = gpd.read_parquet(files / "raw.parquet")
    small = int((raw["area_m2"] < 60).sum())
    assert small > 3
    assert told["changes"]["n_removed"] == small
    assert told["changes"]["n_same"] == len(raw) - small
    assert told["changes"]["n_changed"] == told["changes"]["n_added"] == 0
    assert told["against the truth"]["buildings"]["n_worse"] == small
    assert told["against the truth"]["after"]["f1@.5"] < 1
    assert told["outputs"] == [str(out), str(sheet)]
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = pixels[..., 2] - pixels.min(axis=-1)
    assert (pixels.max(axis=-1) < 60).mean() > 0.1, "imagery, black but for ids: no blank sheet"
    assert (blue > 100).any(), "outlines"


def test_any_two_maps_are_compared(capsys, files: Path, tmp_path: Path) -> None:
    """Without a truth, without a scene, in two formats and CRSs."""
    raw = gpd.read_parquet(files / "raw.parquet")
    moved = raw.copy()
    moved.loc[0, "geometry"] = moved.geometry[0].buffer(-1)
    moved = moved[["geometry"]].drop(index=1)
    moved.to_crs("EPSG:4326").to_file(tmp_path / "after.gpkg")
    words = ("--footprints", tmp_path / "after.gpkg", "--compare", files / "raw.parquet")
    sheet = tmp_path / "sheet.png"
    told = succeed(capsys, "evaluate", *words, "--gallery", sheet, "--json").json
    assert set(told) == {"changes"}
    assert (told["changes"]["n_removed"], told["changes"]["n_added"]) == (1, 0)
    assert told["changes"]["least_iou_of_changed"] < 0.99
    with Image.open(sheet) as picture:
        assert picture.size[1] > 200


def test_a_part_of_the_scene_can_be_compared(capsys, files: Path) -> None:
    words = ("--footprints", files / "raw.parquet", "--compare", files / "raw.parquet")
    whole = succeed(capsys, "evaluate", *words, "--json").json["changes"]
    west = succeed(capsys, "evaluate", *words, "--within", "0,0,0.5,1", "--json").json["changes"]
    raw = gpd.read_parquet(files / "raw.parquet")
    left, bottom, right, top = TOWN.grid.bounds
    half = raw.geometry.centroid.within(box(left, bottom, (left + right) / 2, top)).sum()
    assert (whole["n_same"], west["n_same"]) == (len(raw), half)


def test_a_step_may_drop_all_there_is(capsys, files: Path, tmp_path: Path) -> None:
    words = ("--min-area", "100000", "--compare", files / "raw.parquet")
    out, sheet = tmp_path / "o.parquet", tmp_path / "sheet.png"
    words = (*words, "--truth", files / "t.geojson", "--gallery", sheet)
    told = succeed(capsys, "footprints", files / "d.parquet", "-o", out, *words, "--json").json
    n = len(gpd.read_parquet(files / "raw.parquet"))
    assert (told["changes"]["n_removed"], told["changes"]["n_after"]) == (n, 0)
    assert told["against the truth"]["after"]["f1@.5"] == 0
    assert sheet.exists()
    words = ("--footprints", files / "raw.parquet", "--compare", out)
    back = succeed(capsys, "evaluate", *words, "--json").json["changes"]
    assert (back["n_added"], back["n_before"]) == (n, 0)


def test_two_empty_maps_leave_a_picture_of_nothing(capsys, tmp_path: Path) -> None:
    empty = gpd.GeoDataFrame(geometry=[], crs="EPSG:4326")
    for name in ("a.geojson", "b.geojson"):
        empty.to_file(tmp_path / name, engine="pyogrio")
    sheet = tmp_path / "sheet.png"
    words = ("--footprints", tmp_path / "a.geojson", "--compare", tmp_path / "b.geojson")
    told = succeed(capsys, "evaluate", *words, "--gallery", sheet, "--json").json["changes"]
    assert (told["n_before"], told["n_after"]) == (0, 0)
    assert sheet.exists()


def test_maps_without_a_scene_are_drawn_anywhere(capsys, tmp_path: Path) -> None:
    for name, height in (("a.gpkg", 10), ("b.gpkg", 14)):
        house = gpd.GeoDataFrame(geometry=[box(0, 0, 10, height)], crs="EPSG:3031")  # at the pole
        house.to_file(tmp_path / name)
    words = ("--footprints", tmp_path / "a.gpkg", "--compare", tmp_path / "b.gpkg")
    succeed(capsys, "evaluate", *words, "--gallery", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_maps_of_different_ground_are_not_compared(capsys, files: Path, tmp_path: Path) -> None:
    far = gpd.read_parquet(files / "raw.parquet")[["geometry"]]
    far.set_geometry(far.translate(5000, 0)).to_file(tmp_path / "far.gpkg")
    words = ("--footprints", files / "raw.parquet", "--compare", tmp_path / "far.gpkg")
    done = call(capsys, "evaluate", *words, "--gallery", tmp_path / "sheet.png")
    assert done.code == 2
    assert_one_line(done, "must show the same ground")
    assert not (tmp_path / "sheet.png").exists()


def test_a_scene_that_is_gone_leaves_a_blank_ground(capsys, files: Path, tmp_path: Path) -> None:
    town = write_town(TOWN, tmp_path)
    out, sheet = tmp_path / "o.parquet", tmp_path / "sheet.png"
    succeed(capsys, "run", town.ids, "-o", out, *ORACLE, "--min-area", "60")
    town.ids.unlink()
    words = ("--footprints", out, "--compare", files / "raw.parquet", "--gallery", sheet)
    succeed(capsys, "evaluate", *words)
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture)
    assert (pixels == pixels[..., :1]).all(axis=-1).mean() > 0.8


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (("--gallery", "g.png"), "go with --compare"),
        (("--truth", "t.geojson"), "go with --compare"),
        (("--compare", "none.parquet"), "none.parquet does not exist"),
        (("--compare", "raw.parquet", "--truth", "none.geojson"), "none.geojson does not exist"),
        (("--compare", "raw.parquet", "--gallery", "g.jpg"), "must be one of .png"),
        (("--compare", "raw.parquet", "--gallery", "no/g.png"), "no does not exist"),
        (("--compare", "d.parquet"), "cannot be read as a vector file"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    capsys, files: Path, tmp_path: Path, monkeypatch, words: tuple[str, ...], needle: str
) -> None:
    shutil.copytree(files, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    before = snapshot(tmp_path)
    done = call(capsys, "footprints", "d.parquet", "-o", "o.parquet", *words)
    assert done.code in (1, 2)
    assert_one_line(done, needle)
    after = snapshot(tmp_path)
    after.pop("here/o.parquet", None)  # what was made before the comparison failed is whole
    assert after == before


def test_the_map_compared_with_is_not_written_over(capsys, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    shutil.copy(files / "raw.parquet", path)
    done = call(capsys, "footprints", files / "d.parquet", "-o", path, "--compare", path)
    assert done.code == 2
    assert_one_line(done, "input")
    assert path.read_bytes() == (files / "raw.parquet").read_bytes()


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (("--footprints", "a.parquet", "--gallery", "g.png"), "--gallery goes with --compare"),
        (("--footprints", "a.parquet", "--compare", "b.parquet", "--report", "r.html"), "--truth"),
        (("--coco", "a.json", "--compare", "b.parquet"), "goes with --footprints"),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(capsys, words, needle) -> None:
    done = call(capsys, "evaluate", *words)
    assert done.code == 2
    assert_one_line(done, needle)
