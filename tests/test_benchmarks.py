"""The benchmarks run, on tiny scenes, and their reports have the shape they promise; no times."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import __main__ as program
from benchmarks import card, efficiency, peers, quality, real, second_score, stitching
from benchmarks import extracts as towns
from benchmarks import regularize as outlines
from benchmarks import tta as views
from benchmarks.clock import Times, interleave
from benchmarks.cold import cold
from benchmarks.conflation import conflation
from benchmarks.data import dedupe, loading
from benchmarks.evaluation import evaluation
from benchmarks.exactness import exactness, painted_outlines
from benchmarks.memory import memory
from benchmarks.morphology import morphology
from benchmarks.osmfiles import osm_files
from benchmarks.regularize import regular
from benchmarks.report import as_page, as_table, describe_machine
from benchmarks.rows import Row, at_least, at_most
from benchmarks.scaling import scaling
from benchmarks.scenes import town_picture
from benchmarks.training import training
from geoseg.testing import make_town

KEYS = ["benchmark", "name", "value", "unit", "target", "met", "note"]


def check_rows(rows, benchmark):
    assert rows
    for row in rows:
        plain = row.as_dict()
        assert list(plain) == KEYS
        assert plain["benchmark"] == benchmark
        assert plain["value"] is None or isinstance(plain["value"], int | float)
        assert plain["met"] in (True, False, None)
        assert (plain["met"] is None) == (plain["target"] is None or plain["value"] is None)
        assert json.loads(json.dumps(plain)) == plain
    assert len({row.name for row in rows}) == len(rows)


@pytest.fixture
def no_real_scenes(monkeypatch):
    for module in (efficiency, peers, quality, real, second_score, views):
        monkeypatch.setattr(module, "real_scene", lambda _: None)


def test_exactness_holds_on_a_tiny_town(tmp_path):
    rows = exactness(tmp_path, size_px=400, repeats=2)
    check_rows(rows, "exactness")
    perfect = [row for row in rows if " oracle" in row.name and row.met is not None]
    assert len(perfect) == 2 * 4
    assert all(row.met for row in perfect)


def test_osm_files_have_seconds_and_memory(tmp_path):
    rows = osm_files(tmp_path, n_footprints=100, town_px=400)
    check_rows(rows, "osm-files")
    assert [row.unit for row in rows] == ["s", "GiB"]


def test_views_cost_and_worth_have_rows(tmp_path, no_real_scenes):
    rows = views.tta(tmp_path, size_px=300, rounds=1, model="geoseg.testing:oracle")
    check_rows(rows, "tta")
    assert [row.value is None for row in rows] == [False, True]


def test_regular_outlines_are_measured_with_and_without_the_peer(tmp_path, monkeypatch):
    rows = regular(tmp_path, size_px=400, rounds=1, many=0, scenes=())
    check_rows(rows, "regularize")
    promised = [row for row in rows if row.name.startswith("town 400") and "peer" not in row.name]
    assert all(row.met for row in promised[:6])
    monkeypatch.setattr(outlines, "PEER", "no_such_package")
    rows = regular(tmp_path, size_px=400, rounds=1, many=0, scenes=())
    assert [row.name for row in rows if row.value is None and "no_such" in row.name]


@pytest.mark.slow
def test_regular_outlines_of_blocks_are_those_of_one_process(tmp_path):
    rows = regular(tmp_path, size_px=300, rounds=1, many=60, scenes=())
    (same,) = (row for row in rows if row.name == "blocks as in one process, share")
    assert same.met


@pytest.mark.slow
def test_scaling_measures_speed_idleness_and_memory(tmp_path):
    rows = scaling(tmp_path, busy_side=4, brief_side=4, huge_side=4)
    check_rows(rows, "scaling")
    assert [row.unit for row in rows] == ["", "", "MB"]
    assert all(row.value is not None for row in rows)


def test_painted_outlines_cover_exactly_the_painted_pixels():
    town = make_town(size_px=300)
    outlines = painted_outlines(town)
    pixels = np.bincount(town.ids.ravel())[1:]
    assert np.allclose(outlines.area, pixels * abs(town.grid.transform.determinant))


@pytest.mark.usefixtures("no_real_scenes")
def test_efficiency_and_peers_say_what_they_skipped(tmp_path):
    rows = efficiency.efficiency(tmp_path, size_px=256, rounds=1)
    check_rows(rows, "efficiency")
    assert [row.value is None for row in rows] == [False, False, True]
    rows = peers.peers(tmp_path, size_px=256, rounds=1)
    check_rows(rows, "peers")
    assert rows[0].target is None
    assert "stand-in" in rows[0].note
    rows = real.real(tmp_path)
    check_rows(rows, "real")
    assert all(row.value is None and row.note for row in rows)


def test_stitching_counts_what_goes_in_and_comes_out(tmp_path):
    rows = stitching.stitching(tmp_path, size_px=400, rounds=1)
    check_rows(rows, "stitching")
    assert [row.target is None for row in rows] == [False, True] * 2


def test_morphology_counts_instances_a_second(tmp_path):
    rows = morphology(tmp_path, n_chips=2, rounds=1)
    check_rows(rows, "morphology")
    assert all(row.target == 20_000 for row in rows)


def test_memory_and_cold_measure_processes_of_their_own(tmp_path):
    check_rows(memory(tmp_path, small_px=256, large_px=300, tile_px=256), "memory")
    check_rows(cold(tmp_path, size_px=256, help_rounds=1, run_rounds=1), "cold")


def test_interleave_runs_in_turn_after_a_warm_up():
    turns = []
    times = interleave(
        {name: lambda name=name: turns.append(name) or 1.0 for name in "ab"}, rounds=2
    )
    assert "".join(turns) == "ababab"
    assert times.rounds == {"a": (1.0, 1.0), "b": (1.0, 1.0)}


def test_ratio_is_the_median_of_the_rounds_ratios():
    times = Times(rounds={"a": (1.0, 10.0, 2.0), "b": (2.0, 10.0, 8.0)})
    assert times.ratio("a", "b") == 0.5
    assert "3 rounds" in times.about("a", "b")


def test_a_row_is_met_only_where_its_target_holds():
    base = {"benchmark": "x", "name": "y"}
    assert Row(**base, value=0.9, **at_least(0.9)).met is True
    assert Row(**base, value=1.2, **at_most(1.1)).met is False
    assert Row(**base, value=None, **at_most(1.1)).met is None
    assert Row(**base, value=1.0).met is None


def test_program_writes_json_table_and_exit_code(tmp_path, monkeypatch, capsys):
    def fast(_: Path) -> list[Row]:
        """Measure nothing."""
        return [Row(benchmark="fast", name="n", value=2.0, unit="s", **at_most(1.0), note="z")]

    monkeypatch.setattr(program, "BENCHMARKS", {"fast": fast})
    out = tmp_path / "results" / "latest.json"
    assert program.main(["fast", "--out", str(out)]) == 1
    report = json.loads(out.read_text())
    assert set(report) == {"machine", "rows"}
    assert report["machine"].keys() >= {"cores", "python", "torch"}
    assert report["rows"][0]["met"] is False
    table = out.with_suffix(".md").read_text()
    assert "| fast | n | 2 s | <= 1 | **no** | z |" in table
    assert table in capsys.readouterr().out


def test_page_explains_each_benchmark_in_its_own_words():
    rows = [Row(benchmark="cold", name="n", value=1.0)]
    page = as_page(rows, describe_machine(), program.BENCHMARKS)
    assert "Measure whole processes" in page
    assert as_table(rows) in page


def test_a_page_keeps_the_sections_of_what_was_not_run():
    machine = describe_machine()
    old = [Row(benchmark=name, name="n", value=1.0) for name in ("real", "cold")]
    before = as_page(old, machine, program.BENCHMARKS)
    new = [Row(benchmark=name, name="n", value=2.0) for name in ("real", "exactness")]
    page = as_page(new, machine | {"date": "later"}, program.BENCHMARKS, before=before)
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## exactness", "## cold", "## real"]
    assert [as_table([row]) in page for row in (*old, *new)] == [False, True, True, True]
    assert page.count("date later") == 2
    assert as_page([], machine, program.BENCHMARKS, before=page) == page


def test_loading_and_dedupe_run(tmp_path):
    check_rows(loading(tmp_path, n_chips=50), "loading")
    rows = dedupe(tmp_path, n_towns=1)
    check_rows(rows, "dedupe")
    assert all(row.met for row in rows if row.comparison == "==")


def test_conflation_runs_and_finds_what_is_missing(tmp_path):
    rows = conflation(tmp_path, n_buildings=400)
    check_rows(rows, "conflation")
    assert all(row.met for row in rows)


def test_extracts_run_or_say_why_not(tmp_path, monkeypatch):
    monkeypatch.setattr(towns, "SEEDS", 1)
    check_rows(towns.extracts(tmp_path), "extracts")
    monkeypatch.setattr(towns, "EXTRACTS", tmp_path / "absent")
    (row,) = towns.extracts(tmp_path)
    assert (row.value, row.note) == (None, towns.NOT_HERE)


def test_evaluation_runs(tmp_path):
    check_rows(evaluation(tmp_path, n_chips=20), "evaluation")


@pytest.mark.slow
def test_training_runs(tmp_path):
    check_rows(training(tmp_path, steps=1), "training")


@pytest.fixture
def drawn_scenes(monkeypatch, tmp_path):
    """Let drawn towns stand in for the real scenes."""
    scenes = {}

    def scene(name: str):
        if name not in scenes:
            folder = tmp_path / name
            folder.mkdir()
            scenes[name] = replace(town_picture(folder, size_px=300), name=name)
        return scenes[name]

    for module in (card, quality, second_score):
        monkeypatch.setattr(module, "real_scene", scene)
    parts = {"one_town": (0.0, 0.0, 1.0, 1.0), "other_town": (0.0, 0.3, 1.0, 1.0)}
    monkeypatch.setattr(quality, "PARTS", parts)
    monkeypatch.setattr(second_score, "PARTS", parts)
    monkeypatch.setattr(card, "PARTS", parts)
    monkeypatch.setattr(second_score, "OTHERS", ("third_town",))


def test_steps_are_measured_alone_and_together(tmp_path, drawn_scenes):
    steps = {
        "coarse": {"polygonize.tolerance_m": 1.5},
        "calibration": {"model.calibrate": True, "model.score": None},
    }
    table = quality.ablation(tmp_path, steps=steps)
    together = [quality.DEFAULTS, quality.EVERYTHING, quality.BUT_OUTLINES]
    assert list(table) == ["none", *steps, *together]
    assert table["coarse"].vertex_ratio < table["none"].vertex_ratio
    assert table["calibration"].ap50 == pytest.approx(table["none"].ap50)
    assert all(worth.seconds > 0 and 0.5 < worth.n < 2 for worth in table.values())
    text = quality.as_markdown(table).splitlines()
    assert len({line.count("|") for line in text}) == 1
    assert len(text) == 2 + len(table)


@pytest.mark.parametrize("views", ["none", "hflip"])
def test_the_cards_tables_name_every_part_at_every_resolution(
    tmp_path, drawn_scenes, monkeypatch, capsys, views
):
    for name in card.PARTS:
        scene = card.real_scene(name)
        scene.truth.to_crs("EPSG:4326").to_file(scene.path.with_suffix(".geojson"))
    monkeypatch.setattr(card, "CHIPS_M", (0.3,))
    monkeypatch.setattr(card, "SCENES_M", (0.3,))
    card.main(["--tta", views])
    chips, scenes = (table.splitlines()[2:] for table in capsys.readouterr().out.split("\n\n"))
    assert [row.split(" | ")[0] for row in chips] == ["| all", "| one_town", "| other_town"]
    assert len(scenes) == len(card.PARTS) + 2  # one part is the whole, and there is a mean
    assert all(0.5 < float(row.split(" | ")[3].rstrip(" |")) <= 1 for row in chips), "AP50"
    monkeypatch.setattr(card, "real_scene", lambda _: None)
    card.main([])
    assert "real scenes are not here" in capsys.readouterr().out


def test_a_second_score_is_judged_by_others(tmp_path, drawn_scenes):
    pytest.importorskip("sklearn")
    rows = second_score.second_score(tmp_path)
    check_rows(rows, "second-score")
    assert [row.value is None for row in rows] == [False] * 3
    assert rows[0].value > 0.8


@pytest.mark.usefixtures("no_real_scenes")
def test_quality_says_what_it_skipped(tmp_path):
    for rows in (quality.quality(tmp_path), second_score.second_score(tmp_path)):
        assert [row.value for row in rows] == [None]
        assert rows[0].note
