"""Morphology: how many instances a second one core refines."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from benchmarks.rows import Row, at_least
from benchmarks.stitching import one_core
from geoseg.detections import Detections
from geoseg.grid import Window
from geoseg.morphology import MorphologyOptions, refine

if TYPE_CHECKING:
    from pathlib import Path

TARGET = 20_000.0
CHIP_PX = 300
ROWS, COLS = 6, 5
GSD_M = 0.3
OFF = MorphologyOptions(duplicate_ios=0)
STEPS = {
    "duplicates (default)": MorphologyOptions(),
    "erode 2px": replace(OFF, erode=2),
    "open 2px": replace(OFF, open=2),
    "close 0.6m": replace(OFF, close="0.6m"),
    "dilate 0.6m": replace(OFF, dilate="0.6m"),
    "claims by score": replace(OFF, claims="score"),
    "erode 0, dilate 2px, min_area 14px": MorphologyOptions(dilate=2, min_area="14px"),
    "erode 1px, claims, dilate 2px": MorphologyOptions(erode=1, claims="score", dilate=2),
}


def morphology(_: Path, *, n_chips: int = 60, rounds: int = 15) -> list[Row]:
    """Measure instances a second through `refine`, chip by chip, for steps alone and together.

    Chips of 300 px hold 30 soft masks of 24 to 36 px, some of them touching. One thread on one
    core; the clock is the process's CPU time. The fastest of the rounds, as whoever else uses the
    machine only slows them down; the median is noted.
    """
    chips = [_chip(seed) for seed in range(n_chips)]
    n = sum(map(len, chips))
    rows = []
    with one_core():
        for name, options in STEPS.items():
            times = [_seconds(chips, options) for _ in range(rounds + 1)][1:]  # the first warms up
            seconds = min(times)
            rows.append(
                Row(
                    benchmark="morphology",
                    name=name,
                    value=round(n / seconds),
                    unit="1/s",
                    **at_least(TARGET),
                    note=f"{n} instances of {n_chips} chips, {1e3 * seconds:.1f} ms, "
                    f"median {1e3 * statistics.median(times):.1f} ms",
                )
            )
    return rows


def _seconds(chips: list[Detections], options: MorphologyOptions) -> float:
    start = time.process_time()
    for found in chips:
        refine(found, options, gsd_m=GSD_M)
    return time.process_time() - start


def _chip(seed: int) -> Detections:
    """Return a chip full of houses in rows, as a network sees them."""
    rng = np.random.default_rng(seed)
    boxes, masks = [], []
    for row in range(ROWS):
        for col in range(COLS):
            width, height = rng.integers(24, 37, 2).tolist()
            x = min(col * CHIP_PX // COLS + int(rng.integers(0, 40)), CHIP_PX - width)
            y = min(row * CHIP_PX // ROWS + int(rng.integers(0, 32)), CHIP_PX - height)
            hard = np.zeros((height, width), np.float32)
            hard[3:-3, 3:-3] = 255
            masks.append(cv2.GaussianBlur(hard, (0, 0), 1.5).astype(np.uint8))
            boxes.append((x, y, x + width, y + height))
    return Detections.from_masks(
        "town",
        Window(row_off=0, col_off=0, height=CHIP_PX, width=CHIP_PX),
        boxes=np.array(boxes, np.float32),
        scores=rng.random(len(boxes)).astype(np.float32),
        labels=np.ones(len(boxes), np.int16),
        mask_boxes=np.array(boxes, np.int32),
        masks=masks,
    )
