from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from geoseg.data.check import check, fix
from geoseg.data.cocofile import read_coco
from geoseg.data.stats import plot_stats, stats
from geoseg.errors import FormatError, InputNotFoundError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

WIDTH, HEIGHT = 30, 20
RUNS = {"size": [20, 30], "counts": [0, 5, 595]}


def square(x: float, y: float, side: float = 6) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(ident: int, **changes) -> dict:
    base = {"id": ident, "image_id": 1, "category_id": 100, "iscrowd": 0, "area": 36,
            "bbox": [2, 3, 6, 6], "segmentation": [square(2, 3)]}  # fmt: skip
    return base | changes


def data_set(folder: Path, annotations: list[dict], **changes) -> tuple[Path, Path]:
    """Write two readable chips and a document."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(images / name)
    document = {
        "images": [
            {"id": i + 1, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(("a.jpg", "b.png"))
        ],
        "categories": [{"id": 100, "name": "building"}],
        "annotations": annotations,
    } | changes
    path = folder / "annotation.json"
    path.write_text(json.dumps(document))
    return path, images


def kinds(folder: Path, *annotations: dict, **changes) -> list[str]:
    return [f.kind for f in check(*data_set(folder, list(annotations), **changes)).findings]


def test_a_sound_data_set_has_no_findings(tmp_path):
    hole = [2, 2, 14, 2, 14, 14, 2, 14, 2, 2, 5, 5, 5, 9, 9, 9, 9, 5, 5, 5, 2, 2]
    good = [
        annotation(1),
        annotation(2, segmentation=[hole], bbox=[2, 2, 12, 12]),
        annotation(3, image_id=2, segmentation=RUNS, bbox=[0, 0, 1, 5]),
        annotation(4, segmentation=[square(0, 0), square(10, 0)], bbox=[0, 0, 16, 6]),
    ]
    assert kinds(tmp_path, *good) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"image_id": 9}, "missing image"),
        ({"category_id": 9}, "missing category"),
        ({"bbox": [2, 3, 0, 6]}, "box without area"),
        ({"bbox": [2, 3, -4, 6]}, "box without area"),
        ({"bbox": [26, 3, 6, 6], "segmentation": [square(26, 3)]}, "box outside"),
        ({"bbox": [-3, 3, 6, 6], "segmentation": [square(-3, 3)]}, "box outside"),
        ({"bbox": [12, 3, 6, 6]}, "box disagrees"),
        ({"segmentation": [[2, 3, 8, 9]]}, "degenerate outline"),
        ({"segmentation": []}, "degenerate outline"),
        ({"segmentation": [[2, 3, 5, 3, 8, 3]], "bbox": [2, 3, 6, 1]}, "outline without area"),
        ({"segmentation": [[2, 3, 8, 9, 8, 3, 2, 9]]}, "outline crosses itself"),
        ({"segmentation": {"size": [20, 30], "counts": [600]}}, "outline without area"),
        ({"bbox": [1, 2]}, "malformed box"),
        ({"segmentation": RUNS, "bbox": [12, 3, 1, 5]}, "box disagrees"),
    ],
)
def test_each_fault_is_found_and_only_it(tmp_path, changes, kind):
    good = annotation(1)
    assert kinds(tmp_path, good, annotation(2, **changes)) == [kind]


def test_runs_without_a_box_have_theirs(tmp_path):
    bare = annotation(1, segmentation=RUNS)
    del bare["bbox"], bare["area"]
    assert kinds(tmp_path, bare) == []


def test_what_is_sound_stays_in_the_clean_copy(tmp_path):
    """Doubled ids, malformed boxes and polygons, nameless categories take no object away."""
    faults = [annotation(0, segmentation=[square(2, y)], bbox=[2, y, 6, 6]) for y in range(9)]
    faults[4] |= {"bbox": "none"}
    faults[5] |= {"segmentation": [square(2, 5), []]}
    path, images = data_set(tmp_path, faults, categories=[{"id": 100, "name": ""}])
    found = fix(path, images, tmp_path / "clean.json")
    assert found.counts() == {
        "duplicate annotation id": 8, "bad category": 1, "malformed box": 1,
        "malformed polygon": 1,
    }  # fmt: skip
    assert check(tmp_path / "clean.json", images).findings == ()
    clean = read_coco(tmp_path / "clean.json")
    assert clean.ids.tolist() == list(range(1, 10))
    assert clean.boxes_xywh[4].tolist() == [2, 4, 6, 6]
    assert clean.categories[0].name == "category 100"


def test_faults_of_images_and_categories_are_found(tmp_path):
    path, images = data_set(tmp_path, [annotation(1)])
    document = json.loads(path.read_text())
    document["images"] += [
        {"id": 3, "file_name": "gone.jpg", "width": 30, "height": 20},
        {"id": 4, "file_name": "torn.jpg", "width": 30, "height": 20},
        {"id": 5, "file_name": "torn.png", "width": 30, "height": 20},
        {"id": 6, "file_name": "other.png", "width": 30, "height": 20},
        {"id": 1, "file_name": "c.png", "width": 30, "height": 20},
        {"id": 7, "file_name": "b.png", "width": 30, "height": 20},
    ]
    document["categories"].append({"id": 101, "name": "shed"})
    path.write_text(json.dumps(document))
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    for name in ("torn.jpg", "torn.png"):
        Image.fromarray(noise).save(images / name)
        (images / name).write_bytes((images / name).read_bytes()[:9000])
    Image.new("RGB", (10, 10)).save(images / "other.png")
    found = check(path, images)
    assert sorted((f.kind, f.image) for f in found.findings) == sorted([
        ("missing image file", "gone.jpg"), ("unreadable image", "torn.jpg"),
        ("unreadable image", "torn.png"), ("size disagrees", "other.png"),
        ("duplicate image id", "c.png"), ("duplicate file name", "b.png"),
        ("empty category", None),
    ], key=str) or sorted(found.counts()) == [
        "duplicate file name", "duplicate image id", "empty category", "missing image file",
        "size disagrees", "unreadable image",
    ]  # fmt: skip
    assert found.counts()["unreadable image"] == 2


def test_a_clean_copy_passes_and_the_original_stays(tmp_path):
    faults = [
        annotation(1),
        annotation(2, segmentation=[[2, 3, 8, 9, 8, 3, 2, 9]]),  # a bow tie: two triangles
        annotation(3, segmentation=[square(26, 3)], bbox=[26, 3, 6, 6]),  # a third is outside
        annotation(4, segmentation=[[2, 3, 8, 9]]),
        annotation(5, bbox=[0, 0, 1, 1]),
        annotation(6, image_id=2),
        annotation(7, image_id=9),
    ]
    path, images = data_set(tmp_path, faults, categories=[
        {"id": 100, "name": "building"}, {"id": 50, "name": "nothing"}])  # fmt: skip
    before = path.read_text()
    (images / "b.png").write_bytes(b"torn")
    fix(path, images, tmp_path / "clean.json")
    assert path.read_text() == before
    assert check(tmp_path / "clean.json", images).counts() == {"empty category": 1}
    clean = read_coco(tmp_path / "clean.json")
    assert clean.images.file_names == ("a.jpg",)
    assert clean.ids.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(clean.areas_px2, [36, 18, 24, 36], rtol=1e-5)
    assert clean.boxes_xywh.tolist() == [[2, 3, 6, 6], [2, 3, 6, 6], [26, 3, 4, 6], [2, 3, 6, 6]]
    assert [c.id for c in clean.categories] == [50, 100], "labels are as in other splits"
    assert clean.labels.tolist() == [2, 2, 2, 2]


def test_bad_paths_are_refused(tmp_path):
    path, images = data_set(tmp_path, [])
    with pytest.raises(InputNotFoundError, match="no folder of images"):
        check(path, tmp_path / "none")
    with pytest.raises(InputNotFoundError):
        check(tmp_path / "none.json", images)
    path.write_text("]")
    with pytest.raises(FormatError):
        check(path, images)
    with pytest.raises(OutputError):
        fix(data_set(tmp_path, [])[0], images, tmp_path / "no" / "folder.json")


def test_stats_count_and_measure(tmp_path):
    path, _ = data_set(tmp_path, [
        annotation(1),
        annotation(2, segmentation=[square(0, 0, 12)], bbox=[0, 0, 12, 12], area=144),
        annotation(3, iscrowd=1),
    ])  # fmt: skip
    found = stats(read_coco(path), gsd_m=0.5)
    assert (found.n_images, found.n_objects, found.n_crowds, found.n_empty_images) == (2, 2, 1, 1)
    assert found.objects_per_image == 1
    assert found.side_px["50%"] == pytest.approx(9)
    assert found.side_m == {k: v * 0.5 for k, v in found.side_px.items()}
    assert found.touching_border == 0.5
    assert found.by_category == {"building": 2}
    apart = stats(read_coco(path), gsd_m=np.array([0.25, np.nan]))
    assert apart.side_m == {k: v * 0.25 for k, v in found.side_px.items()}
    assert apart.gsd_m == {"least": 0.25, "median": 0.25, "greatest": 0.25}
    plot_stats(read_coco(path), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 10
