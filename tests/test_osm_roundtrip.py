"""A real town without some of its buildings, mapped again: in the hands of osmium-tool and JOSM."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import osmium
import pytest
from cli_support import call
from osm_files_support import needs, validate
from osm_support import EVERYWHERE, EXTRACTS

from geoseg.osm.mapped.read import read_mapped
from tests.test_stages_conflate import moved, write_footprints

if TYPE_CHECKING:
    from pathlib import Path

UTM = "EPSG:32635"


def without(source: Path, ways: set[str], target: Path) -> None:
    """Copy an extract without some ways and the nodes that only they had."""
    kept, lost = osmium.IdTracker(), set()
    for thing in osmium.FileProcessor(source):
        if thing.is_way() and f"way/{thing.id}" in ways:
            lost |= {node.ref for node in thing.nodes}
        elif not thing.is_node():
            kept.add_references(thing)
    used = kept.node_ids()
    with osmium.SimpleWriter(str(target)) as writer:
        for thing in osmium.FileProcessor(source):
            orphan = thing.is_node() and thing.id in lost and not used.get(thing.id)
            if not orphan and not (thing.is_way() and f"way/{thing.id}" in ways):
                writer.add(thing)


@needs("josm", "osmium")
@pytest.mark.skipif(not EXTRACTS.is_dir(), reason="the extracts are not here")
def test_what_is_added_again_lies_over_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = EXTRACTS / "kouvola.osm.pbf"
    mapped = read_mapped(whole, EVERYWHERE)
    removed = np.random.default_rng(0).random(len(mapped)) < 0.2
    part, change = tmp_path / "part.osm.pbf", tmp_path / "missing.osc"
    without(whole, set(mapped.ids[removed]), part)
    outlines = gpd.GeoSeries(mapped.shapes, crs="EPSG:4326").to_crs(UTM)
    seen = write_footprints(tmp_path / "seen.parquet", moved(list(outlines), 1.5, -1), crs=UTM)
    outcome = call(capsys, "export", seen, "-o", change, "--against", part, "--align")
    assert outcome.code == 0, outcome
    for command in (
        ["osmium", "cat", whole, "-o", tmp_path / "whole.osm"],
        ["osmium", "apply-changes", part, change, "-o", tmp_path / "result.osm"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    found = validate(tmp_path, ["whole.osm", "result.osm"])
    told = {
        name: {key: n for key, n in problems.items() if "building" in key[1].lower()}
        for name, problems in found.items()
    }
    grown = {key for key, n in told["result.osm"].items() if n > told["whole.osm"].get(key, 0)}
    assert grown == set(), told
