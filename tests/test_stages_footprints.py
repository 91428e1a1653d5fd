"""Footprints from detections: rows of chips, scores, ids over the whole file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
from builders import make_detections, make_grid, plan, see_ids

from geoseg.config import load_config
from geoseg.errors import ConfigError, FormatError
from geoseg.stages.base import Tally
from geoseg.stages.footprints import footprints, make_all
from geoseg.stages.origin import Origin
from geoseg.stages.outputs import OutputPlan, Outputs
from geoseg.stages.store import DetectionWriter
from geoseg.testing import assert_footprints_valid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def origin(side: int = 300) -> Origin:
    return Origin(
        scene_id="s",
        scene_path="nowhere.tif",
        grid=make_grid(height=side, width=side),
        labels={1: "building"},
        model={},
        config={},
    )


def detections_file(path: Path, ids: np.ndarray, *, size_px: int, overlap_px: int) -> Path:
    with DetectionWriter(path, origin(len(ids))) as writer:
        for chip in plan(ids, size_px=size_px, overlap_px=overlap_px):
            writer.write(chip, see_ids(chip, ids))
    return path


def courtyard_with_house() -> np.ndarray:
    """Return a block over three chip rows around a house that lies in the second alone."""
    ids = np.zeros((300, 300), np.int32)
    ids[20:280, 20:280] = 1
    ids[80:220, 80:220] = 0
    ids[140:160, 140:160] = 2
    return ids


def test_ids_are_unique_over_rows_that_end_apart(tmp_path: Path) -> None:
    ids = courtyard_with_house()
    path = detections_file(tmp_path / "d.parquet", ids, size_px=100, overlap_px=10)
    plan_ = OutputPlan(vector=tmp_path / "o.parquet")
    tally = footprints(path, plan_, load_config())
    found = gpd.read_parquet(plan_.vector)
    assert tally.footprints == len(found) == 2
    assert_footprints_valid(found)


def test_courtyards_stay_open(tmp_path: Path) -> None:
    ids = courtyard_with_house()
    path = detections_file(tmp_path / "d.parquet", ids, size_px=120, overlap_px=40)
    plan_ = OutputPlan(vector=tmp_path / "o.parquet")
    footprints(path, plan_, load_config())
    found = gpd.read_parquet(plan_.vector)
    block = found.geometry.iloc[int(np.argmax(found["area_m2"]))]
    assert len(block.interiors) == 1
    assert sorted(found["area_m2"]) == pytest.approx([100, 12_000], rel=0.01)


@pytest.mark.parametrize(("score", "count"), [(0.5, 2), (0.9, 2), (0.91, 0)])
def test_the_least_score_is_inclusive(tmp_path: Path, score: float, count: int) -> None:
    ids = courtyard_with_house()
    path = detections_file(tmp_path / "d.parquet", ids, size_px=300, overlap_px=60)
    config = load_config(options={"model.score": score - 1e-6})
    tally = footprints(path, OutputPlan(vector=tmp_path / "o.fgb"), config)
    assert (tally.detections, tally.footprints) == (count, count)


def test_a_failure_of_the_stitching_thread_comes_out(tmp_path: Path) -> None:
    chips = plan(np.zeros((300, 300), np.int32), size_px=100, overlap_px=0)
    from_below: Iterable = [(chip, make_detections(window=chip.window)) for chip in chips[::-1]]
    plan_ = OutputPlan(vector=tmp_path / "o.fgb")
    with (
        pytest.raises(ConfigError, match="top to bottom"),
        Outputs(plan_, origin()) as outputs,
    ):
        make_all(from_below, origin(), load_config(), outputs, Tally())
    assert list(tmp_path.iterdir()) == []


def test_writing_over_the_detections_is_refused(tmp_path: Path) -> None:
    ids = courtyard_with_house()
    path = detections_file(tmp_path / "d.parquet", ids, size_px=300, overlap_px=60)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="input"):
        footprints(path, OutputPlan(vector=path), load_config())
    assert path.read_bytes() == before


def test_footprints_are_no_detections(tmp_path: Path) -> None:
    ids = courtyard_with_house()
    path = detections_file(tmp_path / "d.parquet", ids, size_px=300, overlap_px=60)
    plan_ = OutputPlan(vector=tmp_path / "o.parquet")
    footprints(path, plan_, load_config())
    with pytest.raises(FormatError, match="not a detections file"):
        footprints(plan_.vector, OutputPlan(vector=tmp_path / "p.fgb"), load_config())
