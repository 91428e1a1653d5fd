"""A row of the report: what was measured, what was asked for, whether it is met."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Comparison = Literal[">=", "<=", "=="]

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured value; without a target it is there to be read, not judged."""

    benchmark: str
    name: str
    value: float | None
    """None where it could not be measured: `note` says why."""
    unit: str = ""
    comparison: Comparison | None = None
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target holds; None without a target or a value."""
        if self.comparison is None or self.target is None or self.value is None:
            return None
        return _HOLDS[self.comparison](self.value, self.target)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "benchmark": self.benchmark,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": None if self.target is None else f"{self.comparison} {self.target:g}",
            "met": self.met,
            "note": self.note,
        }


def at_least(target: float) -> dict[str, Any]:
    """Return the fields of a row whose value must reach a target."""
    return {"comparison": ">=", "target": target}


def at_most(target: float) -> dict[str, Any]:
    """Return the fields of a row whose value must not pass a target."""
    return {"comparison": "<=", "target": target}


def exactly(target: float) -> dict[str, Any]:
    """Return the fields of a row whose value must be the target."""
    return {"comparison": "==", "target": target}
