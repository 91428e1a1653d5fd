"""The table of bad input: each row is what a user typed, and what must come of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from cli_support import (
    BLANK,
    ORACLE,
    UTM,
    assert_one_line,
    break_tiles,
    call,
    cut_short,
    snapshot,
    spawn,
    succeed,
    town,
    town_pixels,
    write_scene,
)
from PIL import Image

from geoseg.models import DEFAULT_MODEL, describe_model

if TYPE_CHECKING:
    from collections.abc import Callable

Words = list[object]


def zeros(bands: int = 3, height: int = 64, width: int = 64, dtype: str = "uint8") -> np.ndarray:
    return np.ones((bands, height, width), dtype)


def aoi(path: Path, geometry: object, crs: str = "EPSG:4326") -> Path:
    gpd.GeoDataFrame(geometry=[geometry], crs=crs).to_file(path, driver="GeoJSON")
    return path


def no_file(tmp: Path) -> Words:
    return ["run", tmp / "none.tif", "-o", tmp / "o.geojson"]


def not_a_raster(tmp: Path) -> Words:
    (tmp / "scene.tif").write_text("not pixels")
    return ["run", tmp / "scene.tif", "-o", tmp / "o.geojson"]


def empty_raster_file(tmp: Path) -> Words:
    (tmp / "scene.tif").touch()
    return ["run", tmp / "scene.tif", "-o", tmp / "o.geojson"]


def all_cut(tmp: Path) -> Words:
    scene = cut_short(write_scene(tmp / "scene.tif"), 0.1)
    return ["run", scene, "-o", tmp / "o.geojson", "--mask", tmp / "m.tif"]


def all_cut_tile(tmp: Path) -> Words:
    return ["tile", cut_short(write_scene(tmp / "scene.tif"), 0.1), "-o", tmp / "chips"]


def all_cut_infer(tmp: Path) -> Words:
    scene = cut_short(write_scene(tmp / "scene.tif"), 0.1)
    return ["infer", scene, "-o", tmp / "d.parquet", *ORACLE]


def cut_header(tmp: Path) -> Words:
    return ["run", cut_short(write_scene(tmp / "s.tif"), 0.02), "-o", tmp / "o.geojson"]


def scene_with(**profile: object) -> Callable[[Path], Words]:
    def build(tmp: Path) -> Words:
        return ["run", write_scene(tmp / "scene.tif", zeros(), **profile), "-o", tmp / "o.geojson"]

    return build


def no_geotransform(tmp: Path) -> Words:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rasterio's own, on writing such a file
        return scene_with(transform=None)(tmp)


def bands(count: int) -> Callable[[Path], Words]:
    def build(tmp: Path) -> Words:
        scene = write_scene(tmp / "scene.tif", zeros(count))
        return ["run", scene, "-o", tmp / "o.geojson"]

    return build


def on_town(*words: object) -> Callable[[Path], Words]:
    """Run on a good scene with extra words; `TMP/` is the test's folder."""

    def build(tmp: Path) -> Words:
        scene = write_scene(tmp / "scene.tif")
        return [str(word).replace("TMP", str(tmp)) for word in ("run", scene, *words)]

    return build


def aoi_elsewhere(tmp: Path) -> Words:
    area = aoi(tmp / "aoi.geojson", shapely.box(10, 10, 11, 11))
    return on_town("-o", tmp / "o.geojson", "--aoi", area)(tmp)


def aoi_empty(tmp: Path) -> Words:
    area = tmp / "aoi.geojson"
    area.write_text('{"type": "FeatureCollection", "features": []}')
    return on_town("-o", tmp / "o.geojson", "--aoi", area)(tmp)


def aoi_no_vector(tmp: Path) -> Words:
    (tmp / "aoi.geojson").write_bytes(os.urandom(100))
    return on_town("-o", tmp / "o.geojson", "--aoi", tmp / "aoi.geojson")(tmp)


def output_is_folder(tmp: Path) -> Words:
    (tmp / "o.geojson").mkdir()
    return on_town("-o", tmp / "o.geojson")(tmp)


def output_is_fifo(tmp: Path) -> Words:
    os.mkfifo(tmp / "d.parquet")
    scene = write_scene(tmp / "scene.tif")
    return ["infer", scene, "-o", tmp / "d.parquet"]


def mask_over_scene(tmp: Path) -> Words:
    return on_town("-o", tmp / "o.geojson", "--mask", tmp / "scene.tif", *ORACLE)(tmp)


def mask_over_scene_by_link(tmp: Path) -> Words:
    (tmp / "other.tif").symlink_to(tmp / "scene.tif")
    return on_town("-o", tmp / "o.geojson", "--mask", tmp / "other.tif", *ORACLE)(tmp)


def output_over_aoi(tmp: Path) -> Words:
    area = aoi(tmp / "aoi.geojson", town().truth.to_crs(4326).union_all().envelope)
    return on_town("-o", area, "--aoi", area, *ORACLE)(tmp)


def weights(tmp: Path, **changes: object) -> Path:
    """Copy the bundled weights with another spec."""
    source = Path(str(describe_model(DEFAULT_MODEL)["path"]))
    path = tmp / "w.safetensors"
    shutil.copy(source, path)
    spec = json.loads(source.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(spec | changes))
    return path


def misfit(tmp: Path) -> Words:
    path = weights(tmp, architecture="maskrcnn_resnet50_fpn")
    return on_town("-o", tmp / "o.geojson", "--model", path)(tmp)


def no_spec(tmp: Path) -> Words:
    path = weights(tmp)
    path.with_suffix(".json").unlink()
    return on_town("-o", tmp / "o.geojson", "--model", path)(tmp)


def torn_weights(tmp: Path) -> Words:
    return on_town("-o", tmp / "o.geojson", "--model", cut_short(weights(tmp), 0.5))(tmp)


def bad_config(text: str | bytes, *words: object) -> Callable[[Path], Words]:
    def build(tmp: Path) -> Words:
        path = tmp / "c.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return on_town("-o", tmp / "o.geojson", "--config", path, *words)(tmp)

    return build


def damaged(name: str, content: bytes, *words: object) -> Callable[[Path], Words]:
    def build(tmp: Path) -> Words:
        (tmp / name).write_bytes(content)
        return [str(word).replace("TMP", str(tmp)) for word in words]

    return build


def foreign_parquet(*words: object) -> Callable[[Path], Words]:
    def build(tmp: Path) -> Words:
        frame = gpd.GeoDataFrame({"a": [1]}, geometry=[shapely.Point(0, 0)], crs=4326)
        (tmp / "chips").mkdir()
        frame.to_parquet(tmp / "x.parquet")
        frame.to_parquet(tmp / "chips" / "index.parquet")
        return [str(word).replace("TMP", str(tmp)) for word in words]

    return build


def tile_into_other(tmp: Path) -> Words:
    scene = write_scene(tmp / "scene.tif")
    (tmp / "chips").mkdir()
    (tmp / "chips" / "letter.txt").write_text("dear")
    return ["tile", scene, "-o", tmp / "chips", "--overwrite"]


def tile_over_annotations(tmp: Path) -> Words:
    words = tile_into_other(tmp)
    (tmp / "chips" / "index.parquet").touch()
    return words


def tile_onto_scene(tmp: Path) -> Words:
    scene = write_scene(tmp / "scene.tif")
    return ["tile", scene, "-o", scene]


def factory(body: str) -> Callable[[Path], Words]:
    """Run with a module of the user's own on the path; see `factories`."""
    return on_town("-o", "TMP/o.geojson", "--model", f"bad_factories:{body}")


NOWHERE = Path("/proc/geoseg.x")
OUT = ("-o", "TMP/o.geojson")

TABLE: list[tuple[str, Callable[[Path], Words], int, tuple[str, ...]]] = [
    ("no such file", no_file, 2, ("none.tif", "no such file")),
    ("not a raster", not_a_raster, 1, ("not a raster",)),
    ("an empty file", empty_raster_file, 1, ("not a raster",)),
    ("a folder without chips", lambda t: ["run", t, "-o", t / "o.fgb"], 2, ("index.parquet",)),
    ("truncated in its header", cut_header, 1, ("truncated",)),
    ("no chip readable", all_cut, 1, ("truncated",)),
    ("no chip readable, tile", all_cut_tile, 1, ("truncated",)),
    ("no chip readable, infer", all_cut_infer, 1, ("truncated",)),
    ("no CRS", scene_with(crs=None), 1, ("no CRS", "-a_srs")),
    ("no geotransform", no_geotransform, 1, ("no geotransform",)),
    ("one band", bands(1), 1, ("band",)),
    ("two bands", bands(2), 1, ("band",)),
    ("a band that is not there", on_town(*OUT, "--bands", "1,2,9"), 1, ("band", "9")),
    ("two bands asked", on_town(*OUT, "--bands", "1,2"), 2, ("three",)),
    ("bands that are words", on_town(*OUT, "--bands", "r,g,b"), 2, ("1,2,3",)),
    ("rescale turned round", on_town(*OUT, "--rescale", "9,1"), 2, ("MIN < MAX",)),
    ("rescale without end", on_town(*OUT, "--rescale", "0,inf"), 2, ("MIN < MAX",)),
    ("rescale a word", on_town(*OUT, "--rescale", "dark"), 2, ("auto",)),
    ("gsd zero", on_town(*OUT, "--gsd", "0"), 2, ("gsd",)),
    ("gsd not a number", on_town(*OUT, "--gsd", "nan"), 2, ("gsd",)),
    ("gsd coarser than the scene", on_town(*OUT, "--gsd", "5000", *BLANK), 1, ("--gsd",)),
    ("score beyond one", on_town(*OUT, "--score", "1.5"), 2, ("score", "1.5")),
    ("score not a number", on_town(*OUT, "--score", "nan"), 2, ("score",)),
    ("chips of no size", on_town(*OUT, "--chip-size", "0"), 2, ("size_px",)),
    ("overlap beyond the chip", on_town(*OUT, "--overlap", "300", *BLANK), 2, ("overlap_px",)),
    ("negative overlap", on_town(*OUT, "--overlap", "-1"), 2, ("overlap_px",)),
    ("negative tolerance", on_town(*OUT, "--tolerance", "-1"), 2, ("tolerance_m",)),
    ("batches of none", on_town(*OUT, "--batch-size", "0"), 2, ("batch_size",)),
    ("no such device", on_town(*OUT, *BLANK, "--set", "model.device=tpu"), 1, ("tpu", "cpu")),
    ("AOI outside", aoi_elsewhere, 1, ("touch the scene",)),
    ("AOI empty", aoi_empty, 1, ("empty",)),
    ("AOI no vector file", aoi_no_vector, 1, ("aoi.geojson",)),
    ("AOI missing", on_town(*OUT, "--aoi", "TMP/no.geojson"), 2, ("no.geojson",)),
    ("output folder missing", on_town("-o", "TMP/no/o.geojson"), 2, ("does not exist",)),
    ("output is a folder", output_is_folder, 2, ("folder",)),
    ("output is a pipe", output_is_fifo, 2, ("regular file",)),
    ("output read-only", on_town("-o", f"{NOWHERE}.geojson"), 2, ("/proc",)),
    ("mask read-only", on_town(*OUT, "--mask", f"{NOWHERE}.tif"), 2, ("/proc",)),
    ("output nameless", on_town("-o", ""), 2, ("folder",)),
    ("unknown extension", on_town("-o", "TMP/o.doc"), 2, (".doc", ".geojson")),
    ("no extension", on_town("-o", "TMP/o"), 2, ("extension",)),
    ("mask no tif", on_town(*OUT, "--mask", "TMP/m.png"), 2, (".tif",)),
    ("preview no png", on_town(*OUT, "--preview", "TMP/p.jpg"), 2, (".png",)),
    ("mask folder missing", on_town(*OUT, "--mask", "TMP/no/m.tif"), 2, ("does not exist",)),
    ("mask over the scene", mask_over_scene, 2, ("input",)),
    ("mask over the scene by a link", mask_over_scene_by_link, 2, ("input",)),
    ("output over the AOI", output_over_aoi, 2, ("input",)),
    (
        "one file twice",
        lambda t: [
            "export",
            t / "x.parquet",
            "-o",
            t / "a.fgb",
            "--mask",
            t / "b" / ".." / "a.fgb",
        ],
        2,
        (".tif",),
    ),
    ("detections to geojson", lambda t: ["infer", "x", "-o", t / "d.geojson"], 2, (".parquet",)),
    ("detections read-only", lambda t: ["infer", "x", "-o", "/proc/d.parquet"], 2, ("/proc",)),
    ("chips read-only", lambda t: ["tile", "x", "-o", "/proc/chips"], 2, ("/proc",)),
    ("chips onto the scene", tile_onto_scene, 2, ("is a file",)),
    ("chips among other files", tile_into_other, 2, ("letter.txt",)),
    ("chips beside annotations", tile_over_annotations, 2, ("letter.txt",)),
    ("weights of another network", misfit, 1, ("does not fit", "backbone")),
    ("weights missing", on_town(*OUT, "--model", "TMP/w.safetensors"), 2, ("w.safetensors",)),
    ("spec missing", no_spec, 2, ("w.json",)),
    ("weights torn", torn_weights, 1, ("sha256",)),
    ("weights pickled", on_town(*OUT, "--model", "TMP/w.pth"), 1, ("import-weights",)),
    ("no such model", on_town(*OUT, "--model", "yolo"), 1, ("yolo", "maskrcnn_lite0")),
    ("no such module", on_town(*OUT, "--model", "no_module:f"), 1, ("no_module",)),
    ("no such factory", on_town(*OUT, "--model", "geoseg.testing:f"), 1, ("'f'",)),
    ("factory raises", factory("raises"), 1, ("raises", "two lines")),
    ("factory of no module", factory("text"), 1, ("Module", "str")),
    ("factory wants arguments", factory("wants"), 1, ("argument",)),
    ("model without contract", factory("bare"), 1, ("contract",)),
    ("model of odd lengths", factory("odd"), 1, ("disagree",)),
    ("model of NaN", factory("nan"), 1, ("NaN",)),
    ("model fails", factory("fails"), 1, ("RuntimeError", "broken")),
    ("config missing", on_town(*OUT, "--config", "TMP/no.yaml"), 2, ("no.yaml",)),
    ("config not YAML", bad_config("a: [1"), 2, ("c.yaml", "YAML")),
    ("config a list", bad_config("- 1"), 2, ("c.yaml", "list")),
    ("config not text", bad_config(b"\xff\xfe\x00"), 2, ("UTF-8",)),
    ("config section unknown", bad_config("modle:\n  score: 1"), 2, ("modle",)),
    ("config key unknown", bad_config("model:\n  scroe: 1"), 2, ("model.scroe",)),
    ("config value wrong", bad_config("model:\n  score: high"), 2, ("model.score",)),
    ("set without value", on_town(*OUT, "--set", "model.score"), 2, ("--set",)),
    ("set of two lines", on_town(*OUT, "--set", "a\nb=[}"), 2, ("--set",)),
    ("set unknown", on_town(*OUT, "--set", "model.x=1"), 2, ("model.x",)),
    ("unknown option", on_town(*OUT, "--nonsense"), 2, ("--nonsense", "--help")),
    ("unknown verb", lambda _: ["mpa"], 2, ("mpa",)),
    ("no output", lambda t: ["run", t / "x.tif"], 2, ("--output",)),
    (
        "detections missing",
        lambda t: ["footprints", t / "no.parquet", "-o", t / "o.fgb"],
        2,
        ("no.parquet",),
    ),
    (
        "detections rubbish",
        damaged(
            "x.parquet", b"PAR1 rubbish PAR1", "footprints", "TMP/x.parquet", "-o", "TMP/o.fgb"
        ),
        1,
        ("x.parquet",),
    ),
    (
        "detections empty",
        damaged("x.parquet", b"", "footprints", "TMP/x.parquet", "-o", "TMP/o.fgb"),
        1,
        ("x.parquet",),
    ),
    (
        "detections foreign",
        foreign_parquet("footprints", "TMP/x.parquet", "-o", "TMP/o.fgb"),
        1,
        ("x.parquet", "geoseg infer"),
    ),
    (
        "footprints foreign",
        foreign_parquet("export", "TMP/x.parquet", "-o", "TMP/o.fgb"),
        1,
        ("x.parquet", "column"),
    ),
    (
        "footprints onto themselves",
        foreign_parquet("export", "TMP/x.parquet", "-o", "TMP/x.parquet"),
        2,
        ("x.parquet", "input"),
    ),
    (
        "footprints empty",
        damaged("x.geojson", b"", "export", "TMP/x.geojson", "-o", "TMP/o.fgb"),
        1,
        ("x.geojson",),
    ),
    (
        "footprints missing",
        lambda t: ["export", t / "no.parquet", "-o", t / "o.fgb"],
        2,
        ("no.parquet",),
    ),
    (
        "index foreign",
        foreign_parquet("infer", "TMP/chips", "-o", "TMP/d.parquet", *BLANK),
        1,
        ("index.parquet",),
    ),
    ("info of nothing", lambda t: ["info", t / "no.tif"], 2, ("no.tif",)),
    (
        "info of rubbish",
        damaged("x.parquet", b"PAR1", "info", "TMP/x.parquet"),
        1,
        ("x.parquet",),
    ),
    (
        "info of a plain geojson",
        damaged(
            "x.geojson",
            b'{"type":"FeatureCollection","features":[{"type":"Feature","properties":{},'
            b'"geometry":{"type":"Point","coordinates":[0,0]}}]}',
            "info",
            "TMP/x.geojson",
        ),
        1,
        ("x.geojson", "footprints"),
    ),
]


@pytest.fixture
def factories(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module of badly behaved factories on the path."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "bad_factories.py").write_text(
        textwrap.dedent(
            """
            import torch

            class Says(torch.nn.Module):
                def __init__(self, say):
                    super().__init__()
                    self.say = say

                def forward(self, images):
                    return self.say(images)

            def found(n, boxes, masks, value=0.5):
                return {
                    "boxes": torch.full((boxes, 4), value),
                    "labels": torch.ones(n, dtype=torch.int64),
                    "scores": torch.ones(n),
                    "masks": torch.ones(masks, 1, 300, 300),
                }

            def fail(images):
                raise RuntimeError("broken\\nin two lines")

            def raises():
                raise ValueError("two\\nlines")

            def text():
                return "a model"

            def wants(weights):
                return weights

            def bare():
                return torch.nn.Identity()

            def odd():
                return Says(lambda images: [found(2, 1, 2) for _ in images])

            def nan():
                return Says(lambda images: [found(1, 1, 1, torch.nan) for _ in images])

            def fails():
                return Says(fail)

            def two_lines():
                return text()
            """
        )
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "bad_factories", raising=False)


@pytest.mark.usefixtures("factories")
@pytest.mark.parametrize(
    ("build", "code", "needles"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_bad_input_is_one_line_and_leaves_nothing(
    build: Callable[[Path], Words],
    code: int,
    needles: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = build(tmp_path)
    before = snapshot(tmp_path)
    outcome = call(capsys, *words, "--json")
    assert_one_line(outcome, *(needle for needle in needles if needle != "two lines"))
    assert outcome.code == code
    assert outcome.json["exit_code"] == code
    assert outcome.json["error"] in outcome.err
    assert snapshot(tmp_path) == before


def partial_scene(tmp: Path, kind: str) -> Path:
    scene = write_scene(tmp / "scene.tif")
    return cut_short(scene, 0.9) if kind == "truncated" else break_tiles(scene, [4])


@pytest.mark.parametrize("kind", ["truncated", "corrupt block"])
def test_unreadable_chips_are_listed_and_the_rest_is_done(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = partial_scene(tmp_path, kind)
    out = tmp_path / "o.parquet"
    outcome = call(capsys, "run", scene, "-o", out, *ORACLE, "--json")
    assert outcome.code == outcome.json["exit_code"] == 3
    failed = {item["chip"] for item in outcome.json["failed"]}
    assert 0 < len(failed) < outcome.json["chips"] == 9
    assert len(failed) + outcome.json["inferred"] == 9
    assert all(f"chip {name} failed: " in outcome.err for name in failed)
    assert "Traceback" not in outcome.err
    assert 0 < len(gpd.read_parquet(out)) == outcome.json["footprints"] < 71
    if kind == "corrupt block":
        assert failed == {"r00000_c00001", "r00000_c00002"}


def test_partial_tile_and_infer_end_with_3_and_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = partial_scene(tmp_path, "corrupt block")
    tiled = call(capsys, "tile", scene, "-o", tmp_path / "chips", "--json")
    inferred = call(capsys, "infer", scene, "-o", tmp_path / "d.parquet", *ORACLE, "--json")
    assert tiled.code == inferred.code == 3
    assert tiled.json["failed"] == inferred.json["failed"]
    assert len(list((tmp_path / "chips" / "images").iterdir())) == 7


def test_a_damaged_scene_still_gets_a_picture_without_imagery(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, picture = partial_scene(tmp_path, "corrupt block"), tmp_path / "p.png"
    outcome = call(capsys, "run", scene, "-o", tmp_path / "o.fgb", "--preview", picture, *ORACLE)
    assert outcome.code == 3
    assert "warning: picture without imagery" in outcome.err
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("harm", ["missing", "other size", "rubbish", "cut"])
def test_one_bad_chip_image_fails_alone(
    harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeed(capsys, "tile", write_scene(tmp_path / "scene.tif"), "-o", tmp_path / "chips")
    image = tmp_path / "chips" / "images" / "r00001_c00001.png"
    if harm == "missing":
        image.unlink()
    elif harm == "other size":
        Image.new("RGB", (200, 300)).save(image)
    elif harm == "rubbish":
        image.write_bytes(b"no picture")
    else:
        cut_short(image, 0.5)
    words = ("infer", tmp_path / "chips", "-o", tmp_path / "d.parquet", *ORACLE, "--json")
    outcome = call(capsys, *words)
    assert outcome.code == 3
    assert [item["chip"] for item in outcome.json["failed"]] == ["r00001_c00001"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_torn_files_are_refused_at_any_length(
    share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    chips, found = tmp_path / "chips", tmp_path / "d.parquet"
    prints, out = tmp_path / "f.parquet", tmp_path / "o.fgb"
    succeed(capsys, "tile", scene, "-o", chips)
    succeed(capsys, "infer", scene, "-o", found, *ORACLE)
    succeed(capsys, "footprints", found, "-o", prints)
    for path in (chips / "index.parquet", found, prints):
        cut_short(path, share)
    before = snapshot(tmp_path)
    for words in (
        ("infer", chips, "-o", tmp_path / "d2.parquet", *ORACLE),
        ("footprints", found, "-o", out),
        ("export", prints, "-o", out),
        ("info", prints),
        ("info", chips),
    ):
        outcome = call(capsys, *words)
        assert_one_line(outcome)
        assert outcome.code == 1
    assert snapshot(tmp_path) == before


def test_flipped_bytes_of_detections_never_crash_the_reader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out = tmp_path / "d.parquet", tmp_path / "o.geojson"
    succeed(capsys, "infer", write_scene(tmp_path / "scene.tif"), "-o", found, *ORACLE)
    data = found.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(data)
        for place in rng.integers(0, len(data), 3).tolist():
            bad[place] ^= int(rng.integers(1, 256))
        found.write_bytes(bad)
        outcome = call(capsys, "footprints", found, "-o", out)
        if outcome.code:
            assert_one_line(outcome)
        out.unlink(missing_ok=True)
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_no_data(
    value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = town_pixels().astype(np.float32)
    pixels[:, :250, :250] = value
    scene = write_scene(tmp_path / "scene.tif", pixels)
    out = tmp_path / "o.parquet"
    outcome = succeed(capsys, "run", scene, "-o", out, *ORACLE, "--rescale", "0,255", "--json")
    assert outcome.json["failed"] == []
    assert 0 < len(gpd.read_parquet(out)) < 71


def test_a_scene_of_one_pixel_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / "scene.tif", zeros(3, 1, 1), tiled=False, blockxsize=None)
    for model in (ORACLE, ("--device", "cpu")):
        words = ("-o", tmp_path / "o.geojson", "--mask", tmp_path / "m.tif")
        words = (*words, "--preview", tmp_path / "p.png", *model, "--json")
        outcome = succeed(capsys, "run", scene, *words, "--gsd", "native")
        assert outcome.json["chips"] == outcome.json["inferred"] == 1


def test_a_scene_without_data_gives_a_valid_empty_file_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.zeros((3, 600, 600), np.uint8), nodata=0)
    for suffix in ("geojson", "gpkg", "fgb", "parquet", "geojsonl"):
        out = tmp_path / f"o.{suffix}"
        words = ("-o", out, *ORACLE, "--mask", tmp_path / "m.tif", "--preview", tmp_path / "p.png")
        outcome = succeed(capsys, "run", scene, *words)
        assert "no chip holds data" in outcome.out
        assert "9 without data" in outcome.out
        assert suffix == "geojsonl" or succeed(capsys, "info", out)
    assert len(gpd.read_file(tmp_path / "o.geojson")) == 0
    assert len(gpd.read_parquet(tmp_path / "o.parquet")) == 0
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert not mask.read().any()
    succeed(capsys, "tile", scene, "-o", tmp_path / "chips")
    succeed(capsys, "infer", tmp_path / "chips", "-o", tmp_path / "d.parquet", *ORACLE)
    outcome = succeed(capsys, "footprints", tmp_path / "d.parquet", "-o", tmp_path / "f.geojson")
    assert "found no building" in outcome.out
    assert json.loads((tmp_path / "f.geojson").read_text())["features"] == []


@pytest.mark.parametrize("name", ["sp ace", "Übung 東", "-dash", "a;b!c?d", "%20 #1", "quo'te\"s"])
def test_odd_names_work(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / name
    scene = write_scene(folder / f"{name}.tif")
    cwd = Path.cwd()
    os.chdir(folder)
    try:
        out = f"{name}.parquet"
        succeed(capsys, "run", f"--output={out}", "--mask=m.tif", *ORACLE, "--", scene.name)
        assert len(gpd.read_parquet(out)) == 71
        succeed(capsys, "export", f"--output={name}.gpkg", "--preview=p.png", "--", out)
        assert succeed(capsys, "info", "--json", "--", f"{name}.gpkg").json["footprints"] == 71
        succeed(capsys, "tile", "-o", folder / f"chips {name}", "--", scene.name)
        succeed(capsys, "infer", folder / f"chips {name}", "-o", "d.parquet", *ORACLE)
    finally:
        os.chdir(cwd)


def test_outputs_that_are_one_file_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    scene = write_scene(tmp_path / "scene.tif")
    (tmp_path / "x.tif").symlink_to(tmp_path / "y.png")
    words = ("--mask", tmp_path / "x.tif", "--preview", tmp_path / "sub" / ".." / "y.png")
    outcome = call(capsys, "run", scene, "-o", tmp_path / "o.fgb", *words, *ORACLE)
    assert_one_line(outcome, "different files")
    assert outcome.code == 2


def test_a_failed_run_keeps_the_former_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    names = ("-o", tmp_path / "o.parquet", "--mask", tmp_path / "m.tif")
    words = ("run", scene, *names, "--preview", tmp_path / "p.png", *ORACLE)
    succeed(capsys, *words)
    before = snapshot(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geoseg.vector.write._move_into_place", full)
    outcome = call(capsys, *words, "--score", "0.8", "--set", "polygonize.min_area_m2=50")
    assert_one_line(outcome, "o.parquet", "No space left")
    assert outcome.code == 1
    assert snapshot(tmp_path) == before


LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1))
import geoseg.cli, geoseg.stages.run, geoseg.stages.tile, geoseg.testing
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for words in " ".join(sys.argv[1:]).split(" THEN "):
    try:
        geoseg.cli.main(words.split())
    except SystemExit as ended:
        print("ended", ended.code, file=sys.stderr)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 600, 600), dtype=np.uint8)
    noise = write_scene(tmp_path / "noise.tif", pixels)
    scene = write_scene(tmp_path / "scene.tif")
    before = snapshot(tmp_path)
    oracle = " ".join(ORACLE)
    blank = " ".join(BLANK)
    calls = [
        f"run {scene} -o {tmp_path}/o.{suffix} {oracle}"
        for suffix in ("geojson", "gpkg", "fgb", "parquet", "shp")
    ]
    calls += [
        f"infer {scene} -o {tmp_path}/d.parquet {oracle}",
        f"run {scene} -o {tmp_path}/o.fgb --mask {tmp_path}/m.tif {oracle} --min-area 1e6",
        f"run {noise} -o {tmp_path}/o.fgb --preview {tmp_path}/p.png {blank}",
        f"tile {noise} -o {tmp_path}/chips",
        f"tile {noise} -o {tmp_path}/chips --format tif",
    ]
    process = spawn(4000, *" THEN ".join(calls).split(" "), code=LIMITED)
    _, err = process.communicate(timeout=120)
    # libtiff writes lines of its own, which nobody can catch; threads may tear them.
    lines = [line for line in err.splitlines() if line.startswith(("geoseg: ", "ended "))]
    assert "Traceback" not in err
    assert len(lines) == 2 * len(calls), err
    for words, line, ended in zip(calls, lines[::2], lines[1::2], strict=True):
        assert line.startswith("geoseg: "), (words, line)
        assert "File too large" in line or "cannot" in line, (words, line)
        assert ended == "ended 1", words
    assert snapshot(tmp_path) == before


SLOW = """
import sys, time, torch
class Slow(torch.nn.Module):
    def forward(self, images):
        print("inferring", flush=True)
        time.sleep(0.3)
        return [dict(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64),
                     scores=torch.zeros(0), masks=torch.zeros(0, 1, 300, 300)) for _ in images]
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_leaves_nothing(number: int, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    scene = write_scene(folder / "scene.tif")
    (tmp_path / "slow_model.py").write_text(SLOW)
    before = snapshot(folder)
    words = ("--mask", folder / "m.tif", "--preview", folder / "p.png", "--batch-size", "1")
    process = spawn(
        "run",
        scene,
        "-o",
        folder / "o.gpkg",
        *words,
        "--model",
        "slow_model:Slow",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout.readline() == "inferring\n"
    time.sleep(0.1)
    assert any(path.name.startswith(".") for path in folder.iterdir()), "work lies in hidden files"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "geoseg: interrupted; nothing was written\n"
    assert snapshot(folder) == before


def test_a_rotated_scene_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = Affine(0.433, 0.25, 700_000, 0.25, -0.433, 9_300_000)
    scene = write_scene(tmp_path / "s.tif", zeros(), crs=UTM, transform=turned)
    succeed(capsys, "run", scene, "-o", tmp_path / "o.geojson", *BLANK)
