"""`geoseg export`: footprints in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli import options, osm_options
from geoseg.cli.values import wrong_use
from geoseg.osm.formats import SUFFIXES, osm_suffix

OSM_OPTIONS = ("tags", "osm_snap", "max_elements", "max_bbox_km", "upload_allowed")
TASK_OPTIONS = ("cooperative", "per_task", "task_span", "comment", "source", "hashtags")
RASTER_OPTIONS = ("mask", "preview", "scene")


@click.command("export")
@click.argument("footprints", type=click.Path(path_type=Path))
@options.output_option
@options.raster_outputs
@click.option("--scene", metavar="FILE", help="Scene of mask and preview, if not the recorded one.")
@osm_options.status_option
@osm_options.against_option(required=False)
@osm_options.align_option
@osm_options.object_options
@click.option(
    "--format", "kind", type=click.Choice(["maproulette"]), help="Tasks, one a line: .geojsonl."
)
@osm_options.task_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(footprints: Path, **parameters: Any) -> int:
    """Write FOOTPRINTS in another format, with a mask of ids and a preview on request.

    The output's extension chooses: .geojson .geojsonl .gpkg .fgb .parquet .shp .pmtiles, or for
    OpenStreetMap .osm (JOSM) .osm.pbf .osc .osc.gz

    With --against, only what is not mapped there yet is written.
    """
    if parameters["kind"] == "maproulette":
        return _tasks(footprints, parameters)
    _refuse(parameters, TASK_OPTIONS, "only for --format maproulette")
    if osm_suffix(parameters["output"]):
        return _osm(footprints, parameters)
    if any(part in {".osm", ".osc", ".pbf"} for part in parameters["output"].suffixes):
        raise click.UsageError(f"{parameters['output']}: OSM files end in {' '.join(SUFFIXES)}")
    _refuse(parameters, OSM_OPTIONS, f"only for outputs in {' '.join(SUFFIXES)}")
    plan = options.make_plan(parameters)
    chosen = parameters["statuses"] or parameters["against"] or parameters["conflate__align"]
    selection = osm_options.make_selection(parameters) if chosen else None

    from geoseg.cli.report import finish
    from geoseg.stages.export import export

    tally = export(footprints, plan, scene_path=parameters["scene"], selection=selection)
    return finish(tally, plan.paths, as_json=parameters["as_json"])


def _osm(footprints: Path, parameters: dict[str, Any]) -> int:
    _refuse(parameters, RASTER_OPTIONS, "not for OSM files, export twice")
    if osm_suffix(parameters["output"]) != ".osm":
        _refuse(parameters, ("upload_allowed",), "only for JOSM's files, .osm")
    from geoseg.cli.report import finish
    from geoseg.stages.osm_export import check_osm_output, export_osm

    chosen = osm_options.make_osm_options(parameters)
    selection = osm_options.make_selection(parameters)
    with wrong_use():
        check_osm_output(parameters["output"])
    done = export_osm(footprints, parameters["output"], chosen, selection=selection)
    about = {"left_out": done.left_out} if done.left_out else {}
    return finish(done.tally, done.paths, as_json=parameters["as_json"], about=about)


def _tasks(footprints: Path, parameters: dict[str, Any]) -> int:
    _refuse(parameters, RASTER_OPTIONS, "not for tasks, export twice")
    files_only = ("max_elements", "max_bbox_km", "upload_allowed")
    _refuse(parameters, files_only, f"only for outputs in {' '.join(SUFFIXES)}")
    if not parameters["cooperative"]:
        _refuse(parameters, ("tags", "osm_snap"), "only for --cooperative tasks")
    from geoseg.cli.report import finish
    from geoseg.stages.osm_tasks import check_tasks_output, export_tasks

    output = parameters["output"]
    with wrong_use():
        check_tasks_output(output)
    done = export_tasks(
        footprints,
        output,
        osm_options.make_task_options(parameters),
        selection=osm_options.make_selection(parameters),
        objects=osm_options.make_osm_options(parameters) if parameters["cooperative"] else None,
    )
    about: dict[str, Any] = {"tasks": done.n_tasks}
    about |= {"left_out": done.left_out} if done.left_out else {}
    return finish(done.tally, [output], as_json=parameters["as_json"], about=about)


def _refuse(parameters: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    values = {name: parameters[name] for name in names}
    given = [
        name for name, value in values.items() if value not in (None, ()) and value is not False
    ]
    if given:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{words}: {why}")
