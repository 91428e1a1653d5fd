"""Evaluation: COCO's figures of as many chips as the crowdAI mapping challenge validates on."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rows import Row, at_most
from geoseg.data.annotations import Annotations, Images, Segments
from geoseg.evaluate import coco_figures
from geoseg.models.spec import BUILDING

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_CHIPS = 60_000
PER_CHIP = 10
SIDE_PX = 300
MOST_SECONDS = 180.0
MOST_GB = 4.0


def evaluation(folder: Path, *, n_chips: int = N_CHIPS) -> list[Row]:
    """Measure COCO's figures of masks: 60,000 chips with 10 objects each, as many found.

    Truth and results are quadrilaterals, the found ones with moved corners, given as columns; each
    backend runs in a process of its own on one core. Seconds and peak memory count all of it:
    making the inputs, rasterising, matching, the figures. CPU seconds are judged, as they do not
    depend on who else uses the machine.
    """
    rows = []
    for backend in ("pycocotools", "faster-coco-eval"):
        done = _probe(backend, n_chips)
        name = f"{n_chips} chips, {PER_CHIP} objects each, {backend}"
        note = f"{done['wall_s']:.0f} s by the clock; AP {done['ap']:.3f}"
        rows += [
            Row(
                benchmark="evaluation",
                name=f"CPU seconds, {name}",
                value=round(done["cpu_s"], 1),
                unit="s",
                **at_most(MOST_SECONDS),
                note=note,
            ),
            Row(
                benchmark="evaluation",
                name=f"peak memory, {name}",
                value=round(done["peak_bytes"] / 1e9, 2),
                unit="GB",
                **at_most(MOST_GB),
            ),
        ]
    return rows


def synthetic(
    n_chips: int, *, seed: int, jitter_px: float = 0.0, scored: bool = False
) -> Annotations:
    """Return chips with rotated rectangles on a loose grid; the same `seed`, the same places."""
    rng = np.random.default_rng([seed, 0])
    count = n_chips * PER_CHIP
    slot = np.tile(np.arange(PER_CHIP), n_chips)
    centre = np.c_[slot % 4, slot // 4] * (SIDE_PX / 4) + 37.5
    centre = centre + rng.uniform(-12, 12, (count, 2))
    half = rng.uniform(6, 24, (count, 1, 2)) * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    angle = rng.uniform(0, np.pi, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1)
    corners = np.einsum("nij,nkj->nki", turn.reshape(-1, 2, 2), half) + centre[:, None]
    noise = np.random.default_rng([seed, 1])
    corners += noise.normal(0, 1, corners.shape) * jitter_px
    corners = corners.clip(0, SIDE_PX).astype(np.float32)
    low, high = corners.min(axis=1), corners.max(axis=1)
    return Annotations(
        categories=(BUILDING,),
        images=Images(
            ids=np.arange(1, n_chips + 1),
            file_names=tuple(f"{i:012d}.jpg" for i in range(n_chips)),
            sizes_hw=np.full((n_chips, 2), SIDE_PX, np.int32),
        ),
        ids=np.arange(1, count + 1),
        image_index=np.repeat(np.arange(n_chips, dtype=np.int32), PER_CHIP),
        labels=np.ones(count, np.int16),
        boxes_xywh=np.c_[low, high - low].astype(np.float32),
        areas_px2=_shoelace(corners),
        crowd=np.zeros(count, np.bool_),
        segments=Segments(
            xy=corners.reshape(-1, 2),
            ring_offsets=np.arange(count + 1) * 4,
            object_rings=np.arange(count + 1),
            runs=np.zeros(0, np.uint8),
            run_offsets=np.zeros(count + 1, np.int64),
        ),
        scores=noise.random(count).astype(np.float32) if scored else None,
    )


def _shoelace(corners: NDArray[np.float32]) -> NDArray[np.float64]:
    x, y = corners[..., 0].astype(float), corners[..., 1].astype(float)
    twice = x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)
    return np.asarray(np.abs(twice.sum(axis=1)) / 2)


def _probe(backend: str, n_chips: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.evaluation", backend, str(n_chips)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    backend, n_chips = sys.argv[1], int(sys.argv[2])
    started = time.perf_counter()
    truth = synthetic(n_chips, seed=1)
    found = synthetic(n_chips, seed=1, jitter_px=2.0, scored=True)
    figures = coco_figures(truth, found, backend=backend)  # type: ignore[arg-type] # a choice
    values = {
        "cpu_s": time.process_time(),
        "wall_s": time.perf_counter() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "ap": figures.ap,
        "ap50": figures.ap50,
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
