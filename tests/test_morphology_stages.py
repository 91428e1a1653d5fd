"""Morphology in the verbs: what it changes, what is recorded, and how bad values are refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import shapely
from builders import make_chip, make_detections, make_grid, make_window
from cli_support import call, succeed, write_scene
from PIL import Image

from geoseg.config import load_config
from geoseg.morphology import MorphologyOptions
from geoseg.stages.base import Tally
from geoseg.stages.footprints import footprints
from geoseg.stages.maps import footprints_origin
from geoseg.stages.origin import Origin
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.pictures import list_pictures
from geoseg.stages.predict_dir import predict_pictures
from geoseg.stages.store import DetectionWriter
from geoseg.testing import ids_to_rgb, make_town

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from geoseg.chips import Chip, ChipBatch
    from geoseg.detections import Detections

ORACLE = ("--model", "geoseg.testing:oracle", "--device", "cpu")


def detections_file(path: Path) -> Path:
    """Write a chip of 0.5 m pixels with a house of 40 x 40 px, a shed of 6 x 6, and a duplicate."""
    origin = Origin(
        scene_id="s",
        scene_path="nowhere.tif",
        grid=make_grid(),
        labels={1: "building"},
        model={},
        config={},
    )
    found = make_detections(
        boxes=[(20, 20, 60, 60), (100, 100, 106, 106), (22, 21, 60, 61)], scores=[0.9, 0.8, 0.7]
    )
    with DetectionWriter(path, origin) as writer:
        writer.write(make_chip(window=make_window()), found)
    return path


def areas_m2(path: Path) -> list[float]:
    return sorted(gpd.read_parquet(path)["area_m2"].round(1).tolist())


@pytest.fixture
def found(tmp_path: Path) -> Path:
    return detections_file(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    ("words", "sides_px"),
    [
        ((), [6, 40]),
        (("--dilate", "1m", "--element", "square"), [10, 44]),
        (("--erode", "1", "--element", "square"), [4, 38]),
        (("--erode", "3x3", "--dilate", "1px", "--element", "square"), [6, 40]),
        (("--open", "4", "--element", "square"), [6, 40]),
        (("--open", "4", "--element", "square", "--set", "morphology.restore=false"), [40]),
        (("--min-area", "9m2"), [6, 40]),
        (("--min-area", "10"), [40]),
        (("--min-area", "1e1"), [40]),
        (("--min-area", "35px"), [6, 40]),
        (("--min-area", "37px"), [40]),
        (("--min-area", "10", "--set", "polygonize.min_area_px=2"), [40]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_footprints_are_of_refined_masks(
    found: Path, tmp_path: Path, capsys, words: tuple[str, ...], sides_px: list[int]
) -> None:
    out = tmp_path / "o.parquet"
    succeed(capsys, "footprints", found, "-o", out, *words, "--set", "polygonize.min_area_m2=1")
    # Metres of the middle of a UTM zone: 0.9996 of them to one on the ground.
    assert areas_m2(out) == pytest.approx([(side / 2 / 0.9996) ** 2 for side in sides_px], rel=0.01)


def test_the_steps_are_recorded_with_the_footprints(found: Path, tmp_path: Path) -> None:
    plan = OutputPlan(vector=tmp_path / "o.parquet")
    footprints(found, plan, load_config(options={"morphology.dilate": "1m"}))
    origin = footprints_origin(plan.vector)
    assert origin is not None
    assert origin.config["morphology"]["dilate"] == "1m"


def test_a_step_below_a_pixel_is_told(found: Path, tmp_path: Path, capsys) -> None:
    outcome = call(capsys, "footprints", found, "-o", tmp_path / "o.fgb", "--erode", "0.2m")
    assert outcome.code == 0
    assert outcome.err.count("erode 0.2m: nothing is done below a pixel, which is 0.5 m") == 1


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (("--erode", "-2"), "0 or more"),
        (("--dilate", "-0.6m"), "0 or more"),
        (("--erode", "4x4"), "5x5"),
        (("--open", "10%"), "percentage"),
        (("--close", "0.6"), "0.6m or 0.6px"),
        (("--dilate", "2ft"), "2px or 0.6m"),
        (("--dilate", "2000"), "at most"),
        (("--dilate", "400m"), "at most 64 px"),
        (("--min-area", "-5"), "0 or more"),
        (("--min-area", "10%"), "percentage"),
        (("--min-area", "5m"), "14px or 5m2"),
        (("--element", "star"), "star"),
        (("--set", "morphology.connectivity=6"), "connectivity"),
        (("--set", "morphology.claims=best"), "claims"),
        (("--set", "morphology.erode=[1]"), "erode"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_bad_values_get_one_line_and_exit_code_2(
    found: Path, tmp_path: Path, capsys, words: tuple[str, ...], needle: str
) -> None:
    scene = write_scene(tmp_path / "s.tif")
    calls = [("footprints", found), ("run", scene, *ORACLE), ("run", scene, *ORACLE, "--strict")]
    before = sorted(tmp_path.iterdir())
    for verb in calls:
        outcome = call(capsys, *verb, "-o", tmp_path / "o.parquet", *words)
        assert outcome.code == 2, outcome
        assert len(outcome.err.splitlines()) == 1
        assert needle in outcome.err
        assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(ids_to_rgb(make_town(size_px=300).ids)).save(folder / "1.png")
    return folder


def predicted(capsys, images: Path, *words: str) -> list[dict]:
    out = images.parent / "o.json"
    out.unlink(missing_ok=True)
    succeed(capsys, "predict-dir", images, "-o", out, *ORACLE, *words)
    return json.loads(out.read_text())


def test_pictures_masks_are_refined_in_pixels(images: Path, capsys) -> None:
    plain = predicted(capsys, images)
    grown = predicted(capsys, images, "--dilate", "2px")
    assert len(grown) == len(plain)
    area = [sum(r["bbox"][2] * r["bbox"][3] for r in records) for records in (plain, grown)]
    assert area[1] > area[0]
    large = predicted(capsys, images, "--min-area", "600px")
    assert 0 < len(large) < len(plain)


@pytest.mark.parametrize("words", [("--erode", "0.6m"), ("--min-area", "5m2"), ("--min-area", "5")])
def test_pictures_have_no_metres(images: Path, capsys, words: tuple[str, str]) -> None:
    out = images.parent / "o.json"
    outcome = call(capsys, "predict-dir", images, "-o", out, *ORACLE, *words)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert "px" in outcome.err
    assert not out.exists()


class Twice:
    """A predictor that shows one thing twice in every picture."""

    batch_size = 1
    model = SimpleNamespace(module=object(), spec=SimpleNamespace(sha256=None, calibration=None))

    def stream(self, batches: Iterable[ChipBatch]) -> Iterator[tuple[Chip, Detections]]:
        for batch in batches:
            for chip in batch.chips:
                boxes = [(2, 2, 30, 30), (3, 2, 30, 31)]
                yield chip, make_detections(boxes=boxes, scores=[0.9, 0.8], window=chip.window)


def test_pictures_keep_duplicates_unless_told(images: Path) -> None:
    pictures, _ = list_pictures(images)
    for morphology, count in ((None, 2), (MorphologyOptions(), 1)):
        ((_, found),) = predict_pictures(
            pictures,
            Twice(),
            morphology=morphology,
            tally=Tally(),  # type: ignore[arg-type]
        )
        assert len(found) == count


def test_the_open_solutions_preset_runs(images: Path, capsys) -> None:
    preset = "configs/postprocess-open-solution.yaml"
    records = predicted(capsys, images, "--config", preset, "--erode", "3x3")
    assert records
    assert all(0 < record["score"] < 1 for record in records)


def test_duplicates_of_a_chip_go_before_they_are_stitched(found: Path, tmp_path: Path) -> None:
    keep = {
        "morphology.duplicate_ios": 0.0,
        "stitch.duplicate_ios": 1.0,
        "topology.overlaps": "keep",
    }
    counts = []
    for i, options in enumerate((keep, {**keep, "morphology.duplicate_ios": 0.6})):
        plan = OutputPlan(vector=tmp_path / f"{i}.parquet")
        counts.append(footprints(found, plan, load_config(options=options)).footprints)
    assert counts == [3, 2]


def test_claimed_ground_is_whole_in_the_output(tmp_path: Path) -> None:
    found = detections_file(tmp_path / "d.parquet")
    options = {"morphology.duplicate_ios": 0.0, "topology.overlaps": "keep"}
    options |= {"stitch.duplicate_ios": 1.0, "polygonize.min_area_m2": 0.0}
    plan = OutputPlan(vector=tmp_path / "o.parquet")
    footprints(found, plan, load_config(options={**options, "morphology.claims": "score"}))
    shapes = gpd.read_parquet(plan.vector).geometry.to_numpy()
    union = shapely.area(shapely.union_all(shapes))
    assert np.sum(shapely.area(shapes)) == pytest.approx(union, rel=1e-9)
