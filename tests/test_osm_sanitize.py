"""Sanitising: whatever comes, what leaves is valid, in range and on OSM's grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files_support import UTM, house, place
from pyproj import CRS

from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.objects import sanitize as reasons
from geoseg.osm.objects.sanitize import MIN_RING_NODES, sanitize

WGS84 = CRS("EPSG:4326")
BIG = 180 * DEGREE_E7


def square(lon: float, lat: float, side: float = 1e-4) -> shapely.Polygon:
    return shapely.box(lon, lat, lon + side, lat + side)


def broken(shell, *holes):
    """Build a polygon of any numbers."""
    with np.errstate(invalid="ignore"):
        rings = [shapely.LinearRing([*ring, ring[0]]) for ring in (shell, *holes)]
        return shapely.Polygon(rings[0], rings[1:])


def check(found, count: int) -> None:
    """Assert all that must hold of whatever comes out."""
    outlines = found.outlines
    polygons = outlines.polygons()
    assert shapely.is_valid(polygons).all()
    assert (outlines.ring_sizes >= MIN_RING_NODES).all()
    assert (np.abs(outlines.lonlat_e7) <= (BIG, BIG // 2)).all()
    lost = sum(n for reason, n in found.left_out.items() if reason != reasons.PARTS)
    assert len(np.unique(outlines.polygon_row)) + lost == count


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (None, reasons.EMPTY),
        (shapely.Polygon(), reasons.EMPTY),
        (shapely.GeometryCollection(), reasons.EMPTY),
        (broken([(0, 0), (1, 0), (math.nan, 1), (0, 1)]), reasons.NOT_FINITE),
        (broken([(0, 0), (math.inf, 0), (1, 1), (0, 1)]), reasons.NOT_FINITE),
        (shapely.Point(1, 1), reasons.NOT_AREAL),
        (shapely.LineString([(0, 0), (1, 1)]), reasons.NOT_AREAL),
        (shapely.GeometryCollection([shapely.Point(0, 0)]), reasons.NOT_AREAL),
        (square(10, 95), reasons.OFF_EARTH),
        (square(10, 89.9999), reasons.OFF_EARTH),
        (square(10, -90), reasons.OFF_EARTH),
        (square(1e12, 10), reasons.OFF_EARTH),
        (square(900, 10), reasons.OFF_EARTH),
        (square(10, 10, side=1e-9), reasons.UNMENDED),
        (shapely.Polygon([(0, 0), (1e-4, 1e-4), (0, 0), (1e-4, 1e-4)]), reasons.NOT_AREAL),
        (shapely.Polygon([(0, 0), (1e-4, 0), (0, 1e-4)]), reasons.TOO_FEW),
    ],
)
def test_what_cannot_be_an_object_is_left_out_for_its_reason(shape, reason):
    found = sanitize(np.array([square(1, 1), shape, square(2, 2)], object), WGS84)
    check(found, 3)
    assert found.outlines.polygon_row.tolist() == [0, 2]
    assert found.left_out == {reason: 1}


def test_houses_come_to_their_longitude_and_latitude():
    found = sanitize(np.array([place(house(0, 0))], object), UTM)
    (polygon,) = found.outlines.polygons()
    lon, lat = np.array(polygon.centroid.coords[0]) / DEGREE_E7
    assert (lon, lat) == pytest.approx((33.0, -6.152), abs=1e-3)
    assert not found.left_out


def test_what_crosses_itself_is_mended_and_two_triangles_go():
    bow = shapely.Polygon([(0, 0), (1e-4, 1e-4), (1e-4, 0), (0, 1e-4)])
    corners = [(0, 0), (1, 0), (3, 2), (4, 2), (4, 0), (3, 0), (1, 2), (0, 2)]
    knot = shapely.transform(shapely.Polygon(corners), lambda xy: xy * 1e-4)
    found = sanitize(np.array([bow, knot], object), WGS84)
    check(found, 2)
    assert found.left_out[reasons.TOO_FEW] == 1
    assert found.outlines.polygon_row.tolist() == [1, 1]
    assert found.outlines.ring_sizes.tolist() == [5, 5]


def test_heights_go():
    flat, high = square(1, 1), shapely.force_3d(square(1, 1), 7.0)
    one, other = (sanitize(np.array([s], object), WGS84).outlines.lonlat_e7 for s in (flat, high))
    assert np.array_equal(one, other)


def test_collections_leave_their_polygons():
    nest = shapely.GeometryCollection(
        [
            shapely.Point(0, 0),
            shapely.MultiPolygon([square(1, 1), square(2, 2)]),
            shapely.GeometryCollection([square(3, 3)]),
        ]
    )
    found = sanitize(np.array([nest], object), WGS84)
    assert found.outlines.polygon_row.tolist() == [0, 0, 0]


def test_small_holes_and_parts_are_counted_where_the_rest_stays():
    hole = [(4e-5, 4e-5), (5e-5, 4e-5), (4e-5, 5e-5)]
    yard = shapely.Polygon(square(0, 0).exterior, [hole])
    sliver = shapely.Polygon([(1, 1), (1.0001, 1), (1, 1.0001)])
    pair = shapely.MultiPolygon([square(2, 2), sliver])
    found = sanitize(np.array([yard, pair], object), WGS84)
    check(found, 2)
    assert found.left_out == {reasons.PARTS: 2}


@pytest.mark.parametrize("lon", [179.99995, -180.00005, 539.99995])
def test_what_crosses_the_antimeridian_is_cut_there(lon):
    found = sanitize(np.array([square(lon, 10)], object), WGS84)
    check(found, 1)
    west, east = sorted(polygon.bounds[0] for polygon in found.outlines.polygons())
    assert (west, east) == (-BIG, 1_799_999_500)


def test_an_unrolled_crossing_is_understood():
    crossing = shapely.Polygon([(179.9999, 0), (-179.9999, 0), (-179.9999, 1e-4), (179.9999, 1e-4)])
    found = sanitize(np.array([crossing], object), WGS84)
    check(found, 1)
    assert sum(p.area for p in found.outlines.polygons()) == pytest.approx(2000 * 1000)


def test_the_same_shape_gives_the_same_vertices_wherever_it_starts():
    ring = list(house(0, 0).exterior.coords)[:-1]
    turned = shapely.Polygon(ring[2:] + ring[:2])
    mirrored = shapely.Polygon(ring[::-1])
    shapes = np.array([place(shapely.Polygon(ring)), place(turned), place(mirrored)], object)
    xy = sanitize(shapes, UTM).outlines.lonlat_e7.reshape(3, -1)
    assert (xy == xy[0]).all()


coordinate = st.one_of(
    st.floats(-181, 181),
    st.sampled_from([math.inf, -math.inf, 1e300, 90.0, -180.0, 540.0]),
    st.integers(-1800, 1800).map(lambda i: i / 10),
    st.floats(1e-7, 3e-7),
)
nowhere = st.tuples(st.just(math.nan), coordinate)  # not first: GEOS refuses to close such a ring
ring = st.builds(
    lambda first, rest: [first, *rest],
    st.tuples(coordinate, coordinate),
    st.lists(st.one_of(st.tuples(coordinate, coordinate), nowhere), min_size=2, max_size=12),
)


@st.composite
def shapes(draw):
    """Draw any shape: broken, empty, nested."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.sampled_from([None, shapely.Point(1, 1), shapely.MultiPolygon()]))
    polygon = broken(draw(ring))
    if kind == 1:
        return shapely.MultiPolygon([polygon, broken(draw(ring))])
    if kind == 2:
        return shapely.GeometryCollection([polygon, shapely.Point(0, 0)])
    if kind == 3:
        return broken(draw(ring), draw(ring))
    return polygon


@settings(max_examples=200)
@given(st.lists(shapes(), max_size=4), st.sampled_from([WGS84, UTM, CRS("EPSG:3857")]))
def test_whatever_comes_leaves_sound_or_counted(found, crs):
    check(sanitize(np.array([*found, None], object), crs), len(found) + 1)
