"""What happens in a worker: it gets a device and a model, does units, and ends when one hangs."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from distributed import WorkerPlugin, get_worker

from geoseg import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Worker

R = TypeVar("R")

DEVICE_VARIABLE: Final = "GEOSEG_WORKER_DEVICE"
"""Tells a worker process its device; set where it is started."""
HANG_TOPIC: Final = "geoseg-hang"
LAST_WORDS_S: Final = 0.5
"""For a worker's last words to arrive."""


class ModelPlugin(WorkerPlugin):  # type: ignore[misc] # distributed is not followed for types
    """Prepares each worker, also those that come later or anew."""

    def __init__(self, key: str, setup: Callable[[str | None, bool], None]) -> None:
        self.name = f"geoseg-{key}"
        self._setup = setup

    def setup(self, worker: Worker) -> None:
        """Tell the process its device, and load the model where models run."""
        device = os.environ.get(DEVICE_VARIABLE)
        marks = worker.state.total_resources
        runs_models = "GPU" in marks or "CPU" not in marks
        self._setup(device or ("cuda" if "GPU" in marks else None), runs_models)


def limited_with(function: Callable[[Any, Any], R], unit: Any, pixels: Any, limit_s: float) -> R:
    """Call a function with a unit and its pixels, which another worker may have read."""
    return limited(function, (unit, pixels), limit_s)


def limited(function: Callable[..., R], arguments: tuple[Any, ...], limit_s: float) -> R:
    """Call a function in a worker that ends itself when it takes too long; its nanny starts anew.

    A thread that hangs in a driver or on a network drive can be ended in no other way.
    """
    if not 0 < limit_s < math.inf:
        return function(*arguments)
    worker = get_worker()
    key = worker.get_current_task()

    def end() -> None:
        worker.log_event(HANG_TOPIC, key)
        time.sleep(LAST_WORDS_S)
        os._exit(1)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        return function(*arguments)
    finally:
        timer.cancel()


def worker_version() -> str:
    """Return the version of geoseg that the worker has."""
    return __version__


def sees(path: str) -> bool:
    """Say whether the worker sees a file; what it may not look at it does not see."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where a share refuses
