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
@options.compare_options
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="With --compare, outlines: is it better, too?",
)
@options.config_options
def command(detections: Path, **parameters: Any) -> int:
    """Stitch DETECTIONS across chip borders and write footprints; no model is needed.

    The least score is that of `geoseg infer` unless a higher one is given.
    """
    if parameters["compare"] is None and (parameters["gallery"] or parameters["truth"]):
        raise click.UsageError("--gallery and --truth go with --compare, the map to compare with")

    from geoseg.cli.compare import Comparison
    from geoseg.cli.report import finish, show
    from geoseg.stages.footprints import footprints

    config = options.make_config(parameters)
    plan = options.make_plan(parameters)
    comparison = Comparison.of(parameters, outputs=plan.paths)

    tally = footprints(detections, plan, config)
    changes = comparison.told(plan.vector, truth=parameters["truth"])
    as_json, paths = parameters["as_json"], [*plan.paths, *comparison.paths]
    code = finish(tally, paths, as_json=as_json, about=changes if as_json else None)
    if not as_json:
        show(changes, as_json=False)
    return code
