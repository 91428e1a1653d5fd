"""`geoseg status`: how far a run in blocks is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geoseg.stages.blocks.rundir import RunManifest, StageCount

SHOWN = 10


@click.command("status")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(run_dir: Path, *, as_json: bool) -> None:
    """Say how far the run with the folder RUN_DIR is: while it lasts, or where it ended."""
    from geoseg.stages.blocks.rundir import RunManifest

    manifest = RunManifest.load(run_dir)
    if as_json:
        click.echo(json.dumps(_values(manifest)))
    else:
        click.echo("\n".join(_lines(manifest)))


def _values(manifest: RunManifest) -> dict[str, Any]:
    from dataclasses import asdict

    values = asdict(manifest)
    for name, stage in manifest.stages.items():
        values["stages"][name] |= {
            "left": stage.units - stage.done - stage.reused,
            "chips_per_s": stage.chips_per_s,
            "seconds_left": stage.seconds_left,
        }
    return values


def _lines(manifest: RunManifest) -> Iterator[str]:
    took = manifest.updated - manifest.started
    who = f", pid {manifest.pid} on {manifest.host}" if manifest.state == "running" else ""
    yield f"{manifest.state} after {_span(took)}{who}"
    if manifest.error:
        yield f"error: {manifest.error}"
    if manifest.state in {"interrupted", "failed"}:
        yield "the same command again goes on from here"
    for name, stage in manifest.stages.items():
        yield f"{name}: {_stage(stage, lasts=manifest.state == 'running')}"
    for name, reason in manifest.failures[:SHOWN]:
        yield f"failed: {name}: {reason}"
    if len(manifest.failures) > SHOWN:
        yield f"... and {len(manifest.failures) - SHOWN} more, in blocks.jsonl"


def _stage(stage: StageCount, *, lasts: bool) -> str:
    left = stage.units - stage.done - stage.reused
    parts = [f"{stage.done + stage.reused} of {stage.units} blocks done"]
    if stage.reused:
        parts.append(f"{stage.reused} of them before")
    parts.append(f"{stage.failed} failed")
    parts.append(f"{left} left")
    if (rate := stage.chips_per_s) is not None:
        parts.append(f"{rate:.1f} chips/s")
    if lasts and left and (seconds := stage.seconds_left) is not None:
        parts.append(f"{_span(seconds)} left")
    return ", ".join(parts)


def _span(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(max(0.0, seconds)))
