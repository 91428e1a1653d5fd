"""What test-time augmentation can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from geoseg.errors import ConfigError

ViewSet = Literal["none", "hflip", "d4", "d4+scale"]
Merge = Literal["mean", "gmean", "max", "min", "median"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TtaOptions:
    """From which sides chips are seen, and how what is found is merged."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    views: ViewSet = "none"
    """none; hflip, two; d4, the eight flips and rotations; d4+scale, those and a smaller one."""
    merge: Merge = "mean"
    """How probabilities and scores of the views become one."""
    agree_iou: float = 0.5
    """Instances of two views are one where their masks agree at this IoU."""

    def __post_init__(self) -> None:
        if not 0 < self.agree_iou <= 1:
            raise ConfigError(f"agree_iou must be in (0, 1], got {self.agree_iou}")
