"""Values that options take, read from words; what is wrong with one is exit code 2."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from geoseg.errors import GeosegError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bands(click.ParamType[tuple[int, ...]]):
    """`1,2,3`."""

    name = "R,G,B"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Split at commas."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"must be three band numbers such as 1,2,3; got {value!r}", param, ctx)


class Rescale(click.ParamType[Any]):
    """`auto` or `MIN,MAX`."""

    name = "auto|MIN,MAX"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Split at the comma."""
        if value == "auto":
            return value
        try:
            low, high = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"must be auto or two numbers such as 0,3000; got {value!r}", param, ctx)
        return low, high


class Gsd(click.ParamType[Any]):
    """`auto`, `native` or metres."""

    name = "auto|native|METRES"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read a number unless it is a word."""
        if value in {"auto", "native"}:
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"must be auto, native or metres such as 0.3; got {value!r}", param, ctx)


class LeastArea(click.ParamType[dict[str, float]]):
    """`5` or `5m2`, square metres; `14px`, pixels."""

    name = "5m2|14px"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, float]:
        """Return the two keys that hold the least area, the one in the other unit unset."""
        from geoseg.morphology import parse_area

        if isinstance(value, dict):
            return value
        with wrong_use():
            least = parse_area(value, name="--min-area", bare="m2")
        if least.is_px:
            return {"polygonize.min_area_px": least.value}
        return {"polygonize.min_area_m2": least.value, "polygonize.min_area_px": 0.0}


class Names(click.ParamType[tuple[str, ...]]):
    """`cpu,cuda:1`."""

    name = "NAME,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """Split at commas."""
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names):
            self.fail(f"must be names such as cuda:0,cuda:2; got {value!r}", param, ctx)
        return names


@contextlib.contextmanager
def wrong_use() -> Iterator[None]:
    """Turn errors that a look at the command line shows into exit code 2."""
    try:
        yield
    except GeosegError as error:
        raise click.UsageError(str(error)) from error
