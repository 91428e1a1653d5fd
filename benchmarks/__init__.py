"""What geoseg must reach, measured: `python -m benchmarks [names]`.

Each module measures one claim and returns rows of target and measured value. Everything but the
clock is deterministic. Times are compared only within one run, interleaved, as medians.
"""
