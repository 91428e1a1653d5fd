"""Progress while a verb runs and the summary when it ends."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click

from geoseg.cli import EXIT_PARTIAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from geoseg.stages.base import Tally

LOG_EVERY_S = 10.0
FAILURES_SHOWN = 10


class TerminalProgress:
    """A bar with rate and time left on a terminal, plain lines elsewhere; a context manager."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage, self._total, self._done = "", 0, 0
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` chips."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stage, self._total, self._done = stage, total, 0
        self._started = self._logged = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            # A terminal that does not tell its size would get an empty bar.
            size: Any = {"dynamic_ncols": True} if _columns() else {"ncols": 80, "nrows": 24}
            self._bar = tqdm(total=total, desc=stage, unit="chip", **size)

    def advance(self, count: int) -> None:
        """Count chips done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif count and time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            rate = self._done / (self._logged - self._started)
            left = (self._total - self._done) / rate
            click.echo(
                f"{self._stage}: {self._done} of {self._total} chips, "
                f"{rate:.1f} chips/s, {left:.0f} s left",
                err=True,
            )

    def say(self, text: str) -> None:
        """Print a line."""
        click.echo(text, err=True)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 0


def show(values: dict[str, Any], *, as_json: bool) -> None:
    """Print nested values as JSON, NaN as null, or as indented lines.

    A failure after the JSON adds none of its own.
    """
    if as_json:
        click.echo(json.dumps(_without_nan(values)))
        click.get_current_context().obj.append(values)
        return
    for line in _lines(values, ""):
        click.echo(line)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _lines(values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        elif value is not None:
            yield f"{indent}{name}: {format(value, '.4g') if isinstance(value, float) else value}"


def finish(
    tally: Tally, outputs: list[Path], *, as_json: bool, about: dict[str, Any] | None = None
) -> int:
    """Print the closing summary; return the exit code.

    Args:
        tally: What was counted.
        outputs: What was written.
        as_json: As JSON.
        about: More facts of this verb; dicts of counts, and numbers.
    """
    summary = tally.summary()
    code = EXIT_PARTIAL if tally.failed else 0
    for name, reason in tally.failed[:FAILURES_SHOWN]:
        click.echo(f"chip {name} failed: {reason}", err=True)
    if len(tally.failed) > FAILURES_SHOWN:
        click.echo(f"... and {len(tally.failed) - FAILURES_SHOWN} more", err=True)
    if as_json:
        facts = {"outputs": [str(path) for path in outputs], **summary, **_without_nan(about or {})}
        click.echo(json.dumps({"exit_code": code, **facts}))
    else:
        click.echo("\n".join([_text(summary, outputs), *_about(about or {})]))
    return code


def _about(facts: dict[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        counts = value.items() if isinstance(value, dict) else [("", value)]
        if counts:
            words = ", ".join(f"{count} {what}".strip() for what, count in counts)
            yield f"{name.replace('_', ' ')}: {words}"


def _text(summary: dict[str, Any], outputs: list[Path]) -> str:
    lines = [f"wrote {path}" for path in outputs]
    if summary["chips"]:
        line = f"{summary['chips']} chips: {summary['inferred']} done"
        line += f", {summary['skipped']} without data, {len(summary['failed'])} failed"
        lines.append(line + (f", {summary['km2']:.3f} km2" if summary["km2"] else ""))
    if summary["chips"] and not summary["inferred"]:
        lines.append("no chip holds data: the result is empty")
    counts = [(summary["detections"], "detections"), (summary["footprints"], "footprints")]
    if any(count for count, _ in counts):
        lines.append(", ".join(f"{count} {name}" for count, name in counts if count))
    elif {"infer", "stitch"} & set(summary["seconds"]):
        lines.append("found no building")
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())
    rate = f"; {summary['chips_per_s']:.1f} chips/s" if summary["chips_per_s"] else ""
    lines.append(f"seconds: {seconds}{rate}")
    return "\n".join(lines)
