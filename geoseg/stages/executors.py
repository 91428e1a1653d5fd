"""Who runs units of work: this process, processes of this machine, or a Dask cluster.

All answer the same call: units in, each with its outcome out, in the order they end. Units are
descriptions; pixels go from a reading worker to a computing one at most, never through client or
scheduler. The only user of dask and distributed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeVar

import dask
from distributed import (
    CancelledError,
    Client,
    KilledWorker,
    Nanny,
    Scheduler,
    SpecCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from distributed.comm import CommClosedError

from geoseg import __version__, models
from geoseg.errors import ClusterError, DeviceError, GeosegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from distributed import Future, Worker

    from geoseg.config import ScaleOptions

    Needs = Literal["model", "cpu"]

log = logging.getLogger(__name__)
U = TypeVar("U")
R = TypeVar("R")

AHEAD: Final = 2
"""Units in flight for each worker: one worked on, one waiting."""
DEATHS_ALLOWED: Final = 10
"""Workers of this machine that may die at one unit before it is given up."""
HANGS_ALLOWED: Final = 2
"""Times that a unit may reach its time limit before it is given up."""
HANG_TOPIC: Final = "geoseg-hang"
SETTLE_S: Final = 0.5
"""For a worker's last words to arrive."""
START_S: Final = 120
"""For the first worker to come."""
_LOST: Final = (CancelledError, CommClosedError, asyncio.CancelledError, TimeoutError, OSError)


class UnitLostError(GeosegError, RuntimeError):
    """A unit could not be done although nothing is wrong with the run: workers died or hung."""


class Executor(Protocol):
    """Runs functions over units of work."""

    def map(
        self,
        function: Callable[[Any, Any], R],
        units: Iterable[U],
        *,
        needs: Needs,
        read: Callable[[Any], Any] | None = None,
    ) -> Iterator[tuple[U, R | UnitLostError]]:
        """Yield each unit with what `function(unit, pixels)` returned, as they end.

        Args:
            function: Called where the unit is worked on; idempotent.
            units: Taken as they are needed, so there may be very many.
            needs: "model" for work on a device, "cpu" for the rest.
            read: Makes `pixels` on other workers, where there are some for it; otherwise None.

        Raises:
            GeosegError: Whatever `function` raised; the rest is given up.
            ClusterError: The cluster is lost.
        """
        ...


class Serial:
    """This process, one unit after the other."""

    def map(
        self,
        function: Callable[[Any, Any], R],
        units: Iterable[U],
        *,
        needs: Needs,
        read: Callable[[Any], Any] | None = None,
    ) -> Iterator[tuple[U, R | UnitLostError]]:
        """See `Executor`."""
        for unit in units:
            yield unit, function(unit, None)


class Dask:
    """A Dask cluster; a context manager that ends what it started.

    Args:
        options: Workers, devices or the address of a cluster.
        setup: Called once in each worker with the device it is to use, or None: loads the model
            where models run, so that it is loaded once and never shipped.
        plugin_key: What `setup` depends on: the model's name and the SHA-256 of its weights.
        cores: CPU cores of this machine, shared by its workers.

    Raises:
        DeviceError: More GPUs are asked for than there are.
        ClusterError: The cluster cannot be reached, or cannot work for us.
    """

    def __init__(
        self,
        options: ScaleOptions,
        *,
        setup: Callable[[str | None, bool], None],
        plugin_key: str,
        cores: int | None = None,
    ) -> None:
        self._options = options
        self._setup = setup
        self._plugin_key = plugin_key
        self._cores = cores or os.cpu_count() or 1
        self._hangs: Counter[str] = Counter()
        self._flying: dict[str, Future] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_settings())
            self.client = self._connect(stack)
            self.client.subscribe_topic(HANG_TOPIC, self._count_hang)
            self._wait_for_workers()
            plugin = _ModelPlugin(self._plugin_key, self._setup)
            _patiently("prepare its workers", lambda: self.client.register_plugin(plugin))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(None, None, None)

    @property
    def dashboard_link(self) -> str:
        """Address of the cluster's dashboard."""
        link: str = self.client.dashboard_link
        return link

    def check_folder(self, folder: Path) -> None:
        """Raise ClusterError unless every worker sees a file that this process has written."""
        path = str(folder / "run.yaml")
        seen = _patiently("answer", lambda: self.client.run(_sees, path))
        blind = [address for address, sees in seen.items() if not sees]
        if blind:
            raise ClusterError(
                f"the worker {blind[0]} does not see {folder}: give a --run-dir that all workers "
                "share, and start them where scenes and folder have the same paths"
            )

    def map(
        self,
        function: Callable[[Any, Any], R],
        units: Iterable[U],
        *,
        needs: Needs,
        read: Callable[[Any], Any] | None = None,
    ) -> Iterator[tuple[U, R | UnitLostError]]:
        """See `Executor`."""
        roles = self._roles()
        source = iter(units)
        waiting: dict[str, tuple[U, list[Future]]] = {}
        completed = as_completed(loop=self.client.loop)
        ahead = AHEAD * max(1, roles[needs])

        def submit_next() -> None:
            for unit in source:
                futures = self._submit(function, unit, roles, needs=needs, read=read)
                waiting[futures[-1].key] = unit, futures
                self._flying[futures[-1].key] = futures[-1]
                completed.add(futures[-1])
                return

        try:
            for _ in range(ahead):
                submit_next()
            for future in completed:
                unit, futures = waiting.pop(future.key)
                del self._flying[future.key]
                outcome = self._outcome(future)
                for each in futures:
                    each.release()
                submit_next()
                yield unit, outcome
        finally:
            self._flying.clear()
            with contextlib.suppress(*_LOST):
                self.client.cancel([futures[-1] for _, futures in waiting.values()])

    def _submit(
        self,
        function: Callable[[Any, Any], R],
        unit: Any,
        roles: dict[str, int],
        *,
        needs: Needs,
        read: Callable[[Any], Any] | None,
    ) -> list[Future]:
        name = f"{function.__name__}-{unit.name}-{time.monotonic_ns()}"
        limit_s = self._options.block_limit_s
        cpu = {"CPU": 1} if roles["marked_cpu"] else None
        gpu = {"GPU": 1} if roles["marked_gpu"] else None
        futures: list[Future] = []
        pixels = None
        with _cluster_errors("take work"):
            if read is not None and needs == "model" and gpu and cpu:
                pixels = self.client.submit(
                    _limited, read, (unit,), limit_s, key=f"read-{name}", resources=cpu, pure=False
                )
                futures.append(pixels)
            futures.append(
                self.client.submit(
                    _limited_with,
                    function,
                    unit,
                    pixels,
                    limit_s,
                    key=name,
                    resources=gpu if needs == "model" else cpu,
                    pure=False,
                )
            )
        return futures

    def _outcome(self, future: Future) -> Any:
        try:
            return future.result()
        except KilledWorker:
            return UnitLostError("its workers died, one after the other: out of memory?")
        except GeosegError:
            raise
        except _LOST as error:
            if self._hangs[future.key] >= HANGS_ALLOWED:
                return UnitLostError(
                    f"took longer than {self._options.block_limit_s:g} s, "
                    f"{self._hangs[future.key]} times"
                )
            raise ClusterError(_lost("the cluster is lost", error)) from error

    def _count_hang(self, event: tuple[float, Any]) -> None:
        """End a unit that hangs again and again; called in the client's own thread."""
        _, key = event
        key = str(key).removeprefix("read-")
        self._hangs[key] += 1
        log.warning("%s took longer than %g s", key, self._options.block_limit_s)
        if self._hangs[key] >= HANGS_ALLOWED and key in self._flying:
            self.client.loop.add_callback(
                self.client.cancel, [self._flying[key]], asynchronous=True, force=True
            )

    def _roles(self) -> dict[str, int]:
        """Count the workers that may do each kind of work."""
        with _cluster_errors("answer"):
            info = self.client.scheduler_info(n_workers=-1)
        marks = [set(worker["resources"]) for worker in info["workers"].values()]
        marked_gpu = sum("GPU" in mark for mark in marks)
        marked_cpu = sum("CPU" in mark for mark in marks)
        return {
            "model": marked_gpu or len(marks),
            "cpu": marked_cpu or len(marks),
            "marked_gpu": marked_gpu,
            "marked_cpu": marked_cpu,
        }

    def _connect(self, stack: contextlib.ExitStack) -> Client:
        address: Any = self._options.scheduler
        if address is None:
            address = self._start(stack)
        try:
            return stack.enter_context(Client(address, set_as_default=False))
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(
                _lost(f"{address}: no Dask scheduler answers there", error)
            ) from error

    def _start(self, stack: contextlib.ExitStack) -> SpecCluster:
        scheduler = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
        workers = local_workers(self._options, cores=self._cores)
        try:
            cluster = stack.enter_context(
                SpecCluster(
                    workers=workers,
                    scheduler={"cls": Scheduler, "options": scheduler},
                    silence_logs=logging.CRITICAL,
                )
            )
        except (RuntimeError, OSError) as error:
            raise ClusterError(_lost("the workers could not be started", error)) from error
        stack.enter_context(_tended(cluster))
        return cluster

    def _wait_for_workers(self) -> None:
        with _cluster_errors("start a worker"):
            self.client.wait_for_workers(1, timeout=START_S)
        versions = _patiently("answer", lambda: self.client.run(_version))
        for address, version in versions.items():
            if version != __version__:
                raise ClusterError(
                    f"the worker {address} has geoseg {version}, this is {__version__}: "
                    "install one version everywhere"
                )


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


DEVICE_VARIABLE: Final = "GEOSEG_WORKER_DEVICE"
"""Tells a worker process its device; set here, read by the plugin."""


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


class _ModelPlugin(WorkerPlugin):  # type: ignore[misc] # distributed is not followed for types
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


def _limited_with(function: Callable[[Any, Any], R], unit: Any, pixels: Any, limit_s: float) -> R:
    return _limited(function, (unit, pixels), limit_s)


def _limited(function: Callable[..., R], arguments: tuple[Any, ...], limit_s: float) -> R:
    """Call a function in a worker that ends itself when it takes too long; its nanny starts anew.

    A thread that hangs in a driver or on a network drive can be ended in no other way.
    """
    if not 0 < limit_s < math.inf:
        return function(*arguments)
    worker = get_worker()
    key = worker.get_current_task()

    def end() -> None:
        worker.log_event(HANG_TOPIC, key)
        time.sleep(SETTLE_S)
        os._exit(1)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        return function(*arguments)
    finally:
        timer.cancel()


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
        while not over.wait(SETTLE_S):
            cluster.loop.add_callback(mend)

    thread = threading.Thread(target=tend, name="geoseg-tend", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


_ENDED: Final = {"failed", "closed"}


def _version() -> str:
    from geoseg import __version__ as version  # noqa: PLC0415 - the worker's, not the client's

    return version


def _sees(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - runs in a worker, with nothing of ours imported


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    values = {
        "distributed.scheduler.allowed-failures": DEATHS_ALLOWED,
        "distributed.worker.daemon": True,
        "distributed.deploy.lost-worker-timeout": "1h",  # a slow restart is not a loss
        "distributed.admin.log-length": 1000,
    }
    chatter = logging.getLogger("distributed")
    before = chatter.level
    chatter.setLevel(logging.CRITICAL)  # what matters comes to us as errors
    try:
        with dask.config.set(values):
            yield
    finally:
        chatter.setLevel(before)


@contextlib.contextmanager
def _cluster_errors(what: str) -> Iterator[None]:
    try:
        yield
    except GeosegError:
        raise
    except _LOST as error:
        raise ClusterError(_lost(f"the cluster does not {what}", error)) from error


def _patiently(what: str, ask: Callable[[], R]) -> R:
    """Ask all workers something, again when one of them dies while it is asked."""
    for _ in range(DEATHS_ALLOWED):
        with contextlib.suppress(CommClosedError):
            return ask()
        time.sleep(SETTLE_S)
    with _cluster_errors(what):
        return ask()


def _lost(what: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"{what}: {reason}; what is done is kept: run again to go on"
