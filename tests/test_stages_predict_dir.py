from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from geoseg.coco import decode_rle
from geoseg.config import ModelOptions
from geoseg.data.cocofile import read_coco, read_results
from geoseg.data.cocowrite import write_coco
from geoseg.data.collect import Collector
from geoseg.data.samples import boxes_of
from geoseg.errors import ConfigError, GeosegWarning, InputNotFoundError, ModelError, ReadError
from geoseg.evaluate import coco_figures
from geoseg.models.spec import BUILDING
from geoseg.stages.base import Tally
from geoseg.stages.pictures import Picture, list_pictures, picture_batches, read_picture
from geoseg.stages.predict_dir import category_id, predict_dir, predict_pictures
from geoseg.stages.predict_dir import load_for_pictures as load
from geoseg.testing import ids_to_rgb
from geoseg.tta import TtaOptions
from tests.cli_support import ORACLE, assert_one_line, call, snapshot, succeed, town

SEES = ModelOptions(name="geoseg.testing:oracle", device="cpu")
SLICES = [np.s_[:300, :300], np.s_[:300, 300:], np.s_[300:, :300], np.s_[300:, 300:], np.s_[:90]]


@pytest.fixture
def images(tmp_path):
    """Five painted pictures, the last of another size."""
    folder = tmp_path / "images"
    folder.mkdir()
    for k, part in enumerate(SLICES):
        Image.fromarray(ids_to_rgb(town().ids[part])).save(folder / f"{k + 7:012d}.png")
    return folder


def document(folder, path, *, first_id: int = 7):
    """Write the truth of the pictures."""
    collector = Collector((BUILDING,))
    for k, part in enumerate(SLICES):
        ids = town().ids[part]
        collector.add_image(f"{k + 7:012d}.png", ids.shape, image_id=first_id + k)
        for i in np.unique(ids[ids > 0]):
            collector.add_object(ids == i, boxes_of((ids == i)[None])[0], 1)
    write_coco(path, collector.finish())
    return path


def test_a_model_that_knows_scores_one(images, tmp_path):
    output = tmp_path / "predictions.json"
    tally = predict_dir(images, output, SEES)
    truth = read_coco(document(images, tmp_path / "truth.json"))
    figures = coco_figures(truth, read_results(output, truth))
    assert (figures.ap, figures.challenge_ap50, figures.challenge_ar50) == (1, 1, 1)
    assert (tally.chips, tally.inferred, tally.failed) == (5, 5, [])
    assert tally.detections == len(truth)


@pytest.mark.parametrize("views", ["hflip", "d4"])
def test_a_model_that_knows_scores_one_from_every_side(images, tmp_path, views):
    output = tmp_path / "predictions.json"
    predict_dir(images, output, SEES, tta=TtaOptions(views=views))
    truth = read_coco(document(images, tmp_path / "truth.json"))
    figures = coco_figures(truth, read_results(output, truth))
    assert (figures.ap, figures.challenge_ap50, figures.challenge_ar50) == (1, 1, 1)


def test_results_have_the_challenges_form(images, tmp_path):
    output = tmp_path / "predictions.json"
    predict_dir(images, output, SEES)
    records = json.loads(output.read_text())
    assert {r["image_id"] for r in records} == set(range(7, 12))
    for record in records:
        assert set(record) == {"image_id", "category_id", "score", "segmentation", "bbox"}
        assert (record["category_id"], record["score"]) == (100, 0.9)
        mask = decode_rle(record["segmentation"])
        left, top, width, height = record["bbox"]
        x0, y0, x1, y1 = boxes_of(mask[None])[0].tolist()
        assert (left, top, left + width, top + height) == (x0, y0, x1, y1)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 12, 13])
def test_every_picture_is_predicted_whatever_the_batch(tmp_path, count):
    for k in range(count):
        Image.fromarray(ids_to_rgb(np.full((8, 8), 5, np.int32))).save(tmp_path / f"{k}.png")
    options = ModelOptions(name=SEES.name, device="cpu", batch_size=5)
    predict_dir(tmp_path, tmp_path / "out.json", options)
    found = [r["image_id"] for r in json.loads((tmp_path / "out.json").read_text())]
    assert sorted(found) == list(range(count))


def test_only_the_best_hundred_of_a_picture_are_written(tmp_path):
    ids = np.kron(np.arange(1, 122, dtype=np.int32).reshape(11, 11), np.ones((4, 4), np.int32))
    Image.fromarray(ids_to_rgb(ids)).save(tmp_path / "1.png")
    predict_dir(tmp_path, tmp_path / "out.json", SEES)
    assert len(json.loads((tmp_path / "out.json").read_text())) == 100


def test_nothing_found_is_an_empty_list(tmp_path):
    Image.new("RGB", (20, 30)).save(tmp_path / "1.jpg")
    predict_dir(tmp_path, tmp_path / "out.json", SEES)
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_a_document_gives_ids_and_says_what_is_there(images, tmp_path):
    path = document(images, tmp_path / "truth.json", first_id=500)
    (images / f"{8:012d}.png").unlink()
    Image.new("RGB", (9, 9), (1, 0, 0)).save(images / "unlisted.png")
    tally = predict_dir(images, tmp_path / "out.json", SEES, coco=path)
    found = {r["image_id"] for r in json.loads((tmp_path / "out.json").read_text())}
    assert found == {500, 502, 503, 504}
    ((name, reason),) = tally.failed
    assert name == f"{8:012d}.png"
    assert "no such picture" in reason


@pytest.mark.parametrize("names", [("a.png", "2.png"), ("1.png", "001.jpg")])
def test_names_that_are_no_ids_get_running_numbers_and_it_is_said(tmp_path, names):
    for name in names:
        Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / name)
    with pytest.warns(GeosegWarning, match="running numbers"):
        predict_dir(tmp_path, tmp_path / "out.json", SEES)
    found = [r["image_id"] for r in json.loads((tmp_path / "out.json").read_text())]
    assert sorted(found) == [1, 2]


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("L", "tif"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg"),
     ("CMYK", "tif"), ("LA", "png"), ("RGB", "tif"), ("YCbCr", "jpg"), ("I;16", "png"),
     ("I;16", "tif"), ("F", "tif")],
)  # fmt: skip
def test_pictures_of_any_mode_become_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"x.{suffix}"
    grey = np.full((6, 9), 40_000 if mode == "I;16" else 155, np.uint16 if mode == "I;16" else "u1")
    image = Image.fromarray(grey) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(path)
    pixels, valid = read_picture(path)
    assert (pixels.shape, pixels.dtype) == ((3, 6, 9), np.uint8)
    assert valid.all()
    expected = 255 if mode == "1" else 155
    if mode != "1":  # dithered
        assert np.abs(pixels.astype(int) - expected).max() <= 3
    assert (pixels[0] == pixels[2]).all()


def test_transparent_pixels_are_zero_and_not_valid(tmp_path):
    rgba = np.full((4, 5, 4), 200, np.uint8)
    rgba[:2, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "x.png")
    pixels, valid = read_picture(tmp_path / "x.png")
    assert not valid[:2].any()
    assert valid[2:].all()
    assert not pixels[:, :2].any()


def test_rasters_of_many_bands_show_their_first_three(tmp_path):
    bands = np.arange(6 * 7 * 8, dtype=np.uint8).reshape(6, 7, 8)
    profile = {"driver": "GTiff", "count": 6, "height": 7, "width": 8, "dtype": "uint8"}
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        raster = rasterio.open(tmp_path / "x.tif", "w", interleave="band", **profile)
    with raster:
        raster.write(bands)
    pixels, _ = read_picture(tmp_path / "x.tif")
    assert (pixels == bands[:3]).all()


@pytest.mark.parametrize("content", [b"", b"no picture at all", "cut"])
def test_damaged_pictures_are_named_and_the_others_predicted(images, tmp_path, content, capsys):
    path = images / f"{9:012d}.png"
    path.write_bytes(path.read_bytes()[:200] if content == "cut" else content)
    outcome = call(capsys, "predict-dir", images, "-o", tmp_path / "out.json", *ORACLE)
    assert outcome.code == 3
    assert path.name in outcome.err
    found = {r["image_id"] for r in json.loads((tmp_path / "out.json").read_text())}
    assert found == {7, 8, 10, 11}


def test_a_folder_of_rubbish_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"rubbish")
    before = snapshot(tmp_path)
    outcome = call(capsys, "predict-dir", folder, "-o", tmp_path / "out.json", *ORACLE)
    assert outcome.code == 1
    assert_one_line(outcome, "1.png", "readable picture")
    assert snapshot(tmp_path) == before


def test_missing_folders_and_bad_outputs_are_one_line(images, tmp_path, capsys):
    out = tmp_path / "out.json"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_line(call(capsys, "predict-dir", tmp_path / "x", "-o", out, *ORACLE), "no folder")
    assert_one_line(call(capsys, "predict-dir", empty, "-o", out, *ORACLE), "at least one picture")
    outcome = call(capsys, "predict-dir", images, "-o", tmp_path / "out.csv", *ORACLE)
    assert outcome.code == 2
    assert_one_line(outcome, ".json")
    path = document(images, tmp_path / "truth.json")
    with pytest.raises(ConfigError, match="is an input"):
        predict_dir(images, path, SEES, coco=path)
    assert not out.exists()


def test_a_failure_on_the_way_leaves_the_old_file(images, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    out.write_text("old")
    monkeypatch.setattr("geoseg.stages.predict_dir.encode_rle", lambda *_: 1 / 0)
    before = snapshot(tmp_path)
    with pytest.raises(ZeroDivisionError):
        predict_dir(images, out, SEES)
    assert snapshot(tmp_path) == before


def test_the_command_says_what_it_did(images, tmp_path, capsys):
    out = tmp_path / "out.json"
    values = succeed(capsys, "predict-dir", images, "-o", out, *ORACLE, "--json").json
    assert (values["chips"], values["inferred"], values["exit_code"]) == (5, 5, 0)
    assert values["outputs"] == [str(out)]


def test_pictures_come_in_order_and_share_batches_only_with_their_size(tmp_path):
    sides = [8, 8, 9, 8, 8, 8, 7]
    for k, side in enumerate(sides):
        Image.new("RGB", (side, 8), (k, 0, 0)).save(tmp_path / f"{k}.png")
    pictures, blame = list_pictures(tmp_path)
    assert blame is None
    batches = list(picture_batches(pictures, batch_size=2, on_error=lambda *_: None))
    assert [len(group) for group, _ in batches] == [2, 1, 2, 1, 1]
    order = [int(batch.images[i, 0].max()) for _, batch in batches for i in range(len(batch))]
    assert order == list(range(7))


def test_a_network_of_ours_sees_pictures_unresized(images):
    predictor = load(ModelOptions(device="cpu", score=0.9))
    seen = []
    forward = predictor.model.module.backbone.forward
    predictor.model.module.backbone.forward = lambda x: (
        seen.append(tuple(x.shape[2:])) or forward(x)
    )
    pictures = list_pictures(images)[0][3:]
    list(predict_pictures(pictures, predictor, tally=Tally()))
    assert seen == [(320, 320), (96, 608)]  # padded to whole cells of 32 px
    seen.clear()
    list(predict_pictures(pictures[1:], predictor, tta=TtaOptions(views="d4"), tally=Tally()))
    assert seen == [(96, 608)] * 4 + [(608, 96)] * 4


def test_labels_that_the_model_does_not_describe_are_refused():
    spec = load(SEES).model.spec
    assert category_id(spec, 1) == 100
    with pytest.raises(ModelError, match="returned 2"):
        category_id(spec, 2)


def test_too_large_or_missing_pictures_are_read_errors(tmp_path, monkeypatch):
    monkeypatch.setattr("geoseg.stages.pictures.MAX_SIDE_PX", 10)
    Image.new("RGB", (11, 4)).save(tmp_path / "1.png")
    with pytest.raises(ReadError, match="more than 10 a side"):
        read_picture(tmp_path / "1.png")
    with pytest.raises(ReadError, match="no such picture"):
        read_picture(tmp_path / "2.png")
    with pytest.raises(InputNotFoundError, match="no folder"):
        list_pictures(tmp_path / "nowhere")
    assert Picture(path=tmp_path / "1.png", image_id=1).name == "1.png"


@pytest.mark.parametrize("count", [3, 4, 5, 6, 15, 16, 17, 18, 40])
def test_no_picture_is_lost_where_reading_ahead_ends(tmp_path, count):
    for k in range(count):
        Image.fromarray(ids_to_rgb(np.full((8, 8), 5, np.int32))).save(tmp_path / f"{k:03d}.png")
    tally = predict_dir(tmp_path, tmp_path / "out.json", SEES)
    found = [r["image_id"] for r in json.loads((tmp_path / "out.json").read_text())]
    assert found == list(range(count))
    assert tally.chips == tally.inferred == count


def test_batches_are_bounded_by_their_pixels(tmp_path, monkeypatch):
    for k in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{k}.png")
    listed, _ = list_pictures(tmp_path)
    for most, sizes in ((200, [3, 2]), (64, [1] * 5), (10, [1] * 5)):
        monkeypatch.setattr("geoseg.stages.pictures.MAX_BATCH_PX", most)
        batches = picture_batches(listed, batch_size=4, on_error=lambda *_: None)
        assert [len(group) for group, _ in batches] == sizes


def test_reading_does_not_run_far_ahead(tmp_path, monkeypatch):
    for k in range(60):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{k:02d}.png")
    begun = []
    monkeypatch.setattr(
        "geoseg.stages.pictures.read_picture", lambda p: begun.append(p) or read_picture(p)
    )
    batches = picture_batches(list_pictures(tmp_path)[0], batch_size=2, on_error=lambda *_: None)
    next(batches)
    assert len(begun) <= 10
    batches.close()


def test_pictures_that_pillow_warns_of_end_no_run(tmp_path):
    """Pillow warns of 90 million pixels, and warnings are errors here."""
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    Image.new("1", (10_000, 9_000)).save(tmp_path / "2.png")
    tally = predict_dir(tmp_path, tmp_path / "out.json", SEES)
    assert [name for name, _ in tally.failed] == ["2.png"]


def test_hidden_files_are_no_pictures(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "4.png")
    (tmp_path / "._4.png").write_bytes(b"of a file system")
    pictures, blame = list_pictures(tmp_path)
    assert blame is None
    assert [p.image_id for p in pictures] == [4]


def test_the_challenges_environment_says_where(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CROWDAI_TEST_IMAGES_PATH", str(images))
    monkeypatch.setenv("CROWDAI_PREDICTIONS_OUTPUT_PATH", str(tmp_path / "env.json"))
    succeed(capsys, "predict-dir", *ORACLE)
    assert (tmp_path / "env.json").is_file()
    succeed(capsys, "predict-dir", images, "-o", tmp_path / "word.json", *ORACLE)
    assert (tmp_path / "word.json").read_text() == (tmp_path / "env.json").read_text()
