"""`geoseg run`: the whole job."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli import options


@click.command("run")
@click.argument("scene", type=click.Path())
@options.output_option
@options.raster_outputs
@options.mask_kind
@options.scene_options
@options.chip_options
@options.model_options
@options.score_option
@options.shape_options
@options.config_options
def command(scene: str, **parameters: Any) -> int:
    """Map SCENE: GeoTIFF in, footprints out.

    Streams: memory hardly grows with the scene, and there are no intermediate files. The output's
    extension chooses the format: .geojson .geojsonl .gpkg .fgb .parquet .shp .pmtiles
    """
    config = options.make_config(parameters)
    plan = options.make_plan(parameters)

    from geoseg.cli.report import TerminalProgress, finish
    from geoseg.stages.run import run

    with TerminalProgress() as progress:
        tally = run(scene, plan, config, progress=progress)
    return finish(tally, plan.paths, as_json=parameters["as_json"])
