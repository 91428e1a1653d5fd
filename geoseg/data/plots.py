"""Plots, where matplotlib is installed; it is imported when one is asked for: that takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_class() -> type[Figure]:
    """Return matplotlib's Figure; asked for before long work, it says in time if there is none.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'geoseg[train]'") from error
    return Figure
