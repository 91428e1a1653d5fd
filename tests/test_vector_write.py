"""Footprints written to every format, and what happens when writing fails."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from shapely.affinity import rotate
from shapely.geometry import shape

from geoseg.errors import FormatError, FormatWarning, OutputError
from geoseg.footprints import OPTIONAL
from geoseg.vector import FootprintWriter, check_footprints_output, footprints_info, read_footprints
from geoseg.vector.geojson import rounded, to_lonlat
from geoseg.vector.spool import ATTRIBUTES, BATCH_ROWS, Spool, rechunk

UTM = "EPSG:32645"
EXTENSIONS = [".geojson", ".geojsonl", ".gpkg", ".fgb", ".parquet", ".shp", ".pmtiles"]
LOSSLESS = [".gpkg", ".fgb", ".parquet"]
DETERMINISTIC = [".geojson", ".geojsonl", ".fgb", ".parquet"]


def house(x: float, y: float, size: float = 10.0) -> shapely.Polygon:
    yard = shapely.box(x + 0.3 * size, y + 0.3 * size, x + 0.6 * size, y + 0.6 * size)
    return shapely.box(x, y, x + size, y + size).difference(yard)


def make_footprints(geometries, *, crs=UTM, scene="town"):
    n = len(geometries)
    rng = np.random.default_rng(n)
    return geopandas.GeoDataFrame(
        {
            "id": [f"{i:016x}" for i in range(n)],
            "label": ["building"] * n,
            "score": rng.uniform(0.3, 1, n),
            "area_m2": rng.uniform(10, 900, n),
            "n_chips": rng.integers(1, 5, n).astype(np.int32),
            "scene": [scene] * n,
            "touches_edge": rng.random(n) < 0.5,
        },
        geometry=list(geometries),
        crs=crs,
    )


def houses(n: int, *, crs=UTM, x0=500_000.0, y0=3_060_000.0, **kw):
    return make_footprints(
        [house(x0 + 20 * (i % 100), y0 + 20 * (i // 100)) for i in range(n)], crs=crs, **kw
    )


def write(path, frame, *, parts=1, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        writer = FootprintWriter(path, crs=CRS(frame.crs), **options)
    with writer:
        for rows in np.array_split(np.arange(len(frame)), parts):
            writer.write(frame.iloc[rows])
    return path


def read_back(path):
    return geopandas.GeoDataFrame(
        geopandas.pd.concat(list(read_footprints(path)), ignore_index=True)
    )


def check_rfc7946(document) -> int:
    """Check a FeatureCollection by the letter, on its JSON alone; return its vertices."""
    assert document["type"] == "FeatureCollection"
    assert "crs" not in document
    vertices = 0
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        assert feature["id"] == feature["properties"]["id"]
        geometry = feature["geometry"]
        assert set(geometry) == {"type", "coordinates"}
        rings = {"Polygon": lambda c: [c], "MultiPolygon": lambda c: c}[geometry["type"]]
        for polygon in rings(geometry["coordinates"]):
            assert polygon, "a polygon has an exterior"
            for k, ring in enumerate(polygon):
                check_ring(ring, counterclockwise=k == 0)
                vertices += len(ring)
    return vertices


def check_ring(ring, *, counterclockwise: bool) -> None:
    assert len(ring) >= 4
    assert ring[0] == ring[-1]
    doubled = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(ring):
        assert -180 <= x0 <= 180
        assert -90 <= y0 <= 90
        assert abs(x1 - x0) < 180, "no edge crosses the antimeridian"
        assert (round(x0, 7), round(y0, 7)) == (x0, y0)
        doubled += (x0 - ring[0][0]) * (y1 - ring[0][1]) - (x1 - ring[0][0]) * (y0 - ring[0][1])
    assert doubled > 0 if counterclockwise else doubled < 0


@pytest.mark.parametrize("extension", LOSSLESS)
def test_round_trip_keeps_every_value_hole_and_the_crs(tmp_path, extension):
    frame = houses(7, scene="Kāthmāṇḍū 'q\" 東京")
    path = write(tmp_path / f"town{extension}", frame, parts=3)
    back = geopandas.read_parquet(path) if extension == ".parquet" else pyogrio.read_dataframe(path)
    back = back.sort_values("id", ignore_index=True)
    assert_geodataframe_equal(
        back[[*ATTRIBUTES, "geometry"]], frame, check_dtype=False, normalize=True, check_like=True
    )
    assert list(back.columns) == [*ATTRIBUTES, "geometry"]
    assert (shapely.get_num_interior_rings(back.geometry.to_numpy()) == 1).all()


@pytest.mark.parametrize("extension", LOSSLESS)
def test_polygons_and_multipolygons_share_a_file(tmp_path, extension):
    pair = shapely.MultiPolygon([shapely.box(0, 0, 9, 9), shapely.box(20, 0, 29, 9)])
    frame = make_footprints([house(0, 50), pair])
    back = read_back(write(tmp_path / f"town{extension}", frame)).sort_values("id")
    assert shapely.equals(back.geometry.to_numpy(), frame.geometry.to_numpy()).all()


@pytest.mark.parametrize("extension", [*LOSSLESS, ".geojson", ".geojsonl"])
def test_optional_columns_are_kept_where_asked_for(tmp_path, extension):
    extra = {"osm_status": ["new", "overlaps", "new"], "osm_iou": [float("nan"), 0.25, 0.0]}
    frame = houses(3).assign(**extra, regularized=[True, False, True], mine=1)
    names = ("osm_iou", "regularized", "osm_status")
    path = write(tmp_path / f"town{extension}", frame, optional=names)
    assert footprints_info(path).optional == ("regularized", "osm_status", "osm_iou")
    (back,) = read_footprints(path)
    back = back.sort_values("id", ignore_index=True)
    assert list(back.columns) == [*ATTRIBUTES, "regularized", "osm_status", "osm_iou", "geometry"]
    assert back["regularized"].tolist() == [True, False, True]
    assert back["regularized"].dtype == bool
    assert back["osm_status"].tolist() == extra["osm_status"]
    assert np.isnan(back["osm_iou"][0])
    assert back["osm_iou"].tolist()[1:] == [0.25, 0.0]


def test_a_missing_optional_column_is_named(tmp_path):
    with pytest.raises(FormatError, match="iou_raw"):
        write(tmp_path / "town.parquet", houses(1), optional=["iou_raw"])


def test_names_of_all_columns_fit_a_shapefile(tmp_path):
    values = {"str": "new", "bool": True, "float64": 0.5}
    frame = houses(2).assign(**{name: values[kind] for name, kind in OPTIONAL.items()})
    path = write(tmp_path / "town.shp", frame, optional=OPTIONAL)
    back = pyogrio.read_dataframe(path)
    assert len(back.columns) == len(ATTRIBUTES) + len(OPTIONAL) + 1
    assert not any(name.endswith("_1") for name in back.columns)


@pytest.mark.parametrize("extension", [*LOSSLESS, ".geojson", ".geojsonl"])
def test_read_footprints_gives_the_schema_in_batches(tmp_path, extension):
    path = write(tmp_path / f"town{extension}", houses(25))
    batches = list(read_footprints(path, batch_rows=10))
    assert sum(map(len, batches)) == 25
    assert max(map(len, batches)) <= 10
    for batch in batches:
        assert list(batch.columns) == [*ATTRIBUTES, "geometry"]
        assert batch["touches_edge"].dtype == bool
        assert batch["n_chips"].dtype == np.int32


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_no_footprints_make_a_valid_empty_file(tmp_path, extension):
    path = write(tmp_path / f"none{extension}", houses(1).iloc[:0], metadata={"model": "m"})
    if extension == ".parquet":
        back = geopandas.read_parquet(path)
        assert back.crs == UTM
    else:
        back = pyogrio.read_dataframe(path)
    assert len(back) == 0
    if extension not in {".geojson", ".geojsonl"}:  # JSON has no schema beside its rows
        assert len(set(back.columns) & {*ATTRIBUTES, "touch_edge"}) == len(ATTRIBUTES)


@pytest.mark.parametrize("extension", [*LOSSLESS, ".geojson", ".geojsonl"])
def test_info_of_an_empty_file(tmp_path, extension):
    info = footprints_info(write(tmp_path / f"none{extension}", houses(1).iloc[:0]))
    assert (info.count, info.bounds, info.metadata) == (0, None, {})
    assert list(read_footprints(tmp_path / f"none{extension}")) == []


@pytest.mark.parametrize("extension", [".gpkg", ".parquet"])
def test_metadata_comes_back(tmp_path, extension):
    facts = {"model": "lite0", "note": "ü 'q' \"d\"\n2"}
    frame = houses(3)
    info = footprints_info(write(tmp_path / f"town{extension}", frame, metadata=facts))
    assert info.metadata == facts
    assert info.crs == CRS(UTM)
    assert info.count == 3
    np.testing.assert_allclose(info.bounds, frame.total_bounds)
    assert [p.name for p in tmp_path.iterdir()] == [f"town{extension}"]


@pytest.mark.parametrize("extension", DETERMINISTIC)
def test_bytes_do_not_depend_on_how_rows_were_handed_in(tmp_path, extension):
    frame = houses(40)
    one = write(tmp_path / f"one{extension}", frame, metadata={"b": "1", "a": "2"})
    many = write(tmp_path / f"many{extension}", frame, parts=13, metadata={"b": "1", "a": "2"})
    assert one.read_bytes() == many.read_bytes()


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 7))
def test_rechunk_keeps_rows_and_fixes_sizes(sizes, rows):
    stops = np.cumsum([0, *sizes])
    batches = [
        pa.record_batch({"k": pa.array(range(a, b))})
        for a, b in zip(stops[:-1].tolist(), stops[1:].tolist(), strict=True)
    ]
    out = list(rechunk(batches, rows))
    assert [k for b in out for k in b.column("k").to_pylist()] == list(range(int(stops[-1])))
    assert all(b.num_rows == rows for b in out[:-1])


# --- GeoJSON ---------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [UTM, "EPSG:3857", "EPSG:4326", "EPSG:2048", "EPSG:26917"])
def test_geojson_obeys_rfc_7946(tmp_path, crs):
    lon, lat = CRS(crs).area_of_use.west + 1, (CRS(crs).area_of_use.south + 1)
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    size = 1e-4 if crs == "EPSG:4326" else 10.0
    frame = make_footprints([house(x + 3 * k * size, y, size) for k in range(9)], crs=crs)
    document = json.loads(
        write(tmp_path / "a.geojson", frame, metadata={"m": "1"}).read_text("utf-8")
    )
    assert check_rfc7946(document) == 9 * 10
    assert document["geoseg"] == {"m": "1"}
    got = np.array([shape(f["geometry"]) for f in document["features"]])
    want = frame.to_crs(4326).geometry.to_numpy()
    assert shapely.hausdorff_distance(got, want).max() < 1e-7
    rows = [f["properties"] for f in document["features"]]
    assert rows == [dict(row) for row in frame[list(ATTRIBUTES)].to_dict("records")]


def test_utm_scene_across_the_antimeridian_is_cut(tmp_path):
    edge_x = 833_978.5  # longitude 180 on the equator in zone 60
    geometries = [house(edge_x + dx, 9_999_000.0, 100.0) for dx in (-300, -50, 300)]
    frame = make_footprints(geometries, crs="EPSG:32760")
    document = json.loads(write(tmp_path / "a.geojson", frame).read_text("utf-8"))
    check_rfc7946(document)
    to_utm = Transformer.from_crs(4326, 32760, always_xy=True)
    left, both, right = (shape(f["geometry"]) for f in document["features"])
    assert left.bounds[0] > 179
    assert right.bounds[2] < -179
    assert both.geom_type == "MultiPolygon"
    assert both.bounds[0] == -180
    assert both.bounds[2] == 180
    assert both.is_valid
    for lonlat, metres in zip((left, both, right), geometries, strict=True):
        turned = shapely.transform(lonlat, lambda xy: np.c_[xy[:, 0] % 360, xy[:, 1]])
        back = shapely.transform(turned, lambda xy: np.stack(to_utm.transform(*xy.T), axis=1))
        assert back.area == pytest.approx(metres.area, rel=1e-3)


@pytest.mark.parametrize(("west", "parts"), [(180.1, 1), (179.9999, 2), (359.9999, 1), (-190.0, 1)])
def test_longitudes_beyond_180_come_home(tmp_path, west, parts):
    frame = make_footprints([house(west, -17.0, 2e-4)], crs="EPSG:4326")
    document = json.loads(write(tmp_path / "a.geojson", frame).read_text("utf-8"))
    check_rfc7946(document)
    got = shape(document["features"][0]["geometry"])
    assert shapely.get_num_geometries(got) == parts
    assert got.area == pytest.approx(frame.geometry[0].area, rel=1e-2)


@settings(max_examples=60)
@given(
    st.floats(-540, 540),
    st.floats(-80, 80).map(lambda y: round(y, 9)),
    st.floats(1e-5, 1e-2),
    st.floats(0, 360),
)
def test_lonlat_keeps_area_and_stays_valid(x, y, size, angle_deg):
    box = rotate(house(x, y, size), angle_deg)
    (out,) = to_lonlat(np.array([box], object), CRS("EPSG:4326"))
    assert out.is_valid
    assert -180 <= out.bounds[0] <= out.bounds[2] <= 180
    assert out.area == pytest.approx(box.area, rel=1e-3)
    (final,) = rounded(np.array([out], object))
    assert final.is_valid
    assert final.symmetric_difference(out).area < 4e-7 * out.length


def test_rounding_keeps_thin_polygons_valid():
    bow = shapely.Polygon([(0, 0), (1e-4, 4e-8), (1e-4, 1e-4), (5e-5, 2.1e-8), (0, 1e-4)])
    speck = shapely.box(0, 0, 1e-9, 1e-9)
    good, gone = rounded(np.array([bow, speck], object))
    assert good.is_valid
    assert gone is None


def test_geojson_lines_hold_one_feature_each(tmp_path):
    lines = write(tmp_path / "a.geojsonl", houses(5)).read_text().splitlines()
    assert check_rfc7946({"type": "FeatureCollection", "features": list(map(json.loads, lines))})
    assert len(lines) == 5


# --- GeoParquet, Shapefile, PMTiles ----------------------------------------------------------


def test_geoparquet_metadata_follows_version_1_1(tmp_path):
    pair = shapely.MultiPolygon([shapely.box(0, 0, 9, 9), shapely.box(20, 0, 29, 9)])
    frame = make_footprints([house(0, 50), pair])
    file = pq.ParquetFile(write(tmp_path / "a.parquet", frame))
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert CRS.from_json_dict(column["crs"]) == CRS(UTM)
    assert column["bbox"] == frame.total_bounds.tolist()
    assert column["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]
    assert file.schema_arrow.field("geometry").type == "binary"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    boxes = file.read().column("bbox").to_pylist()
    assert [tuple(b.values()) for b in boxes] == [tuple(g.bounds) for g in frame.geometry]
    for polygon in shapely.get_parts(geopandas.read_parquet(tmp_path / "a.parquet").geometry):
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)


def test_geoparquet_answers_a_bbox_filter(tmp_path):
    path = write(tmp_path / "a.parquet", houses(300))
    part = geopandas.read_parquet(path, bbox=(500_000, 3_060_000, 500_095, 3_060_005))
    assert len(part) == 5
    assert list(part.columns) == [*ATTRIBUTES, "geometry"]


def test_geoparquet_row_groups_stay_small(tmp_path):
    path = write(tmp_path / "a.parquet", houses(BATCH_ROWS + 10), parts=3)
    meta = pq.ParquetFile(path).metadata
    assert [meta.row_group(k).num_rows for k in range(meta.num_row_groups)] == [BATCH_ROWS, 10]
    statistics = meta.row_group(0).column(meta.num_columns - 4).statistics
    assert statistics.has_min_max


def test_shapefile_warns_and_moves_its_whole_set(tmp_path):
    (tmp_path / "town.qix").write_bytes(b"an index of an older file")
    with (
        pytest.warns(FormatWarning, match=r"10 characters.*prefer \.gpkg"),
        FootprintWriter(tmp_path / "town.shp", crs=CRS(UTM)) as out,
    ):
        out.write(houses(4))
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"town.shp", "town.shx", "town.dbf", "town.prj", "town.cpg"}
    back = geopandas.read_file(tmp_path / "town.shp")
    assert back.geometry.geom_equals(houses(4).geometry).all()
    assert "touch_edge" in back


@pytest.mark.parametrize("crs", [UTM, "EPSG:3857", "EPSG:4326"])
def test_pmtiles_open_again_in_the_right_place(tmp_path, crs):
    frame = houses(6).to_crs(crs)
    path = write(tmp_path / "town.pmtiles", frame)
    back = pyogrio.read_dataframe(path).to_crs(UTM)
    assert set(back["id"]) == set(frame["id"])
    union, want = back.union_all(), houses(6).union_all()
    assert union.symmetric_difference(want).area / want.area < 0.15
    with pytest.raises(FormatError, match="tiles"):
        footprints_info(path)


# --- What can go wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_exception_leaves_the_folder_as_it_was(tmp_path, extension):
    target = tmp_path / f"town{extension}"
    target.write_bytes(b"kept")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        writer = FootprintWriter(target, crs=CRS(UTM))

    def interrupted():
        with writer:
            writer.write(houses(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"kept"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_interrupt_while_converting_leaves_nothing(tmp_path, extension, monkeypatch):
    def interrupted(self):
        yield from [next(original(self))]
        raise KeyboardInterrupt

    original = Spool.batches
    monkeypatch.setattr(Spool, "batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / f"town{extension}", houses(3))
    assert list(tmp_path.iterdir()) == []


def run_limited(tmp_path, extension, limit):
    """Write 4000 houses in a process whose files may have `limit` bytes; return what it said."""
    code = f"""
        import resource, sys, warnings
        warnings.simplefilter("ignore")
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_vector_write as t
        from geoseg.errors import OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            t.write({str(tmp_path / ("town" + extension))!r}, t.houses(4000))
        except OutputError as err:
            print(err)
            sys.exit(7)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("share", [0.02, 0.6, 0.97, 0.999])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, extension, share):
    whole = write(tmp_path / f"town{extension}", houses(4000))
    limit = int(share * whole.stat().st_size)
    for part in tmp_path.iterdir():
        part.unlink()
    done = run_limited(tmp_path, extension, limit)
    assert done.returncode == 7, (done.returncode, done.stderr[-2000:])
    assert done.stdout.startswith(f"{tmp_path}/town{extension}: cannot be written (")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_process_killed_while_spooling_leaves_nothing(tmp_path, signum):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_vector_write as t
        from geoseg.vector import FootprintWriter
        with FootprintWriter({str(tmp_path / "town.gpkg")!r}, crs=t.CRS(t.UTM)) as out:
            out.write(t.houses(500))
            print("ready", flush=True)
            while True:
                out.write(t.houses(10))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_two_writers_share_a_folder(tmp_path):
    def work(name, n):
        write(tmp_path / name, houses(n, scene=name), parts=7)

    names = [f"{k}{e}" for k in "ab" for e in (".fgb", ".parquet", ".geojson", ".gpkg")]
    threads = [threading.Thread(target=work, args=(name, 50 + i)) for i, name in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    for i, name in enumerate(names):
        back = read_back(tmp_path / name)
        assert len(back) == 50 + i
        assert set(back["scene"]) == {name}


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize(
    "folder", ["a!b", "a;b?", "x.zip", "--o", "Ünï 東", 'it\'s "q"', "new\nline", "%41 #1"]
)
def test_hostile_paths_are_taken_literally(tmp_path, extension, folder):
    (tmp_path / folder).mkdir()
    path = write(tmp_path / folder / f"s!;?é'{extension}", houses(2))
    assert path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == [folder]
    if extension not in {".shp", ".pmtiles"}:
        assert len(read_back(path)) == 2


def test_a_link_is_followed_and_an_existing_file_replaced(tmp_path):
    real = tmp_path / "real.fgb"
    write(real, houses(2))
    link = tmp_path / "link.fgb"
    link.symlink_to(real)
    write(link, houses(5))
    assert link.is_symlink()
    assert footprints_info(real).count == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("town.xyz", r"must be one of \.geojson .*\.pmtiles, got '\.xyz'"),
        ("town", "must be one of"),
        ("no/town.fgb", r"folder .*no does not exist"),
        ("sub.gpkg", "is a folder"),
        ("fifo.gpkg", "regular file"),
        ("town.tif/town.gpkg", "does not exist"),
        ("n" * 300 + ".gpkg", "name too long"),
    ],
)
def test_check_output_says_why_not(tmp_path, name, message):
    (tmp_path / "sub.gpkg").mkdir()
    os.mkfifo(tmp_path / "fifo.gpkg")
    with pytest.raises(OutputError, match=f"(?i){message}") as caught:
        check_footprints_output(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo.gpkg", "sub.gpkg"]


def test_check_output_probes_a_folder_that_cannot_be_written(tmp_path):
    folder = Path("/proc/self")
    if not folder.is_dir():
        pytest.skip("no /proc here")
    with pytest.raises(OutputError, match=r"/proc.*cannot be written"):
        check_footprints_output(folder / "town.fgb")


def test_a_frame_that_is_not_footprints_is_refused(tmp_path):
    good = houses(2)
    bad = {
        "missing": good.drop(columns="score"),
        "writer's CRS": good.to_crs(3857),
        "LineString": good.set_geometry(good.boundary.map(lambda g: g.geoms[0])),
        "empty geometry": good.set_geometry([good.geometry[0], shapely.Polygon()], crs=UTM),
    }
    for message, frame in bad.items():
        with (
            pytest.raises(FormatError, match=message),
            FootprintWriter(tmp_path / "a.fgb", crs=CRS(UTM)) as out,
        ):
            out.write(frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", [".geojson", ".geojsonl"])
def test_metres_that_are_said_to_be_degrees_are_refused(tmp_path, extension):
    frame = houses(3).set_crs("EPSG:4326", allow_override=True)
    with pytest.raises(OutputError, match="do not lie on the Earth in 'WGS 84': check the CRS"):
        write(tmp_path / f"a{extension}", frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", [".gpkg", ".fgb", ".parquet", ".geojson", ".geojsonl"])
def test_what_was_drawn_by_hand_has_no_facts_and_is_written(tmp_path, extension):
    frame = houses(3)
    frame.loc[1, ["id", "label", "scene"]] = None
    frame.loc[1, "score"] = np.nan
    frame.to_file(tmp_path / "edited.gpkg")
    path = write(tmp_path / f"a{extension}", read_back(tmp_path / "edited.gpkg"))
    back = read_back(path).sort_values("id", na_position="last", ignore_index=True)
    assert back["id"].isna().tolist() == [False, False, True]
    assert back.loc[2, ["label", "score", "scene"]].isna().all()
    if extension == ".geojson":
        features = json.loads(path.read_text())["features"]
        assert ["id" in feature for feature in features] == [True, False, True]
