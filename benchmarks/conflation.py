"""Conflation at the size of a region: a million footprints against a million mapped buildings."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import osmium
import shapely
from osmium.osm.mutable import Node, Way
from pyproj import Transformer

from benchmarks.peak import peak_bytes
from benchmarks.rows import Row, at_least, at_most
from geoseg.osm.conflate.rules import ConflateOptions
from geoseg.osm.mapped import extract
from geoseg.stages.conflate import conflate_file
from geoseg.vector import FootprintWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_BUILDINGS = 1_000_000
FEW = 1_000
OFFSET_M = (1.6, -1.2)
NOISE_M = 0.2
UTM = "EPSG:32633"
MOST_SECONDS = 180.0
MOST_GB = 6.0
MOST_GB_FEW = 1.0
LEAST_RECALL = 0.97
MOST_ADDED = 0.01
ABOUT = {"benchmark": "conflation"}


def conflation(folder: Path, *, n_buildings: int = N_BUILDINGS) -> list[Row]:
    """Measure `geoseg conflate --align` from file to file in a process of its own.

    Houses of 8 x 10 m in terraces of three that share walls, in streets turned a little; footprints
    are these 2 m off with noisy corners, a fifth of them not mapped. Reading the .osm.pbf and the
    .parquet and writing the result are in the figures. CPU seconds are judged, as they do not
    depend on who else uses the machine.
    """
    town = terraces(n_buildings * 5 // 4)
    rng = np.random.default_rng(7)
    unmapped = rng.permutation(len(town)) >= n_buildings
    seen = np.sort(rng.choice(len(town), n_buildings, replace=False))
    write_mapped(folder / "region.osm.pbf", town[~unmapped])
    write_seen(folder / "seen.parquet", town[seen])
    write_seen(folder / "few.parquet", town[:FEW])
    done, few = _probe(folder, "seen"), _probe(folder, "few")
    status = gpd.read_parquet(folder / "out-seen.parquet")["osm_status"].to_numpy()
    what = f"{n_buildings:,} footprints against {done['mapped']:,} buildings"
    return [*_cost(done, few, what), *_worth(status == "new", unmapped[seen])]


def _cost(done: dict[str, Any], few: dict[str, Any], what: str) -> list[Row]:
    return [
        Row(
            **ABOUT,
            name=f"CPU seconds, {what}",
            value=round(done["cpu_s"], 1),
            unit="s",
            **at_most(MOST_SECONDS),
            note=f"{done['wall_s']:.0f} s by the clock, beside other work: {done['seconds']}",
        ),
        Row(
            **ABOUT,
            name=f"peak memory, {what}",
            value=round(done["peak_bytes"] / 1e9, 2),
            unit="GB",
            **at_most(MOST_GB),
        ),
        Row(
            **ABOUT,
            name=f"peak memory, {FEW:,} footprints against the same extract, nodes on disk",
            value=round(few["peak_bytes"] / 1e9, 2),
            unit="GB",
            **at_most(MOST_GB_FEW),
            note=f"{few['mapped']:,} buildings near them",
        ),
    ]


def _worth(new: NDArray[np.bool_], missing: NDArray[np.bool_]) -> list[Row]:
    """Compare what comes out as new with what is missing on the map, footprint by footprint."""
    return [
        Row(
            **ABOUT,
            name="unmapped buildings found as new",
            value=round(float(new[missing].mean()), 4),
            **at_least(LEAST_RECALL),
        ),
        Row(
            **ABOUT,
            name="share of new footprints that are mapped",
            value=round(float((new & ~missing).sum() / max(1, new.sum())), 4),
            **at_most(MOST_ADDED),
        ),
    ]


def terraces(n: int) -> NDArray[np.float64]:
    """Return (n, 4, 2) corners of houses in UTM metres, counterclockwise."""
    rng = np.random.default_rng(5)
    side = int(np.ceil(np.sqrt(n / 3)))
    row, place = np.divmod(np.arange(n) // 3, side)
    turn = rng.uniform(-0.4, 0.4, side * side)[np.arange(n) // 3]
    local = np.array([[0, 0], [8, 0], [8, 10], [0, 10]], float) + [8.0, 0] * (
        np.arange(n) % 3
    ).reshape(-1, 1, 1)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x = local[..., 0] * cos - local[..., 1] * sin
    y = local[..., 0] * sin + local[..., 1] * cos
    corner = np.c_[500_000 + 45.0 * place, 5_500_000 + 30.0 * row][:, None]
    return np.asarray(np.stack([x, y], axis=-1) + corner)


def write_mapped(path: Path, corners: NDArray[np.float64]) -> None:
    """Write buildings as OSM has them: terraces share nodes."""
    transformer = Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)
    flat = np.round(corners.reshape(-1, 2), 3)
    places, ids = np.unique(flat, axis=0, return_inverse=True)
    lonlat = np.column_stack(transformer.transform(places[:, 0], places[:, 1]))
    with osmium.SimpleWriter(str(path)) as writer:
        for i, place in enumerate(lonlat.tolist(), start=1):
            writer.add_node(Node(id=i, version=1, location=tuple(place)))
        for i, nodes in enumerate((ids.reshape(-1, 4) + 1).tolist(), start=1):
            way = Way(id=i, version=1, nodes=[*nodes, nodes[0]], tags={"building": "yes"})
            writer.add_way(way)


def write_seen(path: Path, corners: NDArray[np.float64]) -> None:
    """Write footprints as a network draws them: noisy, all off by the same."""
    noise = np.random.default_rng(6).normal(0, NOISE_M, corners.shape)
    shapes = shapely.polygons(corners + noise + np.array(OFFSET_M))
    n = len(shapes)
    frame = gpd.GeoDataFrame(
        {
            "id": [f"{i:016x}" for i in range(n)],
            "label": "building",
            "score": 0.9,
            "area_m2": shapely.area(shapes),
            "n_chips": 1,
            "scene": "town",
            "touches_edge": False,
        },
        geometry=shapes,
        crs=UTM,
    )
    with FootprintWriter(path, crs=frame.crs) as writer:
        writer.write(frame)


def _probe(folder: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.conflation", str(folder), name]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    if name == "few":
        extract.LARGE_BYTES = 0  # type: ignore[misc] # as if it were of a country
    started = time.perf_counter()
    report = conflate_file(
        folder / f"{name}.parquet",
        [folder / "region.osm.pbf"],
        folder / f"out-{name}.parquet",
        options=ConflateOptions(align=True),
    )
    values = {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time(),
        "peak_bytes": peak_bytes(),
        "mapped": report.mapped["building"],
        "seconds": report.as_dict()["seconds"],
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
