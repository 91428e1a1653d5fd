"""`geoseg footprints`: detections stitched and polygonized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli import options


@click.command("footprints")
@click.argument("detections", type=click.Path(path_type=Path))
@options.output_option
@options.raster_outputs
@options.mask_kind
@options.score_option
@options.morphology_options
@options.shape_options
@options.regularize_options
@options.topology_options
@options.config_options
def command(detections: Path, **parameters: Any) -> int:
    """Stitch DETECTIONS across chip borders and write footprints; no model is needed.

    The least score is that of `geoseg infer` unless a higher one is given.
    """
    from geoseg.cli.report import finish
    from geoseg.stages.footprints import footprints

    config = options.make_config(parameters)
    plan = options.make_plan(parameters)

    tally = footprints(detections, plan, config)
    return finish(tally, plan.paths, as_json=parameters["as_json"])
