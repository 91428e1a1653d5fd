"""OSM files: a million footprints as one compressed osmChange, on one core."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely

from benchmarks.peak import peak_bytes
from benchmarks.rows import Row, at_most
from geoseg.stages.osm_export import export_osm
from geoseg.testing import make_town
from geoseg.vector import FootprintWriter

if TYPE_CHECKING:
    from geoseg.testing import Town

N_FOOTPRINTS = 1_000_000
MOST_SECONDS = 180.0
MOST_GIB = 4.0
JITTER_M = 0.04
TOWN_PX = 2100
STREET_M = 10.0
"""Between copies of the town."""


def osm_files(
    folder: Path, *, n_footprints: int = N_FOOTPRINTS, town_px: int = TOWN_PX
) -> list[Row]:
    """Measure `export_osm` on copies of the synthetic town, terraces and courtyards included.

    Corners are moved by up to 4 cm, other ones in each building, so that walls have to be brought
    together. In a process of its own: CPU seconds from the file of footprints to the finished file,
    which do not depend on who else uses the machine, and peak memory, imports included.
    """
    source, output = folder / "footprints.parquet", folder / "buildings.osc.gz"
    write_towns(source, n_footprints, town_px)
    words = [sys.executable, "-m", "benchmarks.osmfiles", str(source), str(output)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    found = json.loads(done.stdout.splitlines()[-1])
    about = ", ".join(f"{name} {value:.0f} s" for name, value in found["seconds"].items())
    return [
        Row(
            benchmark="osm-files",
            name=f"CPU seconds to write {n_footprints} footprints as .osc.gz",
            value=round(found["cpu_s"], 1),
            unit="s",
            **at_most(MOST_SECONDS),
            note=f"{found['wall_s']:.0f} s by the clock ({about}); {found['mib']:.0f} MiB",
        ),
        Row(
            benchmark="osm-files",
            name="peak memory",
            value=round(found["peak_bytes"] / 2**30, 2),
            unit="GiB",
            **at_most(MOST_GIB),
        ),
    ]


def write_towns(path: Path, n_footprints: int, town_px: int) -> None:
    """Write footprints of copies of a town, side by side in a square."""
    town = make_town(size_px=town_px)
    n_copies = -(-n_footprints // len(town.truth))
    side = int(np.ceil(np.sqrt(n_copies)))
    with FootprintWriter(path, crs=town.grid.crs) as writer:
        for copy in range(n_copies):
            count = min(len(town.truth), n_footprints - copy * len(town.truth))
            writer.write(_copy(town, copy, side).iloc[:count])


def _copy(town: Town, number: int, side: int) -> gpd.GeoDataFrame:
    shapes = town.truth.geometry.to_numpy()
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    # A function of place and building: rings stay closed, neighbours' walls come apart.
    moved = xy + JITTER_M * np.sin(1000 * xy + (owner + 7 * number)[:, None])
    west, _, east, _ = town.grid.bounds
    moved += (east - west + STREET_M) * np.array(divmod(number, side))
    count = len(shapes)
    return gpd.GeoDataFrame(
        {
            "id": [f"{number * count + i:016x}" for i in range(count)],
            "label": "building",
            "score": 0.9,
            "area_m2": shapely.area(shapes),
            "n_chips": np.ones(count, np.int32),
            "scene": "towns",
            "touches_edge": False,
        },
        geometry=shapely.set_coordinates(shapes.copy(), moved),
        crs=town.grid.crs,
    )


def _probe(source: Path, output: Path) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    done = export_osm(source, output)
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": peak_bytes(),
        "seconds": done.tally.seconds,
        "mib": output.stat().st_size / 2**20,
    }


if __name__ == "__main__":
    print(json.dumps(_probe(*map(Path, sys.argv[1:]))))
