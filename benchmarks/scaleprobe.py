"""One run in blocks: `python -m benchmarks.scaleprobe SCENE FOLDER KEY=VALUE`.

Prints a JSON line: memory of this process before and at most, seconds by stage, and the workers'.
"""

from __future__ import annotations

import collections
import json
import shutil
import sys
from pathlib import Path

from benchmarks.peak import peak_bytes
from geoseg.config import load_config
from geoseg.stages.base import Silence
from geoseg.stages.blocks.job import run_blocks
from geoseg.stages.outputs import OutputPlan


def main() -> None:
    scene, folder, *words = sys.argv[1:]
    run_dir = Path(folder, "run")
    shutil.rmtree(run_dir, ignore_errors=True)
    config = load_config(assignments=[*words, f"scale.run_dir={run_dir}"])
    baseline = peak_bytes()
    plan = OutputPlan(vector=Path(folder, "out.parquet"))
    tally = run_blocks([scene], [plan], config, progress=Silence())
    blocks: collections.Counter[str] = collections.Counter()
    for line in (run_dir / "blocks.jsonl").open(encoding="utf-8"):
        unit = json.loads(line)
        blocks[unit["stage"]] += unit["seconds"].get("block", 0.0)
    print(
        json.dumps(
            {
                "baseline_bytes": baseline,
                "peak_bytes": peak_bytes(),
                "stages": tally.seconds,
                "block_seconds": dict(blocks),
                "footprints": tally.footprints,
                "failed": len(tally.failed),
            }
        )
    )


if __name__ == "__main__":
    main()
