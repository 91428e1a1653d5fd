"""`geoseg predict-dir`: a folder of pictures in, COCO results out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoseg.cli import options
from geoseg.cli.values import wrong_use

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH: Callable[..., Any] = click.Path


@click.command("predict-dir")
@click.argument("images", type=_PATH(path_type=Path), envvar="CROWDAI_TEST_IMAGES_PATH")
@click.option(
    "-o",
    "--output",
    required=True,
    type=_PATH(path_type=Path),
    envvar="CROWDAI_PREDICTIONS_OUTPUT_PATH",
    help="The file to write.",
)
@click.option(
    "--coco",
    type=_PATH(path_type=Path),
    metavar="FILE",
    help="COCO document that says which images there are and their ids [numbers in file names].",
)
@options.model_options
@options.tta_options
@options.chip_score_option
@options.morphology_options
@click.option(
    "--min-area", "morphology__min_area", metavar="14px", help="Smaller masks are dropped [0]."
)
@options.config_options
def command(images: Path, output: Path, coco: Path | None, **parameters: Any) -> int:
    """Run the model over a folder of IMAGES; write predictions as .json.

    The file is the crowdAI mapping challenge's submission: a list of image_id, category_id, score,
    segmentation (run-length encoding) and bbox, at most 100 an image. Every image is predicted, of
    whatever size; those that cannot be read are listed, with exit code 3. Where they are not given,
    IMAGES and the output come from CROWDAI_TEST_IMAGES_PATH and CROWDAI_PREDICTIONS_OUTPUT_PATH.
    """
    from geoseg.data.cocowrite import JSON_SUFFIXES
    from geoseg.files import check_output

    with wrong_use():
        check_output(output, JSON_SUFFIXES)

    from geoseg.stages.predict_dir import DEFAULTS, predict_dir

    config = options.make_config(parameters, defaults=DEFAULTS)

    from geoseg.cli.report import TerminalProgress, finish

    with TerminalProgress() as progress:
        tally = predict_dir(
            images,
            output,
            config.model,
            tta=config.tta,
            morphology=config.morphology,
            coco=coco,
            progress=progress,
        )
    return finish(tally, [output], as_json=parameters["as_json"])
