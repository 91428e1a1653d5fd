"""Work in blocks: two workers against one, what the scheduler costs, and memory at a million chips.

The networks are stubs of known cost, so that what is measured is ours. All on CPU workers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
from affine import Affine

from benchmarks.rows import Row, at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

CHIP_PX, OVERLAP_PX = 64, 16
"""Small chips: the work around them, not the pixels, is what is measured."""
SPEEDUP, OVERHEAD, GROWTH_MB = 1.7, 0.05, 300


def scaling(
    folder: Path, *, busy_side: int = 32, brief_side: int = 317, huge_side: int = 1000
) -> list[Row]:
    """Measure each on a sparse raster of as many chips a side, in processes of their own."""
    return [
        *speedup(folder, busy_side),
        *overhead(folder, brief_side),
        *flatness(folder, huge_side),
    ]


def speedup(folder: Path, side: int) -> list[Row]:
    """Measure two workers against one on a network that is bound by the CPU.

    Blocks of 8 chips a side. Of three runs each, in turn, the fastest counts: other users of the
    machine only ever slow a run down.
    """
    scene = sparse_scene(folder / "busy.tif", side)
    options = {"model.name": "benchmarks.stubs:busy", "scale.block_chips": 8}
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for workers, times in seconds.items():
            ended = run_probe(scene, folder, {**options, "scale.workers": workers})
            times.append(ended["stages"]["infer"])
    one, two = (min(times) for times in seconds.values())
    return [
        Row(
            benchmark="scaling",
            name="2 workers against 1, inference",
            value=round(one / two, 3),
            **at_least(SPEEDUP),
            note=f"{one:.1f} s / {two:.1f} s for {side * side} chips of 20 ms CPU",
        )
    ]


def overhead(folder: Path, side: int) -> list[Row]:
    """Measure the share of the workers' time in which no block is worked on, with 2 workers."""
    scene = sparse_scene(folder / "brief.tif", side)
    options = {"model.name": "benchmarks.stubs:brief", "scale.workers": 2}
    ended = run_probe(scene, folder, options)
    share = 1 - ended["block_seconds"]["infer"] / (2 * ended["stages"]["infer"])
    return [
        Row(
            benchmark="scaling",
            name=f"workers idle, {side * side} chips",
            value=round(share, 4),
            **at_most(OVERHEAD),
            note=f"inference, {ended['stages']['infer']:.0f} s, 2 ms CPU a chip",
        )
    ]


def flatness(folder: Path, side: int) -> list[Row]:
    """Measure by how much the process of client and scheduler grows over a run."""
    scene = sparse_scene(folder / "huge.tif", side)
    options = {"model.name": "benchmarks.stubs:free", "scale.workers": 2}
    ended = run_probe(scene, folder, options)
    grown = (ended["peak_bytes"] - ended["baseline_bytes"]) / 1e6
    total = sum(ended["stages"].values())
    return [
        Row(
            benchmark="scaling",
            name=f"client and scheduler over baseline, {side * side} chips",
            value=round(grown, 1),
            unit="MB",
            **at_most(GROWTH_MB),
            note=f"{ended['footprints']} footprints, {total:.0f} s; baseline "
            f"{ended['baseline_bytes'] / 1e6:.0f} MB, before the workers start",
        )
    ]


def sparse_scene(path: Path, side: int) -> Path:
    """Write a raster of `side` x `side` chips that takes no room on the disk."""
    length = side * (CHIP_PX - OVERLAP_PX) + OVERLAP_PX
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=length,
        height=length,
        count=3,
        dtype="uint8",
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
        SPARSE_OK=True,
        crs="EPSG:32636",
        transform=Affine(0.3, 0, 300_000, 0, -0.3, 9_000_000),
    ):
        pass
    return path


def run_probe(scene: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run in a fresh process and return what it says of itself."""
    defaults = {
        "model.device": "cpu",
        "model.batch_size": 32,
        "model.readers": 1,
        "chips.size_px": CHIP_PX,
        "chips.overlap_px": OVERLAP_PX,
        "polygonize.min_area_m2": 1,
    }
    words: Sequence[str] = [f"{key}={value}" for key, value in {**defaults, **options}.items()]
    command = [sys.executable, "-m", "benchmarks.scaleprobe", str(scene), str(folder), *words]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return dict(json.loads(done.stdout.splitlines()[-1]))
