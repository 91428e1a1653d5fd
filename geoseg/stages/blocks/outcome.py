"""What a unit of work reports: counts, failures and seconds; a few hundred bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from geoseg.stages.base import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a unit ended."""

    chips: int = 0
    inferred: int = 0
    skipped: int = 0
    """Chips without a valid pixel."""
    failed: tuple[tuple[str, str], ...] = ()
    """Chips, or a whole block, that could not be done: name and reason."""
    detections: int = 0
    footprints: int = 0
    area_m2: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by what was done."""
    reused: bool = False
    """It was done already, by a former run."""

    @classmethod
    def of(cls, tally: Tally) -> Self:
        """Return what a tally counted."""
        return cls(
            chips=tally.chips,
            inferred=tally.inferred,
            skipped=tally.skipped,
            failed=tuple(tally.failed),
            detections=tally.detections,
            footprints=tally.footprints,
            area_m2=tally.area_m2,
            seconds={stage: round(value, 4) for stage, value in tally.seconds.items()},
        )

    @classmethod
    def lost(cls, name: str, reason: str, *, chips: int) -> Self:
        """Return the outcome of a unit that could not be done at all."""
        return cls(chips=chips, failed=((name, reason),))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, reused: bool) -> Self:
        """Read what `to_dict` wrote; raises TypeError or ValueError where it did not."""
        failed = tuple((str(name), str(reason)) for name, reason in values["failed"])
        return cls(**{**values, "failed": failed, "reused": reused})

    def add_to(self, tally: Tally) -> None:
        """Count this outcome in a run's tally, but for seconds: units run side by side."""
        for name in ("chips", "inferred", "skipped", "detections", "area_m2"):
            setattr(tally, name, getattr(tally, name) + getattr(self, name))
        tally.failed += self.failed
