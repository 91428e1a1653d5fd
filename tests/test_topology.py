"""Neighbouring footprints: groups, and ground that several claim."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from shapely.affinity import rotate

from geoseg import topology
from geoseg.errors import ConfigError
from geoseg.topology import TopologyOptions, neighbour_groups, settle_overlaps

ANY = TopologyOptions(sliver_m=0, most_claimed=1)


def boxes(*bounds):
    return np.array([shapely.box(*b) for b in bounds], object)


def shared_area(shapes):
    a, b = shapely.STRtree(shapes).query(shapes)
    return shapely.area(shapely.intersection(shapes[a], shapes[b]))[a < b].max(initial=0.0)


@st.composite
def towns(draw):
    """Draw rotated rectangles that overlap at random, and their scores."""
    count = draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, y = rng.uniform(0, 30, (2, count))
    w, h = rng.uniform(1, 12, (2, count))
    shapes = [
        rotate(shapely.box(x[i], y[i], x[i] + w[i], y[i] + h[i]), rng.uniform(0, 90))
        for i in range(count)
    ]
    scores = rng.choice([0.5, 0.7, 0.9], count) if draw(st.booleans()) else rng.uniform(0, 1, count)
    return np.array(shapes, object), scores


def one_after_the_other(shapes, scores, options, min_area_m2):
    """The rule as a loop: what settle_overlaps does in rounds."""
    order = sorted(range(len(shapes)), key=lambda i: (-scores[i], -shapes[i].area, i))
    result = list(shapes)
    for rank, i in enumerate(order):
        better = [result[j] for j in order[:rank] if shapes[i].intersection(shapes[j]).area > 1e-9]
        taken = shapely.union_all(better)
        if taken.is_empty:
            continue
        rest = shapes[i].difference(taken)
        parts = [
            part
            for part in getattr(rest, "geoms", [rest])
            if part.area > 0
            and part.area >= min_area_m2
            and 2 * part.area / part.length >= options.sliver_m
        ]
        left = sum(part.area for part in parts)
        enough = parts and left >= (1 - options.most_claimed) * shapes[i].area
        result[i] = shapely.union_all(parts) if enough else shapely.Polygon()
    return result


@given(towns(), st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.3]), st.sampled_from([0, 2]))
def test_rounds_give_what_the_loop_gives(town, most_claimed, sliver_m, min_area_m2):
    shapes, scores = town
    options = TopologyOptions(most_claimed=most_claimed, sliver_m=sliver_m)
    settled = settle_overlaps(shapes, scores, options=options, min_area_m2=min_area_m2)
    expected = one_after_the_other(shapes, scores, options, min_area_m2)
    assert shapely.is_valid(settled).all()
    assert shared_area(settled) < 1e-6
    for ours, theirs in zip(settled, expected, strict=True):
        assert ours.symmetric_difference(theirs).area < 1e-6


@given(towns())
def test_no_ground_is_lost_where_nothing_has_to_go(town):
    shapes, scores = town
    settled = settle_overlaps(shapes, scores, options=ANY)
    assert shapely.union_all(settled).area == pytest.approx(shapely.union_all(shapes).area)
    best = int(np.lexsort((-shapely.area(shapes), -scores))[0])
    assert settled[best] is shapes[best]


@given(towns(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter_where_scores_differ(town, random):
    shapes, scores = town
    scores = scores + np.arange(len(scores)) * 1e-6
    order = list(range(len(shapes)))
    random.shuffle(order)
    settled = settle_overlaps(shapes, scores)
    shuffled = settle_overlaps(shapes[order], scores[order])
    assert all(shapely.equals_exact(settled[order], shuffled, 1e-9, normalize=True))


def test_houses_apart_and_houses_that_touch_stay_as_they_are():
    shapes = boxes((0, 0, 4, 4), (4, 0, 8, 4), (20, 0, 24, 4))
    settled = settle_overlaps(shapes, np.array([0.5, 0.6, 0.7]))
    assert all(a is b for a, b in zip(settled, shapes, strict=True))


def test_the_weaker_of_two_outlines_of_one_building_goes():
    shapes = boxes((0, 0, 10, 10), (0.5, 0, 10.5, 10))
    settled = settle_overlaps(shapes, np.array([0.6, 0.9]))
    assert settled[0].is_empty
    assert settled[1] is shapes[1]


def test_one_that_a_gone_one_overlapped_keeps_its_ground():
    shapes = boxes((0, 0, 10, 10), (1, 0, 12, 10), (11, 0, 20, 10))
    settled = settle_overlaps(shapes, np.array([0.9, 0.8, 0.7]))
    assert settled[1].is_empty
    assert settled[2] is shapes[2]


def test_a_better_one_inside_leaves_a_courtyard():
    shapes = boxes((0, 0, 20, 20), (8, 8, 12, 12))
    settled = settle_overlaps(shapes, np.array([0.6, 0.9]))
    assert shapely.get_num_interior_rings(settled[0]) == 1
    assert settled[0].area == 400 - 16


def test_slivers_that_a_cut_leaves_go():
    shapes = boxes((0, 0, 10, 10), (9, 0.2, 30, 10), (0, -5, 40, 0.05))
    settled = settle_overlaps(shapes, np.array([0.5, 0.8, 0.4]))
    assert settled[0].bounds == (0, 0, 9, 10) or settled[0].area < 90.3
    assert settled[2].geom_type == "Polygon"
    assert shared_area(settled) < 1e-6


def test_a_cut_into_two_keeps_both_parts():
    shapes = boxes((0, 0, 20, 4), (9, -5, 11, 9))
    settled = settle_overlaps(shapes, np.array([0.5, 0.8]))
    assert settled[0].geom_type == "MultiPolygon"
    assert settled[0].area == 72
    settled = settle_overlaps(shapes, np.array([0.5, 0.8]), min_area_m2=50)
    assert settled[0].is_empty


@pytest.mark.parametrize("rows", [3, 1000])
@given(data=st.data())
def test_groups_are_those_of_all_pairs(rows, data):
    count = data.draw(st.integers(0, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    low = rng.integers(0, 40, (count, 2)).astype(float)
    bounds = np.hstack([low, low + rng.integers(1, 9, (count, 2))])
    within = float(data.draw(st.sampled_from([0, 2])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topology, "TREE_ROWS", rows)
        groups = neighbour_groups(bounds, within_m=within)
    gap = np.maximum(
        np.maximum(bounds[:, None, :2] - bounds[None, :, 2:], 0),
        np.maximum(bounds[None, :, :2] - bounds[:, None, 2:], 0),
    ).max(axis=2, initial=0)
    near = gap <= within
    labels = connected_components(near)[1] if count else np.zeros(0, int)
    sizes = np.bincount(labels, minlength=1)
    for i in range(count):
        assert (groups[i] == -1) == (sizes[labels[i]] == 1)
        same = (groups == groups[i]) & (groups[i] >= 0)
        if groups[i] >= 0:
            assert same.tolist() == (labels == labels[i]).tolist()


@pytest.mark.parametrize(
    "values",
    [{"most_claimed": 1.1}, {"most_claimed": -0.1}, {"sliver_m": -1}, {"sliver_m": np.nan}],
)
def test_options_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match="must be"):
        TopologyOptions(**values)


def test_nothing_gives_nothing():
    assert len(settle_overlaps(np.zeros(0, object), np.zeros(0))) == 0
    assert len(neighbour_groups(np.zeros((0, 4)))) == 0
