"""A second opinion on scores: gradient boosting over features of instances, as an experiment.

The challenge's winners scored instances by a regression of their IoU. Here the same is tried on
footprints, and judged on ground it was not fitted on. What it says is in docs/quality.md; the
package has none of it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from benchmarks.quality import LOW, PARTS
from benchmarks.rows import Row
from benchmarks.scenes import NOT_HERE, real_scene
from geoseg.config import load_config
from geoseg.detections import MASK_ON
from geoseg.evaluate import evaluate_footprints
from geoseg.evaluate.changes import best_ious
from geoseg.evaluate.sides import metric_shapes
from geoseg.footprints import make_footprints
from geoseg.stages.infer import infer
from geoseg.stages.maps import centred_in, part_of
from geoseg.stages.store import chips_in_rows, detections_origin, read_detections
from geoseg.stitch import Stitcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import geopandas as gpd
    from numpy.typing import NDArray

    from benchmarks.scenes import Scene
    from geoseg.stitch import Instance

    Floats = NDArray[np.float64]

OTHERS: Final = ("zanzibar_c0", "nairobi_c1")
"""Scenes the network was trained on, which the regression may learn from as well."""
NEAR_M: Final = 10.0
SEEDS: Final = 3
FUZZY: Final = (64, 192)  # of 255: pixels that are neither roof nor ground
MISSING: Final = "scikit-learn is not here: pip install scikit-learn"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Footprints of a scene with what is known of each, and how well it fits."""

    name: str
    features: Floats
    """(N, F); the first is the network's score."""
    ious: Floats
    """(N,) the best IoU with a building."""
    footprints: gpd.GeoDataFrame
    truth: gpd.GeoDataFrame

    @property
    def place(self) -> str:
        """Where the scene lies: scenes of one place have one."""
        return self.name.split("_")[0]


def second_score(folder: Path) -> list[Row]:
    """Predict the IoU of footprints from features of their instances, and rank them by it.

    scikit-learn's histogram gradient boosting over score, probabilities, area, shape, border,
    contour, chips and neighbours. Each validation part is judged by a fit to other scenes, or to
    scenes of other places; AP50 is the mean of the four parts, of finds down to 0.05.
    """
    scenes = [real_scene(name) for name in (*PARTS, *OTHERS)]
    if any(scene is None for scene in scenes):
        return [Row(benchmark="second-score", name="AP50", value=None, note=NOT_HERE)]
    if importlib.util.find_spec("sklearn") is None:
        return [Row(benchmark="second-score", name="AP50", value=None, note=MISSING)]
    samples = [_sample(scene, folder) for scene in scenes if scene is not None]
    judges: dict[str, Callable[[Sample, Sample], bool]] = {
        "fitted to other scenes": lambda one, other: one.name != other.name,
        "fitted to other places": lambda one, other: one.place != other.place,
    }
    rows = [
        _row(
            "the network's score", [_worth(s, s.features[:, 0]) for s in samples if s.name in PARTS]
        )
    ]
    for name, is_other in judges.items():
        worths = []
        for one in samples:
            if one.name in PARTS:
                others = [other for other in samples if is_other(one, other)]
                worths.append(_worth(one, _predicted(one, others)))
        rows.append(_row(name, worths))
    return rows


def _row(name: str, worths: Sequence[tuple[float, float]]) -> Row:
    ap50, f1 = np.mean(worths, axis=0).tolist()
    parts = ", ".join(f"{ap:.3f}" for ap, _ in worths)
    return Row(
        benchmark="second-score",
        name=f"AP50, {name}",
        value=round(ap50, 4),
        note=f"best F1 {f1:.3f}; by part {parts}",
    )


def _predicted(one: Sample, others: Sequence[Sample]) -> Floats:
    from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 - optional

    features = np.concatenate([other.features for other in others])
    ious = np.concatenate([other.ious for other in others])
    found = [
        HistGradientBoostingRegressor(
            max_iter=120,
            learning_rate=0.05,
            max_leaf_nodes=8,
            min_samples_leaf=20,
            l2_regularization=1.0,
            random_state=seed,
        )
        .fit(features, ious)
        .predict(one.features)
        for seed in range(SEEDS)
    ]
    return np.asarray(np.clip(np.mean(found, axis=0), 0, 1))


def _worth(sample: Sample, scores: Floats) -> tuple[float, float]:
    """Return AP50 and the best F1 of a sample's part, ranked by scores."""
    ranked = centred_in(sample.footprints.attrs["area"], sample.footprints.assign(score=scores))
    truth = centred_in(sample.footprints.attrs["area"], sample.truth)
    result = evaluate_footprints(ranked, truth)
    return result.ap50, result.best_f1


def _sample(scene: Scene, folder: Path) -> Sample:
    path = folder / f"{scene.name}.parquet"
    options = {"model.score": LOW, "model.calibrate": False, "model.device": "cpu"}
    infer(str(scene.path), path, load_config(options=options))
    origin = detections_origin(path)
    instances = _instances(path)
    found = make_footprints(instances, origin.grid)
    chosen = [instances[i] for i in found.index]
    found = found.reset_index(drop=True)
    found.attrs["area"] = part_of(origin.grid, PARTS.get(scene.name, (0, 0, 1, 1)))
    truth = scene.truth.to_crs(found.crs)
    shape_hw = origin.grid.height, origin.grid.width
    shapes = metric_shapes(found, truth)[0]
    features = np.column_stack([_of_masks(chosen, shape_hw), _of_shapes(shapes, chosen)])
    return Sample(
        name=scene.name,
        features=features,
        ious=best_ious(truth, found),
        footprints=found,
        truth=truth,
    )


def _instances(path: Path) -> list[Instance]:
    origin = detections_origin(path)
    shape_hw = origin.grid.height, origin.grid.width
    stitcher = Stitcher(shape_hw=shape_hw, options=load_config().stitch)
    rows = chips_in_rows(read_detections(path))
    return [*(one for row in rows for one in stitcher.push_row(row)), *stitcher.finish()]


def _of_masks(instances: Sequence[Instance], shape_hw: tuple[int, int]) -> Floats:
    """Return score, mean, median and greatest probability, area, box, fuzziness, border, chips."""
    rows = []
    for one in instances:
        on = one.soft >= MASK_ON
        inside = one.soft[on] / 255
        ys, xs = np.nonzero(on)
        height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
        window = one.window
        to_border = min(
            window.row_off,
            window.col_off,
            shape_hw[0] - window.row_stop,
            shape_hw[1] - window.col_stop,
        )
        fuzzy = np.count_nonzero((one.soft > FUZZY[0]) & (one.soft < FUZZY[1]))
        rows.append(
            (
                one.score, inside.mean(), np.median(inside), inside.max(), on.sum(),
                height * width, min(height, width) / max(height, width),
                on.sum() / (height * width), fuzzy / on.sum(), to_border, one.n_chips,
            )
        )  # fmt: skip
    return np.array(rows, float)


def _of_shapes(shapes: NDArray[Any], instances: Sequence[Instance]) -> Floats:
    """Return contour length and corners, three kinds of fill, and what lies near."""
    area, length = shapely.area(shapes), shapely.length(shapes)
    near, other = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=NEAR_M)
    apart = near != other
    near, other = near[apart], other[apart]
    scores = np.array([one.score for one in instances])
    shared = shapely.area(shapely.intersection(shapes[near], shapes[other])) / area[near]
    overlap, rival = np.zeros(len(shapes)), np.zeros(len(shapes))
    np.maximum.at(overlap, near, shared)
    np.maximum.at(rival, near, scores[other])
    return np.column_stack(
        [
            length,
            shapely.get_num_coordinates(shapes),
            4 * np.pi * area / length**2,
            area / shapely.area(shapely.convex_hull(shapes)),
            area / shapely.area(shapely.minimum_rotated_rectangle(shapes)),
            np.bincount(near, minlength=len(shapes)),
            overlap,
            rival,
        ]
    )
