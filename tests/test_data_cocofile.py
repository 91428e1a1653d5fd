from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from geoseg.coco import encode_rle
from geoseg.data.cocofile import read_coco, read_results
from geoseg.data.cocowrite import write_coco, write_results
from geoseg.data.collect import Collector
from geoseg.data.layout import find_split, find_splits
from geoseg.data.manifest import Manifest, SplitChoice, read_manifest, write_manifest
from geoseg.errors import ConfigError, FormatError, InputNotFoundError, OutputError
from geoseg.models.spec import BUILDING
from tests.builders import make_detections, make_window
from tests.test_house import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]


def document(**changes) -> dict:
    """Build a document of two chips: polygons, packed runs, plain runs and a crowd."""
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[4:8, 10:20] = 1
    packed = coco_mask.encode(mask)
    plain = {"size": [20, 30], "counts": [0, 5, 595]}
    found = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 30, "height": 20},
            {"id": 3, "file_name": "a.jpg", "width": 30, "height": 20, "license": 1},
        ],
        "categories": [{"id": 100, "name": "building", "supercategory": "x"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 100, "segmentation": [SQUARE],
             "bbox": [2, 3, 10, 6], "area": 60, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 100, "iscrowd": 0, "area": 40,
             "segmentation": {"size": [20, 30], "counts": packed["counts"].decode()},
             "bbox": [10, 4, 10, 4]},
            {"id": 9, "image_id": 3, "category_id": 100, "segmentation": plain, "iscrowd": 1,
             "bbox": [0, 0, 1, 5], "area": 5},
        ],
    }  # fmt: skip
    return found | changes


def written(folder: Path, value: object, name: str = "annotation.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_all_kinds_of_outlines_are_read(tmp_path):
    read = read_coco(written(tmp_path, document()))
    assert read.images.file_names == ("b.jpg", "a.jpg")
    assert read.images.ids.tolist() == [7, 3]
    assert read.ids.tolist() == [2, 1, 9]
    assert read.image_index.tolist() == [0, 1, 1]
    assert read.crowd.tolist() == [False, False, True]
    assert read.areas_px2.tolist() == [40, 60, 5]
    assert read.boxes_xywh[1].tolist() == [2, 3, 10, 6]
    assert read.categories == (BUILDING,)
    assert read.object_mask(0)[4:8, 10:20].all()
    assert read.object_mask(0).sum() == 40
    assert read.object_mask(2)[:5, 0].all()
    assert [r.tolist() for r in read.segments.rings(1)] == [[[2, 3], [12, 3], [12, 9], [2, 9]]]


def as_bytes(counts: str | bytes) -> bytes:
    return counts.encode() if isinstance(counts, str) else counts


def test_masks_are_pycocotools(tmp_path):
    path = written(tmp_path, document())
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
    read = read_coco(path)
    for i, ident in enumerate(read.ids.tolist()):
        expected = as_bytes(reference.annToRLE(reference.anns[ident])["counts"])
        assert encode_rle(read.object_mask(i))["counts"].encode() == expected


def test_a_document_comes_back_as_it_was_written(tmp_path):
    first = read_coco(written(tmp_path, document()))
    write_coco(tmp_path / "again.json", first, description="twice")
    again = read_coco(tmp_path / "again.json")
    for name in ("ids", "image_index", "labels", "boxes_xywh", "areas_px2", "crowd"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    for i in range(len(first)):
        np.testing.assert_array_equal(again.object_mask(i), first.object_mask(i))
    assert json.loads((tmp_path / "again.json").read_text())["info"]["description"] == "twice"


@pytest.mark.parametrize("ident", [0, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_ids_come_back_as_they_are(tmp_path, ident):
    base = document()
    images = [base["images"][0], base["images"][1] | {"id": ident}]
    annotations = [base["annotations"][0] | {"id": ident, "image_id": ident}]
    path = written(tmp_path, document(images=images, annotations=annotations))
    read = read_coco(path)
    assert (read.ids.tolist(), read.images.ids.tolist()) == ([ident], [7, ident])
    write_coco(tmp_path / "again.json", read)
    again = json.loads((tmp_path / "again.json").read_text())
    assert (again["annotations"][0]["id"], again["annotations"][0]["image_id"]) == (ident, ident)


def test_documents_are_utf8_whatever_the_locale(tmp_path):
    images = [document()["images"][1] | {"file_name": "h\u00fctte.png"}]
    annotations = document()["annotations"][:1]
    path = written(tmp_path, document(images=images, annotations=annotations))
    code = (
        "import sys; from pathlib import Path; from geoseg.data.cocofile import read_coco;"
        "from geoseg.data.cocowrite import write_coco;"
        "write_coco(Path(sys.argv[2]), read_coco(Path(sys.argv[1])))"
    )
    out = tmp_path / "again.json"
    words = [sys.executable, "-X", "utf8=0", "-c", code, str(path), str(out)]
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(words, check=True, env=os.environ | plain, cwd=ROOT)
    assert json.loads(out.read_text(encoding="utf-8"))["images"][0]["file_name"] == "h\u00fctte.png"


def test_a_folder_is_no_output(tmp_path):
    (tmp_path / "again.json").mkdir()
    read = read_coco(written(tmp_path, document()))
    with pytest.raises(OutputError, match=r"again.json: is a folder; give a file name"):
        write_coco(tmp_path / "again.json", read)


def test_many_annotations_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("geoseg.data.cocofile.BLOCK", 7)
    base = document()
    annotations = [base["annotations"][i % 2] | {"id": i + 1} for i in range(40)]
    read = read_coco(written(tmp_path, document(annotations=annotations)))
    assert sorted(read.ids.tolist()) == list(range(1, 41))
    for i in range(40):
        assert read.object_mask(i).sum() == (40 if read.image_index[i] == 0 else 60)


def broken(**changes) -> dict:
    """Build a document whose first annotation is changed."""
    base = document()
    return document(annotations=[base["annotations"][0] | changes, *base["annotations"][1:]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{", "must be a COCO document"),
        ("[]", "must be a COCO document"),
        ("\xff\xfe", "must be a COCO document"),
        ('{"images": []}', "missing required field `categories`"),
        (document(categories=[]), "at least one category"),
        (document(categories=[{"id": 1, "name": ""}]), "bad category: id 1: name must be text"),
        (document(categories=[{"id": 1}]), "bad category: id 1: name must be text"),
        (document(images=document()["images"] * 2), "duplicate image id: 7"),
        (document(images=[{"id": 1, "file_name": "a", "width": 0, "height": 3}]), "bad size"),
        (
            document(images=[{"id": 1, "file_name": "../a", "width": 3, "height": 3}]),
            "must be a path inside",
        ),
        (
            document(images=[{"id": 1, "file_name": "", "width": 3, "height": 3}]),
            "must be a path inside",
        ),
        (document(images=[{"id": 1, "file_name": "a.jpg", "width": 3}]), "malformed image"),
        (broken(image_id=55), "annotation 1: missing image: no image has id 55"),
        (broken(category_id=5), "a.jpg: annotation 1: missing category: no category has id 5"),
        (broken(id=2), "annotation 2: duplicate annotation id"),
        (broken(image_id="x"), "malformed annotation: record 0"),
        (broken(image_id=2**63), "malformed annotation: record 0"),
        (broken(id=2**64), "malformed annotation: record 0"),
        (broken(id=-(10**400)), "malformed annotation: record 0"),
        (broken(category_id=10**400), "malformed annotation: record 0"),
        (
            document(images=[{"id": 2**63, "file_name": "a", "width": 3, "height": 3}]),
            "malformed image: record 0",
        ),
        (document(categories=[{"id": 2**63, "name": "x"}]), "bad category"),
        (broken(segmentation={"size": [20, 30], "counts": [10**400]}), "must fill its size"),
        (broken(bbox=[1, 2, 3]), "malformed box: bbox must be"),
        (broken(bbox=[1, 2, "x", 4]), "malformed box: bbox must be"),
        (broken(bbox=[1, 2, 10**400, 4]), "malformed box: bbox must be"),
        (broken(bbox=[1, 2, 3, 1e400]), "must be a COCO document, got: Infinity at byte"),
        (broken(area=float("nan")), "must be a COCO document, got: NaN at byte"),
        (broken(segmentation=[[1, 2, 3]]), "a polygon must be x, y"),
        (broken(segmentation=[[1e9, 2, 3, 4, 5, 6]]), "finite pixels"),
        (broken(segmentation={"size": [3, 3], "counts": "9"}), "runs must be of 20x30 px"),
        (broken(segmentation={"size": [20, 30], "counts": "0P"}), "RLE"),
        (broken(segmentation={"size": [20, 30], "counts": [1, 2]}), "must fill its size"),
        (broken(segmentation={"size": [20, 30], "counts": [-600, 1200]}), "must fill its size"),
        (broken(segmentation="polygon"), "malformed annotation"),
    ],
)
def test_what_is_malformed_is_named_by_file_and_record(tmp_path, value, text):
    path = written(tmp_path, value)
    with pytest.raises(FormatError, match=re.escape(text)) as caught:
        read_coco(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_findings_are_told_and_the_rest_is_read(tmp_path):
    findings = []
    value = broken(category_id=5)
    value["annotations"].append({"id": 77, "image_id": 99, "category_id": 100})
    read = read_coco(written(tmp_path, value), findings=findings)
    assert read.ids.tolist() == [2, 9]
    assert [(f.kind, f.annotation) for f in findings] == [
        ("missing category", 1),
        ("missing image", 77),
    ]


def test_what_can_be_put_right_is_told_and_read(tmp_path):
    base = document()["annotations"]
    annotations = [a | {"id": 0, "bbox": [{}, 2]} for a in base]
    value = document(annotations=annotations, categories=[{"id": 100, "name": ""}])
    findings = []
    read = read_coco(written(tmp_path, value), findings=findings)
    assert read.ids.tolist() == [0, 0, 0]
    assert read.boxes_xywh.tolist() == [[10, 4, 10, 4], [2, 3, 10, 6], [0, 0, 1, 5]]
    assert [c.name for c in read.categories] == ["category 100"]
    assert sorted(f.kind for f in findings) == [
        "bad category", *["duplicate annotation id"] * 2, *["malformed box"] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["1", "category 1"])
def test_a_nameless_category_gets_no_name_that_another_has(tmp_path, name):
    categories = [{"id": 1, "name": ""}, {"id": 2, "name": name}, {"id": 100, "name": []}]
    findings = []
    read = read_coco(written(tmp_path, document(categories=categories)), findings=findings)
    names = [c.name for c in read.categories]
    assert names[1:] == [name, "category 100"]
    assert names[0].startswith("category 1")
    assert len(set(names)) == 3
    assert [f.kind for f in findings] == ["bad category"] * 2


@pytest.mark.parametrize("ring", [[], [1, 2, 3], [1e9, 2, 3, 4, 5, 6]])
def test_a_malformed_polygon_spoils_no_other_of_its_object(tmp_path, ring):
    findings = []
    path = written(tmp_path, broken(segmentation=[ring, SQUARE]))
    read = read_coco(path, findings=findings)
    assert read.ids.tolist() == [2, 1, 9]
    assert [r.ravel().tolist() for r in read.segments.rings(1)] == [SQUARE]
    assert [(f.kind, f.annotation) for f in findings] == [("malformed polygon", 1)]
    with pytest.raises(FormatError, match="annotation 1: malformed polygon: a polygon"):
        read_coco(path)


def test_an_outline_of_malformed_polygons_alone_is_left_out(tmp_path):
    findings = []
    read = read_coco(written(tmp_path, broken(segmentation=[[], [1, 2, 3]])), findings=findings)
    assert read.ids.tolist() == [2, 9]
    assert [f.kind for f in findings] == ["malformed annotation"]


def test_a_bad_category_spoils_no_other(tmp_path):
    findings = []
    categories = [{"id": -1, "name": "x"}, {"id": 100, "name": "building"}]
    read = read_coco(written(tmp_path, document(categories=categories)), findings=findings)
    assert (read.categories, len(read)) == ((BUILDING,), 3)
    assert [f.kind for f in findings] == ["bad category"]


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps(document()), encoding="utf-8-sig")
    assert len(read_coco(path)) == 3


L_SHAPE = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 7.0, 9.0, 7.0, 6.0, 2.0, 6.0]


def test_boxes_and_areas_that_are_not_given_are_those_of_the_outline(tmp_path):
    base = document()["annotations"]
    bare = [{k: v for k, v in a.items() if k not in {"bbox", "area"}} for a in base]
    bare[0]["segmentation"] = [L_SHAPE]
    bare.append({"id": 11, "image_id": 3, "category_id": 100, "bbox": [1, 1, 2, 4]})
    path = written(tmp_path, document(annotations=bare))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
    read = read_coco(path)
    assert read.areas_px2.tolist() == [40, 45, 5, 8]
    for i, ident in enumerate(read.ids[:3].tolist()):
        rle = reference.annToRLE(reference.anns[ident])
        assert read.areas_px2[i] == coco_mask.area(rle)
        assert read.boxes_xywh[i].tolist() == coco_mask.toBbox(rle).tolist()


@pytest.mark.parametrize("counts", [[600], [600, 0], [5, 0, 595]])
def test_runs_without_a_pixel_have_no_box(tmp_path, counts):
    runs = {"size": [20, 30], "counts": counts}
    value = {"id": 1, "image_id": 3, "category_id": 100, "segmentation": runs}
    read = read_coco(written(tmp_path, document(annotations=[value])))
    assert (read.boxes_xywh.tolist(), read.areas_px2.tolist()) == ([[0, 0, 0, 0]], [0])


def test_a_document_that_is_not_there(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no annotations .*none.json"):
        read_coco(tmp_path / "none.json")


def test_results_come_back_best_first_and_no_more_than_asked(tmp_path):
    collector = Collector((BUILDING,))
    boxes = [(i, 0, i + 5, 6) for i in range(9)]
    scores = [0.1 * i for i in range(1, 10)]
    for name in ("a.png", "b.png"):
        found = make_detections(boxes=boxes, scores=scores, window=make_window(height=20, width=30))
        collector.add_detections(name, found)
    results = collector.finish()
    path = tmp_path / "predictions.json"
    write_results(path, results, most_per_image=4)
    raw = json.loads(path.read_text())
    assert len(raw) == 8
    assert raw[0] == {
        "image_id": 1, "category_id": 100, "score": 0.9, "bbox": [8, 0, 5, 6],
        "segmentation": {"size": [20, 30], "counts": raw[0]["segmentation"]["counts"]},
    }  # fmt: skip
    again = read_results(path, results)
    assert again.scores is not None
    np.testing.assert_allclose(again.scores[:4], [0.9, 0.8, 0.7, 0.6], atol=1e-5)
    assert again.object_mask(0)[0:6, 8:13].all()


@pytest.mark.parametrize("score", [None, 1.5, -0.1])
def test_results_need_a_score(tmp_path, score):
    truth = read_coco(written(tmp_path, document()))
    result = {"image_id": 3, "category_id": 100, "segmentation": [SQUARE], "score": score}
    with pytest.raises(FormatError, match="score must be in"):
        read_results(written(tmp_path, [result], "r.json"), truth)


def results(*kinds: str) -> list[dict]:
    """Build one result a mask, with what of `bbox`, `area` and `segmentation` is asked for."""
    rng = np.random.default_rng(7)
    found = []
    for at in range(6):
        mask = np.zeros((20, 30), np.uint8, order="F")
        top, left = rng.integers(0, 12, 2)
        mask[top : top + 3 + at, left : left + 12] = 1
        mask[top, left] = 0
        packed = coco_mask.encode(mask)
        box = [float(v) for v in coco_mask.toBbox(packed)]
        whole = {
            "bbox": [box[0] + 0.5, box[1], box[2] - 0.5, box[3]],
            "area": 17,
            "segmentation": {"size": [20, 30], "counts": packed["counts"].decode()},
        }
        result = {"id": 0, "image_id": (3, 7)[at % 2], "category_id": 100, "score": 0.9 - at / 10}
        found.append(result | {kind: whole[kind] for kind in kinds})
    return found


@pytest.mark.parametrize(
    "kinds",
    [("segmentation",), ("segmentation", "area"), ("bbox", "segmentation", "area"), ("bbox",)],
)
def test_results_are_loaded_as_pycocotools_loads_them_but_for_areas_of_boxes(tmp_path, kinds):
    path = written(tmp_path, document())
    found = written(tmp_path, results(*kinds), "r.json")
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path)).loadRes(str(found))
    read = read_results(found, read_coco(path))
    assert read.scores is not None
    records = sorted(reference.anns.values(), key=lambda r: (r["image_id"] == 3, -r["score"]))
    for i, record in enumerate(records):
        assert read.scores[i] == pytest.approx(record["score"])
        assert read.boxes_xywh[i].tolist() == list(record["bbox"])
        rle = reference.annToRLE(record)
        assert read.areas_px2[i] == (record["area"] if len(kinds) < 3 else coco_mask.area(rle))
        assert read.rle(i, 20, 30)["counts"] == as_bytes(rle["counts"])


def test_results_of_neither_mask_nor_box_are_refused(tmp_path):
    truth = read_coco(written(tmp_path, document()))
    with pytest.raises(FormatError, match="must have a segmentation or a bbox") as caught:
        read_results(written(tmp_path, results(), "r.json"), truth)
    assert "geoseg data check" not in str(caught.value), "which reads no results"


def test_results_of_other_chips_are_refused(tmp_path):
    truth = read_coco(written(tmp_path, document()))
    result = {"image_id": 4, "category_id": 100, "segmentation": [SQUARE], "score": 0.5}
    with pytest.raises(FormatError, match="no image has id 4"):
        read_results(written(tmp_path, [result], "r.json"), truth)
    with pytest.raises(ConfigError, match="must have scores"):
        write_results(tmp_path / "w.json", truth)
    assert not (tmp_path / "w.json").exists()


# --- folders and manifests ---------------------------------------------------------------------


def test_crowdais_folders_are_found(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        for name in ("annotation.json", "annotation-small.json"):
            (tmp_path / split / name).write_text("{}")
    found = find_split(tmp_path, "val")
    assert found.images == tmp_path / "val" / "images"
    assert found.document == tmp_path / "val" / "annotation.json"
    assert find_split(tmp_path, "train", small=True).document.name == "annotation-small.json"
    assert [s.name for s in find_splits(tmp_path)] == ["train", "val"]


def test_splits_without_annotations_are_passed_over(tmp_path):
    (tmp_path / "test" / "images").mkdir(parents=True)
    with pytest.raises(InputNotFoundError, match=r"no annotations of split 'test': .*must hold"):
        find_splits(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "annotation.json").write_text("{}")
    assert [s.name for s in find_splits(tmp_path)] == ["train"]
    with pytest.raises(InputNotFoundError, match=r"annotation-small.json"):
        find_splits(tmp_path, small=True)
    with pytest.raises(InputNotFoundError, match="no annotations of split 'test'"):
        find_split(tmp_path, "test")


@pytest.mark.parametrize("name", ["train", "val"])
def test_of_splits_only_test_is_passed_over(tmp_path, name):
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "annotation.json").write_text("{}")
    (tmp_path / name / "annotation.json").rename(tmp_path / name / "annots.json")
    with pytest.raises(InputNotFoundError, match=f"no annotations of split '{name}': .*must hold"):
        find_splits(tmp_path)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no annotations of split 'val': .*must hold"):
        find_split(tmp_path, "val")
    with pytest.raises(InputNotFoundError, match="at least one of train, val, test"):
        find_splits(tmp_path)


def test_a_manifest_comes_back(tmp_path):
    choice = SplitChoice(kept=("a.jpg",), dropped={"b.jpg": "copy of train/c.jpg"})
    path = tmp_path / "clean.json"
    write_manifest(path, Manifest(splits={"val": choice}))
    again = read_manifest(path)
    assert again.kept("val") == {"a.jpg"}
    assert again.splits["val"].dropped == choice.dropped
    with pytest.raises(ConfigError, match=r"must hold split 'train', has \['val'\]"):
        again.kept("train")


@pytest.mark.parametrize("text", ["", "[]", '{"splits": {"val": {"kept": 3}}}', "\x00"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    with pytest.raises(FormatError, match="must be a split manifest"):
        read_manifest(written(tmp_path, text))
