"""Which footprints of a file go to OpenStreetMap: by default only what it lacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from geoseg.errors import ConfigError
from geoseg.osm.conflate.compare import conflate
from geoseg.osm.conflate.rules import ConflateOptions, Status
from geoseg.stages.conflate import read_near
from geoseg.stages.maps import read_table
from geoseg.vector import footprints_info, read_footprints

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from pathlib import Path

    from geopandas import GeoDataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which footprints are taken, and what they are compared with before."""

    statuses: tuple[Status, ...] | None = None
    """What is taken; by default what is new, or everything where nothing was compared."""
    against: tuple[Path, ...] = ()
    """What is mapped; empty: the file tells what its footprints are, or nothing does."""
    options: ConflateOptions = field(default_factory=ConflateOptions)
    """How they are compared with `against`."""

    @property
    def wanted(self) -> list[str]:
        """The statuses that are taken where they are known."""
        return [str(status) for status in self.statuses or (Status.NEW,)]


def selected(
    footprints: Path,
    selection: Selection,
    *,
    left_out: Counter[str],
    scratch: Path | None = None,
) -> Iterator[GeoDataFrame]:
    """Read the footprints that are taken, in the file's order.

    Args:
        footprints: A file of footprints.
        selection: What is taken.
        left_out: Told how many footprints of which status are not, as they are read.
        scratch: Folder for the places of a large extract's nodes.

    Raises:
        GeosegError: A file is missing or damaged, or does not say what its footprints are.
    """
    if selection.against:
        table = read_table(footprints)
        options = selection.options
        mapped = read_near(table, selection.against, options, scratch=scratch)
        frames = iter([conflate(table, mapped, options=options).footprints])
    elif "osm_status" in footprints_info(footprints).optional:
        frames = read_footprints(footprints)
    elif selection.statuses is None:
        return read_footprints(footprints)
    else:
        raise ConfigError(
            f"{footprints} does not say what OSM has: run geoseg conflate first, or give --against"
        )
    return _of_status(frames, selection.wanted, left_out)


def _of_status(
    frames: Iterator[GeoDataFrame], wanted: list[str], left_out: Counter[str]
) -> Iterator[GeoDataFrame]:
    for frame in frames:
        status = frame["osm_status"].fillna("unknown")  # drawn by hand in the meantime
        taken = status.isin(wanted)
        left_out.update(status[~taken].tolist())
        yield frame[taken]
