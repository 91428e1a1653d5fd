"""One self-contained HTML page of an evaluation: tables, plots and pictures.

Everything that comes from files is escaped. matplotlib is imported when a page is drawn.
"""

from __future__ import annotations

import base64
import html
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.data.plots import figure_class
from geoseg.files import check_output, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.evaluate.calibration import Calibration
    from geoseg.evaluate.mistakes import ChipMistakes

BLUE, ORANGE = "#3f6fa5", "#d1782c"
CELLS_SHOWN = 40  # objects of a chip in its overlap matrix
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;"
    "color:#222}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.8em}"
    "table{border-collapse:collapse}td,th{padding:.2em .9em .2em 0;text-align:left;"
    "border-bottom:1px solid #ddd}td.n{text-align:right;font-variant-numeric:tabular-nums}"
    "img{max-width:100%}figure{display:inline-block;margin:0 1em 1em 0;vertical-align:top}"
    "figcaption{font-size:.85em;color:#555}p.note{color:#555}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page: a table, pictures, or both."""

    title: str
    note: str = ""
    table: Mapping[str, Any] | None = None
    """Name to value, or to a mapping of columns."""
    pictures: Sequence[tuple[str, bytes]] = ()
    """Caption and PNG."""


def write_report(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page.

    Raises:
        OutputError: It cannot be written; nothing is left behind.
    """
    parts = [_section(section) for section in sections]
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n"
    )
    with replacing(check_output(path, (".html",))) as temporary:
        temporary.write_text(page, encoding="utf-8")


def curve_plot(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> bytes:
    """Draw precision over recall (101,) at IoU .50, .75 and .90 of precision (10, 101)."""

    def draw(axes: Any) -> None:
        for row, shade in ((0, 1.0), (5, 0.65), (8, 0.35)):
            label = f"IoU {0.5 + 0.05 * row:.2f}"
            axes.plot(recall, precision[row], color=BLUE, alpha=shade, label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(frameon=False)

    return _drawn(draw)


def calibration_plot(found: Calibration) -> bytes:
    """Draw the share that is right over the score, and how many there are."""

    def draw(axes: Any) -> None:
        middle = (found.edges[:-1] + found.edges[1:]) / 2
        axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
        axes.bar(middle, np.nan_to_num(found.right), width=0.9 * middle[0] * 2, color=BLUE)
        axes.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        counts = axes.twinx()
        counts.step(middle, found.counts, where="mid", color=ORANGE)
        counts.set(ylabel="detections", ylim=(0, None))

    return _drawn(draw)


def histogram(values: NDArray[np.floating], label: str, *, bins: int = 25) -> bytes:
    """Draw a histogram."""

    def draw(axes: Any) -> None:
        axes.hist(values[np.isfinite(values)], bins=bins, color=BLUE)
        axes.set(xlabel=label, ylabel="number")

    return _drawn(draw)


def bars(shares: Mapping[str, float], label: str) -> bytes:
    """Draw a bar for each name."""

    def draw(axes: Any) -> None:
        axes.bar(list(shares), [0 if math.isnan(v) else v for v in shares.values()], color=BLUE)
        axes.set(ylabel=label)
        axes.tick_params(axis="x", labelrotation=30)

    return _drawn(draw)


def overlap_plot(chip: ChipMistakes) -> bytes:
    """Draw the IoU of each object of a chip with each detection."""

    def draw(axes: Any) -> None:
        shown = chip.overlaps[:CELLS_SHOWN, :CELLS_SHOWN]
        picture = axes.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set(xlabel="detections, best score first", ylabel="objects")
        axes.locator_params(integer=True)
        axes.figure.colorbar(picture, label="IoU")

    return _drawn(draw)


def chip_picture(
    image: NDArray[np.uint8],
    truth: Sequence[NDArray[np.bool_]],
    found: Sequence[NDArray[np.bool_]],
) -> bytes:
    """Draw outlines of objects (blue) and detections (orange) over a chip (3, H, W)."""

    def draw(axes: Any) -> None:
        axes.imshow(image.transpose(1, 2, 0))
        for masks, colour in ((truth, BLUE), (found, ORANGE)):
            for mask in masks:
                axes.contour(mask, [0.5], colors=[colour], linewidths=1.2)
        axes.set_axis_off()

    return _drawn(draw, size=(3.4, 3.4))


def _drawn(draw: Callable[[Any], None], *, size: tuple[float, float] = (4.6, 3.4)) -> bytes:
    figure = figure_class()(figsize=size, layout="constrained")
    draw(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.note:
        parts.append(f"<p class=note>{html.escape(section.note)}</p>")
    if section.table is not None:
        parts.append(_table(section.table))
    for caption, png in section.pictures:
        data = base64.b64encode(png).decode("ascii")
        text = html.escape(caption)
        parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    return "".join(parts)


def _table(rows: Mapping[str, Any]) -> str:
    lines = []
    for name, value in rows.items():
        cells = value if isinstance(value, dict) else {"": value}
        shown = "".join(f"<td class=n>{html.escape(_number(v))}</td>" for v in cells.values())
        lines.append(f"<tr><th>{html.escape(name)}</th>{shown}</tr>")
    first = next(iter(rows.values()), None)
    head = ""
    if isinstance(first, dict):
        head = "<tr><th></th>" + "".join(f"<th>{html.escape(k)}</th>" for k in first) + "</tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "undefined" if math.isnan(value) else f"{value:.3f}"
    return str(value)
