"""Sanitise: any geometries become outlines that OSM can hold; what cannot is counted, not raised.

Frame: geometries come in any CRS and leave in WGS84, whole 1e-7 degrees. Must not import osmium.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from pyproj import CRS

from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.objects.outlines import Outlines, outlines_of, take_rings
from geoseg.vector.geojson import WGS84, to_lonlat
from geoseg.vector.read import reprojected

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Step = Callable[[NDArray[Any]], NDArray[Any]]

MIN_RING_NODES: Final = 4
"""Fewest distinct nodes of a ring: three are a slip of an outline more often than a building."""

MOST_LATITUDE: Final = 89.99
"""A kilometre from a pole meridians run together, and outlines mean nothing."""

MOST_LONGITUDE: Final = 720.0
"""Once around beyond the antimeridian is still understood."""

MOST_COORDINATE: Final = 1e9
"""No CRS of the Earth has coordinates beyond it, in any unit."""

EMPTY: Final = "without a geometry"
NOT_FINITE: Final = "with coordinates that are no numbers"
NOT_AREAL: Final = "without a polygon"
OFF_EARTH: Final = "off the Earth or at a pole"
UNMENDED: Final = "of no area on OSM's grid"
TOO_FEW: Final = "with fewer than 4 corners"
PARTS: Final = "parts and holes with fewer than 4 corners"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sanitized:
    """What is left of geometries, and what was left out."""

    outlines: Outlines
    """`polygon_row` holds positions in what was given."""
    left_out: Counter[str]
    """How many geometries for which reason; under `PARTS`, parts and holes of those that stay."""


def sanitize(geometries: NDArray[Any], crs: CRS) -> Sanitized:
    """Bring geometries to OSM's grid: valid polygons, in range, of rings of 4 corners and more.

    What crosses itself is mended, what crosses the antimeridian is cut there.

    Args:
        geometries: (N,) of any type, None and broken ones included.
        crs: Their CRS.

    Raises:
        VectorError: PROJ knows no way from the CRS to WGS84.

    Example:
        >>> found = sanitize(np.array([shapely.box(0, 0, 1e-4, 1e-4), None]), CRS("EPSG:4326"))
        >>> found.outlines.polygon_row.tolist(), dict(found.left_out)
        ([0], {'without a geometry': 1})
    """
    shapes = np.array(geometries, object)
    left_out: Counter[str] = Counter()
    steps: tuple[tuple[str, Step], ...] = (
        (EMPTY, lambda shapes: _without(shapes, shapely.is_empty(shapes))),
        (NOT_FINITE, lambda shapes: _where_all(shapes, np.isfinite)),
        (OFF_EARTH, lambda shapes: _where_all(shapes, lambda xy: np.abs(xy) <= MOST_COORDINATE)),
        (NOT_AREAL, _areal),
        (OFF_EARTH, lambda shapes: _on_earth(shapes, crs)),
        (UNMENDED, _on_grid),
    )
    missing = np.zeros(len(shapes), np.bool_)
    for reason, step in steps:
        present = np.flatnonzero(~missing)
        if len(present):
            with np.errstate(invalid="ignore", over="ignore"):
                shapes[present] = step(shapes[present])
        before, missing = missing, shapely.is_missing(shapes)
        left_out[reason] += int((missing & ~before).sum())
    rows = np.flatnonzero(~missing)
    outlines, small = _rings(shapes[rows], rows)
    left_out[TOO_FEW] = len(rows) - len(np.unique(outlines.polygon_row))
    left_out[PARTS] = small
    return Sanitized(outlines=outlines, left_out=+left_out)


def _where_all(
    shapes: NDArray[Any], holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]]
) -> NDArray[Any]:
    """Replace by None the shapes with a coordinate for which something does not hold."""
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    bad = np.zeros(len(shapes), np.bool_)
    bad[owner[~holds(xy).all(axis=1)]] = True
    return _without(shapes, bad)


def _without(shapes: NDArray[Any], bad: NDArray[np.bool_]) -> NDArray[Any]:
    kept = shapes.copy()
    kept[bad] = None
    return kept


def _areal(shapes: NDArray[Any]) -> NDArray[Any]:
    """Keep the polygons of every shape, mended, without heights; None where there are none."""
    shapes = np.array(shapely.force_2d(shapes), object)
    kinds = shapely.get_type_id(shapes)
    for i in np.flatnonzero(((kinds != 3) & (kinds != 6)) | ~shapely.is_valid(shapes)):
        shapes[i] = _polygons(_mended(_polygons(shapes[i])))
    return shapes


def _mended(shape: Any) -> Any:
    """Return what is inside a shape that crosses itself."""
    return shapely.make_valid(shape, method="structure", keep_collapsed=False)


def _polygons(shape: Any) -> Any:
    """Return the polygons inside a shape, however deep, as one; None where there are none."""
    if shape is None:
        return None
    parts = np.atleast_1d(np.array(shape, object))
    while (shapely.get_type_id(parts) > 3).any():
        parts = shapely.get_parts(parts)
    parts = parts[(shapely.get_type_id(parts) == 3) & ~shapely.is_empty(parts)]
    return shapely.MultiPolygon(parts.tolist()) if len(parts) else None


def _on_earth(shapes: NDArray[Any], crs: CRS) -> NDArray[Any]:
    """Bring shapes to longitude and latitude; None where they have none, or lie at a pole."""
    shapes = np.array(reprojected(shapes, crs, CRS(WGS84)), object)
    limits = np.array([MOST_LONGITUDE, MOST_LATITUDE])
    shapes = _where_all(shapes, lambda xy: np.abs(xy) <= limits)
    present = ~shapely.is_missing(shapes)
    shapes[present] = to_lonlat(shapes[present], CRS(WGS84))
    return shapes


def _on_grid(shapes: NDArray[Any]) -> NDArray[Any]:
    """Round to whole 1e-7 degrees and mend what is not valid then; None where nothing is left."""
    exact = shapely.transform(shapes, lambda xy: xy * DEGREE_E7)
    whole = np.array(shapely.transform(exact, np.rint), object)
    broken = np.flatnonzero(~shapely.is_valid(whole))
    if len(broken):
        mended = shapely.set_precision(_mended(exact[broken]), 1.0)
        whole[broken] = [_polygons(shape) for shape in mended]
    return whole


def _rings(shapes: NDArray[Any], rows: NDArray[np.int64]) -> tuple[Outlines, int]:
    """Return the rings that are long enough and how many others went from shapes that stay."""
    shapes = shapely.orient_polygons(shapely.normalize(shapes))
    parts, owner = shapely.get_parts(shapes, return_index=True)
    outlines = outlines_of(parts, rows[owner])
    kept = take_rings(outlines, outlines.ring_sizes >= MIN_RING_NODES)
    stays = np.isin(outlines.polygon_row[outlines.ring_polygon], kept.polygon_row)
    return kept, int(stays.sum()) - len(kept.ring_polygon)
