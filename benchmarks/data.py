"""Data: loading large documents, and finding duplicates."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from benchmarks.peak import peak_bytes
from benchmarks.rows import Row, at_least, at_most, exactly
from geoseg.data.cocofile import read_coco
from geoseg.data.dedupe import find_duplicates, take_prints
from geoseg.testing import make_town

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_CHIPS = 300_000
PER_CHIP = 9
MOST_SECONDS = 60.0
MOST_GIB = 4.0
LEAST_CHIPS_PER_S = 150.0
SIDE_PX = 300


def loading(folder: Path, *, n_chips: int = N_CHIPS) -> list[Row]:
    """Measure `read_coco` on a document of 300,000 chips with 9 outlines each.

    In a process of its own: CPU seconds, which do not depend on who else uses the machine, and peak
    memory, imports included.
    """
    path = folder / "annotation.json"
    _write_document(path, n_chips)
    words = [sys.executable, "-m", "benchmarks.data", str(path)]
    done = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    about = f"{n_chips} chips, {done['n']} outlines, {path.stat().st_size / 2**20:.0f} MiB of JSON"
    return [
        Row(
            benchmark="loading",
            name="CPU seconds of read_coco",
            value=round(done["cpu_s"], 1),
            unit="s",
            **at_most(MOST_SECONDS),
            note=f"{about}; {done['wall_s']:.0f} s by the clock",
        ),
        Row(
            benchmark="loading",
            name="peak memory of read_coco",
            value=round(done["peak_bytes"] / 2**30, 2),
            unit="GiB",
            **at_most(MOST_GIB),
        ),
    ]


def dedupe(folder: Path, *, n_towns: int = 8) -> list[Row]:
    """Measure duplicates planted under the eight symmetries among chips of synthetic towns.

    Chips overlap by 60 px, as a training set's do; overlapping is not being the same. Speed counts
    reading JPEGs and comparing, CPU seconds of one process.
    """
    chips = [chip for seed in range(n_towns) for chip in _chips(700 + seed)]
    rng = np.random.default_rng(0)
    planted = rng.choice(len(chips), size=min(200, len(chips) // 4), replace=False)
    copies = [_turned(chips[i], k % 8) for k, i in enumerate(planted)]
    paths = _write_chips(folder, [*chips, *copies])
    start = time.process_time()
    found = find_duplicates(take_prints({"train": paths}))
    seconds = time.process_time() - start
    group = found.group
    hits = sum(group[i] == group[len(chips) + k] for k, i in enumerate(planted))
    false = len(paths) - found.n_groups - hits
    return [
        Row(
            benchmark="dedupe",
            name="chips a second, one core",
            value=round(len(paths) / seconds),
            unit="1/s",
            **at_least(LEAST_CHIPS_PER_S),
            note=f"{len(paths)} JPEGs of {SIDE_PX} px in {seconds:.1f} CPU s",
        ),
        Row(
            benchmark="dedupe",
            name="planted duplicates found, share",
            value=round(float(hits) / len(planted), 4),
            **exactly(1.0),
            note=f"{len(planted)} turned, mirrored, brightened, JPEG quality 75",
        ),
        Row(
            benchmark="dedupe",
            name="false pairs",
            value=float(false),
            **exactly(0.0),
            note=f"{len(chips)} chips of {n_towns} towns, neighbours overlap by 60 px",
        ),
    ]


def _chips(seed: int) -> list[NDArray[np.uint8]]:
    image = make_town(size_px=1500, seed=seed).image
    places = range(0, 1500 - SIDE_PX + 1, SIDE_PX - 60)
    return [image[r : r + SIDE_PX, c : c + SIDE_PX] for r, c in itertools.product(places, places)]


def _turned(chip: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    flipped = chip[:, ::-1] if symmetry & 4 else chip
    bright = np.rot90(flipped, symmetry % 4).astype(np.int16) + 10
    return np.clip(bright, 0, 255).astype(np.uint8)


def _write_chips(folder: Path, chips: list[NDArray[np.uint8]]) -> list[Path]:
    paths = [folder / f"{i:012d}.jpg" for i in range(len(chips))]
    for path, chip in zip(paths, chips, strict=True):
        cv2.imwrite(str(path), chip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])
    return paths


def _write_document(path: Path, n_chips: int) -> None:
    """Write a document chip by chip: outlines of 4 to 8 points."""
    rng = np.random.default_rng(0)
    shapes = []
    for _ in range(500):
        n = int(rng.integers(4, 9))
        angle = np.sort(rng.uniform(0, 2 * np.pi, n))
        centre, radius = rng.uniform(30, 270, 2), rng.uniform(5, 30)
        ring = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        corner, size = ring.min(axis=0), np.ptp(ring, axis=0)
        shapes.append(
            f'"segmentation": {json.dumps([np.round(ring.ravel(), 2).tolist()])}, '
            f'"bbox": {json.dumps(np.round([*corner, *size], 2).tolist())}, "area": 400.0'
        )
    with path.open("w") as file:
        file.write('{"categories": [{"id": 100, "name": "building"}], "images": [')
        for i in range(n_chips):
            file.write(
                f'{"," if i else ""}{{"id": {i}, "file_name": "{i:012d}.jpg", '
                f'"width": 300, "height": 300}}'
            )
        file.write('], "annotations": [')
        for i in range(n_chips * PER_CHIP):
            file.write(
                f'{"," if i else ""}{{"id": {i + 1}, "image_id": {i // PER_CHIP}, '
                f'"category_id": 100, "iscrowd": 0, {shapes[i % len(shapes)]}}}'
            )
        file.write("]}")


def _probe(path: str) -> None:
    start = time.perf_counter()
    annotations = read_coco(Path(path))
    wall_s = time.perf_counter() - start
    values = {
        "n": len(annotations),
        "wall_s": wall_s,
        "cpu_s": time.process_time(),
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(values))


if __name__ == "__main__":
    _probe(sys.argv[1])
