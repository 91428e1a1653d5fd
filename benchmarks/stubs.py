"""Networks of known cost that find a fixed thing: what is left is the pipeline."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BUSY_S = 0.02
"""CPU seconds of a chip in `busy`."""
BRIEF_S = 0.002
"""CPU seconds of a chip in `brief`."""
SIDE_PX = 12
"""Side of the square that every chip shows in its middle."""


@functools.cache
def stub_class() -> type[torch.nn.Module]:
    """Return the stub's class; torch is imported here, so that naming a stub does not cost it."""
    import torch  # noqa: PLC0415 - hundreds of megabytes, which a client does not need

    class Stub(torch.nn.Module):
        """Spins for a while and finds one square in the middle of every chip."""

        def __init__(self, busy_s: float) -> None:
            super().__init__()
            self.busy_s = busy_s

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            """Follow torchvision's detection contract."""
            end = time.thread_time() + self.busy_s * len(images)
            while time.thread_time() < end:
                pass
            return [self._found(image) for image in images]

        def _found(self, image: torch.Tensor) -> dict[str, Any]:
            height, width = image.shape[1:]
            y, x = (height - SIDE_PX) // 2, (width - SIDE_PX) // 2
            masks = torch.zeros((1, 1, height, width))
            masks[:, :, y : y + SIDE_PX, x : x + SIDE_PX] = 1
            return {
                "boxes": torch.tensor([[x, y, x + SIDE_PX, y + SIDE_PX]], dtype=torch.float32),
                "labels": torch.ones(1, dtype=torch.int64),
                "scores": torch.full((1,), 0.9),
                "masks": masks,
            }

    return Stub


def busy() -> torch.nn.Module:
    """Build a network that costs as much as a small real one."""
    return stub_class()(BUSY_S)


def brief() -> torch.nn.Module:
    """Build a network that costs little, so that all around it shows."""
    return stub_class()(BRIEF_S)


def free() -> torch.nn.Module:
    """Build a network that costs nothing."""
    return stub_class()(0.0)
