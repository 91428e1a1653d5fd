"""Many training runs, one for each point of a grid of options, and which was best.

A run that is done is not done again, so a sweep that was cut goes on. One that fails is told, and
leaves the others be.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoseg.config import load_train_config, read_yaml
from geoseg.data.plots import figure_class
from geoseg.errors import ConfigError, GeosegError
from geoseg.files import output_errors, replacing
from geoseg.stages.train import train_run
from geoseg.train.journal import VALIDATIONS_FILE, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

MAX_RUNS = 1000
TABLE_FILE = "sweep.csv"
PLOT_FILE = "sweep.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """One point of a grid and what came of it."""

    name: str
    values: dict[str, Any]
    """Option to its value."""
    ap: float
    """Best AP of its validations; NaN without any, and where the run failed."""
    failure: str = ""
    """Why it failed, if it did."""


def read_grid(path: Path) -> dict[str, list[Any]]:
    """Read a grid: options such as `optim.lr`, each with a list of values.

    Raises:
        InputNotFoundError: There is no such file.
        ConfigError: It is no grid, or has too many points.
    """
    tree = read_yaml(path)
    grid = {str(k): v for k, v in tree.items()}
    for key, values in grid.items():
        if not isinstance(values, list) or not values or "." not in key:
            raise ConfigError(
                f"{path}: {key[:60]} must be section.key with a list of values, "
                f"got {str(values)[:60]}"
            )
    points = 1
    for values in grid.values():
        points *= len(values)
    if not grid or points > MAX_RUNS:
        raise ConfigError(f"{path}: a grid must have 1 to {MAX_RUNS} points, got {points}")
    return grid


def sweep(
    grid: dict[str, list[Any]],
    folder: Path,
    *,
    config_file: str | None = None,
    assignments: Iterable[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[SweepRun]:
    """Train once for each point of a grid; leave a table and a plot of the best APs.

    Args:
        grid: Of `read_grid`.
        folder: Where the runs' folders and the table lie.
        config_file: What all runs have in common.
        assignments: `section.key=value` words that all runs have in common.
        say: Told lines for people who watch.

    Returns:
        The runs, best first, those that failed last.

    Raises:
        ConfigError: An option of a point is none, or out of its range; nothing was trained.
        MissingExtraError: matplotlib is not installed; nothing was trained.
        GeosegError: Every run failed; this is the last one's error.
    """
    figure_class()
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    configs = [load_train_config(config_file, assignments=assignments, options=p) for p in points]
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    runs: list[SweepRun] = []
    for values, config in zip(points, configs, strict=True):
        name = _name(values)
        say(f"run {len(runs) + 1}: {name}")
        try:
            train_run(config, folder / name, say=say)
        except GeosegError as error:
            say(f"failed: {error}")
            runs.append(SweepRun(name=name, values=values, ap=math.nan, failure=str(error)))
            if len(runs) == len(points) and all(run.failure for run in runs):
                raise
            continue
        aps = [row["ap"] for row in read_rows(folder / name / VALIDATIONS_FILE)]
        runs.append(SweepRun(name=name, values=values, ap=max(aps, default=math.nan)))
    runs.sort(key=lambda run: (bool(run.failure), math.isnan(run.ap), -run.ap))
    _write_table(folder / TABLE_FILE, runs)
    _write_plot(folder / PLOT_FILE, runs)
    return runs


def _name(values: dict[str, Any]) -> str:
    """Return the folder's name of a point."""
    words = "_".join(f"{key.split('.')[-1]}-{value}" for key, value in values.items())
    return "".join(c if c.isalnum() or c in "-_.+" else "-" for c in words)[:120]


def _write_table(path: Path, runs: list[SweepRun]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *runs[0].values, "ap"])
    for run in runs:
        writer.writerow([run.name, *run.values.values(), f"{run.ap:.4f}"])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _write_plot(path: Path, runs: list[SweepRun]) -> None:
    """Draw AP over each option that varies."""
    keys = list(runs[0].values)
    figure = figure_class()(figsize=(4 * len(keys), 3.4), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        axes.plot([str(run.values[key]) for run in runs], [run.ap for run in runs], "o")
        axes.set(xlabel=key, ylabel="AP")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
