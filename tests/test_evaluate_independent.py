"""Measures against implementations that share no code with ours."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import sys

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shapely.affinity import rotate, translate
from shapely.geometry import box

from geoseg.errors import ConfigError
from geoseg.evaluate import coco_figures, evaluate_footprints
from geoseg.evaluate.footprints import mean_average_precision
from geoseg.evaluate.mistakes import find_mistakes
from geoseg.evaluate.shapes import boundary_ious, measure_shapes
from geoseg.models.spec import BUILDING, Category
from tests.test_evaluate_coco import SIZE, annotated

needs_faster = pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None, reason="faster-coco-eval is not installed"
)
BACKENDS = ["pycocotools", pytest.param("faster-coco-eval", marks=needs_faster)]
UTM = "EPSG:32633"

boxes = st.tuples(
    st.integers(0, 70), st.integers(0, 70), st.integers(3, 30), st.integers(3, 30)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
chips = st.lists(st.lists(boxes, max_size=4), min_size=5, max_size=5)


def plain_stats(truth, found, kind: str) -> list[float]:
    """COCO's twelve, by pycocotools' own summary of all chips at once."""
    sides = []
    for side in (truth, found):
        coco = COCO()
        records = []
        for i in range(len(side)):
            rle = side.rle(i, *SIZE)
            record = {"id": i + 1, "image_id": int(side.image_index[i]), "iscrowd": 0}
            record |= {"category_id": int(side.labels[i]), "segmentation": rle}
            record |= {"bbox": side.boxes_xywh[i].tolist(), "area": float(coco_mask.area(rle))}
            if side.scores is not None:
                record["score"] = float(side.scores[i])
            records.append(record)
        categories = [{"id": c.label} for c in side.categories]
        images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(side.images))]
        coco.dataset = {"images": images, "categories": categories, "annotations": records}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        sides.append(coco)
    evaluation = COCOeval(*sides, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [math.nan if v == -1 else float(v) for v in evaluation.stats]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["segm", "bbox"])
@settings(max_examples=8)
@given(truth=chips, found=chips, seed=st.integers(0, 99), block=st.integers(1, 6))
def test_blocks_say_what_pycocotools_says_of_all_chips_at_once(
    backend, kind, truth, found, seed, block
):
    kinds = (BUILDING, Category(label=2, id=7, name="shed"))
    rng = np.random.default_rng(seed)

    def side(of, scores=None):
        labels = [rng.integers(1, 3, len(chip)).tolist() for chip in of]
        return annotated(of, scores, categories=kinds, labels=labels)

    sides = side(truth), side(found, [rng.permutation(len(c)) / 10 + 0.05 for c in found])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["geoseg.evaluate.coco_figures"], "BLOCK_CHIPS", block)
        figures = coco_figures(*sides, kind=kind, backend=backend).as_dict()
    names = [n for n in figures if n.startswith(("ap", "ar"))]
    assert len(names) == 12
    expected = plain_stats(*sides, kind)
    assert [figures[n] for n in names] == pytest.approx(expected, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_chips_are_undefined(backend):
    assert math.isnan(coco_figures(annotated([]), annotated([]), backend=backend).ap)


def test_a_backend_that_is_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'geoseg\[train\]'"):
        coco_figures(annotated([[]]), annotated([[]]), backend="faster-coco-eval")
    assert math.isnan(coco_figures(annotated([[]]), annotated([[]])).ap)


@needs_faster
@settings(max_examples=20)
@given(boxes, st.integers(-3, 3), st.integers(-3, 3), st.integers(1, 6))
def test_boundary_iou_is_that_of_eroded_masks(edges, dx, dy, band):
    """faster-coco-eval erodes pixels with a square kernel; outlines on pixel edges say the same."""
    from faster_coco_eval import COCO as FasterCOCO  # noqa: N811, PLC0415 - optional; their name
    from faster_coco_eval import COCOeval_faster  # noqa: PLC0415 - optional

    moved = tuple(np.clip(np.add(edges, [dx, dy, dx, dy]), 0, 100).tolist())
    sides = annotated([[edges]]), annotated([[moved]], [[0.9]])
    datasets = []
    for side in sides:
        record = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "score": 0.9}
        record |= {"segmentation": side.rle(0, *SIZE), "area": 1.0, "bbox": [0, 0, 1, 1]}
        dataset = FasterCOCO()
        image = {"id": 1, "height": SIZE[0], "width": SIZE[1]}
        dataset.dataset = {
            "images": [image], "categories": [{"id": 1}], "annotations": [record],
        }  # fmt: skip
        dataset.createIndex()
        datasets.append(dataset)
    ratio = band / math.hypot(*SIZE)
    evaluation = COCOeval_faster(*datasets, "boundary", boundary_dilation_ratio=ratio)
    evaluation.evaluate()
    expected = float(np.asarray(evaluation.ious[1, 1])[0, 0])
    one, other = np.array([box(*edges)]), np.array([box(*moved)])
    shared = one[0].intersection(other[0]).area
    iou = shared / (one[0].area + other[0].area - shared)
    ours = min(float(boundary_ious(other, one, band_m=band)[0]), iou)
    assert ours == pytest.approx(expected, abs=1e-6)


def frame(*shapes, scores=None) -> gpd.GeoDataFrame:
    made = gpd.GeoDataFrame(geometry=list(shapes), crs=UTM)
    return made if scores is None else made.assign(score=scores)


def test_average_precision_of_a_map_is_cocos():
    """Boxes on a grid, so that IoU of masks is IoU of outlines; one chip."""
    rng = np.random.default_rng(3)
    truth = [(x, y, x + 12, y + 12) for x in range(2, 82, 20) for y in range(2, 82, 20)]
    found = [tuple(np.add(b, rng.integers(-3, 4, 4)).clip(0).tolist()) for b in truth]
    found += [(85, 85, 99, 99), (0, 90, 9, 99)]
    scores = (rng.permutation(len(found)) + 1) / 20
    expected = coco_figures(annotated([truth]), annotated([found], [scores]))
    pred = frame(*(box(*b) for b in found), scores=scores)
    outlines = frame(*(box(*b) for b in truth))
    assert mean_average_precision(pred, outlines) == pytest.approx(expected.ap)
    assert evaluate_footprints(pred, outlines).ap50 == pytest.approx(expected.ap50)


def test_boundary_ap_needs_both_measures():
    """By hand: the better half of two buildings fits, the other's band does not."""
    truth = [box(0, 0, 10, 10), box(50, 0, 60, 10)]
    ring = box(0, 0, 10, 10).difference(box(1, 1, 9, 9))  # bands agree, areas do not
    pred = frame(truth[1], ring, scores=[0.9, 0.8])
    assert measure_shapes(pred, frame(*truth)).boundary_ap == pytest.approx(51 / 101)
    assert math.isnan(measure_shapes(frame(*truth), frame(*truth)).boundary_ap)
    assert measure_shapes(frame(*truth, scores=[1, 1]), frame(*truth)).boundary_ap == 1


@pytest.mark.parametrize("angle", [0, 10, 33, 60])
def test_hausdorff_and_bands_do_not_depend_on_the_frame(angle):
    one, other = box(0, 0, 12, 8), translate(box(0, 0, 12, 8), 0.4, 0.2)
    turned = [rotate(s, angle, origin=(0, 0)) for s in (other, one)]
    here, there = (
        boundary_ious(np.array([a]), np.array([b]), band_m=0.5)[0]
        for a, b in ((other, one), turned)
    )
    assert here == pytest.approx(there)
    assert measure_shapes(frame(turned[0]), frame(turned[1])).hausdorff_m == pytest.approx(
        shapely.hausdorff_distance(*turned)
    )


# --- mistakes ----------------------------------------------------------------------------------


@settings(max_examples=20)
@given(truth=chips, found=chips, seed=st.integers(0, 99), score=st.floats(0, 1))
def test_mistakes_above_a_score_are_those_found_there(truth, found, seed, score):
    rng = np.random.default_rng(seed)
    sides = annotated(truth), annotated(found, [list(rng.random(len(c))) for c in found])
    if sides[1].scores is None:
        return
    ours, direct = find_mistakes(*sides, score=0).above(score), find_mistakes(*sides, score=score)
    assert [(c.truth, c.found) for c in ours.chips] == [(c.truth, c.found) for c in direct.chips]
    for one, other in zip(ours.chips, direct.chips, strict=True):
        np.testing.assert_array_equal(one.overlaps, other.overlaps)
        np.testing.assert_array_equal(one.rows[1], other.rows[1])


@settings(max_examples=20)
@given(truth=chips, found=chips, seed=st.integers(0, 99))
def test_the_best_score_has_the_highest_f1(truth, found, seed):
    rng = np.random.default_rng(seed)
    sides = (
        annotated(truth),
        annotated(found, [list(rng.integers(1, 9, len(c)) / 10) for c in found]),
    )
    if sides[1].scores is None:
        return
    every = find_mistakes(*sides, score=0)

    def f1(score: float) -> float:
        counts = every.above(score).totals()
        n_found, n_truth = sum(counts["found"].values()), sum(counts["truth"].values())
        return 2 * counts["truth"]["matched"] / (n_found + n_truth) if n_found + n_truth else 0

    best = f1(every.best_score())
    assert best >= max(f1(s) for s in sides[1].scores.astype(float)) - 1e-12


def test_areas_are_counted_pixels():
    truth = annotated([[(10, 10, 30, 30), (0, 0, 7, 5)]])
    (chip,) = find_mistakes(truth, annotated([[(50, 50, 53, 52)]], [[0.9]])).chips
    assert [a.tolist() for a in chip.areas] == [[400, 35], [6]]


def test_detections_in_a_crowd_do_not_count():
    truth = annotated([[(10, 10, 30, 30), (50, 50, 90, 90)]])
    truth.crowd[1] = True
    found = annotated([[(10, 10, 30, 30), (55, 55, 70, 70), (0, 90, 9, 99)]], [[0.5, 0.9, 0.8]])
    (chip,) = find_mistakes(truth, found).chips
    assert sorted(chip.found) == ["background", "matched"]
    assert chip.rows[1].tolist() == [2, 0]
