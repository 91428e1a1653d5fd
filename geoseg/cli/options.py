"""Options that several verbs share, and how they become a `Config`.

A parameter named `section__key` sets that key; None leaves it to the config file or the default.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geoseg.cli.values import Bands, Gsd, LeastArea, Names, Rescale, wrong_use

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geoseg.config import Config
    from geoseg.stages.outputs import OutputPlan

F = TypeVar("F", bound="Callable[..., Any]")


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator for several options, in the order that help shows them."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


scene_options = together(
    click.option("--bands", "scene__bands", type=Bands(), help="Bands shown to the model [1,2,3]."),
    click.option(
        "--rescale",
        "scene__rescale",
        type=Rescale(),
        help="Values that become black and white [auto: uint8 as it is, else 2-98 percentile].",
    ),
    click.option(
        "--gsd",
        "scene__gsd",
        type=Gsd(),
        help="Ground resolution the scene is read at [auto: its own, clamped to the model's range; "
        "tile: its own].",
    ),
    click.option(
        "--aoi",
        "scene__aoi",
        metavar="FILE",
        help="Vector file, any CRS: only chips that touch it are mapped.",
    ),
)
chip_options = together(
    click.option(
        "--chip-size", "chips__size_px", type=int, metavar="PX", help="Side of a chip [300]."
    ),
    click.option(
        "--overlap", "chips__overlap_px", type=int, metavar="PX", help="Overlap of chips [60]."
    ),
)
model_options = together(
    click.option(
        "--model",
        "model__name",
        metavar="NAME|FILE|MODULE:FACTORY",
        help="A bundled name, a .safetensors file or an importable factory [maskrcnn_lite0].",
    ),
    click.option(
        "--device",
        "model__device",
        metavar="auto|cpu|cuda|mps",
        help="Where the model runs [auto].",
    ),
    click.option(
        "--batch-size", "model__batch_size", type=int, help="Chips per forward pass [by device]."
    ),
)
tta_options = together(
    click.option(
        "--tta",
        "tta__views",
        type=click.Choice(["none", "hflip", "d4", "d4+scale"]),
        help="Look at each chip from several sides: 2, 8 or 9 times the work [none].",
    ),
    click.option(
        "--tta-merge",
        "tta__merge",
        type=click.Choice(["mean", "gmean", "max", "min", "median"]),
        help="How what the sides show is merged [mean].",
    ),
)
regularize_options = together(
    click.option(
        "--regularize/--no-regularize",
        "regularize__enabled",
        default=None,
        help="Straight walls at right angles, circles, shared walls [no].",
    ),
    click.option(
        "--regularize-angles",
        "regularize__angles",
        type=click.Choice([90, 45]),
        help="Angles between walls are multiples of this [90].",
    ),
)
topology_options = together(
    click.option(
        "--overlaps",
        "topology__overlaps",
        type=click.Choice(["settle", "keep"]),
        help="Ground that several outlines claim: the better one's, or left as it is [settle].",
    ),
)
morphology_options = together(
    click.option(
        "--erode",
        "morphology__erode",
        metavar="2px|0.6m",
        help="Shrink masks; none vanishes, unless the config lets it [0].",
    ),
    click.option(
        "--open", "morphology__open", metavar="2px|0.6m", help="Take away what is narrow [0]."
    ),
    click.option(
        "--close", "morphology__close", metavar="2px|0.6m", help="Fill narrow gaps in masks [0]."
    ),
    click.option(
        "--dilate",
        "morphology__dilate",
        metavar="2px|0.6m",
        help="Grow masks, never into each other [0].",
    ),
    click.option(
        "--element",
        "morphology__element",
        type=click.Choice(["disk", "square"]),
        help="What masks shrink and grow by [disk].",
    ),
)
score_option = click.option(
    "--score",
    "model__score",
    type=float,
    help="Least score, 0 to 1: the probability of being right where the model is calibrated "
    "[as the model's spec says, or 0.5; for footprints, that of infer].",
)
chip_score_option = click.option(
    "--score",
    "model__score",
    type=float,
    help="Least score of a detection, 0 to 1 [0.05 of the network's own].",
)
shape_options = together(
    click.option(
        "--tolerance",
        "polygonize__tolerance_m",
        type=float,
        metavar="M",
        help="Outlines are simplified within this distance [0.1].",
    ),
    click.option(
        "--min-area",
        "least_area",
        type=LeastArea(),
        help="Smaller footprints are dropped: square metres, or pixels of the chip [5m2].",
    ),
)
config_options = together(
    click.option("--config", "config_file", metavar="FILE", help="YAML file of options."),
    click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Such as model.score=0.4."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-v", "--verbose", is_flag=True, help="Say more on the way."),
)
scale_options = together(
    click.option(
        "--workers", "scale__workers", type=int, metavar="N", help="Processes on this machine."
    ),
    click.option("--gpus", "scale__gpus", type=int, metavar="N", help="GPUs, a process each."),
    click.option(
        "--devices",
        "scale__devices",
        type=Names(),
        help="Devices, a process each, such as cuda:0,cuda:2.",
    ),
    click.option(
        "--scheduler",
        "scale__scheduler",
        metavar="ADDRESS",
        help="Dask cluster that runs already, such as tcp://head:8786.",
    ),
    click.option(
        "--run-dir",
        "scale__run_dir",
        metavar="FOLDER",
        help="Keeps what is done: the same command goes on from there "
        "[with any of these: OUTPUT.run, removed at the end].",
    ),
    click.option(
        "--strict",
        "scale__strict",
        is_flag=True,
        default=None,
        help="Stop at the first chip that cannot be read.",
    ),
)
raster_outputs = together(
    click.option("--mask", type=click.Path(path_type=Path), help="Also write a mask, a COG."),
    click.option("--preview", type=click.Path(path_type=Path), help="Also draw a picture, a PNG."),
)
mask_kind = click.option(
    "--mask-kind",
    type=click.Choice(["ids", "probability"]),
    default="ids",
    show_default=True,
    help="What the mask holds; id N is the N-th footprint of the file.",
)
compare_options = together(
    click.option(
        "--compare",
        type=click.Path(path_type=Path),
        metavar="MAP",
        help="Footprints made otherwise: say what became of each.",
    ),
    click.option(
        "--gallery",
        type=click.Path(path_type=Path),
        metavar="PNG",
        help="With --compare, draw the places that changed most.",
    ),
)
output_option = click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write."
)


def make_config(parameters: dict[str, Any], *, defaults: dict[str, Any] | None = None) -> Config:
    """Return the config of a call and set how much is logged."""
    from geoseg.config import load_config

    if parameters.get("verbose"):
        logging.getLogger("geoseg").setLevel(logging.DEBUG)
    options = {k.replace("__", "."): v for k, v in parameters.items() if "__" in k}
    options |= parameters.get("least_area") or {}
    config = load_config(
        parameters.get("config_file"),
        defaults=defaults,
        assignments=parameters.get("assignments", ()),
        options=options,
    )
    _check_has_effect(options, config)
    return config


def _check_has_effect(options: dict[str, Any], config: Config) -> None:
    """Refuse options of a step that is off: whoever gives them wants the step."""
    if options.get("regularize.angles") is not None and not config.regularize.enabled:
        raise click.UsageError("--regularize-angles goes with --regularize")
    if options.get("tta.merge") is not None and config.tta.views == "none":
        raise click.UsageError("--tta-merge goes with --tta hflip, d4 or d4+scale")


def make_plan(parameters: dict[str, Any]) -> OutputPlan:
    """Return the outputs of a call, checked."""
    from geoseg.stages.outputs import OutputPlan

    plan = OutputPlan(
        vector=parameters["output"],
        mask=parameters["mask"],
        mask_kind=parameters.get("mask_kind", "ids"),
        preview=parameters["preview"],
    )
    with wrong_use():
        plan.check()
    return plan


def make_plans(scenes: Sequence[str], parameters: dict[str, Any]) -> list[OutputPlan]:
    """Return the outputs of a call for each of its scenes, checked.

    Several scenes, or an output that ends in a slash, give a folder with a file for each scene,
    named after it.
    """
    text = parameters["output"]
    output = Path(text)
    if len(scenes) == 1 and not text.endswith("/"):
        return [make_plan({**parameters, "output": output})]
    if not (text.endswith("/") or output.is_dir() or (text and not output.suffix)):
        raise click.UsageError(f"several scenes need a folder, such as -o out/; got -o {text}")
    if parameters["mask"] is not None or parameters["preview"] is not None:
        raise click.UsageError("--mask and --preview are for one scene and one file")
    from geoseg.stages.outputs import OutputPlan

    suffix = parameters["suffix"]
    plans = [OutputPlan(vector=output / f"{PurePath(scene).stem}{suffix}") for scene in scenes]
    _make_folder(output)
    with wrong_use():
        for plan in plans:
            plan.check()
    return plans


def _make_folder(folder: Path) -> None:
    """Make a folder unless it is there; one that is still empty when the call ends goes again."""
    try:
        if not folder.is_dir():
            folder.mkdir()
            click.get_current_context().call_on_close(lambda: _remove_empty(folder))
    except OSError as error:
        raise click.UsageError(f"{folder}: cannot be made ({error.strerror})") from error


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
