from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from geoseg.data.convert import files_read, read_annotations, write_annotations
from geoseg.data.masks import read_mask
from geoseg.errors import ConfigError, FormatError, InputNotFoundError, OutputError, ReadError
from tests.cli_support import snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.data.annotations import Annotations

HEIGHT, WIDTH = 20, 30


def ids() -> np.ndarray:
    """Build three objects; the second and third touch, the first has two parts."""
    values = np.zeros((HEIGHT, WIDTH), np.uint16)
    values[2:6, 2:8] = 300
    values[12:14, 2:4] = 300
    values[4:12, 15:20] = 7
    values[4:12, 20:24] = 9
    return values


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.jpg")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "b.png")
    (folder / "notes.txt").write_text("no chip")
    return folder


def mask_folder(tmp_path: Path, values: np.ndarray, name: str = "masks") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    for stem in "ab":
        Image.fromarray(values).save(folder / f"{stem}.png")
    return folder


def test_instance_masks_come_back_object_by_object(tmp_path, chips):
    folder = mask_folder(tmp_path, ids())
    read = read_annotations(folder, kind="instance-masks", images=chips)
    assert read.images.file_names == ("a.jpg", "b.png")
    assert len(read) == 6
    for i, ident in enumerate((7, 9, 300)):
        np.testing.assert_array_equal(read.object_mask(i), ids() == ident)
    write_annotations(tmp_path / "again", read, kind="instance-masks")
    again = read_mask(tmp_path / "again" / "a.png")
    for number, ident in enumerate((7, 9, 300), 1):
        np.testing.assert_array_equal(again == number, ids() == ident)


def test_semantic_masks_are_split_into_regions(tmp_path, chips):
    folder = mask_folder(tmp_path, np.where(ids() > 0, 255, 0).astype(np.uint8))
    read = read_annotations(folder, kind="semantic-masks", images=chips)
    areas = sorted(read.areas_px2[: len(read) // 2].tolist())
    assert areas == [4, 24, 72]  # the touching ones are one


def voc(values: np.ndarray) -> Image.Image:
    """Build an indexed picture in VOC's colours, of which object 2's green is dark."""
    picture = Image.fromarray(values.astype(np.uint8)).convert("P")
    picture.putdata(values.ravel().tolist())
    picture.putpalette([200, 200, 200, 128, 0, 0, 0, 0, 0, 128, 0, 0])
    return picture


def test_indices_of_a_palette_are_the_ids(tmp_path, chips):
    values = np.unique(ids(), return_inverse=True)[1].reshape(HEIGHT, WIDTH)
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "b.tif"):
        voc(values).save(tmp_path / "masks" / name)
    read = read_annotations(tmp_path / "masks", kind="instance-masks", images=chips)
    for i in range(6):
        np.testing.assert_array_equal(read.object_mask(i), values == i % 3 + 1)
    read = read_annotations(tmp_path / "masks", kind="semantic-masks", images=chips)
    assert sorted(read.areas_px2.tolist()) == [4, 4, 24, 24, 72, 72]


@pytest.mark.parametrize("value", [0.9, -1, float("nan"), 1e30])
def test_values_that_are_no_ids_are_refused(tmp_path, chips, value):
    folder = mask_folder(tmp_path, ids())
    (folder / "a.png").unlink()
    values = np.where(ids() > 0, value, 0)
    kind = np.int32 if value == -1 else np.float32
    Image.fromarray(values.astype(kind)).save(folder / "a.tif")
    for form in ("instance-masks", "semantic-masks"):
        with pytest.raises(FormatError, match=r"a.tif: a mask's values must be whole, 0 or more"):
            read_annotations(folder, kind=form, images=chips)


def test_whole_numbers_in_floats_are_ids(tmp_path):
    Image.fromarray(ids().astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), ids())


def test_crowds_become_no_masks(tmp_path, chips):
    read = read_annotations(mask_folder(tmp_path, ids()), kind="instance-masks", images=chips)
    crowd = np.arange(len(read)) % 3 == 0
    write_annotations(tmp_path / "again", replace(read, crowd=crowd), kind="instance-masks")
    again = read_mask(tmp_path / "again" / "a.png")
    for ident, number in ((7, 0), (9, 1), (300, 2)):
        assert (again[ids() == ident] == number).all()


def test_mask_folders_are_read_one_mask_an_object(tmp_path):
    for name in ("17", "23"):
        folder = tmp_path / "root" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{name}.jpg")
        for n, ident in enumerate((7, 9, 300)):
            mask = np.where(ids() == ident, 255, 0).astype(np.uint8)
            Image.fromarray(mask).save(folder / f"{name}-building-{n}.png")
    read = read_annotations(tmp_path / "root", kind="mask-folders", images=None)
    assert read.images.file_names == ("17/17.jpg", "23/23.jpg")
    np.testing.assert_array_equal(read.object_mask(4), ids() == 9)


POLYGON = {"name": "polygon", "all_points_x": [2, 12, 12, 2], "all_points_y": [3, 3, 9, 9]}
RECT = {"name": "rect", "x": 15, "y": 4, "width": 5, "height": 8}
CIRCLE = {"name": "circle", "cx": 10, "cy": 10, "r": 4}


@pytest.mark.parametrize("form", ["list", "dict", "project"])
def test_all_forms_of_via_are_read(tmp_path, chips, form):
    shapes = [{"shape_attributes": s, "region_attributes": {}} for s in (POLYGON, RECT, CIRCLE)]
    regions = dict(enumerate(shapes)) if form == "dict" else shapes
    tree = {"a.jpg-1": {"filename": "a.jpg", "size": 1, "regions": regions},
            "b.png-1": {"filename": "b.png", "size": 1, "regions": []}}  # fmt: skip
    tree = {"_via_settings": {}, "_via_img_metadata": tree} if form == "project" else tree
    path = tmp_path / "via.json"
    path.write_text(json.dumps(tree))
    read = read_annotations(path, kind="via", images=chips)
    assert read.images.file_names == ("a.jpg", "b.png")
    assert read.image_index.tolist() == [0, 0, 0]
    assert read.object_mask(0)[3:9, 2:12].all()
    assert read.object_mask(0).sum() == 60
    assert read.boxes_xywh[1].tolist() == [15, 4, 5, 8]
    assert read.areas_px2[2] == pytest.approx(np.pi * 16, rel=0.02)
    write_annotations(tmp_path / "coco.json", read, kind="coco")
    again = read_annotations(tmp_path / "coco.json", kind="coco", images=None)
    np.testing.assert_array_equal(again.object_mask(2), read.object_mask(2))


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ([], "an object of files"),
        ({"a": 3}, "entry 'a' must have a filename and regions"),
        ({"a": {"filename": "a.jpg", "regions": 3}}, "must have a filename and regions"),
        ({"a": {"filename": "a.jpg", "regions": [{}]}}, "region 0: must have shape_attributes"),
        (
            {"a": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "star"}}]}},
            r"region 0: shape must be a polygon, rect or circle, got 'star'$",
        ),
        (
            {"a": {"filename": "a.jpg", "regions": [
                {"shape_attributes": POLYGON | {"all_points_y": [1]}}]}},
            "region 0: must have as many all_points_x as all_points_y, got 4 and 1$",
        ),
        (
            {"a": {"filename": "a.jpg", "regions": [
                {"shape_attributes": POLYGON | {"all_points_y": [3, 3, 1e300, 9]}}]}},
            "region 0: all_points_y of a polygon must be pixels within 65536$",
        ),
        (
            {"a": {"filename": "a.jpg", "regions": [
                {"shape_attributes": RECT | {"x": [1]}}]}},
            "region 0: x of a rect must be pixels",
        ),
        (
            {"a": {"filename": "a.jpg", "regions": [
                {"shape_attributes": {"name": "circle", "cx": 4, "cy": 4}}]}},
            "region 0: r of a circle must be pixels",
        ),
        (
            {"a": {"filename": "a.jpg", "regions": [
                {"shape_attributes": RECT | {"x": 40_000, "width": 40_000}}]}},
            "region 0: must lie within 65536 px",
        ),
        (
            {"a": {"filename": "a.jpg", "regions": [
                {"shape_attributes": CIRCLE | {"r": 0}}]}},
            "region 0: must have at least 3 points, got 0",
        ),
        (
            {"a": {"filename": "a.jpg", "regions": []}, "b": {"filename": "a.jpg", "regions": []}},
            "comes twice",
        ),
        ({"a": {"filename": "../a.jpg", "regions": []}}, "'../a.jpg' must be a path inside"),
        ({"a": {"filename": "/etc/a.jpg", "regions": []}}, "must be a path inside"),
        ({"a": {"filename": ".", "regions": []}}, "must be a path inside"),
    ],
)  # fmt: skip
def test_what_is_no_via_is_refused(tmp_path, chips, tree, text):
    path = tmp_path / "via.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(FormatError, match=text) as caught:
        read_annotations(path, kind="via", images=chips)
    assert str(caught.value).count(str(path)) == 1


def test_what_is_missing_or_broken_is_named(tmp_path, chips):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match=r"no mask of a.jpg"):
        read_annotations(tmp_path / "empty", kind="instance-masks", images=chips)
    with pytest.raises(ConfigError, match="needs the folder of images"):
        read_annotations(tmp_path, kind="via", images=None)
    with pytest.raises(ConfigError, match="kind must be one of"):
        read_annotations(tmp_path, kind="guess", images=None)
    read = read_annotations(mask_folder(tmp_path, ids()), kind="instance-masks", images=chips)
    with pytest.raises(ConfigError, match="to must be one of"):
        write_annotations(tmp_path / "x", read, kind="via")
    (tmp_path / "masks" / "a.png").write_bytes(b"torn")
    with pytest.raises(ReadError, match=r"a.png: must be a readable mask"):
        read_annotations(tmp_path / "masks", kind="instance-masks", images=chips)
    Image.fromarray(ids()[:10].astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(FormatError, match=r"a\.png: must be 20x30 px as .*, got 10x30"):
        read_annotations(tmp_path / "masks", kind="instance-masks", images=chips)
    Image.new("L", (30, 10)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(FormatError, match=r"must be 20x30 px as .*, got 10x30"):
        read_annotations(tmp_path / "masks", kind="instance-masks", images=chips)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8) + np.arange(3, dtype=np.uint8)).save(
        tmp_path / "masks" / "a.png"
    )
    with pytest.raises(FormatError, match="must have one band"):
        read_annotations(tmp_path / "masks", kind="instance-masks", images=chips)


def renamed(annotations: Annotations, *names: str) -> Annotations:
    """Return annotations whose first chips have other names."""
    images = annotations.images
    kept = images.file_names[len(names) :]
    return replace(annotations, images=replace(images, file_names=(*names, *kept)))


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("x/a.jpg", "./x//a.tif")])
def test_masks_of_two_chips_are_not_one_file(tmp_path, chips, names):
    read = read_annotations(mask_folder(tmp_path, ids()), kind="instance-masks", images=chips)
    with pytest.raises(FormatError, match=r"the masks of .*a.jpg and .* would both be .*a.png"):
        write_annotations(tmp_path / "out", renamed(read, *names), kind="instance-masks")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["images", "masks", "link"])
def test_masks_replace_nothing_that_is_read(tmp_path, chips, place):
    folder = mask_folder(tmp_path, ids())
    (tmp_path / "link").symlink_to(chips)
    read = read_annotations(folder, kind="instance-masks", images=chips)
    before = snapshot(tmp_path)
    inputs = files_read(folder, read, kind="instance-masks", images=chips)
    with pytest.raises(ConfigError, match=r".png: is an input of this run too"):
        write_annotations(tmp_path / place, read, kind="instance-masks", inputs=inputs)
    assert snapshot(tmp_path) == before


def test_masks_are_written_again_where_they_were(tmp_path, chips):
    folder = mask_folder(tmp_path, ids())
    read = read_annotations(folder, kind="instance-masks", images=chips)
    for _ in range(2):
        inputs = files_read(folder, read, kind="instance-masks", images=chips)
        write_annotations(tmp_path / "out", read, kind="instance-masks", inputs=inputs)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_annotations(tmp_path / "file", read, kind="instance-masks")


def test_files_that_macos_leaves_are_no_chips(tmp_path, chips):
    folder = mask_folder(tmp_path, ids())
    (chips / "._a.jpg").write_bytes(b"no picture")
    read = read_annotations(folder, kind="instance-masks", images=chips)
    assert read.images.file_names == ("a.jpg", "b.png")
    root = tmp_path / "root"
    (root / ".Trashes").mkdir(parents=True)
    (root / "17").mkdir()
    (chips / "a.jpg").rename(root / "17" / "17.jpg")
    (folder / "a.png").rename(root / "17" / "17-building-0.PNG")
    (root / "17" / "._17.jpg").write_bytes(b"no picture")
    (root / "17" / "._17-building-0.png").write_bytes(b"no picture")
    read = read_annotations(root, kind="mask-folders", images=None)
    assert (read.images.file_names, len(read)) == (("17/17.jpg",), 1)


def test_a_chip_that_is_no_picture_is_named(tmp_path, chips):
    folder = mask_folder(tmp_path, ids())
    (chips / "a.jpg").write_bytes(b"no picture")
    for kind in ("instance-masks", "semantic-masks"):
        with pytest.raises(ReadError, match=r"a.jpg: must be a readable image"):
            read_annotations(folder, kind=kind, images=chips)
