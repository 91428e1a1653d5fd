"""Cold start: how long a person waits for `--help` and for a first small scene."""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.clock import timed
from benchmarks.rows import Row, at_most
from benchmarks.scenes import town_picture

if TYPE_CHECKING:
    from pathlib import Path

HELP_TARGET_S = 0.3
RUN_TARGET_S = 10.0


def cold(
    folder: Path, *, size_px: int = 600, help_rounds: int = 10, run_rounds: int = 3
) -> list[Row]:
    """Measure whole processes from start to exit: `geoseg --help` and `geoseg run`.

    Medians of fresh processes. Fresh means the process, not the disk: the system's file cache
    cannot be emptied from here, so the very first start after boot takes longer.
    """
    scene = town_picture(folder, size_px=size_px).path
    output = folder / "out.geojson"
    measured = (
        ("geoseg --help", ["--help"], help_rounds, HELP_TARGET_S),
        (
            f"geoseg run, {size_px} x {size_px} px",
            ["run", str(scene), "-o", str(output)],
            run_rounds,
            RUN_TARGET_S,
        ),
    )
    rows = []
    for name, arguments, rounds, target in measured:
        seconds = [timed(functools.partial(_geoseg, arguments)) for _ in range(rounds)]
        rows.append(
            Row(
                benchmark="cold",
                name=name,
                value=round(statistics.median(seconds), 3),
                unit="s",
                **at_most(target),
                note=f"{rounds} processes, {min(seconds):.2f}-{max(seconds):.2f} s",
            )
        )
    return rows


def _geoseg(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "geoseg", *arguments]
    subprocess.run(command, check=True, capture_output=True)
