"""What a step did to a map: which footprints it moved, dropped and made, and whether that helped.

Frame: both maps and the truth are brought to one metric frame, as in `footprints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import geopandas as gpd
import numpy as np
import shapely

from geoseg.evaluate.footprints import evaluate_footprints, match_footprints
from geoseg.evaluate.shapes import measure_shapes, n_corners
from geoseg.evaluate.sides import metric_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Shapes = NDArray[np.object_]

LEAST_IOU: Final = 0.1
"""Two footprints of this IoU or more are one building, before and after."""
SAME_IOU: Final = 1 - 1e-6
"""Above, nothing but rounding changed."""
CLEAR: Final = 0.01
"""IoU with the truth that a building must gain or lose to be counted as better or worse."""
TOLD: Final = ("f1@.5", "f1@.75", "ap50", "mean_iou", "area_ratio")
SHAPES_TOLD: Final = (
    "boundary_iou", "vertex_ratio", "max_tangent_angle_error_deg", "rotation_error_deg",
    "hausdorff_m",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changes:
    """Footprints before and after: pairs of one building, and those without a partner."""

    before: Ints
    """(M,) rows of the map before, of footprints that are in both."""
    after: Ints
    """(M,) rows of the map after, paired."""
    iou: Floats
    """(M,) between the two."""
    removed: Ints
    """Rows of the map before that have no partner."""
    added: Ints
    """Rows of the map after that have none."""
    corners: tuple[float, float]
    """Mean number of corners before and after; NaN of no footprints."""
    area_m2: tuple[float, float]
    """Of all footprints, in the metric frame."""

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(M,) which pairs differ by more than rounding."""
        return self.iou < SAME_IOU

    def as_dict(self) -> dict[str, float]:
        """Return counts and means by name, for tables and JSON."""
        moved = self.iou[self.changed]
        return {
            "n_before": len(self.before) + len(self.removed),
            "n_after": len(self.after) + len(self.added),
            "n_same": int((~self.changed).sum()),
            "n_changed": len(moved),
            "n_removed": len(self.removed),
            "n_added": len(self.added),
            "mean_iou_of_changed": float(moved.mean()) if len(moved) else float("nan"),
            "least_iou_of_changed": float(moved.min()) if len(moved) else float("nan"),
            "mean_corners_before": self.corners[0],
            "mean_corners_after": self.corners[1],
            "area_ratio": self.area_m2[1] / self.area_m2[0] if self.area_m2[0] else float("nan"),
        }


def find_changes(before: gpd.GeoDataFrame, after: gpd.GeoDataFrame) -> Changes:
    """Say which footprints of two maps are one building, and how they differ.

    Footprints are paired one to one, those of the highest IoU first, whatever their scores.

    Args:
        before: Footprints in any CRS.
        after: Footprints in any CRS.

    Raises:
        VectorError: A side has no CRS.

    Example:
        >>> from shapely.geometry import box
        >>> frames = [gpd.GeoDataFrame(geometry=[s], crs="EPSG:32736")
        ...           for s in (box(0, 0, 10, 10), box(0, 0, 10, 8))]
        >>> find_changes(*frames).as_dict()["mean_iou_of_changed"]
        0.8
    """
    sides = [gpd.GeoDataFrame(geometry=f.geometry.reset_index(drop=True)) for f in (before, after)]
    pairs = match_footprints(sides[0], sides[1], iou=LEAST_IOU)
    shapes = metric_shapes(sides[0], sides[1])
    counts = [n_corners(s) for s in shapes]
    return Changes(
        before=pairs.pred,
        after=pairs.truth,
        iou=pairs.iou,
        removed=np.setdiff1d(np.arange(len(before)), pairs.pred),
        added=np.setdiff1d(np.arange(len(after)), pairs.truth),
        corners=(_mean(counts[0]), _mean(counts[1])),
        area_m2=(float(shapely.area(shapes[0]).sum()), float(shapely.area(shapes[1]).sum())),
    )


def measure_gain(
    before: gpd.GeoDataFrame, after: gpd.GeoDataFrame, truth: gpd.GeoDataFrame
) -> dict[str, Any]:
    """Return the figures of both maps against the truth, and how many buildings gained or lost.

    Args:
        before: Footprints in any CRS.
        after: Footprints in any CRS.
        truth: Outlines in any CRS.

    Raises:
        VectorError: A side has no CRS.
    """
    gains = building_gains(before, after, truth)
    return {
        "before": _told(before, truth),
        "after": _told(after, truth),
        "buildings": {
            "n_better": int((gains > CLEAR).sum()),
            "n_worse": int((gains < -CLEAR).sum()),
            "mean_gain_of_iou": _mean(gains),
        },
    }


def building_gains(
    before: gpd.GeoDataFrame, after: gpd.GeoDataFrame, truth: gpd.GeoDataFrame
) -> Floats:
    """Return how much IoU (T,) the footprint that fits each building best gained."""
    old, new = (best_ious(frame, truth) for frame in (before, after))
    return new - old


def best_ious(pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> Floats:
    """Return the highest IoU (T,) of any footprint with each building; 0 of none."""
    found, outlines = metric_shapes(pred, truth)
    t, p = shapely.STRtree(found).query(outlines, predicate="intersects")
    shared = shapely.area(shapely.intersection(outlines[t], found[p]))
    union = shapely.area(outlines)[t] + shapely.area(found)[p] - shared
    best = np.zeros(len(outlines))
    np.maximum.at(best, t, shared / np.maximum(union, 1e-12))
    return best


def _told(pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> dict[str, float]:
    figures = evaluate_footprints(pred, truth).as_dict()
    shapes = measure_shapes(pred, truth).as_dict()
    return {name: figures[name] for name in TOLD} | {name: shapes[name] for name in SHAPES_TOLD}


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
