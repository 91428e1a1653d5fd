"""Whether buildings that chip borders cut are mapped as well as those that none cuts.

Frame: the metric frame of `footprints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.errors import ConfigError
from geoseg.evaluate.footprints import match_footprints
from geoseg.evaluate.sides import are_areas

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd

    from geoseg.chips import Chip
    from geoseg.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamGap:
    """F1 at IoU .5 of buildings that cross the border of a chip, and of those that do not."""

    n_crossing: int
    n_inside: int
    f1_crossing: float
    f1_inside: float

    @property
    def gap(self) -> float:
        """F1 across seams less F1 inside chips: 0 is no harm, negative is what seams cost."""
        return self.f1_crossing - self.f1_inside


def seam_gap(
    pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame, *, chips: Sequence[Chip], grid: Grid
) -> SeamGap:
    """Compare buildings on chip borders with those inside.

    A building crosses when it comes within a pixel of a border of any chip inside the scene: the
    halves of one that was torn there end at the border. A footprint that matches none counts with
    the side its own outline is on.

    Args:
        pred: Footprints in any CRS.
        truth: Outlines in any CRS; ones that are not areas are ignored.
        chips: How the scene was cut.
        grid: The grid that the chips count in.

    Raises:
        ConfigError: There are no chips.
        VectorError: A side has no CRS.
    """
    if not chips:
        raise ConfigError("chips must be how the scene was cut, got none")
    borders = chip_borders(chips, grid)
    shapely.prepare(borders)
    pixel = float(np.hypot(grid.transform.a, grid.transform.d))
    crosses = [
        shapely.dwithin(borders, f.geometry.to_crs(grid.crs).to_numpy(), pixel)
        for f in (pred, truth)
    ]
    matches = match_footprints(pred, truth)
    free, counts = (are_areas(f.geometry.to_numpy()) for f in (pred, truth))
    free[matches.pred] = False
    figures = []
    for side in (True, False):
        hits = int((crosses[1][matches.truth] == side).sum())
        extra = int((free & (crosses[0] == side)).sum())
        n_truth = int((counts & (crosses[1] == side)).sum())
        both = hits + extra + n_truth
        figures.append((n_truth, 2 * hits / both if both else float("nan")))
    (n_crossing, f1_crossing), (n_inside, f1_inside) = figures
    return SeamGap(
        n_crossing=n_crossing, n_inside=n_inside, f1_crossing=f1_crossing, f1_inside=f1_inside
    )


def chip_borders(chips: Sequence[Chip], grid: Grid) -> shapely.MultiLineString:
    """Return the borders of chips that lie inside the scene, in the grid's CRS."""
    lines = []
    for chip in chips:
        window = chip.window
        rows = [r for r in (window.row_off, window.row_stop) if 0 < r < grid.height]
        cols = [c for c in (window.col_off, window.col_stop) if 0 < c < grid.width]
        lines += [((window.col_off, r), (window.col_stop, r)) for r in rows]
        lines += [((c, window.row_off), (c, window.row_stop)) for c in cols]
    px = np.array(sorted(set(lines)), float).reshape(-1, 2, 2)
    x, y = grid.xy(px[..., 1], px[..., 0])
    return shapely.multilinestrings(shapely.linestrings(np.stack([x, y], axis=-1)))
