"""Exported files in the hands of other programs: osmium-tool and JOSM's validator."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from osm_files_support import SHARED, house, needs, objects, read_osm, validate

from geoseg.osm.files import write_osm
from geoseg.osm.objects.build import build
from geoseg.osm.objects.sanitize import sanitize
from geoseg.osm.objects.snap import snap
from geoseg.testing import make_town

if TYPE_CHECKING:
    from pathlib import Path

YES = {"building": "yes"}


def town(*, size_px: int = 2300, jitter_m: float = 0.0):
    """Return objects of a synthetic town, its corners moved, snapped as an export would."""
    made = make_town(size_px=size_px)
    shapes = made.truth.geometry.to_numpy()
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    xy += jitter_m * np.sin(1000 * xy + owner[:, None])
    shapes = shapely.set_coordinates(shapes.copy(), xy)
    snapped = snap(sanitize(shapes, made.grid.crs).outlines, tolerance_m=0.25)
    assert len(snapped.overlapping) == 0
    return build(snapped.outlines, [YES] * len(shapes))


def osmium_tool(*words: object) -> str:
    done = subprocess.run(["osmium", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@needs("osmium")
@pytest.mark.parametrize("suffix", [".osm", ".osm.pbf"])
def test_no_reference_is_broken(tmp_path, suffix):
    write_osm(town(size_px=900), tmp_path / f"town{suffix}")
    told = osmium_tool("check-refs", "-r", tmp_path / f"town{suffix}")
    assert told.count("missing: 0") == 4


@needs("osmium")
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real extracts are not here")
@pytest.mark.parametrize("name", ["kouvola", "helsinki"])
@pytest.mark.parametrize("suffix", [".osc", ".osc.gz"])
def test_changes_apply_to_an_extract_and_only_add(tmp_path: Path, name: str, suffix: str) -> None:
    change, result = tmp_path / f"change{suffix}", tmp_path / "result.osm.pbf"
    extract = SHARED / f"{name}.osm.pbf"
    data = town(size_px=600)
    write_osm(data, change)
    osmium_tool("apply-changes", extract, change, "-o", result)
    before, after = read_osm(extract), read_osm(result)
    for kind, count in (
        ("nodes", len(data.node_ids)),
        ("ways", len(data.way_ids)),
        ("relations", len(data.relations)),
    ):
        was, now = getattr(before, kind), getattr(after, kind)
        assert {key: now[key] for key in was} == was
        assert len(now) == len(was) + count
    assert {key for key in after.ways if key < 0} == set(data.way_ids.tolist())


@needs("josm")
def test_josm_finds_nothing_in_a_thousand_buildings_and_something_in_bad_ones(tmp_path):
    exact, moved = town(), town(jitter_m=0.08)
    assert len(np.unique(exact.sources)) >= 1000
    assert len(exact.relations) >= 6
    write_osm(exact, tmp_path / "exact.osm")
    write_osm(moved, tmp_path / "moved.osm")
    write_osm(objects([house(0, 0), house(5, 2), house(5, 2)]), tmp_path / "bad.osm")
    found = validate(tmp_path, ["exact.osm", "moved.osm", "bad.osm"])
    assert not found["exact.osm"]
    assert not found["moved.osm"]
    messages = {message for _, message in found["bad.osm"]}
    assert {"Overlapping buildings", "Duplicated ways"} <= messages
