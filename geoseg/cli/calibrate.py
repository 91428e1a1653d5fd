"""`geoseg calibrate`: what a model's scores stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command("calibrate")
@click.option(
    "--footprints",
    type=_PATH,
    multiple=True,
    required=True,
    help="A map of ground the model never saw, made with a low --score; once for each map.",
)
@click.option("--truth", type=_PATH, multiple=True, required=True, help="Its outlines, in order.")
@click.option(
    "--within",
    multiple=True,
    metavar="all|L,T,R,B|FILE",
    help="Area that counts, in order: everything, a part of the scene in shares such as "
    "0,0.8,1,1 (the southern fifth), or a vector file [all].",
)
@click.option("--model", help="Weights whose spec is to say it [say it here and write nothing].")
@click.option(
    "--method",
    type=click.Choice(["auto", "temperature", "logistic", "isotonic"]),
    default="auto",
    show_default=True,
    help="Family of curves; auto: what fits best on maps it was not fitted on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    footprints: tuple[Path, ...],
    truth: tuple[Path, ...],
    within: tuple[str, ...],
    *,
    model: str | None,
    method: Any,
    as_json: bool,
) -> int:
    """Turn a model's scores into probabilities, from maps that can be compared with the truth.

    Fits what share of footprints of each score is right, and a score threshold with a good F1;
    writes both into the .json beside the weights. Footprints then carry probabilities, and --score
    is one.

    \b
    geoseg run a.tif -o a.parquet --score 0.05 --set model.calibrate=false
    geoseg calibrate --footprints a.parquet --truth a.geojson \\
        --footprints b.parquet --truth b.geojson --model weights.safetensors
    """  # noqa: D301 - a real backspace: click's mark of lines that are not to be wrapped
    areas = within or ("all",) * len(footprints)
    if not len(footprints) == len(truth) == len(areas):
        raise click.UsageError(
            f"give one --truth for each --footprints ({len(footprints)}), and --within for none or "
            f"each; got {len(truth)} and {len(within)}"
        )

    from geoseg.cli.report import show
    from geoseg.stages.calibrate import CheckedMap, calibrate, write_calibration

    maps = [
        CheckedMap(footprints=path, truth=outlines, within=area)
        for path, outlines, area in zip(footprints, truth, areas, strict=True)
    ]
    found = calibrate(maps, method=method)
    written = {} if model is None else {"wrote": str(write_calibration(model, found))}
    show({**found.as_dict(), **written}, as_json=as_json)
    return 0
