"""`geoseg tile`: a scene cut into chips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli import options
from geoseg.cli.values import wrong_use


@click.command("tile")
@click.argument("scene", type=click.Path())
@click.option(
    "-o",
    "--output",
    default="chips",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of chips.",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["png", "tif"]),
    default="png",
    show_default=True,
    help="Plain PNG, or GeoTIFF with its place on the ground.",
)
@click.option("--labels", metavar="FILE", help="Buildings, any vector file: COCO annotations.")
@click.option("--overwrite", is_flag=True, help="Replace a folder of chips.")
@options.scene_options
@options.chip_options
@options.config_options
def command(scene: str, output: Path, **parameters: Any) -> int:
    """Cut SCENE into chips: images, index.parquet and a COCO annotation.json.

    Chips are cut at the scene's own resolution unless --gsd gives one. Chips without a valid pixel
    are left out.
    """
    config = options.make_config(parameters)

    from geoseg.stages.tile import check_folder, tile

    with wrong_use():
        check_folder(output, overwrite=parameters["overwrite"])

    from geoseg.cli.report import TerminalProgress, finish

    with TerminalProgress() as progress:
        tally = tile(
            scene,
            output,
            config,
            image_format=parameters["image_format"],
            labels=parameters["labels"],
            overwrite=parameters["overwrite"],
            progress=progress,
        )
    return finish(tally, [output], as_json=parameters["as_json"])
