"""Scenes that overlap: every building once, whole where any scene shows it whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
import pytest
from affine import Affine
from cli_support import town, town_pixels, write_scene
from test_stages_blocks import config, rows, stages

from geoseg.evaluate import evaluate_footprints
from geoseg.stages.base import Silence
from geoseg.stages.blocks.job import run_blocks
from geoseg.stages.outputs import OutputPlan
from geoseg.testing import ids_to_rgb

if TYPE_CHECKING:
    from pathlib import Path

EXACT = {"model__name": "geoseg.testing:oracle", "polygonize__min_area_m2": 0.0}


def part(path: Path, rows_px: tuple[int, int], cols_px: tuple[int, int]) -> Path:
    """Write a rectangle of the town as a scene of its own."""
    (top, bottom), (left, right) = rows_px, cols_px
    transform = town().grid.transform @ Affine.translation(left, top)
    pixels = town_pixels()[:, top:bottom, left:right].copy()
    return write_scene(path, pixels, transform=transform)


def map_scenes(scenes: list[Path], folder: Path, **options: Any) -> gpd.GeoDataFrame:
    folder.mkdir()
    plans = [OutputPlan(vector=folder / f"{scene.stem}.parquet") for scene in scenes]
    cfg = config(**EXACT, **options)
    tally = run_blocks([str(scene) for scene in scenes], plans, cfg, progress=Silence())
    frames = [gpd.read_parquet(plan.vector) for plan in plans]
    assert tally.footprints == sum(map(len, frames))
    for frame, scene in zip(frames, scenes, strict=True):
        assert set(frame["scene"]) <= {scene.stem}
    crs = frames[0].crs
    return gpd.GeoDataFrame(
        pd.concat([frame.to_crs(crs) for frame in frames], ignore_index=True), crs=crs
    )


def test_overlapping_scenes_give_each_building_once(tmp_path: Path) -> None:
    scenes = [
        part(tmp_path / "west.tif", (0, 600), (0, 360)),
        part(tmp_path / "east.tif", (0, 600), (240, 600)),
    ]
    found = map_scenes(scenes, tmp_path / "merged")
    result = evaluate_footprints(found, town().truth)
    assert (result.n_pred, result.at(0.5).f1) == (71, 1.0)
    assert found["id"].is_unique
    kept = map_scenes(scenes, tmp_path / "kept", scale__overlapping_scenes="keep")
    assert len(kept) > 71
    whole = {tuple(row[2:5]) for row in rows(tmp_path / "kept" / "west.parquet")}
    assert whole, "without the rule each scene is what it would be alone"


def test_four_scenes_around_a_corner_give_each_building_once(tmp_path: Path) -> None:
    spans = [(0, 330), (270, 600)]
    scenes = [
        part(tmp_path / f"s{i}{j}.tif", down, across)
        for i, down in enumerate(spans)
        for j, across in enumerate(spans)
    ]
    result = evaluate_footprints(map_scenes(scenes, tmp_path / "o"), town().truth)
    assert result.at(0.5).f1 == pytest.approx(1.0, abs=0.015)
    assert abs(result.n_pred - 71) <= 1


def test_parts_that_no_scene_shows_whole_are_united(tmp_path: Path) -> None:
    ids = (town().ids * 0).astype("int32")
    ids[250:330, 100:500] = 7  # wider than either scene's share
    pixels = ids_to_rgb(ids).transpose(2, 0, 1)
    transform = town().grid.transform
    west = write_scene(tmp_path / "west.tif", pixels[:, :, :340].copy(), transform=transform)
    shifted = transform @ Affine.translation(260, 0)
    east = write_scene(tmp_path / "east.tif", pixels[:, :, 260:].copy(), transform=shifted)
    found = map_scenes([west, east], tmp_path / "o")
    assert len(found) == 1
    pixel_m2 = abs(transform.a * transform.e)
    assert found.area[0] == pytest.approx(80 * 400 * pixel_m2, rel=0.02)
    assert found["area_m2"][0] == pytest.approx(found.area[0], rel=0.02)
    assert found["n_chips"][0] > 2


def test_scenes_apart_are_left_alone(tmp_path: Path) -> None:
    scenes = [
        part(tmp_path / "west.tif", (0, 600), (0, 280)),
        part(tmp_path / "east.tif", (0, 600), (300, 600)),
    ]
    merged = map_scenes(scenes, tmp_path / "merged")
    kept = map_scenes(scenes, tmp_path / "kept", scale__overlapping_scenes="keep")
    assert merged.equals(kept)


def test_neighbours_that_touch_in_the_overlap_stay_two(tmp_path: Path) -> None:
    ids = (town().ids * 0).astype("int32")
    ids[200:260, 260:300], ids[200:260, 300:340] = 7, 8  # share a wall in the strip
    pixels = ids_to_rgb(ids).transpose(2, 0, 1)
    transform = town().grid.transform
    west = write_scene(tmp_path / "west.tif", pixels[:, :, :360].copy(), transform=transform)
    shifted = transform @ Affine.translation(240, 0)
    east = write_scene(tmp_path / "east.tif", pixels[:, :, 240:].copy(), transform=shifted)
    assert len(map_scenes([west, east], tmp_path / "o")) == 2


def test_a_mosaic_of_files_is_a_scene_and_its_parts_are_its_identity(tmp_path: Path) -> None:
    part(tmp_path / "a.tif", (0, 600), (0, 300))
    part(tmp_path / "b.tif", (0, 600), (300, 600))
    mosaic = tmp_path / "m.vrt"
    mosaic.write_text(vrt("a.tif", "b.tif"))
    keep = {"scale__run_dir": str(tmp_path / "run")}
    found = map_scenes([mosaic], tmp_path / "o", **keep)
    result = evaluate_footprints(found, town().truth)
    assert (result.n_pred, result.at(0.5).f1) == (71, 1.0)
    (tmp_path / "b.tif").touch()
    map_scenes([mosaic], tmp_path / "again", **keep)
    assert stages(tmp_path / "run")["infer"][1] == 0, "a part of the mosaic is another file"


def vrt(*names: str) -> str:
    """Return a mosaic of parts of 300 x 600 px side by side."""
    grid = town().grid
    bands = []
    for band in (1, 2, 3):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="300" ySize="600"/>'
            f'<DstRect xOff="{300 * i}" yOff="0" xSize="300" ySize="600"/></SimpleSource>'
            for i, name in enumerate(names)
        )
        bands.append(f'<VRTRasterBand dataType="Byte" band="{band}">{sources}</VRTRasterBand>')
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    return (
        f'<VRTDataset rasterXSize="600" rasterYSize="600"><SRS>{grid.crs.to_string()}</SRS>'
        f"<GeoTransform>{c}, {a}, {b}, {f}, {d}, {e}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
