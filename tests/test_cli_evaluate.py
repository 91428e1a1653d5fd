from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapely.geometry import box

from geoseg.chips import plan_chips
from geoseg.cli import main
from geoseg.coco import coco_annotations, coco_document, coco_images
from geoseg.data.manifest import Manifest, SplitChoice, write_manifest
from geoseg.errors import OutputError
from geoseg.evaluate.report import Section, write_report
from geoseg.evaluate.seams import seam_gap
from geoseg.testing import ids_to_rgb, make_town, write_town
from geoseg.vector import FootprintWriter, footprints_info
from tests.cli_support import ORACLE, assert_one_line, call, succeed

if TYPE_CHECKING:
    from pathlib import Path

TOWN = make_town(size_px=540, seed=11)


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a town's painted chips with their annotations."""
    root = tmp_path_factory.mktemp("chips")
    (root / "images").mkdir()
    plan = plan_chips("town", TOWN.grid)
    painted = ids_to_rgb(TOWN.ids)
    names = [f"{i:012d}.png" for i in range(1, len(plan) + 1)]
    for name, chip in zip(names, plan, strict=True):
        w = chip.window
        part = painted[w.row_off : w.row_stop, w.col_off : w.col_stop]
        Image.fromarray(part).save(root / "images" / name)
    annotations = coco_annotations(TOWN.truth, plan, TOWN.grid)
    document = coco_document(coco_images(plan, names), annotations)
    (root / "annotation.json").write_text(json.dumps(document))
    return root


def test_the_oracle_finds_all_that_is_annotated(capsys, chips, tmp_path):
    page = tmp_path / "report.html"
    words = (*ORACLE, "--coco", chips / "annotation.json", "--report", page, "--json")
    found = call(capsys, "evaluate", *words).json
    assert found["masks"]["ap50"] > 0.97  # slivers at borders may be below the oracle's least size
    assert found["masks"]["challenge_ar50"] > 0.97
    assert found["mistakes at score 0.5"]["truth"]["merged"] == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") >= 8
    assert "http" not in text.replace("http-equiv", "")


def test_results_on_disk_have_the_figures_of_the_model(capsys, chips, tmp_path):
    results = tmp_path / "predictions.json"
    assert call(capsys, "predict-dir", chips / "images", "-o", results, *ORACLE).code == 0
    document = chips / "annotation.json"
    stored = call(capsys, "evaluate", "--results", results, "--coco", document, "--json").json
    direct = call(capsys, "evaluate", *ORACLE, "--coco", document, "--json").json
    for kind in ("masks", "boxes"):
        assert stored[kind] == pytest.approx(direct[kind], nan_ok=True)


def test_a_manifest_chooses_what_counts(capsys, chips, tmp_path):
    choice = SplitChoice(kept=(f"{1:012d}.png",))
    write_manifest(tmp_path / "m.json", Manifest(splits={"val": choice}))
    words = ("--coco", chips / "annotation.json", "--manifest", tmp_path / "m.json", "--json")
    assert call(capsys, "evaluate", *ORACLE, *words).json["masks"]["n_images"] == 1


def test_a_chip_that_cannot_be_read_is_named(capsys, chips, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((chips / "images").iterdir())[1:]:
        (images / path.name).write_bytes(path.read_bytes())
    words = ("--coco", chips / "annotation.json", "--images", images)
    done = call(capsys, "evaluate", *ORACLE, *words)
    assert done.code == 3
    assert "000000000001.png failed" in done.err


@pytest.fixture(scope="module")
def footprints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Map a painted town and return the map and the truth."""
    folder = tmp_path_factory.mktemp("map")
    files = write_town(TOWN, folder)
    with pytest.raises(SystemExit):
        main(["run", str(files.ids), "-o", str(folder / "out.parquet"), *ORACLE])
    return folder / "out.parquet", files.truth


def test_a_map_is_measured_seams_included(capsys, footprints, tmp_path):
    path, truth = footprints
    page = tmp_path / "map.html"
    words = ("--footprints", path, "--truth", truth, "--report", page)
    found = succeed(capsys, "evaluate", *words, "--json").json
    assert found["match"]["f1@.5"] == 1
    assert found["shape"]["boundary_iou"] > 0.7
    assert found["shape"]["rotation_error_deg"] < 3
    assert found["seams"]["gap"] == 0
    assert found["seams"]["n_crossing"] > 5
    assert page.read_text(encoding="utf-8").count("data:image/png") == 2
    table = succeed(capsys, "evaluate", "--footprints", path, "--truth", truth).out
    assert "boundary_iou: 0." in table


def test_seams_are_those_of_the_chips_or_not_told(capsys, tmp_path):
    files = write_town(TOWN, tmp_path)
    chips, path = tmp_path / "chips", tmp_path / "o.parquet"
    cut = ("--set", "chips.size_px=200", "--set", "chips.overlap_px=40")
    succeed(capsys, "tile", files.ids, "-o", chips, *cut)
    succeed(capsys, "run", chips, "-o", path, *ORACLE)
    words = ("--footprints", path, "--truth", files.truth, "--json")
    found = succeed(capsys, "evaluate", *words).json
    frame, truth = gpd.read_parquet(path), gpd.read_file(files.truth)
    plan = plan_chips("town", TOWN.grid, size_px=200, overlap_px=40)
    expected = seam_gap(frame, truth, chips=plan, grid=TOWN.grid)
    assert found["seams"] == asdict(expected) | {"gap": expected.gap}
    metadata = footprints_info(path).metadata
    origin = json.loads(metadata["origin"])
    origin["config"]["chips"]["size_px"] = None  # as the model has it: not recorded formerly
    metadata["origin"] = json.dumps(origin)
    with FootprintWriter(path, crs=frame.crs, metadata=metadata) as file:
        file.write(frame)
    assert "seams" not in succeed(capsys, "evaluate", *words).json


def test_points_of_a_truth_file_are_no_buildings(capsys, footprints, tmp_path):
    path, truth = footprints
    outlines = gpd.read_file(truth)
    with_points = pd.concat([outlines, outlines.set_geometry(outlines.representative_point())])
    with_points.to_file(tmp_path / "t.geojson")
    page = ("--report", tmp_path / "p.html")
    found, expected = (
        succeed(capsys, "evaluate", "--footprints", path, "--truth", t, *page, "--json").json
        for t in (tmp_path / "t.geojson", truth)
    )
    assert found == expected
    assert expected["seams"]["n_crossing"] + expected["seams"]["n_inside"] == len(outlines)


def test_sizes_are_those_on_the_ground(capsys, tmp_path):
    houses = gpd.GeoDataFrame(geometry=[box(5e5, 6_650_000, 500_012, 6_650_010)], crs="EPSG:32635")
    houses.to_crs("EPSG:3857").to_file(tmp_path / "map.gpkg")
    page = tmp_path / "r.html"
    words = ("--footprints", tmp_path / "map.gpkg", "--truth", tmp_path / "map.gpkg")
    succeed(capsys, "evaluate", *words, "--report", page)
    rows = dict(re.findall(r"<th>([^<]*)</th><td class=n>([^<]*)</td>", page.read_text("utf-8")))
    assert rows["8-12 m"] == "1.000"
    assert rows["18-30 m"] == "undefined"


def test_a_score_that_is_no_number_is_told_with_its_file(capsys, footprints, tmp_path):
    _, truth = footprints
    gpd.read_file(truth).assign(score="good").to_file(tmp_path / "named.gpkg")
    named = ("--footprints", tmp_path / "named.gpkg")
    for words in ((*named, "--truth", truth), (*named, "--compare", tmp_path / "named.gpkg")):
        done = call(capsys, "evaluate", *words)
        assert done.code == 1
        assert_one_line(done, "named.gpkg: score must be a number, got 'good'")
    words = ("--footprints", truth, "--truth", tmp_path / "named.gpkg", "--json")
    assert succeed(capsys, "evaluate", *words).json["match"]["f1@.5"] == 1


def test_a_map_of_nothing_finds_nothing(capsys, footprints, tmp_path):
    _, truth = footprints
    with FootprintWriter(tmp_path / "none.parquet", crs=TOWN.grid.crs):
        pass
    words = ("--footprints", tmp_path / "none.parquet", "--truth", truth)
    found = succeed(capsys, "evaluate", *words, "--report", tmp_path / "r.html", "--json").json
    assert (found["match"]["n_pred"], found["match"]["n_truth"]) == (0, len(TOWN.truth))
    assert (found["match"]["f1@.5"], found["match"]["recall@.5"]) == (0, 0)
    assert found["match"]["precision@.5"] is None
    assert (tmp_path / "r.html").exists()


def test_only_what_lies_within_counts(capsys, footprints, tmp_path):
    path, truth = footprints
    left, bottom, right, top = TOWN.grid.bounds
    west = gpd.GeoDataFrame(
        geometry=[box(left, bottom, (left + right) / 2, top)], crs=TOWN.grid.crs
    )
    west.to_file(tmp_path / "west.gpkg")
    words = ("--footprints", path, "--truth", truth, "--within", tmp_path / "west.gpkg", "--json")
    found = succeed(capsys, "evaluate", *words).json
    whole = len(TOWN.truth)
    assert 0.2 * whole < found["match"]["n_truth"] < 0.8 * whole
    assert found["match"]["f1@.5"] > 0.97


RESULTS = ("--coco", "b.json", "--results", "r.json")
MAP = ("--footprints", "a.parquet", "--truth", "t.geojson")


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        ((), "give either --footprints with --truth, or --coco"),
        (("--footprints", "a.parquet"), "--footprints needs --truth"),
        (("--footprints", "a.parquet", "--coco", "b.json"), "give either"),
        (("--coco", "b.json", "--truth", "t.geojson"), "--truth goes with --footprints, not"),
        (("--coco", "b.json", "--within", "all"), "--within goes with --footprints, not --coco"),
        ((*RESULTS, "--model", "nope"), "--model goes with --coco without --results"),
        ((*RESULTS, "--open", "2px", "--score", "0"), "--score, --open go with --coco without"),
        ((*RESULTS, "--set", "model.score=0.4"), "--set goes with --coco without --results"),
        ((*RESULTS, "--images", "."), "--images goes with --report"),
        ((*RESULTS, "--images", "/no/dir", "--report", "r.html"), "no folder /no/dir"),
        ((*RESULTS, "--split", "zzz"), "--split goes with --manifest"),
        ((*MAP, "--results", "r.json"), "--results goes with --coco, not --footprints"),
        ((*MAP, "--images", ".", "--manifest", "m"), "--images, --manifest go with --coco, not"),
        ((*MAP, "--at-score", "0.5"), "--at-score goes with --coco, not --footprints"),
        ((*MAP, "--device", "cpu"), "--device goes with --coco, not --footprints"),
        (("--coco", "b.json", "--at-score", "nan"), "--at-score': must be in [0, 1], got nan"),
        (("--coco", "b.json", "--at-score", "7"), "--at-score': must be in [0, 1], got 7"),
        (("--coco", "/no/such.json"), "check the path"),
        (("--footprints", "/no/such.parquet", "--truth", "t.geojson"), "such.parquet"),
    ],
)
def test_wrong_use_is_one_line(capsys, words, needle):
    done = call(capsys, "evaluate", *words)
    assert done.code == 2
    assert_one_line(done, needle)


SOURCES = (("--coco", "none.json"), ("--footprints", "none.parquet", "--truth", "none.geojson"))


@pytest.mark.parametrize("source", SOURCES, ids=["chips", "map"])
def test_a_report_that_cannot_be_written_is_told_before_any_work(
    capsys, tmp_path, monkeypatch, source
):
    (tmp_path / "taken.html").mkdir()
    for name, needle in (("no/r.html", "does not exist; make it"), ("r.png", "be one of .html"),
                         ("taken.html", "is a folder")):  # fmt: skip
        done = call(capsys, "evaluate", *source, "--report", tmp_path / name)
        assert done.code == 2
        assert_one_line(done, needle)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = call(capsys, "evaluate", *source, "--report", tmp_path / "r.html")
    assert done.code == 1
    assert_one_line(done, "need matplotlib: pip install 'geoseg[train]'")


def test_figures_are_shown_though_the_report_fails(capsys, footprints, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr("geoseg.stages.evaluate.write_report", full)
    path, truth = footprints
    words = ("--footprints", path, "--truth", truth, "--report", tmp_path / "r.html")
    done = call(capsys, "evaluate", *words)
    assert (done.code, done.err) == (1, "geoseg: disk full\n")
    assert "f1@.5: 1" in done.out
    done = call(capsys, "evaluate", *words, "--json")
    assert (done.code, done.err) == (1, "geoseg: disk full\n")
    assert done.json["match"]["f1@.5"] == 1  # the one document there is


def test_what_comes_from_files_is_escaped(tmp_path):
    hostile = "<script>alert('x')</script>"
    section = Section(title=hostile, note=hostile, table={hostile: hostile, "nan": float("nan")},
                      pictures=[(hostile, b"png")])  # fmt: skip
    write_report(tmp_path / "p.html", hostile, [section])
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert np.count_nonzero([c == "\n" for c in text]) == 1
