"""`geoseg run`: the whole job."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli import options


@click.command("run")
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    help="The file to write; a folder for several scenes, or with a slash at its end.",
)
@click.option(
    "--format",
    "suffix",
    default=".parquet",
    show_default=True,
    help="Extension of the files where the output is a folder.",
)
@options.raster_outputs
@options.mask_kind
@options.scene_options
@options.chip_options
@options.model_options
@options.tta_options
@options.score_option
@options.morphology_options
@options.shape_options
@options.regularize_options
@options.topology_options
@options.scale_options
@options.config_options
def command(scenes: tuple[str, ...], **parameters: Any) -> int:
    """Map SCENE: GeoTIFF in, footprints out. Several scenes go to a folder, a file each.

    Streams: memory hardly grows with the scene, and there are no intermediate files. With workers,
    GPUs, a cluster or a folder of its own the work goes block by block, and the same command again
    goes on where it ended. The output's extension chooses the format: .geojson .geojsonl .gpkg .fgb
    .parquet .shp .pmtiles
    """
    config = options.make_config(parameters)
    plans = options.make_plans(scenes, parameters)

    from geoseg.cli.report import TerminalProgress, finish

    with TerminalProgress() as progress:
        if len(scenes) > 1 or config.scale.in_blocks:
            from geoseg.stages.blocks.job import run_blocks

            tally = run_blocks(scenes, plans, config, progress=progress)
        else:
            from geoseg.stages.run import run

            tally = run(scenes[0], plans[0], config, progress=progress)
    paths = [path for plan in plans for path in plan.paths]
    return finish(tally, paths, as_json=parameters["as_json"])
