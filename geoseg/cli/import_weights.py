"""`geoseg import-weights`: a pickled checkpoint becomes safetensors with a spec beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("import-weights")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help=".safetensors")
@click.option("--architecture", required=True, help="Such as maskrcnn_resnet50_fpn.")
@click.option("--name", help="Name of the model [the output's stem].")
@click.option("--licence", default="unknown", show_default=True, help="Licence of the weights.")
@click.option("--attribution", multiple=True, help="Line to show with results; may be repeated.")
@click.option("--data", default="", help="What the model was trained on, in a sentence.")
@click.option("--chip-size", default=300, show_default=True, help="Side of its training chips, px.")
@click.option(
    "--gsd-range", type=(float, float), metavar="FINEST COARSEST", help="Metres per pixel it knows."
)
def command(checkpoint: Path, output: Path, **parameters: Any) -> int:
    """Convert CHECKPOINT (.pth, .pt) without running any code in it.

    For a network with two classes, background and building, and torchvision's normalisation.
    """
    from geoseg.models import BUILDING, ModelSpec, import_pickled

    spec = ModelSpec(
        name=parameters["name"] or output.stem,
        architecture=parameters["architecture"],
        categories=(BUILDING,),
        chip_size_px=parameters["chip_size"],
        gsd_range_m=parameters["gsd_range"],
        mean=_MEAN.get(parameters["architecture"], (0.485, 0.456, 0.406)),
        std=_STD.get(parameters["architecture"], (0.229, 0.224, 0.225)),
        sha256=None,
        licence=parameters["licence"],
        attribution=parameters["attribution"],
        data=parameters["data"],
        version="1",
    )
    written = import_pickled(checkpoint, output, spec=spec)
    click.echo(f"wrote {output} and {output.with_suffix('.json').name}; sha256 {written.sha256}")
    return 0


_MEAN = {"maskrcnn_lite0": (0.5, 0.5, 0.5), "maskrcnn_lite0_slim": (0.5, 0.5, 0.5)}
_STD = _MEAN
