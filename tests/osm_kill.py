"""Uploads and reverts in processes of their own that are killed at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from geoseg.osm.exchange.api import OsmApi
from geoseg.osm.exchange.journal import Journal
from geoseg.osm.exchange.plan import changeset_tags, plan_upload
from geoseg.osm.exchange.revert import Reverted, revert
from geoseg.osm.exchange.server import Permission
from geoseg.osm.exchange.upload import Uploaded, upload
from tests.osm_api import TOKEN, FakeOsm, Fault

if TYPE_CHECKING:
    from pathlib import Path


def do_upload(
    url: str,
    path: Path,
    journal: Path,
    *,
    said: list[str] | None = None,
    max_elements: int = 12,
) -> Uploaded:
    """Upload a file, without waiting between tries."""
    say = [].append if said is None else said.append
    with OsmApi(url, TOKEN, timeout_s=0.4, sleep=lambda s: None, say=say) as api:
        return upload(
            plan_upload([path], max_elements=max_elements),
            changeset_tags("Roofs", source="drone"),
            api=api,
            permission=Permission(server=api.server),
            journal_path=journal,
            run="run",
            say=say,
        )


def do_revert(url: str, path: Path, journal: Path) -> Reverted:
    """Take back what a journal says."""
    with OsmApi(url, TOKEN, timeout_s=0.4, sleep=lambda s: None, say=[].append) as api:
        return revert(path, api=api, journal_path=journal, run="back", say=[].append)


def _victim(work: Any, words: tuple[Any, ...], moment: str, number: int) -> None:
    """Run in a child process: work, and die at a record of the journal."""
    append = Journal.append
    count = 0

    def dying(self: Journal, record: Any) -> None:
        nonlocal count
        count += 1
        if count == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == number and moment == "torn":
            self._file.write(b'{"event":"op')
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, record)
        if count == number and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = dying  # type: ignore[method-assign]
    work(*words)


def kill_during(osm: FakeOsm, work: Any, words: tuple[Any, ...], moment: str, number: int) -> bool:
    """Do the work in a process that is killed at a moment; False if it ended before.

    `moment` is `before`, `torn` or `after` (the journal's record `number` is written), or `lost` or
    `applied` (the server's request `number` is carried out).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "geoseg.osm.exchange.revert", "httpx"]
    )  # quick to fork
    process = context.Process(target=_victim, args=(work, words, moment, number))
    first = len(osm.requests)

    def strike(when: str, request: int) -> None:
        if request - first != number or moment not in {"lost", "applied"}:
            return
        if (when, moment) in {("before", "lost"), ("after", "applied")}:
            while process.pid is None:
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            if moment == "lost":
                osm.faults.insert(0, Fault(kind="drop-before"))

    osm.on_request = strike
    process.start()
    process.join(30)
    code = process.exitcode
    process.close()
    osm.on_request = lambda when, request: None
    assert code in {0, -signal.SIGKILL}, code
    return code != 0
