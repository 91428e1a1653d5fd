"""How well the outlines of footprints fit, beyond their overlap: corners, edges, angles.

Frame: both sides in one metric frame, as in `footprints`; lengths in metres. All measures but the
counts are taken on pairs matched at IoU .5. NaN where there is nothing to measure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.evaluate.footprints import match_footprints, mean_average_precision
from geoseg.evaluate.sides import are_areas, metric_shapes

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    Shapes = NDArray[np.object_]
    Floats = NDArray[np.float64]

BOUNDARY_SHARE = 0.02
"""Width of the band of boundary IoU, of the diagonal of the truth's box: Cheng et al. take 2% of
an image's diagonal; a map has no image, and buildings of all sizes."""
LEAST_BAND_M = 0.3  # a band narrower than a pixel would measure pixels
STEPS = 64  # along an outline, whose directions are compared
ON_EDGE_M = 1e-3
MAX_STRETCH = 2.0
BOUNDARY_LEVELS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeMeasures:
    """Means over matched pairs."""

    n_pairs: int
    boundary_iou: float
    """IoU of the bands inside the outlines (Cheng et al. 2021, arXiv 2103.16562)."""
    boundary_ap: float
    """COCO's AP, IoU and boundary IoU both reaching each level (Cheng et al. 2021, section 5); NaN
    without scores."""
    boundary_f1: float
    """F1 over all footprints, mean over boundary IoU .50 to .95: without scores, too."""
    c_iou: float
    """IoU times 1 - |n - m| / (n + m) of the numbers of corners (Zorzi et al. 2022, PolyWorld,
    arXiv 2111.15491)."""
    vertex_ratio: float
    """Corners of the footprint over those of the truth: PolyWorld's N ratio."""
    max_tangent_angle_error_deg: float
    """Largest angle between an outline and the nearest of the truth (Girard et al. 2021, Frame
    Field Learning, arXiv 2004.14875)."""
    polis_m: float
    """Mean distance of the corners of each outline from the other (Avbelj et al. 2015, PoLiS)."""
    hausdorff_m: float
    rotation_error_deg: float
    """Angle between the longer sides of the smallest rectangles around, at most 45: turned by 90
    degrees, a rectangle is a rectangle."""
    area_bias: float
    """Mean of area over true area, less 1."""

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name, for tables and JSON."""
        return asdict(self)


def measure_shapes(pred: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> ShapeMeasures:
    """Measure how well footprints fit the outlines they match.

    Args:
        pred: Footprints in any CRS.
        truth: Outlines in any CRS; ones that are not areas are ignored.

    Raises:
        VectorError: A side has no CRS.

    Example:
        >>> import geopandas as gpd
        >>> truth = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 10, 10)], crs="EPSG:32736")
        >>> measure_shapes(truth, truth).vertex_ratio
        1.0
    """
    matches = match_footprints(pred, truth)
    pred_shapes, truth_shapes = metric_shapes(pred, truth)
    one, other = pred_shapes[matches.pred], truth_shapes[matches.truth]
    corners = n_corners(one), n_corners(other)
    bands = boundary_ious(one, other)
    hits = (bands[:, None] >= BOUNDARY_LEVELS).sum(axis=0)
    sides = sum(int(are_areas(shapes).sum()) for shapes in (pred_shapes, truth_shapes))
    return ShapeMeasures(
        n_pairs=len(matches),
        boundary_iou=_mean(bands),
        boundary_ap=mean_average_precision(pred, truth, quality=boundary_ious),
        boundary_f1=float((2 * hits / sides).mean()) if sides else float("nan"),
        c_iou=_mean(
            matches.iou * (1 - np.abs(corners[0] - corners[1]) / (corners[0] + corners[1]))
        ),
        vertex_ratio=_mean(corners[0] / corners[1]),
        max_tangent_angle_error_deg=_mean(max_tangent_angle_errors_deg(one, other)),
        polis_m=_mean(polis(one, other)),
        hausdorff_m=_mean(shapely.hausdorff_distance(one, other)),
        rotation_error_deg=_mean(rotation_errors_deg(one, other)),
        area_bias=_mean(shapely.area(one) / shapely.area(other) - 1),
    )


def n_corners(shapes: Shapes) -> Floats:
    """Return how many corners (N,) polygons have, holes included, the closing point not twice."""
    rings, owner = _rings(shapes)
    counts = shapely.get_num_coordinates(rings) - 1
    return np.asarray(np.bincount(owner, weights=counts, minlength=len(shapes)), float)


def boundary_ious(pred: Shapes, truth: Shapes, *, band_m: float | None = None) -> Floats:
    """Return IoU (N,) of the bands along the inside of paired outlines.

    (Cheng et al. 2021, equation 2; corners of the band are mitred, as square kernels make them.)

    Args:
        pred: (N,) in a metric frame.
        truth: (N,) in the same.
        band_m: Width of the bands; None takes `BOUNDARY_SHARE` of the diagonal of the truth's box,
            at least 0.3 m.
    """
    bounds = shapely.bounds(truth).reshape(-1, 4)
    diagonal = np.hypot(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    width = np.maximum(BOUNDARY_SHARE * diagonal, LEAST_BAND_M)
    if band_m is not None:
        width = np.full(len(truth), band_m)
    one, other = (
        shapely.difference(s, shapely.buffer(s, -width, join_style="mitre")) for s in (pred, truth)
    )
    shared = shapely.area(shapely.intersection(one, other))
    union = shapely.area(one) + shapely.area(other) - shared
    return np.asarray(np.minimum(shared / union, 1), float)


def polis(pred: Shapes, truth: Shapes) -> Floats:
    """Return the PoLiS distance (N,) of paired polygons, in the unit of their frame.

    Half the mean distance of the corners of each from the other's outline, both summed (Avbelj et
    al. 2015, equation 2).
    """
    return (_corner_distances(pred, truth) + _corner_distances(truth, pred)) / 2


def max_tangent_angle_errors_deg(pred: Shapes, truth: Shapes) -> Floats:
    """Return the largest angle (N,), in [0, 90], between paired outlines.

    The footprint's outer ring is cut into short steps, which end at its corners; each is compared
    with the step between the projections of its ends onto the truth's outline. Steps that the
    projection shortens or stretches more than twice, or takes around a corner, say nothing and are
    left out (Girard et al. 2021, section 4.2; the corners are ours).
    """
    rings = shapely.get_exterior_ring(_largest_parts(pred))
    cut = shapely.segmentize(rings, np.maximum(shapely.length(rings) / STEPS, 1e-9))
    xy, owner = shapely.get_coordinates(cut, return_index=True)
    outlines = shapely.boundary(truth)[owner]
    ties = shapely.shortest_line(shapely.points(xy), outlines)
    projected = shapely.get_coordinates(ties).reshape(-1, 2, 2)[:, 1]
    same = owner[1:] == owner[:-1]
    own, other = np.diff(xy, axis=0)[same], np.diff(projected, axis=0)[same]
    lengths = np.hypot(*own.T), np.hypot(*other.T)
    usable = (lengths[1] * MAX_STRETCH >= lengths[0]) & (lengths[1] <= MAX_STRETCH * lengths[0])
    middle = (projected[1:] + projected[:-1])[same] / 2
    usable &= shapely.distance(shapely.points(middle), outlines[1:][same]) < ON_EDGE_M
    crossed = np.abs(own[:, 0] * other[:, 1] - own[:, 1] * other[:, 0])
    angles = np.degrees(np.arctan2(crossed, np.abs((own * other).sum(axis=1))))
    worst = np.zeros(len(pred))
    np.maximum.at(worst, owner[1:][same][usable], angles[usable])
    return worst


def rotation_errors_deg(pred: Shapes, truth: Shapes) -> Floats:
    """Return the angle (N,), in [0, 45], between the smallest rectangles around paired polygons."""
    apart = np.abs(_main_angles(pred) - _main_angles(truth)) % 90
    return np.asarray(np.minimum(apart, 90 - apart), float)


def _rings(shapes: Shapes) -> tuple[Shapes, NDArray[np.int64]]:
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    return rings, owner[part]


def _largest_parts(shapes: Shapes) -> Shapes:
    """Return the largest polygon of each multipolygon; polygons as they are."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    order = np.lexsort((-shapely.area(parts), owner))
    _, first = np.unique(owner[order], return_index=True)
    return np.asarray(parts[order][first], object)


def _corner_distances(shapes: Shapes, others: Shapes) -> Floats:
    """Return the mean distance of each polygon's corners from its partner's outline."""
    rings, owner = _rings(shapes)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    last = np.r_[ring[1:] != ring[:-1], True] if len(ring) else np.zeros(0, bool)
    of = owner[ring[~last]]
    distances = shapely.distance(shapely.points(xy[~last]), shapely.boundary(others)[of])
    counts = np.bincount(of, minlength=len(shapes))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(of, weights=distances, minlength=len(shapes)) / counts)


def _main_angles(shapes: Shapes) -> Floats:
    boxes = shapely.minimum_rotated_rectangle(shapes)
    angles = np.full(len(shapes), np.nan)
    whole = shapely.get_num_coordinates(boxes) == 5
    xy = shapely.get_coordinates(boxes[whole]).reshape(-1, 5, 2)
    sides = np.diff(xy, axis=1)[:, :2]
    longer = np.hypot(sides[..., 0], sides[..., 1]).argmax(axis=1)
    main = sides[np.arange(len(sides)), longer]
    angles[whole] = np.degrees(np.arctan2(main[:, 1], main[:, 0])) % 180
    return angles


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
