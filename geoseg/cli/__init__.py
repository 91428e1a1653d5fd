"""The `geoseg` command: verbs in pipeline order, each in its own module, imported when called.

Exit codes: 0 done, 2 wrong use, 3 done but not all of it (some chips could not be read), 1 anything
else. A user's error is one line on stderr, and with `--json` an object on stdout, unless the result
is there already.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import click

from geoseg import __version__
from geoseg.errors import ConfigError, GeosegError, GeosegWarning, InputNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

VERBS = {
    "run": "Map a scene: GeoTIFF in, footprints out.",
    "tile": "Cut a scene into 300x300 chips with an index.",
    "infer": "Run the model over a scene or a folder of chips.",
    "footprints": "Stitch and polygonize detections.",
    "conflate": "Say which footprints OpenStreetMap lacks.",
    "export": "Write footprints in another format.",
    "osm": "Send new buildings to OpenStreetMap, or take them back.",
    "status": "Say how far a run in blocks is.",
    "info": "Describe a scene, a model or a file of ours.",
    "predict-dir": "Predict a folder of images; results as the crowdAI challenge takes them.",
    "evaluate": "Score a model on annotated chips, or footprints against outlines.",
    "calibrate": "Turn a model's scores into probabilities.",
    "data": "Check, clean, measure and convert annotated chips.",
    "train": "Train a network on chips, or on scenes with outlines.",
    "sweep": "Train over a grid of options and compare.",
    "import-weights": "Turn pickled weights into safetensors, safely.",
}
EXIT_USAGE = 2
EXIT_PARTIAL = 3


class _Interrupted(Exception):  # noqa: N818 - what happened, nobody's mistake
    """The user or the system ended the run."""


class _Verbs(click.Group):
    """Commands by name, imported on use, so that `geoseg --help` needs no libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"geoseg.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:  # before click writes a line of its own
            raise _Interrupted(*error.args) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs, in pipeline order"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geoseg")
def geoseg() -> None:
    """Aerial GeoTIFFs in, georeferenced building footprints out.

    \b
    geoseg run scene.tif -o footprints.geojson
    """  # noqa: D301 - a real backspace: click's mark of lines that are not to be wrapped


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    words = list(sys.argv[1:] if args is None else args)
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", GeosegWarning)
    warnings.showwarning = _show_warning
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    code, shown = 1, list[dict[str, Any]]()
    fail = functools.partial(_fail, words=words, shown=shown)
    try:
        with _terminable():
            result = geoseg.main(words, prog_name="geoseg", standalone_mode=False, obj=shown)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        code = EXIT_USAGE
        click.echo(error.format_message(), err=True)
    except click.ClickException as error:
        code = error.exit_code
        fail(error.format_message(), code, hint=_hint(error))
    except GeosegError as error:
        code = EXIT_USAGE if isinstance(error, ConfigError | InputNotFoundError) else 1
        fail(str(error), code)
    except (click.Abort, KeyboardInterrupt, _Interrupted) as error:
        fail(f"interrupted; {str(error) or 'nothing was written'}", code)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:  # noqa: BLE001 - the last net: a bug, or a model's own code
        if {"-v", "--verbose"} & set(words):
            traceback.print_exc()
        kind, text = type(error).__name__, str(error)[:200]
        fail(f"unexpected {kind}: {text} (-v shows where)", code)
    sys.exit(code)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fail(
    message: str, code: int, *, words: list[str], shown: list[dict[str, Any]], hint: str = ""
) -> None:
    """Say what failed; as JSON too, unless figures were shown: stdout holds one document."""
    message = " ".join(message.splitlines())
    click.echo(f"geoseg: {message}{hint}", err=True)
    # Of the processes that torchrun starts, the first one speaks for all.
    first = words[:1] != ["train"] or os.environ.get("RANK", "0") == "0"
    if "--json" in words and first and not shown:
        click.echo(json.dumps({"error": message, "exit_code": code}))


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"warning: {' '.join(str(message).splitlines())}", err=True)
