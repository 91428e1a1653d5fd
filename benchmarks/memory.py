"""Memory: does a run's peak grow with its scene?"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, at_most
from geoseg.testing import make_town, write_town_mosaic

MODEL = "geoseg.testing:oracle"
TARGET = 1.1


def memory(
    folder: Path, *, small_px: int = 5000, large_px: int = 20_000, tile_px: int = 2100
) -> list[Row]:
    """Measure peak memory and time per chip of a large scene over those of a small one.

    Rasters of painted ids (a town repeated), the oracle, GeoParquet out; each run in a process of
    its own, the small scene before and after the large one. Peak is what the system saw resident.
    Seconds are after the model is loaded; a row of CPU seconds shows what other users of the
    machine had no part in.
    """
    town = make_town(size_px=tile_px)
    paths = {side: folder / f"ids_{side}.tif" for side in (small_px, large_px)}
    for side, path in paths.items():
        write_town_mosaic(path, size_px=side, tile=town)
    del town
    runs: dict[int, list[dict[str, Any]]] = {small_px: [], large_px: []}
    for side in (small_px, large_px, small_px):
        runs[side].append(probe(paths[side], folder / "out.parquet"))
    small, large = (_medians(runs[side]) for side in (small_px, large_px))
    name = f"{large_px} px / {small_px} px"
    mebi = {side: value["peak_bytes"] / 2**20 for side, value in (("s", small), ("l", large))}
    return [
        Row(
            benchmark="memory",
            name=f"peak memory, {name}",
            value=round(large["peak_bytes"] / small["peak_bytes"], 3),
            **at_most(TARGET),
            note=f"{mebi['l']:.0f} MiB / {mebi['s']:.0f} MiB",
        ),
        *(
            Row(
                benchmark="memory",
                name=f"{what} per chip, {name}",
                value=round(_per_chip(large, key) / _per_chip(small, key), 3),
                **target,
                note=f"{_per_chip(large, key) * 1e3:.2f} ms / {_per_chip(small, key) * 1e3:.2f} ms "
                f"({large['chips']:.0f} and {small['chips']:.0f} chips)",
            )
            for what, key, target in (
                ("seconds", "seconds", at_most(TARGET)),
                ("CPU seconds", "cpu_seconds", {}),
            )
        ),
    ]


def probe(scene: Path, output: Path, model: str = MODEL) -> dict[str, Any]:
    """Run in a fresh process and return what it says of itself."""
    command = [sys.executable, "-m", "benchmarks.probe", str(scene), str(output), model]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _per_chip(run: dict[str, float], key: str) -> float:
    return run[key] / run["chips"]
