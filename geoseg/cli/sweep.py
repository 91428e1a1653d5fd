"""`geoseg sweep`: training runs over a grid of options."""

from __future__ import annotations

from pathlib import Path

import click


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
    """Train once for each point of GRID, a YAML file such as `optim.lr: [1e-4, 5e-4]`."""
    from geoseg.cli.report import show
    from geoseg.stages.sweep import read_grid, sweep

    runs = sweep(
        read_grid(grid),
        run_dir,
        config_file=config_file,
        assignments=assignments,
        say=lambda line: click.echo(line, err=True),
    )
    show({run.name: {**run.values, "ap": run.ap} for run in runs}, as_json=as_json)
    return 0
