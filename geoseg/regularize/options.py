"""What regular outlines may look like, and how far they may leave the raw ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from geoseg.errors import ConfigError

MAX_DIRECTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularizeOptions:
    """How outlines are made regular; lengths in metres on the ground."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    enabled: bool = False
    """Whether footprints are regularized at all."""
    angles: Literal[90, 45] = 90
    """Walls meet at right angles; or at multiples of 45 degrees, too."""
    directions: int = 2
    """Main directions that a bent building may have, 1 to 3."""
    circles: bool = True
    """Whether round buildings become circles."""
    least_wall_m: float = 1.5
    """Jogs and bays of less are noise: walls run on past them."""
    gap_m: float = 0.5
    """Neighbours' walls that face each other across less, or overlap by less, become one; 0 leaves
    them."""
    least_iou: float = 0.75
    """IoU with the raw outline below which that is kept."""
    hausdorff_m: float = 4.0
    """Distance from the raw outline above which that is kept."""

    def __post_init__(self) -> None:
        if self.angles not in {90, 45}:
            raise ConfigError(f"angles must be 90 or 45 degrees, got {self.angles}")
        if not 1 <= self.directions <= MAX_DIRECTIONS:
            raise ConfigError(f"directions must be 1 to {MAX_DIRECTIONS}, got {self.directions}")
        for name in ("least_wall_m", "hausdorff_m"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be metres above 0, got {value}")
        if not (math.isfinite(self.gap_m) and self.gap_m >= 0):
            raise ConfigError(f"gap_m must be 0 or more, got {self.gap_m}")
        if not 0 <= self.least_iou <= 1:
            raise ConfigError(f"least_iou must be in [0, 1], got {self.least_iou}")
