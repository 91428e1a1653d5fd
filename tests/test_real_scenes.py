"""The bundled model on real imagery: no worse than what its training reported, and sound output."""

from __future__ import annotations

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from cli_support import call
from rasterio.windows import Window

from geoseg.evaluate import EvalResult, evaluate_footprints
from geoseg.grid import METRES_PER_DEGREE
from geoseg.testing import assert_footprints_valid, assert_no_overlaps

SHARED = Path(__file__).resolve().parents[2] / "shared"
SCENES = SHARED / "scenes"
README = SHARED / "baseline" / "README.md"
PART_PX = 1500

pytestmark = pytest.mark.skipif(
    not (SCENES.is_dir() and README.is_file()), reason="the real scenes are not here"
)


def least_f1() -> tuple[float, float]:
    """Return what is asked of banepa_town's densest part and of zanzibar_c1 at score .5."""
    (found,) = re.findall(
        r"no less than (\.\d+) and (\.\d+) at score \.5", README.read_text(encoding="utf-8")
    )
    return float(found[0]), float(found[1])


def densest_part(scene: Path, truth: gpd.GeoDataFrame) -> Window:
    """Return the 1500 px window with most buildings, on a lattice of 100 px."""
    with rasterio.open(scene) as raster:
        points = truth.to_crs(raster.crs.to_wkt()).representative_point()
        rows, cols = rasterio.transform.rowcol(raster.transform, points.x, points.y)
        lattice = (
            (row, col)
            for row in range(0, raster.height - PART_PX + 1, 100)
            for col in range(0, raster.width - PART_PX + 1, 100)
        )
    rows, cols = np.array(rows), np.array(cols)

    def count(corner: tuple[int, int]) -> int:
        row, col = corner
        return int(
            ((rows >= row) & (rows < row + PART_PX) & (cols >= col) & (cols < col + PART_PX)).sum()
        )

    row, col = max(lattice, key=count)
    return Window(col, row, PART_PX, PART_PX)


def cut(scene: Path, window: Window, to: Path) -> shapely.Polygon:
    """Write a window of a scene; return its outline."""
    with rasterio.open(scene) as raster:
        a, b, c, d, e, f = tuple(raster.transform)[:6]
        col, row = window.col_off, window.row_off
        place = Affine(a, b, c + a * col + b * row, d, e, f + d * col + e * row)
        profile = raster.profile | {"transform": place, "width": PART_PX, "height": PART_PX}
        with rasterio.open(to, "w", **profile) as part:
            part.write(raster.read(window=window))
            part.write_mask(raster.dataset_mask(window=window))
            return shapely.box(*part.bounds)


def mapped(
    capsys: pytest.CaptureFixture[str], scene: Path, out: Path, *, score: float = 0.5
) -> gpd.GeoDataFrame:
    words = ("--score", score, "--set", "model.calibrate=false")  # the network's own score
    outcome = call(capsys, "run", scene, "-o", out, *words)
    assert outcome.code == 0, outcome
    assert all(line.startswith("infer: ") for line in outcome.err.splitlines()), outcome
    footprints = gpd.read_parquet(out)
    assert_footprints_valid(footprints)
    assert_no_overlaps(in_metres(footprints))
    return footprints


def in_metres(footprints: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return degrees as metres by scaling alone: projecting bends walls where corners meet them."""
    if footprints.crs.is_projected:
        return footprints
    metres = METRES_PER_DEGREE * np.array([np.cos(np.radians(footprints.total_bounds[1])), 1.0])
    scaled = shapely.transform(footprints.geometry.to_numpy(), lambda xy: xy * metres)
    return gpd.GeoDataFrame(geometry=scaled)


def report(name: str, result: EvalResult) -> None:
    level = result.at(0.5)
    print(
        f"{name}: F1@.5 {level.f1:.3f} (precision {level.precision:.3f}, recall {level.recall:.3f},"
        f" best {result.best_f1:.3f} at {result.best_f1_score:.2f}), AP50 {result.ap50:.3f}, "
        f"{result.n_pred} footprints of {result.n_truth}"
    )


def test_dense_part_of_banepa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = SCENES / "banepa_town.tif"
    truth = gpd.read_file(scene.with_suffix(".geojson"))
    part = tmp_path / "banepa_part.tif"
    outline = cut(scene, densest_part(scene, truth), part)
    footprints = mapped(capsys, part, tmp_path / "o.parquet")
    # What the edge of the part cuts is cut in the truth as well.
    clipped = truth.to_crs(footprints.crs).clip(outline, keep_geom_type=True)
    result = evaluate_footprints(footprints, clipped, within=outline)
    report("banepa_town, densest part", result)
    assert result.at(0.5).f1 >= least_f1()[0]


def test_zanzibar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = SCENES / "zanzibar_c1.tif"
    truth = gpd.read_file(scene.with_suffix(".geojson"))
    footprints = mapped(capsys, scene, tmp_path / "o.parquet")
    with rasterio.open(scene) as raster:
        outline = shapely.box(*raster.bounds)
    clipped = truth.to_crs(footprints.crs).clip(outline, keep_geom_type=True)
    result = evaluate_footprints(footprints, clipped, within=outline)
    report("zanzibar_c1", result)
    assert result.at(0.5).f1 >= least_f1()[1]


@pytest.mark.slow
@pytest.mark.parametrize("scene", sorted(SCENES.glob("*.tif")), ids=lambda path: path.stem)
def test_no_footprint_of_a_real_scene_overlaps_another(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(mapped(capsys, scene, tmp_path / "o.parquet", score=0.3)) > 10
