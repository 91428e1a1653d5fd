"""Units on a Dask cluster: handed out a few at a time, given up where workers die or hang."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Self

import dask
from distributed import CancelledError, Client, KilledWorker, as_completed
from distributed.comm import CommClosedError

from geoseg import __version__
from geoseg.errors import ClusterError, GeosegError
from geoseg.stages.executors.base import UnitLostError
from geoseg.stages.executors.local import local_cluster
from geoseg.stages.executors.worker import (
    HANG_TOPIC,
    LAST_WORDS_S,
    ModelPlugin,
    limited,
    limited_with,
    sees,
    worker_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from distributed import Future

    from geoseg.config import ScaleOptions
    from geoseg.stages.executors.base import Needs, R, U

log = logging.getLogger(__name__)

AHEAD: Final = 2
"""Units in flight for each worker: one worked on, one waiting."""
DEATHS_ALLOWED: Final = 10
"""Workers of this machine that may die at one unit before it is given up."""
HANGS_ALLOWED: Final = 2
"""Times that a unit may reach its time limit before it is given up."""
START_S: Final = 120
"""For the first worker to come."""
_LOST: Final = (CancelledError, CommClosedError, asyncio.CancelledError, TimeoutError, OSError)


class Dask:
    """A Dask cluster; a context manager that ends what it started.

    Args:
        options: Workers, devices or the address of a cluster.
        setup: Called once in each worker with the device it is to use, or None: loads the model
            where models run, so that it is loaded once and never shipped.
        plugin_key: What `setup` depends on: the model and its least score.
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
            plugin = ModelPlugin(self._plugin_key, self._setup)
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
        seen = _patiently("answer", lambda: self.client.run(sees, path))
        blind = [address for address, there in seen.items() if not there]
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
                    limited, read, (unit,), limit_s, key=f"read-{name}", resources=cpu, pure=False
                )
                futures.append(pixels)
            futures.append(
                self.client.submit(
                    limited_with,
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
            try:
                address = stack.enter_context(local_cluster(self._options, cores=self._cores))
            except GeosegError:
                raise
            except (RuntimeError, OSError) as error:
                raise ClusterError(_lost("the workers could not be started", error)) from error
        try:
            return stack.enter_context(Client(address, set_as_default=False))
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(
                _lost(f"{address}: no Dask scheduler answers there", error)
            ) from error

    def _wait_for_workers(self) -> None:
        with _cluster_errors("start a worker"):
            self.client.wait_for_workers(1, timeout=START_S)
        versions = _patiently("answer", lambda: self.client.run(worker_version))
        for address, version in versions.items():
            if version != __version__:
                raise ClusterError(
                    f"the worker {address} has geoseg {version}, this is {__version__}: "
                    "install one version everywhere"
                )


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
        time.sleep(LAST_WORDS_S)
    with _cluster_errors(what):
        return ask()


def _lost(what: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"{what}: {reason}; what is done is kept: run again to go on"
