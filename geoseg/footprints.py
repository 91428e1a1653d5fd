"""Footprints: the GeoDataFrame of georeferenced buildings, its schema and how it is made.

Frame: geometries in the scene's CRS until export; areas and lengths on the ground, in metres.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geoseg.errors import FormatError
from geoseg.polygonize import PolygonizeOptions, contour, to_ground
from geoseg.regularize import RegularizeOptions, regularize

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from pyproj import CRS

    from geoseg.grid import Grid
    from geoseg.scores import ScoreMap
    from geoseg.stitch import Instance

SCHEMA: Mapping[str, str] = {
    "id": "str",
    "label": "str",
    "score": "float64",
    "area_m2": "float64",
    "n_chips": "int32",
    "scene": "str",
    "touches_edge": "bool",
}
"""Columns in the order they are written, before `geometry`."""

OPTIONAL: Mapping[str, str] = {
    "regularized": "bool",
    "iou_raw": "float64",
    "osm_status": "str",
    "osm_id": "str",
    "osm_iou": "float64",
    "osm_overlap": "float64",
}
"""Columns that only some footprints have, written in this order after those of `SCHEMA`."""

_ID_CELL_PX = 8.0
"""Ids name the cell a centroid lies in: far above arithmetic noise, half a small building."""
_ID_SHIFT_PX = 0.17
"""Centroids of painted rectangles lie on half pixels: the cells' borders must not."""


def make_footprints(
    instances: Sequence[Instance],
    grid: Grid,
    *,
    labels: Mapping[int, str] | None = None,
    options: PolygonizeOptions | None = None,
    calibration: ScoreMap | None = None,
    regular: RegularizeOptions | None = None,
    taken: dict[str, int] | None = None,
    settled: bool = True,
) -> gpd.GeoDataFrame:
    """Polygonize instances and describe them.

    Args:
        instances: Instances of one scene, in pixels of `grid`.
        grid: The scene's working grid.
        labels: Name of each of the model's labels; missing ones are called by their number.
        options: Tolerance and least area.
        calibration: What the instances' scores stand for; None leaves them as they are.
        regular: Whether and how outlines are made regular; if they are, the columns `regularized`
            and `iou_raw` tell which were, and their IoU with what was traced.
        taken: Ids given before, where a scene's instances come in several calls; brought up to
            date. The same dict for all of them, in the instances' order, keeps ids unique.
        settled: Make the ids unique; otherwise that is left to `settle_ids`, when all are there.

    Returns:
        Footprints in the grid's CRS, in the instances' order, without those too small; the index
        holds each one's position in `instances`.
    """
    shapes = contour(
        [instance.soft for instance in instances],
        [(instance.window.col_off, instance.window.row_off) for instance in instances],
        shape_hw=(grid.height, grid.width),
    )
    traced, extra = shapes, dict[str, np.ndarray]()
    if regular is not None and regular.enabled:
        traced, extra = _regular(shapes, grid, regular)
    geometry, area_m2 = to_ground(traced, grid, options=options or PolygonizeOptions())
    kept = np.flatnonzero(area_m2 > 0)
    chosen = [instances[i] for i in kept.tolist()]
    names = labels or {}
    scores = np.array([item.score for item in chosen], np.float64)
    if calibration is not None:
        scores = calibration.apply(scores)
    ids = _ids(chosen, shapes[kept])
    if settled:
        ids = settle_ids(ids, {} if taken is None else taken)
    return gpd.GeoDataFrame(
        {
            "id": ids,
            "label": [names.get(item.label, str(item.label)) for item in chosen],
            "score": scores,
            "area_m2": area_m2[kept],
            "n_chips": np.array([item.n_chips for item in chosen], np.int32),
            "scene": [item.scene_id for item in chosen],
            "touches_edge": np.array([item.touches_edge for item in chosen], np.bool_),
            **{name: values[kept] for name, values in extra.items()},
        },
        geometry=gpd.GeoSeries(geometry[kept], index=kept, crs=grid.crs),
        index=kept,
        crs=grid.crs,
    )


def _regular(
    shapes: np.ndarray, grid: Grid, options: RegularizeOptions
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return outlines made regular, and the columns that tell of it."""
    made = regularize(
        shapes,
        scale_xy=grid.pixel_size_m,
        options=options,
        shape_hw=(grid.height, grid.width),
    )
    return made.shapes, {"regularized": made.regularized, "iou_raw": made.iou_raw}


def empty_footprints(crs: CRS) -> gpd.GeoDataFrame:
    """Return no footprints, with every column."""
    columns = {
        name: pd.Series([], dtype="object" if dtype == "str" else dtype)
        for name, dtype in SCHEMA.items()
    }
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries([], crs=crs), crs=crs)


def concat_footprints(frames: Sequence[gpd.GeoDataFrame], crs: CRS) -> gpd.GeoDataFrame:
    """Put footprints together, rows numbered from 0; with every column where there are none.

    Args:
        frames: With the same columns, in `crs`.
        crs: Theirs, for where there is no frame to tell it.

    Example:
        >>> from pyproj import CRS
        >>> len(concat_footprints([], CRS(4326)))
        0
    """
    if not frames:
        return empty_footprints(crs)
    return gpd.GeoDataFrame(pd.concat(frames, ignore_index=True))


def optional_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Return which of the optional columns are among some names, in their order.

    Example:
        >>> optional_columns(["score", "iou_raw", "regularized", "mine"])
        ('regularized', 'iou_raw')
    """
    there = set(names)
    return tuple(name for name in OPTIONAL if name in there)


def validate_footprints(footprints: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Check the schema and the geometry; return the frame with its columns in order.

    Raises:
        FormatError: A column is missing, a value out of its range or a geometry invalid.
    """
    missing = [name for name in SCHEMA if name not in footprints.columns]
    if missing:
        raise FormatError(f"footprints must have columns {list(SCHEMA)}; missing: {missing}")
    if not isinstance(footprints, gpd.GeoDataFrame) or footprints.active_geometry_name is None:
        raise FormatError("footprints must be a GeoDataFrame with a geometry column")
    if footprints.crs is None:
        raise FormatError("footprints must have a CRS")
    if not footprints["score"].between(0, 1).all():
        raise FormatError("footprint scores must be in [0, 1]")
    if not footprints["id"].is_unique:
        raise FormatError("footprint ids must be unique")
    shapes = footprints.geometry.to_numpy()
    areal = np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    if not (areal & shapely.is_valid(shapes)).all():
        raise FormatError("footprint geometries must be valid, non-empty polygons")
    names = [*SCHEMA, *optional_columns(footprints.columns), footprints.geometry.name]
    return footprints[names]


def settle_ids(
    ids: Sequence[str], taken: dict[str, int], *, repeated: Container[str] | None = None
) -> list[str]:
    """Make ids unique that name one place: the first stays, the others are numbered.

    Args:
        ids: In the order of their instances.
        taken: How often each was given before; brought up to date.
        repeated: Ids that come more than once, where that is known: only these are counted.
    """
    settled = []
    for name in ids:
        if repeated is not None and name not in repeated:
            settled.append(name)
            continue
        taken[name] = taken.get(name, 0) + 1
        settled.append(name if taken[name] == 1 else _digest(name, taken[name]))
    return settled


def _ids(instances: Sequence[Instance], shapes: np.ndarray) -> list[str]:
    """Return 16 hex digits per instance: the same building gets the same id in every run.

    From the scene's name and, coarsely, where the building's centre lies, so neither the order of
    work nor the last digits of the network's arithmetic matter.
    """
    centres = shapely.get_coordinates(shapely.centroid(shapes)) + _ID_SHIFT_PX
    cells = np.floor(centres / _ID_CELL_PX).astype(np.int64).tolist()
    return [_digest(item.scene_id, *cell) for item, cell in zip(instances, cells, strict=True)]


def _digest(*parts: object) -> str:
    text = "|".join(map(str, parts)).encode()
    return hashlib.blake2b(text, digest_size=8).hexdigest()
