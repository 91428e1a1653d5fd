"""Buildings that two scenes show: one footprint of both, by the rule that stitches chips.

Two footprints of different scenes are one building when they agree inside the strip that both
scenes cover, or when what one scene's border cuts lies in the other. Of one that is whole in a
scene that footprint stays; parts that no scene shows whole are united. Frame: the first scene's
CRS while comparing, each scene's own in what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geoseg.stages.blocks.merged import merged_footprints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.grid import Grid
    from geoseg.stages.blocks.plan import SceneJob
    from geoseg.stitch import StitchOptions

EDGE_POINTS = 33
"""A side of a scene's extent, so that it keeps its shape in another CRS."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settled:
    """What becomes of a scene's footprints."""

    dropped: set[str] = field(default_factory=set)
    """Ids of those that another scene's footprint stands for."""
    united: dict[str, tuple[shapely.Geometry, float, int]] = field(default_factory=dict)
    """New geometry in the scene's CRS, factor of its area and number of chips, by id."""

    def apply(self, frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        """Return a scene's footprints as they are to be written; the index is kept."""
        if not self.dropped and not self.united:
            return frame
        kept = frame[~frame["id"].isin(self.dropped)].copy()
        for at in kept.index[kept["id"].isin(self.united)]:
            geometry, factor, n_chips = self.united[kept.loc[at, "id"]]
            kept.loc[at, "area_m2"] *= factor
            kept.loc[at, "n_chips"] = n_chips
            kept.loc[[at], "geometry"] = gpd.GeoSeries([geometry], index=[at], crs=kept.crs)
        return kept


def settle_overlaps(scenes: Sequence[SceneJob]) -> list[Settled]:
    """Decide what becomes of the footprints where scenes overlap.

    In memory are the footprints that lie where another scene lies too.

    Args:
        scenes: In the order that settles ties; their shards are complete.
    """
    settled = [Settled() for _ in scenes]
    if len(scenes) < 2:
        return settled
    crs = scenes[0].grid.crs
    extents = [_extent(scene.grid, crs) for scene in scenes]
    frames = []
    for number, scene in enumerate(scenes):
        others = shapely.union_all([e for i, e in enumerate(extents) if i != number])
        shapely.prepare(others)
        for frame, _ in merged_footprints(scene):
            moved = frame.to_crs(crs)
            near = moved[shapely.intersects(others, moved.geometry.to_numpy())]
            if len(near):
                frames.append(near.assign(number=number))
    if not frames:
        return settled
    found = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=crs)
    for group in _groups(found, extents, scenes[0].config.stitch):
        _settle(found.iloc[group], scenes, settled)
    return settled


def _extent(grid: Grid, crs: object) -> shapely.Polygon:
    """Return a scene's outline in another CRS."""
    along = np.linspace(0, 1, EDGE_POINTS)[:-1]
    up, flat = np.zeros_like(along), np.ones_like(along)
    rows = np.concatenate([up, along, flat, 1 - along]) * grid.height
    cols = np.concatenate([along, flat, 1 - along, up]) * grid.width
    x, y = grid.xy(rows, cols)
    outline = gpd.GeoSeries([shapely.Polygon(np.column_stack([x, y]))], crs=grid.crs)
    polygon: shapely.Polygon = shapely.make_valid(outline.to_crs(crs).to_numpy()[0])
    return polygon


def _groups(
    found: gpd.GeoDataFrame, extents: Sequence[shapely.Geometry], options: StitchOptions
) -> list[list[int]]:
    """Return the positions of footprints that show one building, two or more each."""
    shapes = found.geometry.to_numpy()
    number = found["number"].to_numpy()
    cut = found["touches_edge"].to_numpy()
    left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    apart = (left < right) & (number[left] != number[right])
    left, right = left[apart], right[apart]
    if not len(left):
        return []
    seen_left = shapely.intersection(shapes[left], np.asarray(extents)[number[right]])
    seen_right = shapely.intersection(shapes[right], np.asarray(extents)[number[left]])
    both = shapely.area(shapely.intersection(shapes[left], shapes[right]))
    area_left, area_right = shapely.area(seen_left), shapely.area(seen_right)
    iou = both / np.maximum(area_left + area_right - both, 1e-9)
    in_right, in_left = both / np.maximum(area_left, 1e-9), both / np.maximum(area_right, 1e-9)
    contained = (cut[left] & (in_right >= options.contain_ios)) | (
        cut[right] & (in_left >= options.contain_ios)
    )
    doubled = np.maximum(in_left, in_right) >= options.duplicate_ios
    joins = contained | (iou >= options.agree_iou) | doubled
    order = np.lexsort((right, left, -iou))
    return _unite(left, right, [i for i in order if joins[i]], number)


def _unite(
    left: np.ndarray, right: np.ndarray, pairs: Sequence[int], number: np.ndarray
) -> list[list[int]]:
    """Join pairs from the best on, never two footprints of one scene."""
    groups: dict[int, list[int]] = {}
    for i in pairs:
        one = groups.get(int(left[i]), [int(left[i])])
        two = groups.get(int(right[i]), [int(right[i])])
        if one is two or set(number[one]) & set(number[two]):
            continue
        joined = sorted(one + two)
        groups.update(dict.fromkeys(joined, joined))
    return list({id(group): group for group in groups.values()}.values())


def _settle(group: gpd.GeoDataFrame, scenes: Sequence[SceneJob], settled: list[Settled]) -> None:
    """Keep the whole, likeliest footprint; unite the parts where none is whole."""
    ranked = group.sort_values(
        ["touches_edge", "score", "number"], ascending=[True, False, True], kind="stable"
    )
    first = ranked.iloc[0]
    for _, other in ranked.iloc[1:].iterrows():
        settled[other["number"]].dropped.add(other["id"])
    if not first["touches_edge"]:
        return
    whole = shapely.union_all(ranked.geometry.to_numpy())
    home = gpd.GeoSeries([whole], crs=group.crs).to_crs(scenes[first["number"]].grid.crs)
    factor = whole.area / first["geometry"].area
    united = home.to_numpy()[0], float(factor), int(ranked["n_chips"].sum())
    settled[first["number"]].united[first["id"]] = united
