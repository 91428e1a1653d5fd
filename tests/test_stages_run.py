"""The whole job as a function: any CRS, any cut of the work, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import pytest
import rasterio
from cli_support import snapshot, town, write_scene

from geoseg.config import Config, load_config
from geoseg.errors import ModelError, OutputError
from geoseg.evaluate import evaluate_footprints
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.testing import assert_footprints_valid, make_town, write_town

if TYPE_CHECKING:
    from pathlib import Path


def config(**options: object) -> Config:
    options = {"model__name": "geoseg.testing:oracle", "model__device": "cpu", **options}
    return load_config(options={key.replace("__", "."): v for key, v in options.items()})


def plan_all(tmp: Path) -> OutputPlan:
    return OutputPlan(vector=tmp / "o.parquet", mask=tmp / "m.tif", preview=tmp / "p.png")


@pytest.mark.parametrize(
    ("size_px", "overlap_px"), [(300, 60), (600, 0), (200, 90), (128, 64), (1000, 60)]
)
def test_the_cut_does_not_matter(tmp_path: Path, size_px: int, overlap_px: int) -> None:
    out = tmp_path / "o.parquet"
    cfg = config(chips__size_px=size_px, chips__overlap_px=overlap_px)
    run(str(write_scene(tmp_path / "s.tif")), OutputPlan(vector=out), cfg)
    footprints = gpd.read_parquet(out)
    assert_footprints_valid(footprints)
    result = evaluate_footprints(footprints, town().truth)
    assert (result.n_pred, result.at(0.5).f1) == (71, 1.0)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_any_crs_works_and_areas_are_on_the_ground(tmp_path: Path, crs: str) -> None:
    there = make_town(size_px=400, crs=crs)
    files = write_town(there, tmp_path)
    out = tmp_path / "o.parquet"
    run(str(files.ids), OutputPlan(vector=out), config())
    footprints = gpd.read_parquet(out)
    assert footprints.crs == there.grid.crs
    result = evaluate_footprints(footprints, there.truth)
    assert result.at(0.5).f1 == 1.0
    assert result.n_pred == len(there.truth)
    ground = there.truth.to_crs("EPSG:32736").area.sum()
    assert footprints["area_m2"].sum() == pytest.approx(ground, rel=0.01)


def test_rows_smaller_than_asked_leave_the_file_and_the_mask(tmp_path: Path) -> None:
    plan = plan_all(tmp_path)
    tally = run(str(write_scene(tmp_path / "s.tif")), plan, config(polygonize__min_area_m2=60))
    footprints = gpd.read_parquet(plan.vector)
    assert footprints["area_m2"].min() >= 60
    assert tally.footprints == len(footprints) < 71
    with rasterio.open(tmp_path / "m.tif") as mask:
        ids = mask.read(1)
        points = footprints.representative_point()
        values = [value[0] for value in mask.sample(zip(points.x, points.y, strict=True))]
    assert values == list(range(1, len(footprints) + 1))
    assert ids.max() == len(footprints)


@pytest.mark.parametrize("broken", ["draw_preview", "MaskWriter.burn", "FootprintWriter.write"])
def test_a_failure_in_one_output_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    scene = write_scene(tmp_path / "s.tif")
    before = snapshot(tmp_path)
    monkeypatch.setattr(f"geoseg.stages.outputs.{broken}", full)
    with pytest.raises(OutputError, match="full"):
        run(str(scene), plan_all(tmp_path), config())
    assert snapshot(tmp_path) == before


def test_a_model_that_is_not_there_is_found_before_the_scene_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        run("none.tif", OutputPlan(vector=tmp_path / "o.fgb"), config(model__name="yolo"))
    assert list(tmp_path.iterdir()) == []
