"""Processes of this machine as a cluster: which to start, on which devices, and keeping them up."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from distributed import Nanny, Scheduler, SpecCluster

from geoseg import models
from geoseg.errors import DeviceError
from geoseg.stages.executors.worker import DEVICE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geoseg.config import ScaleOptions

TEND_S: Final = 0.5
"""Between looks at whether all workers are there."""
_ENDED: Final = {"failed", "closed"}


@contextlib.contextmanager
def local_cluster(options: ScaleOptions, *, cores: int) -> Iterator[SpecCluster]:
    """Start the processes of `local_workers` and a scheduler for them, all on 127.0.0.1.

    Args:
        options: Workers or devices.
        cores: CPU cores of this machine, shared by its workers.

    Raises:
        DeviceError: More GPUs are asked for than there are.
        RuntimeError: They cannot be started.
        OSError: As above.
    """
    scheduler = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    with (
        SpecCluster(
            workers=local_workers(options, cores=cores),
            scheduler={"cls": Scheduler, "options": scheduler},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        _tended(cluster),
    ):
        yield cluster


def local_workers(options: ScaleOptions, *, cores: int) -> dict[str, Any]:
    """Return what processes to start on this machine, as `SpecCluster` takes them.

    Without devices every worker does everything. With devices each has a process of its own with
    the resource GPU=1, and reading, stitching and writing go to others with CPU=1.

    Raises:
        DeviceError: More GPUs are asked for than there are.
    """
    devices = _devices(options)
    count = options.workers or (max(1, min(cores, 2 * len(devices))) if devices else 1)
    threads = max(1, cores // (len(devices) or count))
    spec: dict[str, Any] = {}
    for i, (device, pinned) in enumerate(devices):
        env = {**pinned, "OMP_NUM_THREADS": str(threads), DEVICE_VARIABLE: device}
        spec[f"device-{i}"] = _nanny(env, {"GPU": 1})
    for i in range(count):
        env = {"OMP_NUM_THREADS": "1" if devices else str(threads)}
        spec[f"worker-{i}"] = _nanny(env, {"CPU": 1} if devices else {})
    return spec


def _nanny(env: dict[str, str], resources: dict[str, float]) -> dict[str, Any]:
    options = {
        "nthreads": 1,
        "env": env,
        "resources": resources,
        "host": "127.0.0.1",
        "dashboard": False,
        "memory_limit": 0,
        "silence_logs": logging.CRITICAL,
    }
    return {"cls": Nanny, "options": options}


def _devices(options: ScaleOptions) -> list[tuple[str, dict[str, str]]]:
    """Return each device to use with the environment that shows a process that one alone."""
    if options.gpus is not None:
        visible = models.visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        if options.gpus > len(visible):
            raise DeviceError(
                f"--gpus {options.gpus}: found {len(visible)} on this machine; ask for fewer, or "
                "for none to use the CPU"
            )
        return [("cuda", {"CUDA_VISIBLE_DEVICES": name}) for name in visible[: options.gpus]]
    pinned = []
    for device in options.devices or ():
        kind, _, number = device.partition(":")
        if kind == "cuda":
            visible = models.visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
            if int(number or 0) >= len(visible):
                raise DeviceError(f"{device}: found {len(visible)} GPUs on this machine")
            pinned.append(("cuda", {"CUDA_VISIBLE_DEVICES": visible[int(number or 0)]}))
        else:
            pinned.append((device, {}))
    return pinned


@contextlib.contextmanager
def _tended(cluster: SpecCluster) -> Iterator[None]:
    """Replace workers that nobody restarts: a nanny gives up when one dies as it starts."""
    over = threading.Event()

    def mend() -> None:
        dead = [name for name, nanny in cluster.workers.items() if nanny.status.name in _ENDED]
        for name in dead:
            del cluster.workers[name]
        if dead:
            cluster.scale(len(cluster.worker_spec))

    def tend() -> None:
        while not over.wait(TEND_S):
            cluster.loop.add_callback(mend)

    thread = threading.Thread(target=tend, name="geoseg-tend", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
