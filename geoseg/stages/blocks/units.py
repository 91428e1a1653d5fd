"""The functions that workers call. They import what they need there: the client needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoseg.stages.blocks.outcome import Outcome
    from geoseg.stages.blocks.plan import Region, SceneJob


def detect(region: Region, pixels: Any = None) -> Outcome:
    """Run the model over a block."""
    from geoseg.stages.blocks.detect import detect_block  # noqa: PLC0415 - brings torch

    return detect_block(region, pixels)


def read(region: Region) -> Any:
    """Read a block's pixels for another worker."""
    from geoseg.stages.blocks.sources import read_block  # noqa: PLC0415 - brings GDAL

    return read_block(region)


def stitch(region: Region, _: Any = None) -> Outcome:
    """Stitch a region."""
    from geoseg.stages.blocks.region import stitch_region  # noqa: PLC0415 - brings geopandas

    return stitch_region(region)


def release() -> None:
    """Close the scenes and forget the model that this process kept for its units."""
    from geoseg.stages.blocks.detect import PREDICTORS  # noqa: PLC0415 - brings torch
    from geoseg.stages.blocks.sources import SOURCES  # noqa: PLC0415 - brings GDAL

    SOURCES.close()
    PREDICTORS.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a worker does once, before its first unit."""

    scene: SceneJob
    """A scene of the run: all have the same model."""

    def __call__(self, device: str | None, runs_models: bool) -> None:
        """Take the device, and load the model where this worker is there to run it."""
        from geoseg.stages.blocks.detect import PREDICTORS  # noqa: PLC0415 - brings torch

        PREDICTORS.device = device
        if runs_models:
            PREDICTORS.get(self.scene)
