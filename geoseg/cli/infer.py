"""`geoseg infer`: detections of a scene or a folder of chips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli import options
from geoseg.cli.values import wrong_use


@click.command("infer")
@click.argument("source", type=click.Path())
@click.option(
    "-o",
    "--output",
    default="detections.parquet",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file to write.",
)
@options.scene_options
@options.chip_options
@options.model_options
@options.tta_options
@options.score_option
@options.scale_options
@options.config_options
def command(source: str, output: Path, **parameters: Any) -> int:
    """Run the model over SOURCE, a scene or a folder of chips; write detections as .parquet."""
    config = options.make_config(parameters)

    from geoseg.stages.store import check_detections_output

    with wrong_use():
        check_detections_output(output)

    from geoseg.cli.report import TerminalProgress, finish

    with TerminalProgress() as progress:
        if config.scale.in_blocks:
            from geoseg.stages.blocks.job import infer_blocks

            tally = infer_blocks(source, output, config, progress=progress)
        else:
            from geoseg.stages.infer import infer

            tally = infer(source, output, config, progress=progress)
    return finish(tally, [output], as_json=parameters["as_json"])
