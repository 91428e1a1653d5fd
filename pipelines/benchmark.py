"""How fast is this machine? A scene mapped with one worker, two, four ...: chips/s and speed-up.

    python pipelines/benchmark.py --scene city.tif --workers 1 2 4 --set model.name=maskrcnn_lite0

Without a scene, a synthetic town is made. Rates are of the inference stage alone: the start of the
workers, a matter of seconds, is shown beside it. No algorithm lives here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.config import load_config
from geoseg.errors import GeosegError
from geoseg.stages.base import Silence
from geoseg.stages.blocks.job import run_blocks
from geoseg.stages.outputs import OutputPlan
from geoseg.testing import make_town, write_town

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = ("workers", "chips", "chips/s", "speed-up", "infer s", "stitch s", "whole s")


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit code."""
    options = _parse(words)
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="geoseg-benchmark-") as folder:
            scene = options.scene or str(_town(Path(folder), options.size))
            for workers in options.workers:
                rows.append(measure(scene, Path(folder), workers, options))
                row = rows[-1] | {"speed-up": rows[-1]["chips/s"] / rows[0]["chips/s"]}
                rows[-1] = row
                print_row(row, head=len(rows) == 1)
    except GeosegError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


def measure(
    scene: str, folder: Path, workers: int, options: argparse.Namespace
) -> dict[str, float]:
    """Map the scene once and return its row."""
    settings = {"scale.workers": workers, "scale.run_dir": str(folder / f"run-{workers}")}
    config = load_config(options.config, assignments=options.set, options=settings)
    start = time.perf_counter()
    plan = OutputPlan(vector=folder / "footprints.parquet")
    tally = run_blocks([scene], [plan], config, progress=Silence())
    infer = tally.seconds["infer"]
    stitch = sum(value for name, value in tally.seconds.items() if name.startswith("stitch"))
    return {
        "workers": workers,
        "chips": tally.inferred,
        "chips/s": tally.inferred / infer,
        "infer s": infer,
        "stitch s": stitch,
        "whole s": time.perf_counter() - start,
    }


def print_row(row: dict[str, float], *, head: bool) -> None:
    """Print one row of the table, after its head where it is the first."""
    if head:
        print("".join(f"{name:>10}" for name in HEAD))
    print("".join(f"{row[name]:>10.4g}" for name in HEAD), flush=True)


def _town(folder: Path, size_px: int) -> Path:
    return write_town(make_town(size_px=size_px), folder).image


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how mapping scales on this machine.")
    parser.add_argument("--scene", help="a raster [a synthetic town]")
    parser.add_argument("--size", type=int, default=2100, help="side of the town, px [2100]")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes [1 2]")
    parser.add_argument("--config", metavar="FILE", help="YAML file of options")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
