"""Snapping: neighbours share nodes, nothing else moves, and nothing gets worse."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files_support import YES, house, outlines
from pyproj import CRS

from geoseg.errors import ConfigError
from geoseg.grid import METRES_PER_DEGREE
from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.objects import snap as snapping
from geoseg.osm.objects.build import build
from geoseg.osm.objects.outlines import Outlines
from geoseg.osm.objects.sanitize import MIN_RING_NODES, sanitize
from geoseg.osm.objects.snap import snap
from geoseg.testing import make_town

UNIT_M = METRES_PER_DEGREE / DEGREE_E7


def overlap_m2(found: Outlines) -> float:
    """Return the area that two or more footprints claim, by brute force."""
    polygons = found.polygons()
    total = 0.0
    for i in range(len(polygons)):
        for j in range(i):
            total += polygons[i].intersection(polygons[j]).area
    return total * UNIT_M**2


def crossings(found: Outlines) -> int:
    """Return how many pairs of footprints have interior points in common."""
    polygons = found.polygons()
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    one, other = one[one < other], other[one < other]
    return int(shapely.relate_pattern(polygons[one], polygons[other], "T********").sum())


def nodes(found: Outlines) -> int:
    return len(np.unique(found.lonlat_e7, axis=0))


def moved_m(before: Outlines, after: Outlines) -> float:
    """Return how far any polygon's outline went from where it was, metres."""
    pairs = zip(before.polygons(), after.polygons(), strict=True)
    return max(shapely.hausdorff_distance(a, b) for a, b in pairs) * UNIT_M


def ragged_house(rng: np.random.Generator, x_m: float, y_m: float) -> shapely.Polygon:
    """Return a house whose walls are traced every metre and a half, a few centimetres off."""
    ring = shapely.segmentize(house(x_m, y_m), 1.5)
    off = rng.normal(0, 0.08, (len(ring.exterior.coords) - 1, 2))
    return shapely.Polygon(shapely.get_coordinates(ring)[:-1] + off)


def test_a_slit_between_neighbours_closes():
    found = snap(outlines([house(0, 0), house(10.1, 0)]), tolerance_m=0.25).outlines
    assert nodes(found) == 6
    assert overlap_m2(found) == 0


def test_an_overlap_of_neighbours_goes():
    before = outlines([house(0, 0), house(9.9, 0.05)])
    assert overlap_m2(before) > 0
    found = snap(before, tolerance_m=0.25)
    assert nodes(found.outlines) == 6
    assert overlap_m2(found.outlines) == 0
    assert len(found.overlapping) == 0


def test_a_smaller_house_against_a_wall_becomes_part_of_it():
    before = outlines([house(0, 0, 30, 8), house(12, 8.1, 6, 6)])
    after = snap(before, tolerance_m=0.25).outlines
    assert after.ring_sizes.tolist() == [6, 4]
    assert nodes(after) == 8
    first, second = after.polygons()
    assert first.touches(second)
    assert first.symmetric_difference(before.polygons()[0]).area * UNIT_M**2 < 0.1, "walls straight"


def test_walls_that_overlap_in_part_share_that_part():
    after = snap(outlines([house(0, 0), house(4, 8.1)]), tolerance_m=0.25).outlines
    first, second = after.polygons()
    shared = first.intersection(second)
    assert shared.length * UNIT_M == pytest.approx(6, abs=0.2)
    assert after.ring_sizes.tolist() == [5, 5]
    assert nodes(after) == 8


def test_four_houses_meet_in_one_node():
    shapes = [house(0, 0), house(10.1, 0), house(0, 8.1), house(10.1, 8.1)]
    after = snap(outlines(shapes), tolerance_m=0.25).outlines
    assert nodes(after) == 9
    assert overlap_m2(after) == 0


def test_a_house_fits_into_its_courtyard():
    yard = shapely.Polygon(house(0, 0, 30, 30).exterior, [house(10, 10).exterior])
    after = snap(outlines([yard, house(10.1, 10.1, 9.8, 7.8)]), tolerance_m=0.25).outlines
    assert nodes(after) == 8
    assert overlap_m2(after) == 0


@pytest.mark.parametrize("gap", [0.6, 3.0])
def test_what_is_farther_apart_does_not_move(gap):
    before = outlines([house(0, 0), house(10 + gap, 0)])
    after = snap(before, tolerance_m=0.25).outlines
    assert np.array_equal(after.lonlat_e7, before.lonlat_e7)


def test_without_a_tolerance_only_what_touches_is_joined():
    before = outlines([house(0, 0, 30, 8), house(12, 8, 6, 6), house(30.1, 0)])
    after = snap(before, tolerance_m=0).outlines
    assert after.ring_sizes.tolist() == [6, 4, 4]
    assert nodes(after) == 12
    assert moved_m(before, after) < 0.03


def test_parts_of_one_footprint_are_not_joined():
    pair = shapely.MultiPolygon([house(0, 0), house(10.1, 0)])
    before = outlines([pair])
    after = snap(before, tolerance_m=0.25).outlines
    assert np.array_equal(after.lonlat_e7, before.lonlat_e7)


def test_deep_overlaps_stay_and_are_told():
    before = outlines([house(0, 0), house(5, 2), house(40, 0)])
    found = snap(before, tolerance_m=0.25)
    assert found.overlapping.tolist() == [0, 1]
    assert np.array_equal(found.outlines.lonlat_e7, before.lonlat_e7)


def test_a_thin_crossing_of_long_walls_is_cut_off():
    tilted = shapely.Polygon([(0, 7.95), (60, 8.1), (60, 20), (30, 25), (0, 20)])
    found = snap(outlines([house(0.4, 0, 58.8, 8), tilted]), tolerance_m=0.25)
    assert overlap_m2(found.outlines) == 0
    assert len(found.overlapping) == 0


def test_a_wall_thinner_than_the_tolerance_does_not_collapse():
    thin = house(0, 8.05, 10, 0.1)
    before = outlines([house(0, 0), thin])
    after = snap(before, tolerance_m=0.25).outlines
    assert shapely.is_valid(after.polygons()).all()
    assert (after.ring_sizes >= MIN_RING_NODES).all()


@pytest.mark.parametrize("tolerance", [-0.1, 6, float("nan")])
def test_the_tolerance_must_make_sense(tolerance):
    with pytest.raises(ConfigError, match="snap"):
        snap(outlines([house(0, 0)]), tolerance_m=tolerance)


def test_distances_are_metres_far_north_too():
    """At 70 degrees a degree of longitude is a third of one of latitude."""
    lon, lat, metre = 20.0, 70.0, 1 / METRES_PER_DEGREE
    wide = metre / np.cos(np.radians(lat))

    def box(x, y, width, depth):
        return shapely.box(
            lon + x * wide, lat + y * metre, lon + (x + width) * wide, lat + (y + depth) * metre
        )

    for gap, shared in ((0.2, 6), (0.3, 8)):
        for shapes in (
            [box(0, 0, 9, 9), box(9 + gap, 0, 9, 9)],
            [box(0, 0, 9, 9), box(0, 9 + gap, 9, 9)],
        ):
            flat = sanitize(np.array(shapes, object), CRS("EPSG:4326")).outlines
            assert nodes(snap(flat, tolerance_m=0.25).outlines) == shared


def jittered(shapes, by_m: float, seed: int):
    """Move every corner of every shape by up to `by_m`, each by its own."""
    rng = np.random.default_rng(seed)

    def ring(line):
        xy = shapely.get_coordinates(line)[:-1]
        return shapely.LinearRing(xy + rng.uniform(-by_m, by_m, xy.shape))

    return [shapely.Polygon(ring(s.exterior), [ring(h) for h in s.interiors]) for s in shapes]


def test_a_town_whose_corners_were_moved_has_its_nodes_again():
    town = make_town(size_px=900)
    corner = np.array(town.grid.bounds[:2])
    shapes = list(shapely.transform(town.truth.geometry.to_numpy(), lambda xy: xy - corner))
    exact, moved = outlines(shapes), outlines(jittered(shapes, 0.08, 0))
    assert crossings(moved) > 0
    found = snap(moved, tolerance_m=0.25)
    assert crossings(found.outlines) == 0
    assert len(found.overlapping) == 0
    assert nodes(found.outlines) == nodes(exact) < nodes(moved)


cell = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=150)
@given(
    cells=st.lists(cell, min_size=2, max_size=8, unique=True),
    jitter=st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0]),
    tolerance=st.sampled_from([0.0, 0.1, 0.25, 1.0]),
    small=st.booleans(),
    seed=st.integers(0, 99),
)
def test_snapping_makes_nothing_worse(cells, jitter, tolerance, small, seed):
    size = 1.5 if small else 10.0
    before = outlines(
        jittered([house(size * x, size * y, size, size) for x, y in cells], jitter, seed)
    )
    found = snap(before, tolerance_m=tolerance)
    after = found.outlines
    polygons = after.polygons()
    assert shapely.is_valid(polygons).all()
    assert (after.ring_sizes >= MIN_RING_NODES).all()
    assert len(polygons) == len(before.polygon_row)
    assert overlap_m2(after) <= overlap_m2(before) + 0.011 * len(polygons)
    assert crossings(after) <= crossings(before)
    # Onto a corner or wall, then a cut of what still overlaps, then the grid: a strip at most.
    changed = shapely.symmetric_difference(before.polygons(), polygons)
    assert shapely.is_empty(shapely.buffer(changed, -(tolerance + 0.03) / UNIT_M)).all()
    data = build(after, [YES] * int(before.polygon_row.max(initial=0) + 1))
    steps = np.diff(data.way_nodes)
    inside = np.ones(len(steps), np.bool_)
    inside[data.way_offsets[1:-1] - 1] = False
    assert (steps[inside] != 0).all(), "no edge has no length"


def test_groups_do_not_depend_on_how_many_are_looked_at_together(monkeypatch):
    town = make_town(size_px=600)
    corner = np.array(town.grid.bounds[:2])
    shapes = list(shapely.transform(town.truth.geometry.to_numpy(), lambda xy: xy - corner))
    moved = outlines(jittered(shapes, 0.2, 1))
    whole = snap(moved, tolerance_m=0.3)
    monkeypatch.setattr(snapping, "BATCH", 3)
    split = snap(moved, tolerance_m=0.3)
    assert np.array_equal(whole.outlines.lonlat_e7, split.outlines.lonlat_e7)
    assert np.array_equal(whole.overlapping, split.overlapping)


def test_one_house_does_not_keep_the_others_of_its_block_from_being_cut(monkeypatch):
    rng = np.random.default_rng(5)
    places = [(10 * i, 8.05 * j) for i in range(6) for j in range(6)]
    ragged = [ragged_house(rng, *place) for place in places]
    before = outlines(ragged)
    found = snap(before, tolerance_m=0.25)
    monkeypatch.setattr(snapping, "CUTS", 1)
    at_once = snap(before, tolerance_m=0.25)
    assert len(found.overlapping) < len(at_once.overlapping) / 2
    assert overlap_m2(found.outlines) < overlap_m2(at_once.outlines)
