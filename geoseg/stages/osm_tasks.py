"""MapRoulette export: footprints as tasks for people to look at, one line each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geoseg import __version__
from geoseg.files import check_apart, check_output, staged
from geoseg.footprints import concat_footprints
from geoseg.frames import ground_frame, moved
from geoseg.osm.maproulette import write_tasks
from geoseg.osm.objects.build import build
from geoseg.osm.objects.outlines import ranges, take_polygons
from geoseg.osm.objects.snap import snap
from geoseg.osm.tasks import TaskOptions
from geoseg.osm.xml import change_xml
from geoseg.stages.base import Tally
from geoseg.stages.osm_export import OsmOptions, gather
from geoseg.stages.selection import Selection, selected
from geoseg.vector import footprints_info
from geoseg.vector.geojson import to_lonlat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import geopandas as gpd
    from numpy.typing import NDArray

    from geoseg.osm.elements import Tags
    from geoseg.osm.maproulette import Changes
    from geoseg.osm.objects.outlines import Outlines

SUFFIXES: Final = (".geojsonl", ".json", ".geojson")
GENERATOR: Final = f"geoseg {__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksExport:
    """What an export wrote."""

    n_tasks: int
    tally: Tally
    left_out: dict[str, int] = field(default_factory=dict)
    """Footprints that are no tasks, by what they are to the map."""


def export_tasks(
    footprints: Path,
    output: Path,
    options: TaskOptions | None = None,
    *,
    selection: Selection | None = None,
    objects: OsmOptions | None = None,
) -> TasksExport:
    """Write a footprints file as tasks of MapRoulette.

    Args:
        footprints: A file of footprints.
        output: Ends in .geojsonl, or in .json or .geojson, as its upload form wants.
        options: What makes a task.
        selection: Which footprints are tasks.
        objects: Tags and snapping of the objects that cooperative tasks carry; None: tasks show
            where to look and carry none.

    Raises:
        GeosegError: The input is damaged or the output cannot be written; nothing is left behind.
    """
    selection = selection or Selection()
    check_tasks_output(output)
    check_apart([output], [footprints, *selection.against])
    tally, left_out = Tally(), Counter[str]()
    with tally.timed("read"):
        scratch = output.resolve().parent
        frames = list(selected(footprints, selection, left_out=left_out, scratch=scratch))
        crs = footprints_info(footprints).crs
        table = concat_footprints(frames, crs)
    with tally.timed("build"):
        changes = None if objects is None else changes_of(table, objects)
    with tally.timed("write"), staged(output) as place:
        count = write_tasks(
            place, table, _in_metres(table), options or TaskOptions(), changes=changes
        )
    tally.footprints = len(table)
    return TasksExport(n_tasks=count, tally=tally, left_out=dict(left_out))


def check_tasks_output(output: Path) -> None:
    """Raise OutputError, before any work, if tasks cannot be written."""
    check_output(output, SUFFIXES)


def changes_of(footprints: gpd.GeoDataFrame, options: OsmOptions) -> Changes:
    """Return what makes the osmChange document of some rows, empty where none can be an object.

    Nodes are shared within a document: across documents nobody knows their ids.
    """
    outlines, tags = gather([footprints], footprints.crs, options.tags, "")
    outlines = snap(outlines, tolerance_m=options.snap_m).outlines
    return lambda rows: _document(outlines, tags, rows)


def _document(outlines: Outlines, tags: Sequence[Tags], rows: NDArray[np.intp]) -> str:
    first = np.searchsorted(outlines.polygon_row, rows)
    ends = np.searchsorted(outlines.polygon_row, rows, side="right")
    taken = take_polygons(outlines, ranges(first, ends - first))
    here = replace(taken, polygon_row=np.searchsorted(rows, taken.polygon_row))
    data = build(here, [tags[i] for i in rows.tolist()])
    return "".join(change_xml(data, generator=GENERATOR)) if data.n_elements else ""


def _in_metres(footprints: gpd.GeoDataFrame) -> NDArray[Any]:
    shapes = np.asarray(footprints.geometry.to_numpy(), object)
    if not len(shapes):
        return shapes
    return moved(shapes, footprints.crs, ground_frame(to_lonlat(shapes, footprints.crs)))
