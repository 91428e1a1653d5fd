"""Conflicts for a person to look at: footprints that are neither missing nor there, as GeoJSON.

Frame: WGS84 (RFC 7946). Each footprint comes once, followed by what stands in its way: the mapped
object itself, or the part of a road or shore that lies around it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from geoseg.osm.conflate.rules import REVIEWED
from geoseg.osm.mapped.layers import KINDS
from geoseg.vector.geojson import rounded, to_lonlat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.osm.conflate.compare import Conflation
    from geoseg.osm.conflate.pairs import Pairs

AROUND_DEGREES: Final = 0.0005
"""Roads, railways and water are shown this far around a footprint: about 50 m."""
_OSM_ID: Final = re.compile(r"(node|way|relation)/[1-9][0-9]*")
_DIGITS: Final = 4


def write_review(path: Path, found: Conflation) -> int:
    """Write the conflicts of a conflation.

    Features have a `role`. A `footprint` has its `id`, `osm_status`, `scene` and `score`; each
    `mapped` object after it names the `footprint`, and has `osm_id`, `kind`, `iou`, `overlap` and a
    `url` to look at. Duplicates are not conflicts.

    Args:
        path: A file to be made.
        found: Footprints with ids, beside what is mapped.

    Returns:
        How many footprints were written.

    Raises:
        OSError: The file cannot be written.
    """
    statuses = found.footprints["osm_status"].to_numpy()
    rows = np.flatnonzero(np.isin(statuses, [str(status) for status in REVIEWED]))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "name": "conflicts", "features": [')
        separator = "\n"
        for feature in _features(found, rows):
            file.write(separator + feature)
            separator = ",\n"
        file.write("\n]}\n")
    return len(rows)


def osm_url(osm_id: str) -> str | None:
    """Return where an object can be looked at; None for what only a file knows.

    Example:
        >>> osm_url("way/123"), osm_url("row/7")
        ('https://www.openstreetmap.org/way/123', None)
    """
    return f"https://www.openstreetmap.org/{osm_id}" if _OSM_ID.fullmatch(osm_id) else None


def _features(found: Conflation, rows: NDArray[np.intp]) -> Iterator[str]:
    table = found.footprints.iloc[rows]
    shapes = to_lonlat(np.asarray(table.geometry.to_numpy(), object), table.crs)
    texts = shapely.to_geojson(rounded(shapes)).tolist()
    columns = ["id", "osm_status", "scene", "score"]
    facts = table[[name for name in columns if name in table.columns]].to_dict("records")
    pairs = found.reasons
    starts = np.searchsorted(pairs.footprint, rows).tolist()
    ends = np.searchsorted(pairs.footprint, rows + 1).tolist()
    for k, fact in enumerate(facts):
        yield _feature({"role": "footprint", **fact}, texts[k])
        reasons = pairs.take(np.arange(starts[k], ends[k]))
        yield from _in_the_way(found, reasons, shapes[k], fact.get("id"))


def _in_the_way(found: Conflation, pairs: Pairs, shape: Any, footprint: Any) -> Iterator[str]:
    mapped = found.mapped.take(pairs.mapped)
    drawn = mapped.shapes.copy()
    far = np.flatnonzero(mapped.kinds != KINDS.index("building"))
    window = shapely.box(*(np.array(shape.bounds) + AROUND_DEGREES * np.array([-1, -1, 1, 1])))
    drawn[far] = shapely.intersection(drawn[far], window)
    texts = shapely.to_geojson(rounded(drawn)).tolist()
    for i, text in enumerate(texts):
        facts = {
            "role": "mapped",
            "footprint": footprint,
            "osm_id": mapped.ids[i],
            "kind": KINDS[mapped.kinds[i]],
            "iou": round(float(pairs.iou[i]), _DIGITS),
            "overlap": round(float(pairs.overlap[i]), _DIGITS),
            "url": osm_url(mapped.ids[i]),
        }
        yield _feature(facts, text)


def _feature(properties: dict[str, Any], geometry: str | None) -> str:
    head = json.dumps({"type": "Feature", "properties": properties}, ensure_ascii=False)
    return f'{head[:-1]}, "geometry": {geometry or "null"}}}'
