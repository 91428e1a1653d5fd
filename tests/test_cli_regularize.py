"""`--regularize` as a user asks for it: same buildings, other outlines, two columns more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import pytest
import shapely
from cli_support import assert_one_line, call, succeed, write_scene

from geoseg.testing import assert_footprints_valid, assert_no_overlaps
from geoseg.vector import footprints_info

if TYPE_CHECKING:
    from pathlib import Path

    Capture = pytest.CaptureFixture[str]

SOFT = ("--model", "geoseg.testing:soft_oracle")


def test_run_and_footprints_make_the_same_regular_outlines(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    succeed(capsys, "run", scene, "-o", tmp_path / "raw.parquet", *SOFT)
    succeed(capsys, "run", scene, "-o", tmp_path / "run.parquet", *SOFT, "--regularize")
    succeed(capsys, "infer", scene, "-o", tmp_path / "d.parquet", *SOFT)
    words = ("footprints", tmp_path / "d.parquet", "-o", tmp_path / "f.parquet", "--regularize")
    succeed(capsys, *words)
    raw, run, made = (
        gpd.read_parquet(tmp_path / f"{name}.parquet") for name in ("raw", "run", "f")
    )
    assert run.equals(made)
    assert_footprints_valid(made)
    assert_no_overlaps(made)
    assert list(made.columns) == [*raw.columns[:-1], "regularized", "iou_raw", "geometry"]
    assert made["id"].tolist() == raw["id"].tolist()
    assert made["regularized"].mean() > 0.9
    assert made["iou_raw"].between(0.75, 1).all()
    fewer = shapely.get_num_coordinates(made.geometry) < shapely.get_num_coordinates(raw.geometry)
    assert fewer[made["regularized"]].mean() > 0.9


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb", ".pmtiles", ".shp"])
def test_every_format_takes_the_columns(tmp_path: Path, capsys: Capture, suffix: str) -> None:
    scene = write_scene(tmp_path / "s.tif")
    out = tmp_path / f"o{suffix}"
    call(capsys, "run", scene, "-o", out, *SOFT, "--regularize")
    assert out.exists()
    if suffix not in {".pmtiles", ".shp"}:
        assert footprints_info(out).optional == ("regularized", "iou_raw")


def test_options_and_no_regularize_win_over_the_file(tmp_path: Path, capsys: Capture) -> None:
    scene = write_scene(tmp_path / "s.tif")
    (tmp_path / "c.yaml").write_text("regularize:\n  enabled: true\n  angles: 45\n")
    words = ("run", scene, "--config", tmp_path / "c.yaml", *SOFT)
    succeed(capsys, *words, "-o", tmp_path / "a.parquet")
    assert "regularized" in gpd.read_parquet(tmp_path / "a.parquet")
    succeed(capsys, *words, "-o", tmp_path / "b.parquet", "--no-regularize")
    assert "regularized" not in gpd.read_parquet(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--regularize-angles", "60"), "'60' is not one of '90', '45'"),
        (("--set", "regularize.angles=30"), "regularize.angles: Input should be 90 or 45"),
        (("--set", "regularize.least_wall_m=0"), "least_wall_m must be metres above 0, got 0"),
        (("--set", "regularize.directions=9"), "directions must be 1 to 3, got 9"),
        (("--set", "regularize.least_iou=80%"), "regularize.least_iou"),
        (("--set", "regularize.gap_m=-1"), "gap_m must be 0 or more, got -1"),
        (("--set", "regularize.hausdorff_m=3m"), "regularize.hausdorff_m"),
        (("--set", "regularize.wall=3"), "regularize.wall"),
    ],
)
def test_bad_values_are_one_line(
    tmp_path: Path, capsys: Capture, words: tuple[str, ...], said: str
) -> None:
    scene = write_scene(tmp_path / "s.tif")
    outcome = call(capsys, "run", scene, "-o", tmp_path / "o.parquet", "--regularize", *words)
    assert outcome.code == 2
    assert_one_line(outcome, said)
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--regularize-angles", "45"), "--regularize-angles goes with --regularize"),
        (("--regularize-angles", "90", "--no-regularize"), "goes with --regularize"),
        (("--tta-merge", "gmean"), "--tta-merge goes with --tta"),
    ],
)
def test_options_of_a_step_that_is_off_are_refused(
    tmp_path: Path, capsys: Capture, words: tuple[str, ...], said: str
) -> None:
    outcome = call(capsys, "run", tmp_path / "s.tif", "-o", tmp_path / "o.parquet", *SOFT, *words)
    assert outcome.code == 2
    assert_one_line(outcome, said)
