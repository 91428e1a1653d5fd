"""The pipelines run: the demo on a small town, footprints on several scenes."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image

from geoseg.config import load_config
from geoseg.data.layout import find_split
from geoseg.errors import ConfigError
from geoseg.osm.exchange.changes import read_changes
from geoseg.testing import make_town, write_town
from tests.cli_support import snapshot
from tests.test_stages_train import crowdai

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
ORACLE = "model.name=geoseg.testing:oracle"
QUICK = (
    "network.init=random",
    "network.rois=16",
    "network.proposals=50",
    "loop.steps=1",
    "loop.batch_size=1",
    "loop.device=cpu",
    "data.size_px=96",
    "data.loaders=0",
)


def pipeline(name):
    """Import a pipeline's module from its file."""
    spec = importlib.util.spec_from_file_location(f"pipelines_{name}", PIPELINES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def town():
    return make_town(size_px=320)


@pytest.fixture(scope="module")
def files(town, tmp_path_factory):
    return write_town(town, tmp_path_factory.mktemp("town"))


def test_demo_maps_its_town_exactly_with_the_perfect_network(tmp_path, capsys):
    demo = pipeline("demo")

    demo.main(["--output", str(tmp_path / "demo"), "--size", "420"])

    text = capsys.readouterr().out
    rows = {line[:15]: line.split() for line in text.splitlines() if line[8:15] == "network"}
    found, of, precision, recall, f1 = rows["perfect network"][2:7]
    assert found == of
    assert (precision, recall, f1) == ("1.000", "1.000", "1.000")
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {
        "town.tif",
        "town_ids.tif",
        "town.geojson",
        "footprints.geojson",
        "preview.png",
    }
    assert size_of(tmp_path / "demo" / "preview.png") == (420, 420)


def test_demo_draws_the_picture_of_the_readme(tmp_path, capsys):
    pipeline("demo").main(["--size", "320", "--readme", str(tmp_path / "town.png")])

    assert size_of(tmp_path / "town.png") == (1288, 640)
    assert capsys.readouterr().out == ""


def test_footprints_maps_every_scene(town, files, tmp_path, capsys):
    code = pipeline("footprints").main(
        [str(files.ids), "-o", str(tmp_path), "--set", ORACLE, "--format", ".parquet"]
    )

    assert code == 0
    assert len(gpd.read_parquet(tmp_path / "town_ids.parquet")) == len(town.truth)
    assert (tmp_path / "town_ids.png").is_file()
    assert f" {len(town.truth)} " in capsys.readouterr().out


def test_footprints_goes_on_after_a_scene_that_fails(files, tmp_path, capsys):
    words = [str(tmp_path / "absent.tif"), str(files.ids), "-o", str(tmp_path), "--set", ORACLE]

    assert pipeline("footprints").main(words) == 1
    assert "absent.tif: no such file" in capsys.readouterr().out
    assert (tmp_path / "town_ids.gpkg").is_file()


def test_footprints_refuses_scenes_of_one_name_and_bad_options(tmp_path, capsys):
    footprints = pipeline("footprints")

    with pytest.raises(SystemExit) as stop:
        footprints.main(["a/x.tif", "b/x.tif", "-o", str(tmp_path)])
    assert stop.value.code == 2
    assert footprints.main(["x.tif", "-o", str(tmp_path), "--set", "model.scroe=1"]) == 2
    assert "scroe" in capsys.readouterr().err


def test_crowdai_is_cleaned_trained_on_measured_and_described(tmp_path, capsys):
    root, out = crowdai(tmp_path / "data"), tmp_path / "out"
    rng = np.random.default_rng(0)
    for path in sorted((root / "train" / "images").iterdir())[1:]:  # the first one leaks
        pixels = rng.integers(0, 255, (12, 12, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((96, 96)).save(path)
    words = [str(root), "-o", str(out), *(word for q in QUICK for word in ("--set", q))]

    assert pipeline("train_crowdai").main(words) == 0

    text = capsys.readouterr().out
    assert "7 different chips; of val, 1 are in train" in text
    card = (out / "run" / "model.md").read_text()
    assert "| official val, mended |" in card
    assert "| clean val |" in card
    assert (out / "official-val.html").exists()


def test_crowdai_is_mended_before_it_is_used(tmp_path, capsys):
    root, out = crowdai(tmp_path / "data"), tmp_path / "out"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split / "images" / "sub").mkdir()
        path = root / split / "annotation.json"
        document = json.loads(path.read_text())
        for chip in document["images"]:
            moved = root / split / "images" / "sub" / chip["file_name"]
            (root / split / "images" / chip["file_name"]).unlink()
            pixels = rng.integers(0, 255, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).resize((96, 96)).save(moved)
            chip["file_name"] = f"sub/{chip['file_name']}"
        moved.unlink()
        document["annotations"][0]["segmentation"] = [[1, 2, "x", 4]]
        path.write_text(json.dumps(document))
    words = [str(root), "-o", str(out), *(word for q in QUICK for word in ("--set", q))]

    for _ in range(2):
        assert pipeline("train_crowdai").main(words) == 0

    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("train: 4 chips")]
    assert "'malformed annotation': 1" in line
    assert "'missing image file': 1" in line
    kept = json.loads((out / "clean.json").read_text())["splits"]["train"]["kept"]
    assert kept == [f"sub/{i:012d}.png" for i in range(3)]

    words[0] = str(crowdai(tmp_path / "other"))
    assert pipeline("train_crowdai").main(words) == 1
    assert "choose another --output" in capsys.readouterr().err


def test_crowdai_is_not_trained_on_a_copy_of_what_has_changed_since(tmp_path):
    train_crowdai = pipeline("train_crowdai")
    split = find_split(crowdai(tmp_path / "data"), "val")
    copy = train_crowdai.mend(split, tmp_path / "out")
    assert train_crowdai.mend(split, tmp_path / "out") == copy
    before = copy.document.read_bytes()

    later = copy.document.stat().st_mtime_ns + 1_000_000
    os.utime(split.document, ns=(later, later))

    with pytest.raises(ConfigError, match=r"annotation.json has changed .*choose another --output"):
        train_crowdai.mend(split, tmp_path / "out")
    assert copy.document.read_bytes() == before


def test_crowdai_writes_nothing_into_the_data_set(tmp_path, capsys):
    root = crowdai(tmp_path / "data")
    for split in ("train", "val"):
        (root / split / "images").rename(root / split / "chips")
    before = snapshot(root)

    assert pipeline("train_crowdai").main([str(root), "-o", str(tmp_path)]) == 1

    assert "is the data set itself: choose another --output" in capsys.readouterr().err
    assert snapshot(root) == before


def test_crowdai_that_is_not_there_is_one_line(tmp_path, capsys):
    assert pipeline("train_crowdai").main([str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "no annotations of split 'train'" in capsys.readouterr().err


def test_benchmark_measures_each_number_of_workers(tmp_path, files, capsys):
    benchmark = pipeline("benchmark")
    table = tmp_path / "rows.json"
    words = ["--scene", str(files.ids), "--workers", "1", "--set", ORACLE, "--json", str(table)]

    assert benchmark.main(words) == 0

    (row,) = json.loads(table.read_text())
    assert (row["workers"], row["chips"], row["speed-up"]) == (1, 4, 1.0)
    head, line = capsys.readouterr().out.splitlines()
    assert len(head.split()) - 3 == len(line.split())  # three names have a blank

    assert benchmark.main(["--scene", str(tmp_path / "none.tif")]) == 1
    assert "none.tif" in capsys.readouterr().err


def test_footprints_in_blocks_are_those_of_one_process(tmp_path, files):
    footprints = pipeline("footprints")
    words = [str(files.ids), "--set", ORACLE, "--format", ".parquet"]

    assert footprints.main([*words, "-o", str(tmp_path / "a")]) == 0
    assert footprints.main([*words, "-o", str(tmp_path / "b"), "--set", "scale.strict=true"]) == 0

    a, b = (gpd.read_parquet(tmp_path / name / "town_ids.parquet") for name in "ab")
    assert a.equals(b)


def test_osm_import_prepares_what_the_map_lacks(town, files, tmp_path, capsys):
    every = gpd.read_file(files.truth)
    mapped = every.iloc[::2].to_file(tmp_path / "mapped.geojson") or tmp_path / "mapped.geojson"
    out = tmp_path / "out"
    words = [str(files.ids), "--against", str(mapped), "-o", str(out), "--set", ORACLE]

    code = pipeline("osm_import").main(
        [*words, "--set", "polygonize.min_area_m2=1", "--max-elements", "60"]
    )

    assert code == 0
    head, row, *rest = capsys.readouterr().out.splitlines()
    total, new, known, review, changesets, elements = (int(n) for n in row.split()[1:])
    assert total == len(every)
    assert known == len(every.iloc[::2])
    assert new + review == total - known
    assert new > 0
    assert len(head.split()) == 7  # one name has a blank
    folder = out / "town_ids"
    osc = sorted(folder.glob("changeset*.osc.gz"))
    assert len(osc) == changesets > 1
    data = [read_changes(path) for path in osc]
    assert sum(d.n_elements for d in data) == elements
    assert sum(sum(map(bool, d.way_tags)) + len(d.relations) for d in data) == new
    assert {p.name for p in folder.iterdir()} - {p.name for p in osc} == {
        "footprints.parquet",
        "conflated.gpkg",
        "review.geojson",
        "new.osm",
        "tasks.geojsonl",
    }
    assert "geoseg osm upload" in rest[-1]


def test_osm_import_with_nothing_new_or_nothing_there(files, tmp_path, capsys):
    words = [str(files.ids), "--against", str(files.truth), "--set", ORACLE]

    assert pipeline("osm_import").main([*words, "-o", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[1].split()[-2:] == ["0", "0"]
    assert "next" not in text
    words[2] = str(tmp_path / "none.osm.pbf")
    assert pipeline("osm_import").main([*words, "-o", str(tmp_path / "b")]) == 1
    assert "none.osm.pbf" in capsys.readouterr().err
    assert pipeline("osm_import").main([*words, "-o", "x", "--set", "model.scroe=1"]) == 2


def test_osm_import_of_scenes_that_overlap_has_each_building_once(town, files, tmp_path, capsys):
    again = tmp_path / "again.tif"
    again.write_bytes(files.ids.read_bytes())
    nowhere = tmp_path / "mapped.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 0.001, 0.001)], crs=4326).to_file(nowhere)
    words = [str(files.ids), str(again), "--against", str(nowhere), "-o", str(tmp_path / "out")]

    assert pipeline("osm_import").main([*words, "--set", ORACLE]) == 0

    rows = capsys.readouterr().out.splitlines()[1:3]
    assert sum(int(row.split()[1]) for row in rows) == len(town.truth)


def test_osm_import_explains_its_config():
    path = PIPELINES.parent / "configs" / "osm-import.yaml"
    config = load_config(path)
    lines = [line for line in path.read_text().splitlines() if line.startswith("  ")]

    assert (config.conflate.align, config.regularize.enabled) == (True, True)
    assert [line for line in lines if " # " not in line] == []
