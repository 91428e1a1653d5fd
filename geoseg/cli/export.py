"""`geoseg export`: footprints in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli import options
from geoseg.osm.formats import SUFFIXES, osm_suffix

OSM_OPTIONS = ("tags", "osm_snap", "max_elements", "max_bbox_km", "upload_allowed")


@click.command("export")
@click.argument("footprints", type=click.Path(path_type=Path))
@options.output_option
@options.raster_outputs
@click.option("--scene", metavar="FILE", help="Scene of mask and preview, if not the recorded one.")
@options.osm_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(footprints: Path, **parameters: Any) -> int:
    """Write FOOTPRINTS in another format, with a mask of ids and a preview on request.

    The output's extension chooses: .geojson .geojsonl .gpkg .fgb .parquet .shp .pmtiles, or for
    OpenStreetMap .osm (JOSM) .osm.pbf .osc .osc.gz
    """
    from geoseg.cli.report import finish

    as_json = parameters["as_json"]
    if osm_suffix(parameters["output"]):
        return _osm(footprints, parameters)
    _refuse(parameters, OSM_OPTIONS, f"only for outputs in {' '.join(SUFFIXES)}")
    plan = options.make_plan(parameters)

    from geoseg.stages.export import export

    tally = export(footprints, plan, scene_path=parameters["scene"])
    return finish(tally, plan.paths, as_json=as_json)


def _osm(footprints: Path, parameters: dict[str, Any]) -> int:
    _refuse(parameters, ("mask", "preview", "scene"), "not for OSM files, export twice")
    if osm_suffix(parameters["output"]) != ".osm":
        _refuse(parameters, ("upload_allowed",), "only for JOSM's files, .osm")
    from geoseg.cli.report import finish
    from geoseg.stages.osm_export import check_osm_output, export_osm

    chosen = options.make_osm_options(parameters)
    with options.wrong_use():
        check_osm_output(parameters["output"])
    done = export_osm(footprints, parameters["output"], chosen)
    return finish(done.tally, done.paths, as_json=parameters["as_json"])


def _refuse(parameters: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    values = {name: parameters[name] for name in names}
    given = [
        name for name, value in values.items() if value not in (None, ()) and value is not False
    ]
    if given:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{words}: {why}")
