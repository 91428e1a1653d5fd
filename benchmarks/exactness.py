"""Exactness: with a network that makes no mistake, does the pipeline make any?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
from rasterio.features import shapes

from benchmarks.rows import Row, at_least, at_most
from geoseg.config import Config, ModelOptions
from geoseg.evaluate import EvalResult, evaluate_footprints
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.testing import make_town, mosaic_truth, write_town_mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.testing import Town

REPEATS = 3


def exactness(folder: Path, *, size_px: int = 2100, repeats: int = REPEATS) -> list[Row]:
    """Measure footprints of the oracle town against its truth, through the real `run`.

    The oracles read painted ids back from the chips: 300 px, overlap 60, default options. The truth
    is the painted outlines (4-connected, pixel edges), since pixels cannot hold the exact rotated
    ones; rows against those have no target. The large town repeats the small one with new ids.
    `noisy_oracle` grows or shrinks each mask by a pixel, differently in each chip.
    """
    town = make_town(size_px=size_px)
    painted = dataclasses.replace(town, truth=painted_outlines(town))
    rows = []
    for side in dict.fromkeys((size_px, size_px * repeats)):
        path = folder / f"ids_{side}.tif"
        write_town_mosaic(path, size_px=side, tile=town)
        truths = {
            "painted": mosaic_truth(painted, size_px=side),
            "exact": mosaic_truth(town, size_px=side),
        }
        for model in ("oracle", "noisy_oracle"):
            found = _map(path, folder / "out.parquet", model)
            results = {name: evaluate_footprints(found, truth) for name, truth in truths.items()}
            rows += _rows(f"{model} {side}", results, noisy=model != "oracle")
    return rows


def painted_outlines(town: Town) -> gpd.GeoDataFrame:
    """Return the outlines of the painted pixels, by rasterio: 4-connected, one row a building."""
    traced = list(
        shapes(town.ids, mask=town.ids > 0, connectivity=4, transform=town.grid.transform)
    )
    ids = np.array([int(value) for _, value in traced])
    order = np.argsort(ids)
    geometry = np.array([shapely.geometry.shape(outline) for outline, _ in traced], object)[order]
    assert (ids[order] == town.truth["ident"]).all(), "each building is painted in one piece"
    return gpd.GeoDataFrame(
        {"ident": ids[order], "kind": town.truth["kind"]}, geometry=geometry, crs=town.grid.crs
    )


def _map(path: Path, output: Path, model: str) -> gpd.GeoDataFrame:
    config = Config(model=ModelOptions(name=f"geoseg.testing:{model}", device="cpu"))
    run(str(path), OutputPlan(vector=output), config)
    return gpd.read_parquet(output)


def _rows(name: str, results: dict[str, EvalResult], *, noisy: bool) -> list[Row]:
    painted, exact = results["painted"], results["exact"]
    count = f"{painted.n_pred} footprints, {painted.n_truth} buildings"
    targets = {
        "F1@.5": (painted.at(0.5).f1, at_least(0.988 if noisy else 1.0)),
        "F1@.95": (painted.at(0.95).f1, {} if noisy else at_least(0.998)),
        "count error": (
            abs(painted.n_pred / painted.n_truth - 1),
            at_most(0.015 if noisy else 0.0),
        ),
        "area error": (abs(painted.area_ratio - 1), {} if noisy else at_most(0.005)),
        "F1@.95, exact outlines": (exact.at(0.95).f1, {}),
        "mean IoU, exact outlines": (exact.mean_iou, {}),
    }
    return [
        Row(
            benchmark="exactness",
            name=f"{figure}, {name}",
            value=round(value, 5),
            **target,
            note=count if figure == "count error" else "",
        )
        for figure, (value, target) in targets.items()
    ]
