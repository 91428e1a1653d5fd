"""Options about OpenStreetMap that several verbs share: what is mapped, objects, tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoseg.cli import options
from geoseg.cli.values import wrong_use

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoseg.osm.tasks import TaskOptions
    from geoseg.stages.osm_export import OsmOptions
    from geoseg.stages.selection import Selection


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


object_options = options.together(
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


def against_option(*, required: bool) -> Callable[[options.F], options.F]:
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
task_options = options.together(
    click.option("--cooperative", is_flag=True, help="Tasks carry their objects as osmChange."),
    click.option(
        "--per-task", type=int, metavar="N", help="Most footprints of a task, by place [1]."
    ),
    click.option("--task-span", type=float, metavar="M", help="Longest side of a task [500]."),
    click.option("--comment", help="Changeset comment that JOSM is to propose."),
    click.option("--source", help="Changeset source that JOSM is to propose: the imagery."),
    click.option("--hashtags", help="Changeset hashtags that JOSM is to propose."),
)


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
        options=options.make_config(parameters).conflate,
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
