"""What a run leaves to look at: a CSV of losses, one of validations, TensorBoard scalars, pictures.

All lie in the run folder. Lines are appended; a run that goes on drops those after its checkpoint,
and those that a full disk or a lost machine left torn.
"""

from __future__ import annotations

import csv
import io
import logging
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from geoseg.errors import OutputError
from geoseg.files import output_errors, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

LOSSES_FILE = "losses.csv"
VALIDATIONS_FILE = "validations.csv"
TENSORBOARD_FOLDER = "tensorboard"
PICTURES_FOLDER = "pictures"


class RunJournal:
    """Writes losses and figures of a run into its folder; a context manager.

    Args:
        folder: The run folder.
        start: The step the run begins at; later lines are those of a run that was cut.
        say: Told each line, for people who watch.
    """

    def __init__(self, folder: Path, *, start: int = 0, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._start = start
        self._board: Any = None

    def __enter__(self) -> Self:
        for name in (LOSSES_FILE, VALIDATIONS_FILE):
            _drop_after(self._folder / name, self._start)
        self._board = _tensorboard(self._folder / TENSORBOARD_FOLDER, purge_step=self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Write the mean losses since the last call, the rate and seconds of a step."""
        _append(self._folder / LOSSES_FILE, step, values)
        self._scalars("train", step, values)
        self._say(
            f"step {step}: loss {values['loss']:.3f}, {values['step_s']:.2f} s a step, "
            f"rate {values['lr']:.2g}"
        )

    def validated(self, step: int, values: Mapping[str, float], *, best: bool) -> None:
        """Write the figures of a validation."""
        _append(self._folder / VALIDATIONS_FILE, step, values)
        self._scalars("validation", step, values)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._say(f"step {step}: {figures}{', the best so far' if best else ''}")

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        """Keep a picture (H, W, 3) of what a validation looked like."""
        path = self._folder / PICTURES_FOLDER / f"step-{step:07d}.png"
        with output_errors(path):
            path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(image).save(temporary, format="PNG")
        if self._board is not None:
            self._board.add_image("validation/chips", image, step, dataformats="HWC")

    def _scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read one of the CSV files of a run; empty where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _append(path: Path, step: int, values: Mapping[str, float]) -> None:
    row = {"step": step, **{name: f"{value:.6g}" for name, value in values.items()}}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    try:
        if not path.exists() or not path.stat().st_size:
            writer.writeheader()
        writer.writerow(row)
        with path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _drop_after(path: Path, step: int) -> None:
    """Remove the lines of a log that are torn or belong to steps which will be done again."""
    if not path.exists():
        return
    with output_errors(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    head, *lines = text.splitlines(keepends=True) or [""]
    kept = ""
    if head.startswith("step,") and head.endswith("\n"):
        kept = head + "".join(line for line in lines if _is_done(line, head, step))
    if kept != text:
        with replacing(path) as temporary:
            temporary.write_text(kept, encoding="utf-8")


def _is_done(line: str, head: str, step: int) -> bool:
    """Say whether a line is whole, and of a step that will not be done again."""
    if not line.endswith("\n") or line.count(",") != head.count(","):
        return False
    try:
        return float(line.partition(",")[0]) <= step
    except ValueError:
        return False


def _tensorboard(folder: Path, *, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional package
    except ImportError:
        log.info("tensorboard is not installed: losses are in %s only", LOSSES_FILE)
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)
