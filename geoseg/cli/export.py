"""`geoseg export`: footprints in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli import options


@click.command("export")
@click.argument("footprints", type=click.Path(path_type=Path))
@options.output_option
@options.raster_outputs
@click.option("--scene", metavar="FILE", help="Scene of mask and preview, if not the recorded one.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(footprints: Path, **parameters: Any) -> int:
    """Write FOOTPRINTS in another format, with a mask of ids and a preview on request."""
    plan = options.make_plan(parameters)

    from geoseg.cli.report import finish
    from geoseg.stages.export import export

    tally = export(footprints, plan, scene_path=parameters["scene"])
    return finish(tally, plan.paths, as_json=parameters["as_json"])
