"""Options that several verbs share, and how they become a `Config`.

A parameter named `section__key` sets that key; None leaves it to the config file or the default.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geoseg.errors import GeosegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from geoseg.config import Config
    from geoseg.osm.tasks import TaskOptions
    from geoseg.stages.osm_export import OsmOptions
    from geoseg.stages.outputs import OutputPlan
    from geoseg.stages.selection import Selection

F = TypeVar("F", bound="Callable[..., Any]")


class Bands(click.ParamType[tuple[int, ...]]):
    """`1,2,3`."""

    name = "R,G,B"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Split at commas."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"must be three band numbers such as 1,2,3; got {value!r}", param, ctx)


class Rescale(click.ParamType[Any]):
    """`auto` or `MIN,MAX`."""

    name = "auto|MIN,MAX"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Split at the comma."""
        if value == "auto":
            return value
        try:
            low, high = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"must be auto or two numbers such as 0,3000; got {value!r}", param, ctx)
        return low, high


class Gsd(click.ParamType[Any]):
    """`auto`, `native` or metres."""

    name = "auto|native|METRES"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read a number unless it is a word."""
        if value in {"auto", "native"}:
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"must be auto, native or metres such as 0.3; got {value!r}", param, ctx)


class LeastArea(click.ParamType[dict[str, float]]):
    """`5` or `5m2`, square metres; `14px`, pixels."""

    name = "5m2|14px"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, float]:
        """Return the two keys that hold the least area, the one in the other unit unset."""
        from geoseg.morphology import parse_area

        if isinstance(value, dict):
            return value
        with wrong_use():
            least = parse_area(value, name="--min-area", bare="m2")
        if least.is_px:
            return {"polygonize.min_area_px": least.value}
        return {"polygonize.min_area_m2": least.value, "polygonize.min_area_px": 0.0}


class Statuses(click.ParamType[tuple[Any, ...]]):
    """`new,overlaps`, or `all`."""

    name = "STATUS,...|all"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        """Split at commas."""
        from geoseg.osm.conflate.rules import Status

        if value == "all":
            return tuple(Status)
        try:
            return tuple(Status(part.strip()) for part in str(value).split(","))
        except ValueError:
            known = ", ".join(Status)
            self.fail(f"must be all, or some of {known}; got {value!r}", param, ctx)


class Names(click.ParamType[tuple[str, ...]]):
    """`cpu,cuda:1`."""

    name = "NAME,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """Split at commas."""
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names):
            self.fail(f"must be names such as cuda:0,cuda:2; got {value!r}", param, ctx)
        return names


def _all(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


scene_options = _all(
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
chip_options = _all(
    click.option(
        "--chip-size", "chips__size_px", type=int, metavar="PX", help="Side of a chip [300]."
    ),
    click.option(
        "--overlap", "chips__overlap_px", type=int, metavar="PX", help="Overlap of chips [60]."
    ),
)
model_options = _all(
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
tta_options = _all(
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
regularize_options = _all(
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
topology_options = _all(
    click.option(
        "--overlaps",
        "topology__overlaps",
        type=click.Choice(["settle", "keep"]),
        help="Ground that several outlines claim: the better one's, or left as it is [settle].",
    ),
)
morphology_options = _all(
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
shape_options = _all(
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
config_options = _all(
    click.option("--config", "config_file", metavar="FILE", help="YAML file of options."),
    click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Such as model.score=0.4."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-v", "--verbose", is_flag=True, help="Say more on the way."),
)
scale_options = _all(
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
raster_outputs = _all(
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
osm_options = _all(
    click.option(
        "--tags",
        multiple=True,
        metavar="[LABEL/]KEY=VALUE",
        help="OSM tags, of all objects or those of a label; values may quote {score}, {label}, "
        "{id}, {scene}, {model} [building=yes].",
    ),
    click.option(
        "--osm-snap",
        type=float,
        metavar="M",
        help="Corners this near to a neighbour's corner or wall are shared with it [0.25].",
    ),
    click.option(
        "--max-elements",
        type=int,
        metavar="N",
        help="Several OSM files where there are more objects [one file; 5000 with --max-bbox-km].",
    ),
    click.option(
        "--max-bbox-km",
        type=float,
        metavar="KM",
        help="Longest side of a file's area [with --max-elements: 50].",
    ),
    click.option("--upload-allowed", is_flag=True, help="Let JOSM upload the .osm file."),
)
align_option = click.option(
    "--align",
    "conflate__align",
    is_flag=True,
    default=None,
    help="Shift each scene's footprints onto what is mapped, where enough of them agree how.",
)


def against_option(*, required: bool) -> Callable[[F], F]:
    """Return the option that names what is mapped; it may come several times."""
    return click.option(
        "--against",
        multiple=True,
        required=required,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="What is mapped: .osm, .osm.pbf, Overpass JSON or any vector file.",
    )


status_option = click.option(
    "--status",
    "statuses",
    type=Statuses(),
    help="What of a conflated file is written [OSM files and tasks: new; other formats: all].",
)
task_options = _all(
    click.option("--cooperative", is_flag=True, help="Tasks carry their objects as osmChange."),
    click.option(
        "--per-task", type=int, metavar="N", help="Most footprints of a task, by place [1]."
    ),
    click.option("--task-span", type=float, metavar="M", help="Longest side of a task [500]."),
    click.option("--comment", help="Changeset comment that JOSM is to propose."),
    click.option("--source", help="Changeset source that JOSM is to propose: the imagery."),
    click.option("--hashtags", help="Changeset hashtags that JOSM is to propose."),
)
compare_options = _all(
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
    return load_config(
        parameters.get("config_file"),
        defaults=defaults,
        assignments=parameters.get("assignments", ()),
        options=options,
    )


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


def make_osm_options(parameters: dict[str, Any]) -> OsmOptions:
    """Return how a call wants its OSM objects."""
    from geoseg.osm.tags import TagTemplate
    from geoseg.stages.osm_export import DEFAULT_SNAP_M, OsmOptions

    snap_m = parameters["osm_snap"]
    with wrong_use():
        return OsmOptions(
            tags=TagTemplate.parse(parameters["tags"]),
            snap_m=DEFAULT_SNAP_M if snap_m is None else snap_m,
            max_elements=parameters["max_elements"],
            max_bbox_km=parameters["max_bbox_km"],
            upload_allowed=parameters["upload_allowed"],
        )


def make_selection(parameters: dict[str, Any]) -> Selection:
    """Return which footprints a call wants."""
    from geoseg.stages.selection import Selection

    if parameters["conflate__align"] and not parameters["against"]:
        raise click.UsageError("--align needs --against, what is mapped")
    return Selection(
        statuses=parameters["statuses"],
        against=parameters["against"],
        options=make_config(parameters).conflate,
    )


def make_task_options(parameters: dict[str, Any]) -> TaskOptions:
    """Return how a call wants its tasks."""
    from geoseg.osm.tasks import TaskOptions

    given = {
        "per_task": parameters["per_task"],
        "span_m": parameters["task_span"],
        **{name: parameters[name] for name in ("comment", "source", "hashtags")},
    }
    with wrong_use():
        return TaskOptions(**{name: value for name, value in given.items() if value is not None})


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


@contextlib.contextmanager
def wrong_use() -> Iterator[None]:
    """Turn errors that a look at the command line shows into exit code 2."""
    try:
        yield
    except GeosegError as error:
        raise click.UsageError(str(error)) from error
