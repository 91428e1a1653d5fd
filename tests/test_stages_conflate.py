"""`geoseg conflate` from file to file: columns, conflicts, figures, and what stays on failure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from cli_support import assert_one_line, call, snapshot, succeed
from osm_support import osm_xml
from pyproj import Transformer

from geoseg.errors import ConfigError, InputNotFoundError
from geoseg.osm.conflate.rules import ConflateOptions
from geoseg.stages.conflate import COLUMNS, conflate_file
from geoseg.vector import FootprintWriter, footprints_info, read_footprints

if TYPE_CHECKING:
    from pathlib import Path

UTM = "EPSG:32633"
EAST, NORTH = 500_000, 5_500_000


def houses(n: int = 24) -> list[Any]:
    """Return houses of several sizes, every third touching the one before."""
    rng = np.random.default_rng(2)
    shapes, x = [], 0.0
    for i in range(n):
        width, depth = rng.uniform(8, 16, 2)
        x += 0 if i % 3 == 2 else rng.uniform(12, 30)
        shapes.append(shapely.box(EAST + x, NORTH, EAST + x + width, NORTH + depth))
        x += width
    return shapes


def write_footprints(path: Path, shapes: list[Any], *, crs: str = UTM) -> Path:
    n = len(shapes)
    frame = gpd.GeoDataFrame(
        {
            "id": [f"{i:016x}" for i in range(n)],
            "label": ["building"] * n,
            "score": np.linspace(0.5, 0.9, n),
            "area_m2": [shape.area for shape in shapes],
            "n_chips": [1] * n,
            "scene": ["town"] * n,
            "touches_edge": [False] * n,
        },
        geometry=shapes,
        crs=crs,
    )
    with FootprintWriter(path, crs=frame.crs, metadata={"kept": "yes"}) as writer:
        writer.write(frame)
    return path


def write_region(path: Path, shapes: list[Any], extra: dict[int, Any] | None = None) -> Path:
    """Write an extract: way N is the N-th shape; `extra` holds ways of (places, tags)."""
    lonlat = Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)
    nodes, ways = {}, {}
    drawn = {
        i: (list(s.exterior.coords)[:-1], {"building": "yes"}) for i, s in enumerate(shapes, 1)
    }
    for i, (places, tags) in {**drawn, **(extra or {})}.items():
        refs = [len(nodes) + k for k in range(1, len(places) + 1)]
        nodes.update(zip(refs, (lonlat.transform(*place) for place in places), strict=True))
        ways[i] = ([*refs, refs[0]] if "building" in tags else refs, tags)
    path.write_text(osm_xml(nodes, ways))
    return path


def moved(shapes: list[Any], dx: float, dy: float) -> list[Any]:
    return [shapely.transform(s, lambda xy: xy + np.array([dx, dy])) for s in shapes]


@pytest.fixture
def town(tmp_path: Path) -> tuple[Path, Path]:
    """Footprints 2 m off, and an extract that lacks houses 3, 8 and 20."""
    shapes = houses()
    known = [s for i, s in enumerate(shapes) if i not in {3, 8, 20}]
    road = ([(EAST - 30, NORTH - 50), (EAST - 30, NORTH + 50)], {"highway": "track"})
    seen = [*moved(shapes, 1.5, -1.2), shapely.box(EAST - 34, NORTH, EAST - 26, NORTH + 9)]
    return (
        write_footprints(tmp_path / "seen.parquet", seen),
        write_region(tmp_path / "region.osm", known, {900: road}),
    )


def test_columns_counts_and_conflicts(
    town: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, review = tmp_path / "out.parquet", tmp_path / "review.geojson"
    words = ("--against", town[1], "-o", out, "--check", "roads,rail,water", "--align")
    done = succeed(capsys, "conflate", town[0], *words, "--conflicts", review, "--json").json
    assert done["counts"] == {"new": 3, "duplicate": 21, "crosses-road": 1}
    assert done["mapped"] == {"building": 21, "road": 1}
    assert done["outputs"] == [str(out), str(review)]
    offset = done["offsets"]["town"]
    assert (offset["dx_m"], offset["dy_m"]) == pytest.approx((-1.5, 1.2), abs=0.05)
    found = gpd.read_parquet(out)
    assert np.flatnonzero(found["osm_status"] == "new").tolist() == [3, 8, 20]
    assert found["osm_id"].iloc[-1] == "way/900"
    assert set(found["osm_id"][found["osm_status"] == "new"]) == {""}
    # Aligned: back where the houses are.
    assert shapely.hausdorff_distance(found.geometry.to_numpy()[:24], houses()).max() < 0.1
    info = footprints_info(out)
    assert info.optional == COLUMNS
    assert info.metadata["kept"] == "yes"
    assert json.loads(info.metadata["conflation"])["aligned"] is True
    features = json.loads(review.read_text())["features"]
    assert [feature["properties"]["role"] for feature in features] == ["footprint", "mapped"]


def test_not_aligned_nothing_moves(
    town: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gpkg"
    text = succeed(capsys, "conflate", town[0], "--against", town[1], "-o", out).out
    assert "not applied (--align)" in text
    assert "25 footprints beside 21 mapped buildings" in text
    before, after = gpd.read_parquet(town[0]), gpd.read_file(out)
    assert shapely.equals_exact(before.geometry, after.geometry, 1e-6).all()
    assert after["osm_status"].iloc[[3, 8, 20]].tolist() == ["new"] * 3
    assert after["osm_status"].iloc[-1] == "new"  # roads were not asked for


def test_a_second_conflation_replaces_the_first(town: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    conflate_file(town[0], [town[1]], first)
    everything = write_region(tmp_path / "all.osm", moved(houses(), 1.5, -1.2))
    report = conflate_file(first, [town[1], everything], second)
    assert report.counts == {"new": 1, "duplicate": 24}
    assert footprints_info(second).optional == COLUMNS


def test_no_footprints(town: tuple[Path, Path], tmp_path: Path) -> None:
    empty = write_footprints(tmp_path / "none.parquet", [])
    out, review = tmp_path / "out.parquet", tmp_path / "review.geojson"
    report = conflate_file(empty, [town[1]], out, conflicts=review)
    assert report.counts == {}
    assert report.as_dict()["footprints"] == 0
    assert list(read_footprints(out)) == []
    assert footprints_info(out).optional == COLUMNS
    assert json.loads(review.read_text())["features"] == []


@pytest.mark.parametrize(
    ("words", "code", "needles"),
    [
        (("--against", "nowhere.osm.pbf", "-o", "out.parquet"), 2, ("nowhere.osm.pbf", "exist")),
        (("-o", "out.parquet"), 2, ("--against",)),
        (("--against", "region.osm"), 2, ("-o",)),
        (("--against", "region.osm", "-o", "out.txt"), 2, ("out.txt", ".gpkg")),
        (("--against", "region.osm", "-o", "no/out.parquet"), 2, ("no", "folder")),
        (("--against", "region.osm", "-o", "seen.parquet"), 2, ("seen.parquet", "input")),
        (("--against", "torn.osm", "-o", "out.parquet"), 1, ("torn.osm", "torn")),
        (
            ("--against", "region.osm", "-o", "o.parquet", "--check", "rivers"),
            2,
            ("rivers", "water"),
        ),
        (
            ("--against", "region.osm", "-o", "out.parquet", "--conflicts", "c.gpkg"),
            2,
            ("c.gpkg", ".geojson"),
        ),
        (
            ("--against", "region.osm", "-o", "o.geojson", "--conflicts", "o.geojson"),
            2,
            ("o.geojson", "other"),
        ),
        (
            ("--against", "region.osm", "-o", "o.parquet", "--set", "conflate.near_m=-1"),
            2,
            ("near_m", "-1"),
        ),
        (
            ("--against", "region.osm", "-o", "o.parquet", "--set", "conflate.far_m=1"),
            2,
            ("far_m",),
        ),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    town: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    needles: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.osm").write_text("<osm><node")
    before = snapshot(tmp_path)
    outcome = call(capsys, "conflate", "seen.parquet", *words)
    assert outcome.code == code
    assert_one_line(outcome, *needles)
    assert snapshot(tmp_path) == before


def test_nothing_to_compare_with_and_no_such_footprints(
    town: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        conflate_file(town[0], [], tmp_path / "out.parquet")
    with pytest.raises(InputNotFoundError, match="absent"):
        conflate_file(tmp_path / "absent.parquet", [town[1]], tmp_path / "out.parquet")


def test_the_map_is_never_written(town: tuple[Path, Path], tmp_path: Path) -> None:
    before = town[1].read_bytes()
    conflate_file(town[0], [town[1]], tmp_path / "o.fgb", options=ConflateOptions(align=True))
    assert town[1].read_bytes() == before
