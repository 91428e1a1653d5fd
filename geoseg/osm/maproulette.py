"""MapRoulette: footprints as tasks that a mapper accepts or refuses one after the other.

Frame: WGS84 (RFC 7946). A task is one line: a record separator and a FeatureCollection. A
cooperative task carries its objects as an osmChange document, which opens in the mapper's editor.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from geoseg.osm.tasks import group_by_place, josm_link
from geoseg.vector.geojson import rounded, to_lonlat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import geopandas as gpd
    from numpy.typing import NDArray

    from geoseg.osm.tasks import TaskOptions

    Changes = Callable[[NDArray[np.intp]], str]

RECORD: Final = "\x1e"
"""Begins each line (RFC 7464)."""
CHANGE_FILE: Final = {"version": 2, "type": 2}
"""Says that a task carries a change file."""
_FACTS: Final = ("label", "score", "area_m2", "scene", "osm_status", "osm_id")
_DIGITS: Final = 4


def write_tasks(
    path: Path,
    footprints: gpd.GeoDataFrame,
    shapes_m: NDArray[Any],
    options: TaskOptions,
    *,
    changes: Changes | None = None,
) -> int:
    """Write footprints as tasks.

    Features are called by their footprint's id, and tell its label, score, area and scene, what it
    is to the map, and `josm`: a link that makes JOSM load the task's place. None of this becomes a
    tag of an object.

    Args:
        path: A file to be made.
        footprints: With the columns of footprints, in any CRS.
        shapes_m: (N,) the same polygons in metres.
        options: What makes a task.
        changes: Gives the osmChange document that creates the footprints of some rows, empty where
            it creates nothing; makes the tasks cooperative.

    Returns:
        How many tasks there are.

    Raises:
        OSError: The file cannot be written.
    """
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for task in _tasks(footprints, shapes_m, options, changes):
            file.write(f"{RECORD}{json.dumps(task, ensure_ascii=False, allow_nan=False)}\n")
            count += 1
    return count


def _tasks(
    footprints: gpd.GeoDataFrame,
    shapes_m: NDArray[Any],
    options: TaskOptions,
    changes: Changes | None,
) -> Iterator[dict[str, Any]]:
    lonlat = to_lonlat(np.asarray(footprints.geometry.to_numpy(), object), footprints.crs)
    bounds = shapely.bounds(lonlat)
    lonlat = rounded(lonlat)
    ids = footprints["id"].fillna("").astype(str).tolist()
    facts = footprints[[name for name in _FACTS if name in footprints.columns]].to_dict("records")
    for rows in group_by_place(shapes_m, options):
        low, high = bounds[rows, :2].min(axis=0), bounds[rows, 2:].max(axis=0)
        link = josm_link((*low.tolist(), *high.tolist()), options)
        features = [
            {
                "type": "Feature",
                "id": ids[i],
                "properties": {**_plain(facts[i]), "josm": link},
                "geometry": json.loads(shapely.to_geojson(lonlat[i]) or "null"),
            }
            for i in rows.tolist()
        ]
        task: dict[str, Any] = {"type": "FeatureCollection", "features": features}
        if changes is not None and (document := changes(rows)):
            task["cooperativeWork"] = _cooperative(document)
        yield task


def _cooperative(document: str) -> dict[str, Any]:
    content = base64.b64encode(document.encode()).decode("ascii")
    file = {"type": "xml", "format": "osc", "encoding": "base64", "content": content}
    return {"meta": CHANGE_FILE, "file": file}


def _plain(facts: dict[Any, Any]) -> dict[str, Any]:
    """Return facts as short JSON: what is not known is left out."""
    known = {str(k): v for k, v in facts.items() if v == v and v not in {None, ""}}  # noqa: PLR0124 - NaN
    return {k: round(v, _DIGITS) if isinstance(v, float) else v for k, v in known.items()}
