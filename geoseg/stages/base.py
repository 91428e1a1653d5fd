"""What every stage counts and reports: chips, failures, seconds."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from affine import Affine
from pyproj import CRS

from geoseg.errors import ReadError
from geoseg.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from geoseg.chips import Chip


T = TypeVar("T")


class Progress(Protocol):
    """Told about work done; the command line draws a bar, tests and libraries need not."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins with `total` chips before it."""
        ...

    def advance(self, count: int) -> None:
        """`count` chips are done."""
        ...

    def say(self, text: str) -> None:
        """Something worth a line."""
        ...


class Silence:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int) -> None:
        """Ignore."""

    def advance(self, count: int) -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of a run while it lasts; `summary` is what is reported at its end."""

    chips: int = 0
    """Chips planned."""
    inferred: int = 0
    skipped: int = 0
    """Chips without a valid pixel, never inferred."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Chips that could not be read: name and reason."""
    detections: int = 0
    footprints: int = 0
    area_m2: float = 0.0
    """Ground owned by the chips that were inferred."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage; stages overlap, so they may add up to more than the whole."""
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def timed_items(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Yield items, adding the time each takes to come to a stage."""
        source = iter(items)
        while True:
            with self.timed(stage):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def fail(self, chip: Chip, error: ReadError) -> None:
        """Count a chip that could not be read."""
        self.failed.append((chip.name, str(error)))

    def skip(self, chip: Chip) -> None:
        """Count a chip without data."""
        self.skipped += 1

    def check(self) -> None:
        """Raise if chips failed and none could be read: there is no result to speak of."""
        if self.failed and not self.inferred:
            raise ReadError(self.failed[0][1])

    def summary(self) -> dict[str, Any]:
        """Return the closing figures, ready for JSON."""
        total = time.perf_counter() - self.started
        working = self.seconds.get("infer", 0.0)
        return {
            "chips": self.chips,
            "inferred": self.inferred,
            "skipped": self.skipped,
            "failed": [{"chip": name, "error": reason} for name, reason in self.failed],
            "detections": self.detections,
            "footprints": self.footprints,
            "km2": round(self.area_m2 / 1e6, 6),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()}
            | {"total": round(total, 3)},
            "chips_per_s": round(self.inferred / working, 3) if working else None,
        }


def grid_values(grid: Grid) -> dict[str, Any]:
    """Return a grid as plain values, ready for JSON."""
    return {
        "crs": grid.crs.to_wkt(),
        "transform": list(grid.transform)[:6],
        "height": grid.height,
        "width": grid.width,
    }


def grid_from(values: dict[str, Any]) -> Grid:
    """Return the grid that `grid_values` described.

    Raises:
        Exception: ValueError, KeyError, TypeError or RuntimeError where it described none.
    """
    return Grid(
        crs=CRS.from_wkt(values["crs"]),
        transform=Affine(*map(float, values["transform"])),
        height=int(values["height"]),
        width=int(values["width"]),
    )


def cut_from(values: dict[str, Any]) -> dict[str, int] | None:
    """Return how a scene was cut, `size_px` and `overlap_px`; None where one of them is not said.

    Raises:
        TypeError: They are no whole numbers.
    """
    size_px, overlap_px = values.get("size_px"), values.get("overlap_px")
    if not (isinstance(size_px, int | None) and isinstance(overlap_px, int | None)):
        raise TypeError("size_px and overlap_px of chips must be whole numbers")
    if size_px is None or overlap_px is None:
        return None
    return {"size_px": size_px, "overlap_px": overlap_px}
