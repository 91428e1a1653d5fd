"""One job: scenes and an extract of OpenStreetMap in; buildings it lacks, in changesets to review.

    python pipelines/osm_import.py a.tif b.tif --against region.osm.pbf -o out \
        --config configs/osm-import.yaml

For each scene it leaves footprints, the same with what each is to the map, a GeoJSON of what needs
a look, and of what is new a file for JOSM, tasks for MapRoulette and a file for each changeset; at
the end a table and how to go on. It sends nothing: docs/osm.md begins with what has to happen
before. Exit codes are those of `geoseg`. No algorithm lives here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.config import load_config
from geoseg.errors import GeosegError
from geoseg.osm.changesets import MAX_BBOX_KM, MAX_ELEMENTS
from geoseg.osm.conflate.rules import Status
from geoseg.osm.exchange.plan import plan_upload
from geoseg.stages.base import Silence
from geoseg.stages.blocks.job import run_blocks
from geoseg.stages.conflate import conflate_file
from geoseg.stages.osm_export import OsmOptions, export_osm
from geoseg.stages.osm_tasks import export_tasks
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.config import Config
    from geoseg.osm.mapped.layers import Kind
    from geoseg.stages.base import Tally

COLUMNS = ("footprints", "new", "mapped", "to review", "changesets", "elements")
CHECKS: tuple[Kind, ...] = ("road", "rail", "water")


def main(words: Sequence[str] | None = None) -> int:
    """Map, conflate and export every scene; return the exit code."""
    options = _parse(words)
    try:
        config = load_config(options.config, assignments=options.set)
    except GeosegError as error:
        print(f"osm_import: {error}", file=sys.stderr)
        return 2
    folders = {scene: options.output / Path(scene).stem for scene in options.scenes}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    try:
        tally = map_scenes(folders, config)
        rows = {scene: prepare(folder, options, config) for scene, folder in folders.items()}
    except GeosegError as error:
        print(f"osm_import: {error}", file=sys.stderr)
        return 1
    print_table(rows)
    if any(row["changesets"] for row in rows.values()):
        print(
            "next: look at every building: new.osm in JOSM, conflated.gpkg in QGIS, or the tasks;"
        )
        print("export again what was mended, and then, as docs/osm.md says:")
        print(f'  geoseg osm upload {options.output}/*/changeset*.osc.gz --comment "..."')
    return 3 if tally.failed else 0


def map_scenes(folders: dict[str, Path], config: Config) -> Tally:
    """Map scenes into their folders; a building that two of them show comes once."""
    plans = [OutputPlan(vector=folder / "footprints.parquet") for folder in folders.values()]
    if len(folders) > 1 or config.scale.in_blocks:
        return run_blocks(list(folders), plans, config, progress=Silence())
    return run(next(iter(folders)), plans[0], config)


def prepare(folder: Path, options: argparse.Namespace, config: Config) -> dict[str, int]:
    """Conflate and export what a folder holds; return its row of the table."""
    conflated = folder / "conflated.gpkg"  # what QGIS edits
    report = conflate_file(
        folder / "footprints.parquet",
        options.against,
        conflated,
        options=config.conflate,
        checks=CHECKS,
        conflicts=folder / "review.geojson",
    )
    changesets = export_new(conflated, folder, options)
    plan = plan_upload(changesets, **_limits(options))
    total = sum(report.counts.values())
    new, mapped = (report.counts.get(s, 0) for s in (Status.NEW, Status.DUPLICATE))
    return {
        "footprints": total,
        "new": new,
        "mapped": mapped,
        "to review": total - new - mapped,
        "changesets": len(plan.parts),
        "elements": plan.n_elements,
    }


def export_new(conflated: Path, folder: Path, options: argparse.Namespace) -> list[Path]:
    """Write what the map lacks: for JOSM, as tasks, and as changesets; return the last."""
    export_osm(conflated, folder / "new.osm", OsmOptions(snap_m=options.snap))
    export_tasks(conflated, folder / "tasks.geojsonl")
    split = OsmOptions(snap_m=options.snap, **_limits(options))
    done = export_osm(conflated, folder / "changeset.osc.gz", split)
    return done.paths if done.tally.footprints else []


def print_table(rows: dict[str, dict[str, int]]) -> None:
    """Print one row per scene."""
    width = max(len(Path(scene).name) for scene in rows)
    print(" " * width + "".join(f"{name:>12}" for name in COLUMNS))
    for scene, row in rows.items():
        values = "".join(f"{row[name]:>12,}" for name in COLUMNS)
        print(Path(scene).name.ljust(width) + values)


def _limits(options: argparse.Namespace) -> dict[str, Any]:
    return {"max_elements": options.max_elements, "max_bbox_km": options.max_bbox_km}


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prepare buildings for OpenStreetMap.")
    parser.add_argument("scenes", nargs="+", metavar="SCENE", help="rasters, paths or URLs")
    parser.add_argument(
        "--against", action="append", type=Path, required=True, metavar="FILE",
        help="what is mapped: .osm.pbf, .osm, Overpass JSON or any vector file",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--config", metavar="FILE", help="YAML file of options")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option")
    parser.add_argument(
        "--snap", type=float, default=OsmOptions().snap_m, metavar="M",
        help="corners this near to a neighbour are shared with it [0.25]",
    )  # fmt: skip
    parser.add_argument(
        "--max-elements", type=int, default=MAX_ELEMENTS, metavar="N",
        help="most elements of a changeset [5000]",
    )  # fmt: skip
    parser.add_argument(
        "--max-bbox-km", type=float, default=MAX_BBOX_KM, metavar="KM",
        help="longest side of a changeset's area [50]",
    )  # fmt: skip
    options = parser.parse_args(words)
    stems = [Path(scene).stem for scene in options.scenes]
    if len(set(stems)) < len(stems):
        parser.error(f"scenes must have different file names, got {sorted(stems)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
