"""One job: several scenes and a config in; a file of footprints and a picture each, and a table.

    python pipelines/footprints.py a.tif b.tif -o out --config configs/footprints.yaml

Options of `scale` (workers, GPUs, a cluster) make it resumable: the same call again goes on. A
scene that cannot be mapped is named at the end, and the others are mapped all the same. Exit codes
are those of `geoseg`: 0 done, 3 done but some chips could not be read, 1 a scene failed, 2 wrong
use. No algorithm lives here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.config import load_config
from geoseg.errors import GeosegError
from geoseg.stages.base import Silence
from geoseg.stages.blocks.job import run_blocks
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.config import Config

COLUMNS = ("chips", "skipped", "failed", "footprints", "km2", "seconds")


def main(words: Sequence[str] | None = None) -> int:
    """Map every scene; return the exit code."""
    options = _parse(words)
    try:
        config = load_config(options.config, assignments=options.set)
    except GeosegError as error:
        print(f"footprints: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    for scene in options.scenes:
        try:
            rows[scene] = map_scene(scene, options.output, config, suffix=options.format)
        except GeosegError as error:
            rows[scene] = {"error": str(error)}
    print_table(rows)
    if any("error" in row for row in rows.values()):
        return 1
    return 3 if any(row["failed"] for row in rows.values()) else 0


def map_scene(scene: str, folder: Path, config: Config, *, suffix: str) -> dict[str, Any]:
    """Map one scene into the folder; return its row of the table."""
    stem = Path(scene).stem
    plan = OutputPlan(vector=folder / f"{stem}{suffix}", preview=folder / f"{stem}.png")
    if config.scale.in_blocks:
        tally = run_blocks([scene], [plan], config, progress=Silence())
    else:
        tally = run(scene, plan, config)
    summary = tally.summary()
    seconds = round(summary["seconds"]["total"], 1)
    return {**summary, "failed": len(summary["failed"]), "seconds": seconds}


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """Print one row per scene."""
    width = max(len(Path(scene).name) for scene in rows)
    print(" " * width + "".join(f"{name:>12}" for name in COLUMNS))
    for scene, row in rows.items():
        values = (
            f"  {row['error']}" if "error" in row else "".join(f"{row[c]:>12}" for c in COLUMNS)
        )
        print(Path(scene).name.ljust(width) + values)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Map several scenes.")
    parser.add_argument("scenes", nargs="+", metavar="SCENE", help="rasters, paths or URLs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--config", metavar="FILE", help="YAML file of options")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option")
    parser.add_argument("--format", default=".gpkg", help="extension of the footprints [.gpkg]")
    options = parser.parse_args(words)
    stems = [Path(scene).stem for scene in options.scenes]
    if len(set(stems)) < len(stems):
        parser.error(f"scenes must have different file names, got {sorted(stems)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
