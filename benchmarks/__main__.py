"""`python -m benchmarks [names] [--out FILE] [--docs]`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cold import cold
from benchmarks.conflation import conflation
from benchmarks.data import dedupe, loading
from benchmarks.efficiency import efficiency
from benchmarks.evaluation import evaluation
from benchmarks.exactness import exactness
from benchmarks.extracts import extracts
from benchmarks.memory import memory
from benchmarks.morphology import morphology
from benchmarks.osmfiles import osm_files
from benchmarks.peers import peers
from benchmarks.quality import quality
from benchmarks.real import real
from benchmarks.regularize import regular
from benchmarks.report import as_page, as_table, describe_machine, write_json
from benchmarks.scaling import scaling
from benchmarks.second_score import second_score
from benchmarks.stitching import stitching
from benchmarks.training import training
from benchmarks.tta import tta

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS: dict[str, Callable[[Path], list[Row]]] = {
    "exactness": exactness,
    "efficiency": efficiency,
    "peers": peers,
    "memory": memory,
    "stitching": stitching,
    "morphology": morphology,
    "cold": cold,
    "real": real,
    "training": training,
    "evaluation": evaluation,
    "loading": loading,
    "dedupe": dedupe,
    "scaling": scaling,
    "tta": tta,
    "osm-files": osm_files,
    "regularize": regular,
    "conflation": conflation,
    "extracts": extracts,
    "quality": quality,
    "second-score": second_score,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, or all; return 1 where a target is missed."""
    options = _parse(arguments)
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as folder:
            rows += BENCHMARKS[name](Path(folder))
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    machine = describe_machine()
    table = as_table(rows)
    write_json(options.out, rows, machine)
    options.out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    if options.docs:
        path = ROOT / "docs" / "benchmarks.md"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(as_page(rows, machine, BENCHMARKS, before=before), encoding="utf-8")
    print(table)
    return int(any(row.met is False for row in rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="name")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latest.json")
    parser.add_argument("--docs", action="store_true", help="renew docs/benchmarks.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
