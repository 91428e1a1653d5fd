"""The folder of a run: its lock, its config, its journal, and the manifest that `status` reads.

run.yaml        the resolved config
manifest.json   state, and by stage what is done, failed and left; replaced as a whole
blocks.jsonl    a line per finished unit: seconds, counts, errors
infer/ footprints/    shards, by scene
lock            held while a run lasts; says by whom
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from geoseg.config import dump_config
from geoseg.errors import BusyError, FormatError, InputNotFoundError, OutputError
from geoseg.files import HIDDEN, check_parent, output_errors, replacing, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from geoseg.config import Config
    from geoseg.stages.blocks.outcome import Outcome

State = Literal["running", "done", "failed", "interrupted"]

OURS: Final = "run.yaml"
JOURNAL: Final = "blocks.jsonl"
WRITE_EVERY_S: Final = 1.0
"""How often the manifest is brought up to date."""


@dataclass(slots=True, kw_only=True)
class StageCount:
    """How far a stage is, in its units of work and the chips in them."""

    units: int
    chips: int
    done: int = 0
    """Units done in this run."""
    reused: int = 0
    """Units that a former run had done."""
    failed: int = 0
    """Units of which a part or all could not be done."""
    chips_done: int = 0
    """In the units done in this run."""
    chips_reused: int = 0
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""
    ended: float | None = None

    @property
    def chips_per_s(self) -> float | None:
        """Rate of this run; None before there is one."""
        took = (self.ended or time.time()) - self.started
        return self.chips_done / took if self.chips_done and took > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate."""
        rate = self.chips_per_s
        return (self.chips - self.chips_done - self.chips_reused) / rate if rate else None


@dataclass(slots=True, kw_only=True)
class RunManifest:
    """What is known about a run while it lasts and after."""

    state: State = "running"
    error: str = ""
    pid: int = 0
    host: str = ""
    outputs: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""
    updated: float = field(default_factory=time.time)
    stages: dict[str, StageCount] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Names and reasons, the first FAILURES_KEPT."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the manifest of a run's folder, of a run that lasts or one that ended.

        Raises:
            InputNotFoundError: It is no run's folder.
            FormatError: The manifest is damaged.
        """
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputNotFoundError(f"{folder}: not the folder of a run; give that of --run-dir")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            stages = {name: StageCount(**count) for name, count in values.pop("stages").items()}
            manifest = cls(**values, stages=stages)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path}: damaged: {' '.join(str(error).split())[:160]}") from error
        if manifest.state == "running" and not is_locked(folder):
            manifest.state = "interrupted"
        return manifest

    @staticmethod
    def units(folder: Path) -> Iterator[dict[str, Any]]:
        """Yield what is known about each unit that ended: stage, name, time, seconds, counts.

        A line that a killed run left unfinished is passed over.
        """
        with (folder / JOURNAL).open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    yield dict(json.loads(line))


FAILURES_KEPT: Final = 1000


class RunDir:
    """A run's folder, held by this process alone. A context manager.

    Args:
        folder: New, empty, or that of a former run.
        config: The run's config, written down.
        outputs: What the run writes, for `status`.

    Raises:
        OutputError: It cannot be written to, or holds other things.
        BusyError: Another run has it.
    """

    def __init__(self, folder: Path, config: Config, *, outputs: list[str]) -> None:
        self.folder = folder.absolute()
        self.manifest = RunManifest(pid=os.getpid(), host=platform.node(), outputs=outputs)
        self._config = config
        self._written = 0.0

    def __enter__(self) -> Self:
        check_parent(self.folder)
        _check_ours(self.folder)
        with output_errors(self.folder), contextlib.ExitStack() as stack:
            self.folder.mkdir(exist_ok=True)
            stack.enter_context(_lock(self.folder))
            remove_temporary(self.folder)
            _replace(self.folder / OURS, dump_config(self._config))
            journal = self.folder / JOURNAL
            self._journal = stack.enter_context(journal.open("w", encoding="utf-8"))
            self._stack = stack.pop_all()
        self.write_manifest()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            with contextlib.suppress(OSError):
                remove_temporary(self.folder)
                if kind is None:
                    self.manifest.state = "done"
                elif issubclass(kind, KeyboardInterrupt):
                    self.manifest.state = "interrupted"
                else:
                    self.manifest.state = "failed"
                    self.manifest.error = " ".join(str(error).split())
                self.write_manifest()
            with contextlib.suppress(OSError):  # its last lines may not fit on the disk
                self._journal.close()

    def begin(self, stage: str, *, units: int, chips: int) -> None:
        """Begin a stage."""
        self.manifest.stages[stage] = StageCount(units=units, chips=chips)
        self.write_manifest()

    def note(self, stage: str, name: str, outcome: Outcome, *, chips: int) -> None:
        """Write down how a unit ended."""
        count = self.manifest.stages[stage]
        if outcome.reused:
            count.reused += 1
            count.chips_reused += chips
        else:
            count.done += 1
            count.chips_done += chips
        count.failed += bool(outcome.failed)
        room = FAILURES_KEPT - len(self.manifest.failures)
        self.manifest.failures += outcome.failed[: max(0, room)]
        line = {"stage": stage, "unit": name, "at": round(time.time(), 3), **outcome.to_dict()}
        with output_errors(self.folder):
            self._journal.write(json.dumps(line) + "\n")
        if time.monotonic() - self._written > WRITE_EVERY_S:
            self.write_manifest()

    def end(self, stage: str) -> None:
        """End a stage."""
        self.manifest.stages[stage].ended = time.time()
        self.write_manifest()

    def write_manifest(self) -> None:
        """Bring the manifest on disk up to date."""
        self._written = time.monotonic()
        self.manifest.updated = time.time()
        with output_errors(self.folder):
            self._journal.flush()
            _replace(self.folder / "manifest.json", json.dumps(asdict(self.manifest), indent=1))

    def remove(self) -> None:
        """Remove the folder, all of it ours."""
        shutil.rmtree(self.folder, ignore_errors=True)


def is_locked(folder: Path) -> bool:
    """Say whether a run that lasts holds a folder."""
    try:
        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def remove_temporary(folder: Path) -> None:
    """Remove what writers that were killed left behind."""
    for path in list(folder.rglob(f"{HIDDEN}*")):
        sweep(path)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a folder; the system lets go of it when the process ends, however it does."""
    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise BusyError(
                f"{folder}: in use by {holder}; wait for it, end it, or give another --run-dir"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _check_ours(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: must be a folder, is a file")
    with output_errors(folder):
        held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if held and OURS not in held and held != {"lock"}:
        raise OutputError(f"{folder}: must be new, empty or the folder of a run; it holds others")


def _replace(path: Path, text: str) -> None:
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")
