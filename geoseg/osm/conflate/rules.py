"""What a footprint can be to the map, and the thresholds that say so.

Lengths are metres on the ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from geoseg.errors import ConfigError


class Status(StrEnum):
    """What a footprint is to the map."""

    NEW = "new"
    DUPLICATE = "duplicate"
    OVERLAPS = "overlaps"
    NEAR = "near"
    CROSSES_ROAD = "crosses-road"
    CROSSES_RAIL = "crosses-rail"
    CROSSES_WATER = "crosses-water"
    IN_WATER = "in-water"


REVIEWED: Final = tuple(s for s in Status if s not in {Status.NEW, Status.DUPLICATE})
"""What a person should look at: neither plainly missing nor plainly there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflateOptions:
    """When a footprint is new, and when it needs a look."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    align: bool = False
    """Shift the footprints of each scene by its offset, where there is evidence for one."""
    duplicate_iou: float = 0.5
    """From this intersection over union with one building, it is that building."""
    duplicate_cover: float = 0.8
    """From this share of it under mapped buildings, there is nothing to add."""
    min_overlap: float = 0.01
    """A smaller share of the smaller area is how neighbours are drawn, not an overlap."""
    touch_m: float = 0.5
    """An overlap no thicker than this is how neighbours are drawn, too."""
    strip_m: float = 2.5
    """Nor does one no thicker than this count if another footprint is that building."""
    near_m: float = 3.0
    """A building of like size with its centre this near may be the same, if none overlaps it."""
    max_offset_m: float = 10.0
    """Longer offsets of imagery are not looked for."""
    min_pairs: int = 10
    """So many pairs must agree on an offset."""
    crossing_m: float = 1.0
    """So much of a road, railway or stream may lie inside a footprint."""
    water_share: float = 0.1
    """So much of a footprint may lie in water."""

    def __post_init__(self) -> None:
        for name in ("duplicate_iou", "duplicate_cover", "min_overlap", "water_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        for name in ("touch_m", "strip_m", "near_m", "crossing_m"):
            if not 0 <= getattr(self, name) <= 100:
                raise ConfigError(f"{name} must be in [0, 100] metres, got {getattr(self, name)}")
        if not 0.5 <= self.max_offset_m <= 100:
            raise ConfigError(f"max_offset_m must be in [0.5, 100], got {self.max_offset_m}")
        if self.min_pairs < 3:
            raise ConfigError(f"min_pairs must be at least 3, got {self.min_pairs}")
