"""A predictor of several sides: an equivariant network gains nothing from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
from builders import make_chip
from cli_support import ORACLE, assert_one_line, call, succeed, town, town_pixels, write_scene

from geoseg.chips import ChipBatch
from geoseg.models import load_model
from geoseg.predict import Predictor
from geoseg.tta import TtaOptions, ViewsPredictor

if TYPE_CHECKING:
    from pathlib import Path
from tta_support import Bright, batch_of, painted

MERGES = ["mean", "gmean", "max", "min", "median"]


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("views", ["hflip", "d4"])
def test_an_equivariant_network_gains_nothing(views: Any, merge: Any) -> None:
    model = load_model(ORACLE[1], device="cpu", score_threshold=0.5)
    plain = Predictor(model, score_threshold=0.5, batch_size=4)
    options = TtaOptions(views=views, merge=merge)
    pixels = town_pixels()
    images = np.stack([pixels[:, y : y + 300, x : x + 300] for y in (0, 300) for x in (0, 300)])
    chips = tuple(make_chip(col=i) for i in range(4))
    batch = ChipBatch(chips=chips, images=images, valid=np.ones((4, 300, 300), bool))
    several = ViewsPredictor(plain, options, score_threshold=0.5)
    pairs = zip(plain.stream([batch]), several.stream([batch]), strict=True)
    for (chip, one), (same_chip, other) in pairs:
        assert chip == same_chip
        assert len(one) > 5
        assert {m.tobytes() for m in painted(one)} == {m.tobytes() for m in painted(other)}
        np.testing.assert_allclose(other.scores, one.scores[0], rtol=1e-5)
        assert sorted(map(tuple, one.boxes.tolist())) == sorted(map(tuple, other.boxes.tolist()))


def test_each_view_is_one_pass_over_the_batch() -> None:
    counting = Bright()
    squares = [(5, 5, 20, 20), (1, 30, 20, 60), (40, 2, 60, 12)]
    several = ViewsPredictor(counting, TtaOptions(views="d4"), score_threshold=0.5)
    found = dict(several.stream([batch_of(*squares)]))
    assert counting.calls == 8
    assert [chip.col for chip in found] == [0, 1, 2]
    boxes = [tuple(each.mask_boxes[0].tolist()) for each in found.values()]
    assert boxes == squares


def test_views_of_a_scene_smaller_than_a_chip_stay_inside_it(tmp_path: Path, capsys: Any) -> None:
    pixels = town_pixels()[:, :210, :170].copy()
    scene = write_scene(tmp_path / "s.tif", pixels)
    plain, several = tmp_path / "a.parquet", tmp_path / "b.parquet"
    succeed(capsys, "run", scene, "-o", plain, *ORACLE)
    succeed(capsys, "run", scene, "-o", several, *ORACLE, "--tta", "d4")
    a, b = gpd.read_parquet(plain), gpd.read_parquet(several)
    assert len(a) > 3
    assert sorted(a.geometry.to_wkb()) == sorted(b.geometry.to_wkb())


def test_the_oracles_footprints_are_the_same_with_eight_views(tmp_path: Path, capsys: Any) -> None:
    scene = write_scene(tmp_path / "s.tif")
    succeed(capsys, "run", scene, "-o", tmp_path / "a.parquet", *ORACLE)
    words = ("--tta", "d4", "--tta-merge", "gmean")
    succeed(capsys, "run", scene, "-o", tmp_path / "b.parquet", *ORACLE, *words)
    a, b = (gpd.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
    assert len(a) == len(town().truth)
    assert sorted(a.geometry.to_wkb()) == sorted(b.geometry.to_wkb())
    wrong = call(capsys, "run", scene, "-o", tmp_path / "c.parquet", "--set", "tta.agree_iou=0")
    assert wrong.code == 2
    assert_one_line(wrong, "agree_iou must be in (0, 1]")
