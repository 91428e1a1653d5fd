"""`geoseg sweep`: training runs over a grid of options."""

from __future__ import annotations

from pathlib import Path

import click

from geoseg.cli import EXIT_PARTIAL


@click.command("sweep")
@click.argument("grid", type=click.Path(path_type=Path))
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--config", "config_file", metavar="FILE", help="What all runs have in common.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default="sweep",
    show_default=True,
    help="Folder of the runs, the table and the plot; runs that are done are not done again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    grid: Path,
    assignments: tuple[str, ...],
    config_file: str | None,
    run_dir: Path,
    *,
    as_json: bool,
) -> int:
    """Train once for each point of GRID, a YAML file such as `optim.lr: [1e-4, 5e-4]`.

    Exit code 3 if some runs failed: what came of the others is told all the same.
    """
    from geoseg.cli.report import show
    from geoseg.stages.sweep import read_grid, sweep

    runs = sweep(
        read_grid(grid),
        run_dir,
        config_file=config_file,
        assignments=assignments,
        say=lambda line: click.echo(line, err=True),
    )
    failed = {run.name: {"failed": run.failure} for run in runs if run.failure}
    table = {run.name: {**run.values, "ap": run.ap, **failed.get(run.name, {})} for run in runs}
    show(table, as_json=as_json)
    return EXIT_PARTIAL if failed else 0
