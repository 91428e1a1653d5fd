from __future__ import annotations

import json

import pytest
from PIL import Image

from geoseg.testing import write_town
from tests.cli_support import assert_one_line, call, snapshot, succeed, town
from tests.test_stages_train import crowdai


@pytest.fixture
def root(tmp_path):
    return crowdai(tmp_path / "data")


def test_a_sound_data_set_passes(capsys, root):
    done = call(capsys, "data", "check", str(root), "--json")
    assert done.code == 0
    assert json.loads(done.out)["val"]["counts"] == {}


def test_what_is_wrong_is_shown_and_mended(capsys, root, tmp_path):
    (root / "train" / "images" / f"{2:012d}.png").unlink()
    document = str(root / "train" / "annotation.json")
    done = call(capsys, "data", "check", str(root))
    assert done.code == 3
    assert "missing image file" in done.out
    clean = tmp_path / "clean.json"
    assert call(capsys, "data", "check", document, "--fix", str(clean)).code == 3
    images = str(root / "train" / "images")
    assert call(capsys, "data", "check", str(clean), "--images", images).code == 0
    refused = call(capsys, "data", "check", str(root), "--fix", str(clean))
    assert refused.code == 2
    assert "--fix is for one document" in refused.err


@pytest.mark.parametrize(("verb", "option"), [("check", "--fix"), ("dedupe", "--manifest")])
def test_what_is_written_does_not_replace_what_it_is_of(capsys, root, verb, option):
    document = root / "train" / "annotation.json"
    before = document.read_bytes()
    done = call(capsys, "data", verb, str(document), option, str(document))
    assert done.code == 2
    assert "is an input of this run too" in done.err
    assert document.read_bytes() == before


@pytest.mark.parametrize(
    ("verb", "option", "ending"),
    [("check", "--fix", "json"), ("dedupe", "--manifest", "json"), ("stats", "--plot", "png")],
)
def test_where_nothing_can_be_written_nothing_is_read(capsys, tmp_path, verb, option, ending):
    document = tmp_path / "annotation.json"
    document.write_text("no JSON, which takes reading to find out")
    for wrong, words in [
        (tmp_path / "nowhere" / f"out.{ending}", "does not exist"),
        (tmp_path / "out.doc", f"the extension must be one of .{ending}"),
    ]:
        done = call(capsys, "data", verb, str(document), option, str(wrong))
        assert done.code == 2
        assert_one_line(done)
        assert words in done.err


def test_chips_in_folders_keep_their_folders_names(capsys, root, tmp_path):
    images = root / "train" / "images"
    (images / "deep").mkdir()
    document = json.loads((root / "train" / "annotation.json").read_text())
    first, second = document["images"][:2]
    (images / first["file_name"]).rename(images / "deep" / second["file_name"])
    first["file_name"] = f"deep/{second['file_name']}"
    (root / "train" / "annotation.json").write_text(json.dumps(document))
    manifest = tmp_path / "m.json"
    path = str(root / "train" / "annotation.json")
    assert call(capsys, "data", "dedupe", path, "--manifest", str(manifest)).code == 0
    (split,) = json.loads(manifest.read_text())["splits"].values()
    named = {*split["kept"], *split["dropped"]}
    assert named == {image["file_name"] for image in document["images"]}


def test_copies_and_leaks_are_counted(capsys, root, tmp_path):
    manifest = tmp_path / "m.json"
    done = call(capsys, "data", "dedupe", str(root), "--manifest", str(manifest), "--json")
    found = json.loads(done.out)
    assert found["chips"] == {"train": 4, "val": 4}
    assert found["different"] == 4  # both splits hold the same four
    assert found["leaks"] == {"train in val": 4, "val in train": 4}
    assert found["kept"] == {"train": 0, "val": 4}
    assert len(json.loads(manifest.read_text())["splits"]["train"]["dropped"]) == 4


def test_leaks_are_not_left_uncounted_where_val_is_misnamed(capsys, root, tmp_path):
    (root / "val" / "annotation.json").rename(root / "val" / "annots.json")
    done = call(capsys, "data", "dedupe", str(root), "--manifest", str(tmp_path / "m.json"))
    assert done.code == 2
    assert_one_line(done, "no annotations of split 'val'")
    assert not (tmp_path / "m.json").exists()


def test_stats_are_shown(capsys, root, tmp_path):
    done = call(capsys, "data", "stats", str(root), "--gsd", "0.3")
    assert "n_objects: 4" in done.out
    document = str(root / "val" / "annotation.json")
    assert call(capsys, "data", "stats", document, "--plot", str(tmp_path / "p.png")).code == 0
    assert (tmp_path / "p.png").stat().st_size > 5000


@pytest.mark.parametrize("gsd", ["nan", "-1", "0", "inf"])
def test_a_resolution_that_is_none_is_refused(capsys, root, gsd):
    done = call(capsys, "data", "stats", root, f"--gsd={gsd}")
    assert done.code == 2
    assert_one_line(done, "gsd must be more than 0 metres per pixel")


def test_geotiffs_tell_their_resolution(capsys, root, tmp_path):
    assert call(capsys, "data", "stats", root, "--json").json["val"]["gsd_m"] is None
    cut = ("--set", "chips.size_px=300", "--set", "chips.overlap_px=0", "--format", "tif")
    files = write_town(town(), tmp_path / "town")
    succeed(capsys, "tile", files.image, "-o", tmp_path / "own", "--labels", files.truth, *cut)
    (found,) = succeed(
        capsys, "data", "stats", tmp_path / "own" / "annotation.json", "--json"
    ).json.values()
    gsd_m = town().grid.gsd_m
    assert found["gsd_m"] == pytest.approx(dict.fromkeys(("least", "median", "greatest"), gsd_m))
    assert found["side_m"]["50%"] == pytest.approx(found["side_px"]["50%"] * gsd_m)


def test_a_set_without_chips_is_told(capsys, root):
    for split in ("train", "val"):
        document = root / split / "annotation.json"
        empty = json.loads(document.read_text()) | {"images": [], "annotations": []}
        document.write_text(json.dumps(empty))
    for source in (document, root):
        done = call(capsys, "data", "dedupe", source)
        assert done.code == 1
        assert_one_line(done, f"{source}: must list at least one image")


def test_annotations_are_converted(capsys, root, tmp_path):
    document = str(root / "val" / "annotation.json")
    out = tmp_path / "masks"
    words = ("data", "convert", document, "--from", "coco", "--to", "instance-masks")
    assert call(capsys, *words, "-o", str(out)).code == 0
    assert len(list(out.iterdir())) == 4
    images = str(root / "val" / "images")
    back = ("data", "convert", str(out), "--from", "instance-masks", "--images", images)
    done = call(capsys, *back, "-o", str(tmp_path / "c.json"), "--json")
    assert json.loads(done.out)["objects"] == 4


def test_crowds_left_out_of_masks_are_counted(capsys, root, tmp_path):
    path = root / "val" / "annotation.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(document))
    words = ("data", "convert", path, "--from", "coco", "--json")
    done = call(capsys, *words, "--to", "instance-masks", "-o", tmp_path / "masks")
    assert (done.json["objects"], done.json["crowds_left_out"]) == (3, 1)
    done = call(capsys, *words, "-o", tmp_path / "c.json")
    assert (done.json["objects"], "crowds_left_out" in done.json) == (4, False)


def test_converting_replaces_no_input(capsys, root, tmp_path):
    images, document = root / "val" / "images", root / "val" / "annotation.json"
    before = snapshot(root)
    words = ("data", "convert", document, "--from", "coco")
    for more in (("--to", "instance-masks", "-o", images), ("-o", document)):
        done = call(capsys, *words, *more)
        assert done.code == 2
        assert_one_line(done, "is an input of this run too")
    assert snapshot(root) == before


def test_a_document_cannot_name_files_elsewhere(capsys, tmp_path):
    for folder in ("images", "private"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "private" / "photo.png")
    before = snapshot(tmp_path / "private")
    via = tmp_path / "via.json"
    via.write_text(json.dumps({"a": {"filename": "../private/photo.png", "regions": []}}))
    words = ("--from", "via", "--to", "instance-masks", "--images", tmp_path / "images")
    done = call(capsys, "data", "convert", via, *words, "-o", tmp_path / "out")
    assert done.code == 1
    assert_one_line(done, "must be a path inside")
    assert snapshot(tmp_path / "private") == before


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("check", "/no/such/place"), 2, "check the path"),
        (("stats", "/no/such/place.json"), 2, "check the path"),
        (("convert", "x", "-o", "y.json"), 2, "--from"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_wrong_use_is_one_line(capsys, words, code, text):
    done = call(capsys, "data", *words)
    assert done.code == code
    assert text in done.err
    assert len(done.err.strip().splitlines()) == 1
