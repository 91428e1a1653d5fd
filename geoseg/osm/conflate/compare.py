"""Conflation: footprints beside what is mapped, each with what it is to the map.

Frame: footprints keep their CRS; they are compared in metres around their middle. Nothing that is
mapped is ever changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS

from geoseg.frames import ground_frame, moved
from geoseg.osm.conflate.judge import Verdicts, judge
from geoseg.osm.conflate.offset import MOST_VOTERS, estimate_offset
from geoseg.osm.conflate.pairs import Centres
from geoseg.osm.conflate.rules import ConflateOptions, Status
from geoseg.osm.mapped.assemble import mended
from geoseg.osm.mapped.near import Near
from geoseg.vector.geojson import WGS84, to_lonlat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geoseg.osm.conflate.offset import Offset
    from geoseg.osm.conflate.pairs import Pairs
    from geoseg.osm.mapped.layers import Mapped

    Shapes = NDArray[Any]

MARGIN_M: Final = 50.0
"""What is mapped is read this much further than an offset reaches."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conflation:
    """Footprints beside what is mapped."""

    footprints: gpd.GeoDataFrame
    """With `osm_status`, `osm_id`, `osm_iou` and `osm_overlap`; shifted where aligned."""
    reasons: Pairs
    """Why footprints are not new, as positions in `footprints` and `mapped`; sorted by footprint,
    the strongest reason of each first."""
    mapped: Mapped
    """What the footprints were compared with."""
    offsets: Mapping[str, Offset | None]
    """By scene; None where there is too little evidence."""

    def counts(self) -> dict[str, int]:
        """Return how many footprints have each status that occurs."""
        found = self.footprints["osm_status"].value_counts()
        return {str(status): int(found[status]) for status in Status if status in found.index}


def near_footprints(
    footprints: gpd.GeoDataFrame, *, options: ConflateOptions | None = None
) -> Near:
    """Return where what is mapped matters for some footprints, for `read_mapped`."""
    margin_m = MARGIN_M + (options or ConflateOptions()).max_offset_m
    return Near.of(to_lonlat(_shapes(footprints), footprints.crs), margin_m=margin_m)


def conflate(
    footprints: gpd.GeoDataFrame, mapped: Mapped, *, options: ConflateOptions | None = None
) -> Conflation:
    """Compare footprints with what is mapped.

    Args:
        footprints: Polygons in any CRS. Where there is a column `scene`, each scene has an
            offset of its own.
        mapped: Buildings, and whatever else is to be checked against; see `read_mapped`.
        options: Thresholds, and whether to align.

    Returns:
        The footprints in their order and CRS, with what each is to the map: `osm_status` as in
        `Status`, and of the building it overlaps most, or else what stands in its way, `osm_id`,
        `osm_iou` and `osm_overlap` (intersection over the smaller area).

    Example:
        >>> from geoseg.osm.mapped.layers import Mapped
        >>> house = shapely.box(15.0, 50, 15.0001, 50.0001)
        >>> town = gpd.GeoDataFrame(geometry=[house], crs="EPSG:4326")
        >>> found = conflate(town, Mapped.of_columns(["way/1"], [0], [house]))
        >>> found.footprints[["osm_status", "osm_id", "osm_iou"]].values.tolist()
        [['duplicate', 'way/1', 1.0]]
    """
    options = options or ConflateOptions()
    if footprints.empty:
        nothing = judge(_shapes(footprints), mapped, options)
        return _conflation(footprints, mapped, nothing, {})
    frame = ground_frame(to_lonlat(_shapes(footprints), footprints.crs))
    shapes = mended(moved(_shapes(footprints), footprints.crs, frame))
    there = replace(mapped, shapes=mended(moved(mapped.shapes, CRS(WGS84), frame)))
    offsets = _offsets(footprints, shapes, there, options)
    if options.align:
        shapes = _shifted(footprints, shapes, offsets)
        aligned = moved(shapes, frame, footprints.crs)
        geometry = gpd.GeoSeries(aligned, footprints.index, footprints.crs)
        footprints = footprints.set_geometry(geometry)
    return _conflation(footprints, mapped, judge(shapes, there, options), offsets)


def _offsets(
    footprints: gpd.GeoDataFrame, shapes: Shapes, there: Mapped, options: ConflateOptions
) -> dict[str, Offset | None]:
    buildings = Centres.of(there.of("building").shapes)
    return {
        scene: estimate_offset(
            Centres.of(shapes[_voters(rows)]),
            buildings,
            max_offset_m=options.max_offset_m,
            min_pairs=options.min_pairs,
        )
        for scene, rows in _scenes(footprints).items()
    }


def _voters(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Draw some rows if there are very many: drawn, as every n-th may be of one kind."""
    if len(rows) <= MOST_VOTERS:
        return rows
    return np.random.default_rng(0).choice(rows, MOST_VOTERS, replace=False)


def _shifted(
    footprints: gpd.GeoDataFrame, shapes: Shapes, offsets: Mapping[str, Offset | None]
) -> Shapes:
    aligned = shapes.copy()
    for scene, rows in _scenes(footprints).items():
        if (offset := offsets[scene]) is not None:
            way = np.array([offset.dx_m, offset.dy_m])
            aligned[rows] = shapely.transform(shapes[rows], lambda xy, way=way: xy + way)
    return aligned


def _scenes(footprints: gpd.GeoDataFrame) -> dict[str, NDArray[np.intp]]:
    """Return the rows of each scene."""
    if "scene" not in footprints.columns:
        return {"": np.arange(len(footprints))}
    rows: Mapping[Any, NDArray[np.intp]] = footprints.groupby("scene", sort=True).indices
    return {str(scene): np.asarray(found) for scene, found in rows.items()}


def _conflation(
    footprints: gpd.GeoDataFrame,
    mapped: Mapped,
    verdicts: Verdicts,
    offsets: Mapping[str, Offset | None],
) -> Conflation:
    reasons = verdicts.reasons
    first, at = np.unique(reasons.footprint, return_index=True)
    ids = np.full(len(footprints), "", object)
    ids[first] = mapped.ids[reasons.mapped[at]]
    iou, overlap = np.zeros((2, len(footprints)))
    iou[first], overlap[first] = reasons.iou[at], reasons.overlap[at]
    described = footprints.assign(
        osm_status=[str(status) for status in verdicts.status],
        osm_id=ids,
        osm_iou=iou,
        osm_overlap=overlap,
    )
    return Conflation(footprints=described, reasons=reasons, mapped=mapped, offsets=offsets)


def _shapes(footprints: gpd.GeoDataFrame) -> Shapes:
    return np.asarray(footprints.geometry.to_numpy(), object)
