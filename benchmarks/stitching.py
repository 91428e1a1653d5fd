"""Stitching: how many instances a second one core stitches and polygonizes."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import cv2

from benchmarks.rows import Row, at_least
from geoseg.config import Config, ModelOptions
from geoseg.footprints import make_footprints
from geoseg.raster import read_batches
from geoseg.stages.infer import load_predictor, open_work
from geoseg.stitch import Stitcher
from geoseg.testing import make_town, write_town

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geoseg.chips import Chip
    from geoseg.detections import Detections
    from geoseg.grid import Grid

TARGET = 2000.0
ORACLES = ("oracle", "soft_oracle")

ChipRows = list[list[tuple["Chip", "Detections"]]]


def stitching(folder: Path, *, size_px: int = 2100, rounds: int = 7) -> list[Row]:
    """Measure detections a second through `Stitcher` and `make_footprints`, row by row.

    The detections are the oracles', made beforehand: hard masks, and soft ones as networks give.
    One thread on one core; the clock is the process's CPU time, so that whoever else uses the
    machine does not count. Median of the rounds. The footprints that come out are counted too: a
    building that four chips saw is four detections and one footprint.
    """
    town = write_town(make_town(size_px=size_px), folder)
    rows = []
    for name in ORACLES:
        found, grid = _detections(town.ids, name)
        count = sum(len(detections) for row in found for _, detections in row)
        with one_core():
            measured = [_work(found, grid) for _ in range(rounds + 1)][1:]  # the first warms up
        seconds = statistics.median(seconds for seconds, _ in measured)
        made = measured[0][1]
        chips = sum(map(len, found))
        note = f"{count} detections of {chips} chips ({count / chips:.1f} a chip), {seconds:.3f} s"
        rows += [
            Row(
                benchmark="stitching",
                name=f"detections in, {name}",
                value=round(count / seconds),
                unit="1/s",
                **at_least(TARGET),
                note=note,
            ),
            Row(
                benchmark="stitching",
                name=f"footprints out, {name}",
                value=round(made / seconds),
                unit="1/s",
                note=f"{made} footprints",
            ),
        ]
    return rows


def _detections(ids: Path, oracle: str) -> tuple[ChipRows, Grid]:
    config = Config(model=ModelOptions(name=f"geoseg.testing:{oracle}", device="cpu"))
    with ExitStack() as stack:
        work = open_work(str(ids), config, stack)
        predictor = load_predictor(config, size_px=work.size_px)
        batches = read_batches(
            work.source, work.chips, batch_size=predictor.batch_size, size_px=work.size_px
        )
        rows: dict[int, list[tuple[Chip, Detections]]] = {}
        for chip, detections in predictor.stream(batches):
            rows.setdefault(chip.row, []).append((chip, detections))
        return list(rows.values()), work.grid


def _work(found: ChipRows, grid: Grid) -> tuple[float, int]:
    """Return CPU seconds and footprints."""
    start = time.process_time()
    stitcher = Stitcher(shape_hw=(grid.height, grid.width))
    made = sum(len(make_footprints(stitcher.push_row(row), grid)) for row in found)
    made += len(make_footprints(stitcher.finish(), grid))
    return time.process_time() - start, made


@contextmanager
def one_core() -> Iterator[None]:
    """Pin this process to one of its cores, where the system can, and OpenCV to one thread."""
    threads = cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cv2.setNumThreads(1)
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        if cores:
            os.sched_setaffinity(0, cores)
