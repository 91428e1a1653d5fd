"""What stages count, and paths that are checked and replaced together."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from affine import Affine
from builders import make_chip, make_grid

from geoseg.errors import ConfigError, OutputError, ReadError
from geoseg.stages.base import Silence, Tally, grid_from, grid_values
from geoseg.stages.staging import Staging, check_apart, check_new_file

if TYPE_CHECKING:
    from pathlib import Path


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


def test_staged_files_appear_together(tmp_path: Path) -> None:
    with Staging() as staging:
        for name in ("a", "b"):
            staging.place(tmp_path / name).write_text(name)
        assert not any(path.is_file() for path in tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b").read_text() == "b"


def test_staged_files_vanish_on_failure_and_errors_name_what_the_user_knows(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").write_text("former")

    def failing() -> None:
        with Staging() as staging, staging.naming():
            place = staging.place(tmp_path / "a")
            place.write_text("new")
            raise OutputError(f"{place}: the disk is full")

    with pytest.raises(OutputError) as failed:
        failing()
    assert str(failed.value) == f"{tmp_path / 'a'}: the disk is full"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "former"


def test_new_files_are_checked_before_work(tmp_path: Path) -> None:
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    check_new_file(tmp_path / "a.PNG", (".png",))
    for name in ("dir.png", "pipe.png", "a.jpg", "a", "no/a.png", "dir.png/x/a.png"):
        with pytest.raises(OutputError, match=r"[^\n]+"):
            check_new_file(tmp_path / name, (".png",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.png", "pipe.png"]


def test_inputs_are_never_outputs(tmp_path: Path) -> None:
    scene, other = tmp_path / "s.tif", tmp_path / "o.tif"
    scene.touch()
    check_apart([other], [scene, None, "s3://bucket/o.tif"])
    other.touch()
    check_apart([other], [scene, None])
    (tmp_path / "link.tif").symlink_to(scene)
    os.link(scene, tmp_path / "hard.tif")
    for name in ("s.tif", "link.tif", "hard.tif", "x/../s.tif"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="input"):
            check_apart([other, tmp_path / name], [str(scene)])
