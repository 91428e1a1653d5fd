"""`geoseg conflate`: which footprints OpenStreetMap lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoseg.cli import options, osm_options
from geoseg.cli.values import wrong_use

if TYPE_CHECKING:
    from geoseg.stages.conflate import ConflationReport

CHECKS = {"roads": "road", "rail": "rail", "water": "water"}
_PATH = click.Path(path_type=Path)


class Checks(click.ParamType[tuple[str, ...]]):
    """`roads,rail,water`."""

    name = "KIND,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """Split at commas."""
        if isinstance(value, tuple):  # the default
            return value
        names = [part.strip() for part in str(value).split(",")]
        unknown = [name for name in names if name not in CHECKS]
        if unknown:
            self.fail(f"must be some of {', '.join(CHECKS)}; got {value!r}", param, ctx)
        return tuple(CHECKS[name] for name in names)


@click.command("conflate")
@click.argument("footprints", type=_PATH)
@osm_options.against_option(required=True)
@options.output_option
@click.option("--check", type=Checks(), default=(), help="Also flag what meets roads,rail,water.")
@click.option("--conflicts", type=_PATH, help="Also write what needs a look, .geojson.")
@osm_options.align_option
@options.config_options
def command(footprints: Path, **parameters: Any) -> int:
    """Compare FOOTPRINTS with what is mapped; write them with a status each.

    new, duplicate, overlaps, near, crosses-road, crosses-rail, crosses-water or in-water, with the
    id of the mapped object, IoU and overlap. Nothing that is mapped is ever changed.

    \b
    geoseg conflate footprints.parquet --against region.osm.pbf -o conflated.parquet
    geoseg conflate footprints.parquet --against region.osm.pbf --check roads,rail,water \\
      --align --conflicts review.geojson -o conflated.parquet
    """  # noqa: D301 - a real backspace: click's mark of lines that are not to be wrapped
    config = options.make_config(parameters)

    from geoseg.cli.report import show
    from geoseg.stages.conflate import check_conflate_outputs, conflate_file

    output, conflicts = parameters["output"], parameters["conflicts"]
    with wrong_use():
        check_conflate_outputs(output, conflicts)
    report = conflate_file(
        footprints,
        list(parameters["against"]),
        output,
        options=config.conflate,
        checks=parameters["check"],
        conflicts=conflicts,
    )
    outputs = [str(path) for path in (output, conflicts) if path is not None]
    if parameters["as_json"]:
        show({"exit_code": 0, "outputs": outputs, **report.as_dict()}, as_json=True)
    else:
        click.echo("\n".join([f"wrote {path}" for path in outputs] + _lines(report)))
    return 0


def _lines(report: ConflationReport) -> list[str]:
    total = sum(report.counts.values())
    lines = [f"{total} footprints beside {report.mapped.get('building', 0)} mapped buildings"]
    lines += [
        f"  {status:<14}{count:>9}{count / total:>8.1%}" for status, count in report.counts.items()
    ]
    lines += [_offset_line(scene, report) for scene in report.offsets]
    return lines


def _offset_line(scene: str, report: ConflationReport) -> str:
    offset = report.offsets[scene]
    name = f"offset of {scene}" if scene else "offset"
    if offset is None:
        return f"{name}: too few buildings to tell"
    done = "applied" if report.aligned else "not applied (--align)"
    return (
        f"{name}: {offset['dx_m']:+.2f} m east, {offset['dy_m']:+.2f} m north, "
        f"spread {offset['spread_m']:.2f} m, {offset['n_pairs']:.0f} agree: {done}"
    )
