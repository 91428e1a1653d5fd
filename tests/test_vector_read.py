"""Vector inputs in any CRS, areas of interest, and footprints files that are not what they say."""

from __future__ import annotations

import json
import shutil

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from test_vector_write import houses, write

from geoseg.chips import plan_chips
from geoseg.errors import FormatError, GeosegWarning, InputNotFoundError, VectorError
from geoseg.grid import Grid
from geoseg.vector import chips_touching, footprints_info, read_aoi, read_footprints, read_vector

UTM = CRS("EPSG:32645")
WORLD = shapely.box(-180, -90, 180, 90)


def make_grid(*, angle_deg=0.0, crs=UTM, x=500_000.0, y=3_060_000.0, gsd=0.5, side=1000):
    transform = Affine.translation(x, y) @ Affine.rotation(angle_deg) @ Affine.scale(gsd, -gsd)
    return Grid(crs=crs, transform=transform, height=side, width=side)


def save(path, geometries, crs="EPSG:4326"):
    frame = geopandas.GeoDataFrame(
        {"k": range(len(geometries))}, geometry=list(geometries), crs=crs
    )
    if path.suffix == ".parquet":
        frame.to_parquet(path)
        return path
    plain = path.with_name("saving" + path.suffix)  # geopandas takes some names apart
    frame.to_file(plain)
    for part in path.parent.glob("saving.*"):
        part.rename(path.with_suffix(part.suffix))
    return path


@pytest.mark.parametrize(
    "name", ["a.geojson", "a.gpkg", "a.fgb", "a.shp", "a.parquet", "ü !;'.gpkg"]
)
def test_any_format_comes_in_the_crs_asked_for(tmp_path, name):
    boxes = [shapely.box(87, 27.6, 87.001, 27.601), shapely.box(87.1, 27.6, 87.101, 27.601)]
    frame = read_vector(save(tmp_path / name, boxes), crs=UTM).sort_values("k", ignore_index=True)
    want = geopandas.GeoSeries(boxes, crs=4326).to_crs(UTM)
    assert frame.crs == UTM
    assert frame.geometry.hausdorff_distance(want).max() < 0.01


def test_a_path_may_be_a_string_and_a_zipped_shapefile(tmp_path):
    (tmp_path / "z").mkdir()
    save(tmp_path / "z" / "a.shp", [shapely.box(0, 0, 1, 1)])
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "z")
    assert len(read_vector(archive)) == 1


def test_long_edges_bend_with_the_ground(tmp_path):
    path = save(tmp_path / "a.geojson", [shapely.box(84, 27, 90, 29)])
    got = read_vector(path, crs=UTM).geometry[0]
    lon = np.linspace(84, 90, 4001)
    edge = Transformer.from_crs(4326, UTM, always_xy=True).transform(lon, np.full_like(lon, 29.0))
    far = shapely.distance(got.boundary, shapely.points(np.column_stack(edge)))
    assert far.max() < 0.2
    corners = shapely.Polygon(
        np.column_stack([edge[0][[0, -1, 0]], edge[1][[0, -1, 0]] - (0, 0, 9)])
    )
    assert shapely.distance(corners.boundary, shapely.Point(edge[0][2000], edge[1][2000])) > 1000


def test_rows_without_a_place_in_the_crs_are_left_out(tmp_path):
    path = save(tmp_path / "a.gpkg", [shapely.box(87, 27, 87.1, 27.1), shapely.Point(-3, 0)])
    assert len(read_vector(path, crs=UTM)) == 1
    bad = save(tmp_path / "b.gpkg", [shapely.Point(-3, 0)])
    with pytest.raises(
        VectorError, match=r"no geometry of .* has a place in 'WGS 84 / UTM zone 45N'"
    ):
        read_vector(bad, crs=UTM)


def _broken(folder):
    cases = {}
    (folder / "text.geojson").write_text("hello\nworld")
    cases["text.geojson"] = "cannot be read as a vector file"
    (folder / "cut.geojson").write_text('{"type": "FeatureCollection", "features": [{"ty')
    cases["cut.geojson"] = "cannot be read"
    (folder / "cut.parquet").write_bytes(b"PAR1\0\0")
    cases["cut.parquet"] = "cannot be read"
    (folder / "empty.fgb").write_bytes(b"")
    cases["empty.fgb"] = "cannot be read"
    pq.write_table(pa.table({"k": [1]}), folder / "plain.parquet")
    cases["plain.parquet"] = "cannot be read"
    (folder / "table.csv").write_text("a,b\n1,2\n")
    cases["table.csv"] = "one layer with geometries, got none"
    save(folder / "none.gpkg", [None, shapely.Polygon()])
    cases["none.gpkg"] = "at least one geometry"
    save(folder / "crs.shp", [shapely.Point(1, 2)])
    (folder / "crs.prj").unlink()
    cases["crs.shp"] = "has no CRS"
    frame = geopandas.GeoDataFrame(geometry=[shapely.Point(1, 2)], crs=4326)
    for layer in ("one", "two"):
        frame.to_file(folder / "layers.gpkg", layer=layer)
    cases["layers.gpkg"] = "must hold one layer with geometries, got one, two"
    (folder / "folder").mkdir()
    cases["folder"] = "cannot be read"
    return cases


def test_unusable_files_say_why_in_one_line(tmp_path):
    for name, message in _broken(tmp_path).items():
        with pytest.raises(VectorError, match=message) as caught:
            read_vector(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(InputNotFoundError, match="does not exist"):
        read_vector(tmp_path / "no.gpkg")


# --- Areas of interest -----------------------------------------------------------------------


def lonlat_of(grid, row, col):
    x, y = grid.xy(row, col)
    return Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(float(x), float(y))


def test_an_area_comes_back_as_the_union_in_the_grids_crs(tmp_path):
    grid = make_grid()
    lon, lat = lonlat_of(grid, 500, 500)
    parts = [
        shapely.box(lon, lat, lon + 0.001, lat + 0.001),
        shapely.box(lon, lat, lon + 0.002, lat + 5e-4),
    ]
    got = read_aoi(save(tmp_path / "a.geojson", parts), grid)
    want = geopandas.GeoSeries(parts, crs=4326).to_crs(UTM).union_all()
    assert got.is_valid
    assert got.symmetric_difference(want).area < 1e-3 * want.area


@pytest.mark.parametrize("kind", ["point", "line", "bow tie"])
def test_points_lines_and_invalid_polygons_are_areas_too(tmp_path, kind):
    grid = make_grid()
    (a, b), (c, d) = lonlat_of(grid, 100, 100), lonlat_of(grid, 900, 900)
    shape = {
        "point": shapely.Point(a, b),
        "line": shapely.LineString([(a, b), (c, d)]),
        "bow tie": shapely.Polygon([(a, b), (c, d), (c, b), (a, d)]),
    }[kind]
    got = read_aoi(save(tmp_path / "a.gpkg", [shape]), grid)
    assert got.is_valid
    assert shapely.get_dimensions(got) == shapely.get_dimensions(shape)


@pytest.mark.parametrize("area", [WORLD, WORLD.difference(shapely.Point(0, 0).buffer(5))])
def test_the_whole_world_touches_every_chip(tmp_path, area):
    grid = make_grid()
    aoi = read_aoi(save(tmp_path / "a.geojson", [area]), grid)
    chips = plan_chips("town", grid)
    assert chips_touching(chips, grid, aoi) == chips


@pytest.mark.parametrize(("grid_lon", "aoi_lon"), [(190.0, -170.0), (-170.0, 190.0), (359.0, -1.0)])
def test_turns_of_longitude_are_one_place(tmp_path, grid_lon, aoi_lon):
    grid = make_grid(crs=CRS("EPSG:4326"), x=grid_lon, y=10.0, gsd=1e-5)
    path = save(tmp_path / "a.geojson", [shapely.box(aoi_lon, 9.99, aoi_lon + 0.002, 10)])
    aoi = read_aoi(path, grid)
    assert aoi.bounds[0] == pytest.approx(grid_lon, abs=1e-9)


def test_an_area_at_the_antimeridian_meets_a_utm_scene_across_it(tmp_path):
    grid = make_grid(crs=CRS("EPSG:32760"), x=833_700.0, y=9_999_200.0)
    halves = [shapely.box(179.9, -0.02, 180, 0), shapely.box(-180, -0.02, -179.9, 0)]
    aoi = read_aoi(save(tmp_path / "a.geojson", halves), grid)
    chips = plan_chips("town", grid)
    assert chips_touching(chips, grid, aoi) == chips


def test_an_area_beside_a_rotated_scene_does_not_touch_it(tmp_path):
    grid = make_grid(angle_deg=45)
    x0, y0, x1, y1 = grid.bounds
    corner = shapely.box(x0, y0, x0 + 50, y0 + 50)  # inside the bounds, outside the scene
    with pytest.raises(
        VectorError, match=r"must touch the scene: it spans longitude .*, the scene"
    ) as caught:
        read_aoi(save(tmp_path / "a.gpkg", [corner], UTM), grid)
    assert "\n" not in str(caught.value)
    assert read_aoi(
        save(tmp_path / "b.gpkg", [shapely.Point((x0 + x1) / 2, (y0 + y1) / 2)], UTM), grid
    )


def test_an_area_on_the_other_side_of_the_earth_does_not_touch(tmp_path):
    with pytest.raises(VectorError, match=r"-100\.0+ to -99\.0+ and .*, the scene longitude 87"):
        read_aoi(save(tmp_path / "a.geojson", [shapely.box(-100, -30, -99, -29)]), make_grid())


@settings(max_examples=40)
@given(
    st.floats(-400, 900),
    st.floats(-900, 400),
    st.floats(1, 300),
    st.floats(0, 90),
    st.integers(50, 900),
)
def test_chips_touching_agrees_with_brute_force(dx, dy, radius, angle_deg, size_px):
    grid = make_grid(angle_deg=angle_deg)
    aoi = shapely.Point(500_000 + dx, 3_060_000 + dy).buffer(radius)
    chips = plan_chips("town", grid, size_px=size_px, overlap_px=size_px // 5)
    want = []
    for chip in chips:
        w = chip.window
        corners = [
            (w.col_off, w.row_off),
            (w.col_stop, w.row_off),
            (w.col_stop, w.row_stop),
            (w.col_off, w.row_stop),
        ]
        if shapely.Polygon([grid.transform @ corner for corner in corners]).intersects(aoi):
            want.append(chip)
    assert chips_touching(chips, grid, aoi) == want


def test_no_chips_touch_nothing():
    assert chips_touching([], make_grid(), WORLD) == []


# --- Footprints files that are not -----------------------------------------------------------


def test_torn_and_foreign_files_are_named_in_one_line(tmp_path):
    good = write(tmp_path / "good.parquet", houses(3000)).read_bytes()
    (tmp_path / "torn.parquet").write_bytes(good[:-40])
    (tmp_path / "text.gpkg").write_text("hello")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "foreign.parquet")
    table = pq.read_table(tmp_path / "good.parquet").replace_schema_metadata({})
    pq.write_table(table, tmp_path / "nogeo.parquet")
    geo = json.dumps({"columns": {"geometry": {"crs": "nonsense"}}}).encode()
    pq.write_table(table.replace_schema_metadata({b"geo": geo}), tmp_path / "crs.parquet")
    save(tmp_path / "labels.geojson", [shapely.box(0, 0, 1, 1)])
    cases = {
        "torn.parquet": "is torn or not a file of footprints",
        "text.gpkg": "is torn or not a file of footprints",
        "foreign.parquet": "it has no column label",
        "nogeo.parquet": "must be GeoParquet",
        "crs.parquet": "nonsense",
        "labels.geojson": "it has no column id",
    }
    for name, message in cases.items():
        for call in (read_footprints, footprints_info):
            with pytest.raises(FormatError, match=message) as caught:
                call(tmp_path / name)
            assert "\n" not in str(caught.value)
    with pytest.raises(InputNotFoundError):
        footprints_info(tmp_path / "no.parquet")


def test_damage_inside_the_data_is_a_format_error(tmp_path):
    path = write(tmp_path / "a.parquet", houses(3000))
    data = bytearray(path.read_bytes())
    data[200 : len(data) // 2] = bytes(len(data) // 2 - 200)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is torn"):
        list(read_footprints(path))


@pytest.mark.parametrize("name", ["map.osm", "map.osc"])
def test_openstreetmap_data_are_no_footprints(tmp_path, name):
    root = "osm" if name.endswith(".osm") else "osmChange"
    node = '<node id="-1" version="1" lat="60" lon="26"/>'
    content = node if root == "osm" else f"<create>{node}</create>"
    path = tmp_path / name
    path.write_text(f'<?xml version="1.0"?><{root} version="0.6">{content}</{root}>')
    for call in (read_footprints, footprints_info):
        with pytest.raises(FormatError, match="is OpenStreetMap data, not footprints"):
            call(path)


@pytest.mark.parametrize("nothing", [None, shapely.Polygon()])
def test_rows_without_a_geometry_are_left_out_and_counted(tmp_path, nothing):
    frame = houses(5)
    frame.loc[[1, 3], "geometry"] = nothing
    frame.to_file(tmp_path / "edited.gpkg")
    with pytest.warns(GeosegWarning, match=r"edited\.gpkg: rows without a geometry .*: 2"):
        (back,) = read_footprints(tmp_path / "edited.gpkg")
    assert back["id"].tolist() == frame["id"].iloc[[0, 2, 4]].tolist()
