"""The report: JSON for machines, a Markdown table for people, and the page in `docs/`."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import inspect
import json
import os
import platform
from typing import TYPE_CHECKING, Any

from geoseg.models import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.rows import Row

VERSIONS = ("geoseg", "torch", "torchvision", "numpy", "shapely", "rasterio")
_MET = {True: "yes", False: "**no**", None: ""}


def write_json(path: Path, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """Write the rows and the machine they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": dict(machine), "rows": [row.as_dict() for row in rows]}
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "weights": f"{DEFAULT_MODEL} version {find_model(DEFAULT_MODEL).spec.version}",
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in VERSIONS},
    }


def as_table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| benchmark | what | measured | target | met | |", "|---|---|---|---|---|---|"]
    for row in rows:
        target = "" if row.target is None else f"{row.comparison} {row.target:g}"
        value = "not measured" if row.value is None else f"{row.value:g} {row.unit}".strip()
        cells = [row.benchmark, row.name, value, target, _MET[row.met], row.note]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_page(
    rows: Sequence[Row],
    machine: Mapping[str, Any],
    benchmarks: Mapping[str, Callable[..., object]],
    *,
    before: str = "",
) -> str:
    """Return the documentation page: how each benchmark measures, on what, then its rows.

    Args:
        rows: What was measured.
        machine: What it was measured on.
        benchmarks: All there are, in the page's order.
        before: The page as it was: sections of benchmarks that were not run stay.
    """
    kept = _sections(before)
    where = ", ".join(f"{name} {value}" for name, value in machine.items())
    parts = [
        "# Benchmarks",
        (
            "Written by `python -m benchmarks --docs`, which replaces the sections of what it ran: "
            "`python -m benchmarks real tta --docs` those two. Each benchmark's own words say "
            "what is measured and how. Everything but the clock is deterministic. Ratios of times "
            "come from rounds run in turn (A B A B) in one process: the median of the rounds' "
            "ratios, with their spread, since other users of a machine disturb some rounds. "
            "No test asserts a time."
        ),
    ]
    for name, benchmark in benchmarks.items():
        mine = [row for row in rows if row.benchmark == name]
        if mine:
            words = inspect.getdoc(benchmark) or ""
            parts += [f"## {name}", words, f"Measured with {where}.", as_table(mine)]
        elif name in kept:
            parts += [f"## {name}", kept[name]]
    return "\n\n".join(parts) + "\n"


def _sections(page: str) -> dict[str, str]:
    """Return what stands under each heading of the second level."""
    _, *sections = f"\n{page}".split("\n## ")
    named = (section.partition("\n") for section in sections)
    return {name.strip(): text.strip() for name, _, text in named}
