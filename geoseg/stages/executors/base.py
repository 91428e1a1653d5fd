"""The call that all executors answer, and the simplest of them. Knows no Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from geoseg.errors import GeosegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

U = TypeVar("U")
R = TypeVar("R")
Needs = Literal["model", "cpu"]


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
