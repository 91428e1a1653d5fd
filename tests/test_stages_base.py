"""What stages count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from affine import Affine
from builders import make_chip, make_grid

from geoseg.errors import ReadError
from geoseg.stages.base import Silence, Tally, grid_from, grid_values

if TYPE_CHECKING:
    pass


def test_a_summary_of_nothing_is_ready_for_json() -> None:
    summary = json.loads(json.dumps(Tally().summary()))
    assert summary["chips"] == summary["footprints"] == 0
    assert summary["chips_per_s"] is None
    assert list(summary["seconds"]) == ["total"]


def test_failures_and_gaps_are_counted() -> None:
    tally = Tally(chips=3)
    tally.skip(make_chip())
    tally.fail(make_chip(row=2, col=1), ReadError("lost"))
    assert tally.skipped == 1
    assert tally.summary()["failed"] == [{"chip": "r00002_c00001", "error": "lost"}]


def test_nothing_readable_is_an_error_but_nothing_to_read_is_not() -> None:
    tally = Tally(chips=2, skipped=2)
    tally.check()
    tally.fail(make_chip(), ReadError("lost"))
    with pytest.raises(ReadError, match="lost"):
        tally.check()
    tally.inferred = 1
    tally.check()


def test_time_is_added_up_by_stage_also_when_work_fails() -> None:
    tally = Tally()
    assert list(tally.timed_items("read", [1, 2, 3])) == [1, 2, 3]
    with pytest.raises(ZeroDivisionError), tally.timed("infer"):
        raise ZeroDivisionError
    assert set(tally.seconds) == {"read", "infer"}
    assert all(value >= 0 for value in tally.seconds.values())
    Silence().start("infer", 1)
    Silence().advance(1)


def test_grids_round_trip_through_json() -> None:
    for crs in ("EPSG:4326", "EPSG:32633", "EPSG:3857"):
        grid = make_grid(crs=crs, transform=Affine(0.1, 0.2, 3.3, 0.2, -0.1, 1e-7), width=7)
        assert grid_from(json.loads(json.dumps(grid_values(grid)))) == grid
