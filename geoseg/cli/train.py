"""`geoseg train`: weights from chips or scenes with outlines."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click


@click.command("train")
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--config", "config_file", metavar="FILE", help="YAML file of options.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default="run",
    show_default=True,
    help="Folder of the run; one that holds the same run goes on from its last checkpoint.",
)
@click.option("--scene", "scenes", multiple=True, metavar="TIF", help="Scene to train on.")
@click.option("--labels", multiple=True, metavar="FILE", help="Outlines of the scene before it.")
@click.option("--init", "network__init", metavar="NAME|FILE", help="First weights [imagenet].")
@click.option("--steps", "loop__steps", type=int, help="Weight updates [2000].")
@click.option("--device", "loop__device", metavar="auto|cpu|cuda|mps", help="Where [auto].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Say more on the way.")
def command(assignments: tuple[str, ...], run_dir: Path, **parameters: Any) -> int:
    """Train a network; KEY=VALUE such as optim.lr=1e-4 or data.root=/data/crowdai.

    \b
    geoseg train --config configs/finetune.yaml --scene town.tif --labels town.geojson
    """  # noqa: D301 - a real backspace: click's mark of lines that are not to be wrapped
    from geoseg.config import load_train_config

    if parameters["verbose"]:
        logging.getLogger("geoseg").setLevel(logging.INFO)
    options = {k.replace("__", "."): v for k, v in parameters.items() if "__" in k}
    if scenes := paired(parameters["scenes"], parameters["labels"]):
        options["data.scenes"] = scenes
    config = load_train_config(parameters["config_file"], assignments=assignments, options=options)

    from geoseg.stages.train import WEIGHTS_FILE, train_run

    summary = train_run(config, run_dir, say=lambda line: click.echo(line, err=True))
    if summary.spec is None:  # another process writes, and speaks
        return 0
    if parameters["as_json"]:
        values = {
            "weights": str(run_dir / WEIGHTS_FILE),
            "steps": summary.progress.step,
            "best_ap": summary.progress.best_ap if summary.progress.best_step else None,
            "best_step": summary.progress.best_step or None,
        }
        click.echo(json.dumps(values))
    else:
        click.echo(f"{summary.progress.step} steps; weights are in {run_dir / WEIGHTS_FILE}")
    return 0


def paired(scenes: tuple[str, ...], labels: tuple[str, ...]) -> list[dict[str, str]]:
    """Return scenes with the labels that were given for them, in order."""
    if len(scenes) != len(labels):
        raise click.UsageError(
            f"--labels must be given once for each --scene ({len(scenes)}), got {len(labels)}"
        )
    return [{"raster": scene, "labels": label} for scene, label in zip(scenes, labels, strict=True)]
