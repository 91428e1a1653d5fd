"""One run in a process of its own: `python -m benchmarks.probe SCENE OUTPUT MODEL`.

Prints a JSON line: peak memory of this process, seconds after the model is loaded, chips.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.peak import peak_bytes
from geoseg.config import Config, ModelOptions
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run


def main() -> None:
    scene, output, model = sys.argv[1:]
    config = Config(model=ModelOptions(name=model, device="cpu"))
    start, cpu = time.perf_counter(), time.process_time()
    tally = run(scene, OutputPlan(vector=Path(output)), config)
    seconds = time.perf_counter() - start - tally.seconds["load"]
    print(
        json.dumps(
            {
                "peak_bytes": peak_bytes(),
                "seconds": seconds,
                "cpu_seconds": time.process_time() - cpu - tally.seconds["load"],
                "chips": tally.inferred,
                "footprints": tally.footprints,
            }
        )
    )


if __name__ == "__main__":
    main()
