"""Houses in metres, OSM files read back, and JOSM's validator: shared by the tests of OSM files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import osmium
import pytest
import shapely
from pyproj import CRS

from geoseg.osm.objects.build import build
from geoseg.osm.objects.outlines import Outlines
from geoseg.osm.objects.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.osm.elements import OsmData

UTM = CRS("EPSG:32736")
CORNER = (500_000.0, 9_320_000.0)
"""Where the houses stand, in UTM."""
YES = {"building": "yes"}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "osm"


def place(shape: Any) -> Any:
    """Bring a geometry in metres to where the houses stand."""
    return shapely.transform(shape, lambda xy: xy + CORNER)


def house(x: float, y: float, width: float = 10.0, depth: float = 8.0) -> shapely.Polygon:
    """Build a house from its south-west corner, metres."""
    return shapely.box(x, y, x + width, y + depth)


def outlines(shapes: Sequence[Any]) -> Outlines:
    """Return outlines of geometries in metres."""
    return sanitize(np.array([place(shape) for shape in shapes], object), UTM).outlines


def objects(shapes: Sequence[Any], tags: dict[str, str] | None = None) -> OsmData:
    """Return the OSM objects of geometries in metres, not snapped."""
    return build(outlines(shapes), [YES if tags is None else tags] * len(shapes))


def footprints(shapes: Sequence[Any], *, label: str = "building") -> gpd.GeoDataFrame:
    """Return footprints of geometries in metres."""
    n = len(shapes)
    return gpd.GeoDataFrame(
        {
            "id": [f"{i:016x}" for i in range(n)],
            "label": [label] * n,
            "score": np.linspace(0.5, 1, n),
            "area_m2": [shape.area for shape in shapes],
            "n_chips": np.ones(n, np.int32),
            "scene": ["s"] * n,
            "touches_edge": [False] * n,
        },
        geometry=[place(shape) for shape in shapes],
        crs=UTM,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What osmium reads in a file."""

    nodes: dict[int, tuple[int, int]]
    ways: dict[int, tuple[list[int], dict[str, str]]]
    relations: dict[int, tuple[list[tuple[str, int, str]], dict[str, str]]]
    versions: set[int]
    order: str
    """Kinds of the objects in turn: n, w, r."""


def read_osm(path: Path) -> Read:
    """Read an OSM file with osmium."""
    nodes, ways, relations = {}, {}, {}
    versions, order = set(), []
    for item in osmium.FileProcessor(str(path)):
        versions.add(item.version)
        order.append(item.type_str())
        tags = dict(item.tags)
        if item.is_node():
            nodes[item.id] = (item.location.x, item.location.y)
        elif item.is_way():
            ways[item.id] = ([node.ref for node in item.nodes], tags)
        else:
            relations[item.id] = ([(m.type, m.ref, m.role) for m in item.members], tags)
    return Read(
        nodes=nodes, ways=ways, relations=relations, versions=versions, order="".join(order)
    )


def as_read(data: OsmData) -> dict[str, Any]:
    """Return objects as `read_osm` should find them."""
    return {
        "nodes": {
            i: (lon, lat)
            for i, (lon, lat) in zip(data.node_ids.tolist(), data.lonlat_e7.tolist(), strict=True)
        },
        "ways": {
            i: (data.nodes_of(k).tolist(), dict(data.way_tags[k]))
            for k, i in enumerate(data.way_ids.tolist())
        },
        "relations": {
            r.id: ([("w", m.way_id, m.role) for m in r.members], dict(r.tags))
            for r in data.relations
        },
    }


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip, and say so, where a program is not installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def validate(folder: Path, names: Sequence[str]) -> dict[str, Counter[tuple[str, str]]]:
    """Return what JOSM's validator says of files in a folder: (severity, message), how often."""
    (folder / "hosts").write_text("127.0.0.1 api.openstreetmap.org josm.openstreetmap.de\n")
    java = (
        f"-Djosm.home={folder / 'josm'} -Djava.awt.headless=true "
        f"-Djdk.net.hosts.file={folder / 'hosts'}"
    )
    words = [word for name in names for word in ("-i", name)]
    done = subprocess.run(
        ["josm", "validate", *words],
        cwd=folder,
        env={**os.environ, "JAVA_OPTS": java},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = {}
    for name in names:
        report = folder / f"{Path(name).stem}.geojson"
        assert report.is_file(), done.stdout[-2000:] + done.stderr[-2000:]
        found[name] = Counter(_problem(line) for line in report.read_text().splitlines() if line)
    return found


def _problem(line: str) -> tuple[str, str]:
    told = json.loads(line.strip("\x1e"))["features"][0]["properties"]
    return told["severity"], told["message"]
