"""Models that workers import by name: slow ones, and some that hang."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.testing import noisy_oracle

if TYPE_CHECKING:
    import torch

SECONDS_VARIABLE = "GEOSEG_TEST_SECONDS"
"""Seconds that a chip takes."""
HANG_VARIABLE = "GEOSEG_TEST_HANG"
"""A file: whoever finds it removes it and hangs."""
NEVER_S = 10_000


def slow_oracle() -> torch.nn.Module:
    """Build the noisy oracle that takes its time, and hangs when asked to."""
    model = noisy_oracle()
    seconds = float(os.environ.get(SECONDS_VARIABLE, "0.01"))
    hang = os.environ.get(HANG_VARIABLE)

    def wait(_module: Any, images: tuple[list[Any]]) -> None:
        time.sleep(seconds * len(images[0]))
        if hang is not None and Path(hang).exists():
            Path(hang).unlink()
            time.sleep(NEVER_S)

    model.register_forward_pre_hook(wait)
    return model


def hanging_oracle() -> torch.nn.Module:
    """Build an oracle that hangs at building 4, which lies in one block of the tests."""
    model = noisy_oracle()

    def wait(_module: Any, images: tuple[list[Any]]) -> None:
        for image in images[0]:
            red, green, blue = (image * 255).round()
            if bool(((red == 4) & (green == 0) & (blue == 0)).any()):
                time.sleep(NEVER_S)

    model.register_forward_pre_hook(wait)
    return model
