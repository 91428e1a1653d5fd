import itertools
import math

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shapely.affinity import translate
from shapely.geometry import LineString, Point, Polygon, box

from geoseg.errors import ConfigError, VectorError
from geoseg.evaluate import evaluate_footprints, match_footprints

UTM = "EPSG:32736"
EAST, SOUTH = 500_000.0, 9_300_000.0


def make_frame(*shapes, scores=None, crs=UTM):
    frame = gpd.GeoDataFrame(geometry=list(shapes), crs=crs)
    return frame if scores is None else frame.assign(score=np.asarray(scores, float))


def square(x, y, side=10.0):
    return box(EAST + x, SOUTH + y, EAST + x + side, SOUTH + y + side)


def random_boxes(rng, n):
    x, y = rng.uniform(0, 60, (2, n))
    w, h = rng.uniform(4, 20, (2, n))
    return [box(a, b, a + c, b + d) for a, b, c, d in zip(x, y, w, h, strict=True)]


def box_iou(a, b):
    """IoU of two boxes from their bounds, without shapely's overlay."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.bounds, b.bounds
    w, h = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
    shared = max(w, 0) * max(h, 0)
    return shared / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared)


def brute_force_matches(preds, truths, scores, iou):
    """COCO's rule in words: best score first, each takes its best free truth."""
    free, pairs = set(range(len(truths))), []
    for p in sorted(range(len(preds)), key=lambda k: -scores[k]):
        options = [(box_iou(preds[p], truths[t]), t) for t in free]
        best = max((o for o in options if o[0] >= iou), default=None)
        if best:
            free.remove(best[1])
            pairs.append((p, best[1]))
    return pairs


def coco_ap50(preds, truths, scores):
    """AP at IoU .5 by pycocotools, boxes as instances."""

    def xywh(shape):
        x0, y0, x1, y1 = shape.bounds
        return [x0, y0, x1 - x0, y1 - y0]

    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": s.area}
            | {"bbox": xywh(s)}
            for k, s in enumerate(truths, start=1)
        ],
    }
    coco.createIndex()
    found = coco.loadRes(
        [
            {"image_id": 1, "category_id": 1, "bbox": xywh(s), "score": float(score)}
            for s, score in zip(preds, scores, strict=True)
        ]
    )
    evaluation = COCOeval(coco, found, "bbox")
    evaluation.params.maxDets = [1, 10, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    return float(evaluation.eval["precision"][0, :, 0, 0, 2].mean())


def test_perfect_footprints_score_one_everywhere():
    truth = make_frame(square(0, 0), square(20, 0), square(40, 5))
    result = evaluate_footprints(truth.assign(score=[0.9, 0.8, 0.9]), truth)
    assert [level.f1 for level in result.levels] == [1, 1, 1]
    assert (result.best_f1, result.ap50, result.mean_iou, result.area_ratio) == (1, 1, 1, 1)
    assert result.best_f1_score == 0.8


def test_hand_computed_case():
    truth = make_frame(square(0, 0), square(100, 0), square(200, 0), square(300, 0))
    pred = make_frame(
        square(0, 0),  # IoU 1
        box(EAST + 100, SOUTH, EAST + 108, SOUTH + 10),  # IoU .8
        square(500, 0),  # false alarm
        box(EAST + 200, SOUTH, EAST + 206, SOUTH + 10),  # IoU .6
        scores=[0.9, 0.8, 0.7, 0.6],
    )
    result = evaluate_footprints(pred, truth)
    assert (result.n_pred, result.n_truth) == (4, 4)
    assert [level.n_matched for level in result.levels] == [3, 2, 1]
    assert [level.precision for level in result.levels] == [0.75, 0.5, 0.25]
    assert result.at(0.5).f1 == 0.75
    assert result.best_f1 == 0.75
    assert result.best_f1_score == 0.6
    # Precision 1 up to recall .5 (51 points), .75 up to recall .75 (25 points), then 0.
    assert result.ap50 == pytest.approx((51 + 25 * 0.75) / 101)
    assert result.mean_iou == pytest.approx((1 + 0.8 + 0.6) / 3)
    assert result.area_ratio == pytest.approx((100 + 80 + 100 + 60) / 400)


def test_best_f1_drops_low_scores_that_hurt():
    truth = make_frame(square(0, 0))
    pred = make_frame(square(0, 0), square(50, 0), square(90, 0), scores=[0.9, 0.3, 0.2])
    result = evaluate_footprints(pred, truth)
    assert result.at(0.5).f1 == 0.5
    assert (result.best_f1, result.best_f1_score) == (1.0, 0.9)


def test_a_truth_is_matched_once_and_the_higher_score_has_it():
    truth = make_frame(square(0, 0))
    pred = make_frame(square(0, 0), square(1, 0), scores=[0.4, 0.9])
    assert match_footprints(pred, truth).pred.tolist() == [1]
    assert evaluate_footprints(pred, truth).at(0.5).precision == 0.5


def test_equal_scores_leave_the_choice_to_iou():
    truth = make_frame(square(0, 0))
    for order in itertools.permutations([square(0, 0), square(1, 0), square(2, 0)]):
        pred = make_frame(*order, scores=[0.9] * 3)
        matches = match_footprints(pred, truth)
        assert matches.iou.tolist() == [1.0]


def test_tied_scores_cannot_be_ordered_in_anyones_favour():
    truth = make_frame(square(0, 0), square(20, 0))
    shapes = [square(0, 0), square(20, 0), square(60, 0), square(80, 0)]
    for order in itertools.permutations(shapes):
        assert evaluate_footprints(make_frame(*order, scores=[0.9] * 4), truth).ap50 == 0.5


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.75]))
@settings(max_examples=60)
def test_matching_equals_brute_force(seed, iou):
    rng = np.random.default_rng(seed)
    preds, truths = random_boxes(rng, 25), random_boxes(rng, 20)
    scores = rng.permutation(25) / 25
    matches = match_footprints(make_frame(*preds, scores=scores), make_frame(*truths), iou=iou)
    pairs = list(zip(matches.pred.tolist(), matches.truth.tolist(), strict=True))
    assert pairs == brute_force_matches(preds, truths, scores, iou)
    expected = [box_iou(preds[p], truths[t]) for p, t in pairs]
    assert matches.iou == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_ap50_equals_pycocotools_where_scores_differ(seed):
    rng = np.random.default_rng(seed)
    truths = random_boxes(rng, 12)
    moved = [translate(t, *rng.normal(0, 1.5, 2)) for t in truths[:9]]
    preds = moved + random_boxes(rng, 6)
    scores = rng.permutation(len(preds)) / 20 + 0.05
    result = evaluate_footprints(make_frame(*preds, scores=scores), make_frame(*truths))
    assert result.ap50 == pytest.approx(coco_ap50(preds, truths, scores), abs=1e-9)


def test_undefined_figures_are_nan_and_defined_zeros_are_zero():
    some, none = make_frame(square(0, 0), scores=[0.9]), make_frame(scores=[])
    nothing_found = evaluate_footprints(none, some)
    assert math.isnan(nothing_found.at(0.5).precision)
    assert (nothing_found.at(0.5).recall, nothing_found.at(0.5).f1) == (0, 0)
    assert (nothing_found.ap50, nothing_found.best_f1, nothing_found.area_ratio) == (0, 0, 0)
    assert math.isnan(nothing_found.best_f1_score)
    assert math.isnan(nothing_found.mean_iou)
    nothing_there = evaluate_footprints(some, none)
    assert (nothing_there.at(0.5).precision, nothing_there.at(0.5).f1) == (0, 0)
    for figure in ("ap50", "best_f1", "area_ratio", "mean_iou"):
        assert math.isnan(getattr(nothing_there, figure))
    assert math.isnan(nothing_there.at(0.5).recall)
    assert math.isnan(evaluate_footprints(none, none).at(0.95).f1)


def test_empty_geographic_frames_are_evaluated():
    none = make_frame(scores=[], crs="EPSG:4326")
    assert evaluate_footprints(none, none).n_pred == 0
    some = make_frame(square(0, 0)).to_crs("EPSG:4326")
    assert evaluate_footprints(none, some).at(0.5).recall == 0


def test_without_scores_counts_stand_and_rankings_are_nan():
    truth = make_frame(square(0, 0))
    result = evaluate_footprints(truth, truth)
    assert result.at(0.95).f1 == 1
    assert math.isnan(result.ap50)
    assert math.isnan(result.best_f1)


@pytest.mark.parametrize("pred_crs", [UTM, "EPSG:4326", "EPSG:3857", "EPSG:32737"])
@pytest.mark.parametrize("truth_crs", [UTM, "EPSG:4326", "EPSG:3857"])
def test_any_mix_of_crs_gives_the_same_result(pred_crs, truth_crs):
    truth = make_frame(square(0, 0), square(20, 0), square(40, 0))
    pred = make_frame(square(0, 0), square(20, 2), scores=[0.9, 0.8])
    result = evaluate_footprints(pred.to_crs(pred_crs), truth.to_crs(truth_crs))
    assert result.at(0.5).n_matched == 2
    assert result.at(0.95).n_matched == 1
    assert result.mean_iou == pytest.approx((1 + 2 / 3) / 2, abs=1e-3)
    assert result.area_ratio == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize("side", ["footprints", "truth"])
def test_missing_crs_is_refused_by_name(side):
    frame, bare = make_frame(square(0, 0)), make_frame(square(0, 0), crs=None)
    sides = (bare, frame) if side == "footprints" else (frame, bare)
    with pytest.raises(VectorError, match=f"the {side} must have a CRS"):
        evaluate_footprints(*sides)


@pytest.mark.parametrize("iou", [0, -0.1, 1.1, math.nan])
def test_iou_out_of_range_is_refused(iou):
    frame = make_frame(square(0, 0))
    with pytest.raises(ConfigError, match="iou must be in"):
        match_footprints(frame, frame, iou=iou)


def test_invalid_truth_is_mended_and_what_has_no_area_is_ignored():
    spike = Polygon([(0, 0), (10, 0), (10, 10), (10, 30), (10, 10), (0, 10)])
    flat = Polygon([(50, 50), (60, 50), (50, 50)])
    truth = make_frame(None, flat, Point(3, 3), LineString([(0, 0), (5, 5)]), Polygon(), spike)
    pred = make_frame(box(0, 0, 10, 10), scores=[0.9])
    result = evaluate_footprints(pred, truth)
    assert result.n_truth == 1
    assert result.at(0.95).f1 == 1
    assert match_footprints(pred, truth).truth.tolist() == [5]


def test_courtyards_count_against_solid_footprints():
    yard = box(0, 0, 10, 10).difference(box(2, 2, 8, 8))
    result = evaluate_footprints(make_frame(box(0, 0, 10, 10)), make_frame(yard))
    assert [level.n_matched for level in result.levels] == [1, 0, 0]
    assert result.mean_iou == pytest.approx(0.64)
    assert result.area_ratio == pytest.approx(100 / 64)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_within_keeps_what_has_its_centroid_inside(crs):
    truth = make_frame(square(0, 0), square(96, 0), square(200, 0)).to_crs(crs)
    pred = make_frame(square(0, 0), square(94, 0), square(300, 0)).to_crs(crs)
    area = gpd.GeoSeries([square(-10, -10, side=110)], crs=UTM).to_crs(crs).iloc[0]
    result = evaluate_footprints(pred, truth, within=area)
    assert (result.n_pred, result.n_truth) == (2, 1)
    assert result.at(0.5).n_matched == 1


def test_identical_shapes_match_at_iou_one_despite_rounding():
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (50, 12)), axis=1)
    blobs = [
        Polygon(np.stack([EAST + 40 * k + 10 * np.cos(a), SOUTH + 10 * np.sin(a)], axis=1))
        for k, a in enumerate(angles)
    ]
    frame = make_frame(*blobs)
    assert len(match_footprints(frame, frame, iou=1.0)) == 50


def test_neighbours_that_share_a_wall_do_not_steal_matches():
    houses = [square(10 * k, 0) for k in range(20)]
    result = evaluate_footprints(make_frame(*reversed(houses)), make_frame(*houses))
    assert result.at(0.95).f1 == 1


def test_flat_names_hold_every_figure():
    frame = make_frame(square(0, 0), scores=[0.5])
    flat = evaluate_footprints(frame, frame).as_dict()
    assert flat["f1@.5"] == flat["recall@.95"] == flat["ap50"] == 1
    assert flat["n_matched@.75"] == 1
    assert len(flat) == 2 + 3 * 4 + 5


def test_unknown_level_is_refused():
    frame = make_frame(square(0, 0))
    with pytest.raises(ConfigError, match=r"must be one of \[0.5, 0.75, 0.95\], got 0.6"):
        evaluate_footprints(frame, frame).at(0.6)


def test_multipolygons_are_one_footprint():
    pair = shapely.MultiPolygon([square(0, 0), square(20, 0)])
    result = evaluate_footprints(make_frame(pair), make_frame(square(0, 0), square(20, 0)))
    assert result.at(0.5).n_matched == 1  # IoU with either half is exactly .5
