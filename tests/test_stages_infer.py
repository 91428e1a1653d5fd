"""Inference as a stream: order, counting, and threads that end with it."""

from __future__ import annotations

import json
import threading
import warnings
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_support import break_tiles, town, town_pixels, write_scene

from geoseg.config import Config, load_config
from geoseg.errors import ConfigError, GeosegWarning, ModelError, ReadError, ResolutionWarning
from geoseg.predict import Predictor
from geoseg.raster import Scene
from geoseg.stages.base import Silence, Tally
from geoseg.stages.blocks.detections import detections_key
from geoseg.stages.blocks.job import describe
from geoseg.stages.blocks.plan import regions
from geoseg.stages.infer import detect, infer, load_predictor, open_work
from geoseg.stages.store import count_detections, detections_origin, read_detections
from geoseg.stages.tile import tile

if TYPE_CHECKING:
    from pathlib import Path


class Counter:
    """Progress that adds up."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, stage: str, total: int) -> None:
        self.total = total

    def advance(self, count: int) -> None:
        self.done += count


def config(**options: object) -> Config:
    options = {"model__name": "geoseg.testing:oracle", "model__device": "cpu", **options}
    return load_config(options={key.replace("__", "."): v for key, v in options.items()})


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("geoseg-")]


def test_detections_come_in_chip_order_with_their_origin(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    counter = Counter()
    tally = infer(str(scene), tmp_path / "d.parquet", config(), progress=counter)
    found = list(read_detections(tmp_path / "d.parquet"))
    places = [(chip.row, chip.col) for chip, _ in found]
    assert places == sorted(places)
    assert tally.detections == count_detections(tmp_path / "d.parquet")
    assert tally.detections == sum(len(d) for _, d in found)
    origin = detections_origin(tmp_path / "d.parquet")
    assert origin.labels == {1: "building"}
    assert origin.grid == town().grid
    asked = config().recorded()
    assert origin.config == asked | {
        "model": {**asked["model"], "score": 0.5},
        "chips": {"size_px": 300, "overlap_px": 60},
    }
    assert (counter.total, counter.done) == (9, 9)
    assert readers() == []


def test_what_an_oracle_finds_is_what_is_painted(tmp_path: Path) -> None:
    infer(str(write_scene(tmp_path / "s.tif")), tmp_path / "d.parquet", config())
    seen = np.zeros((600, 600), bool)
    for chip, detections in read_detections(tmp_path / "d.parquet"):
        part = seen[chip.window.slices]
        for (x0, y0, x1, y1), mask in zip(
            detections.mask_boxes.tolist(), detections.masks(), strict=True
        ):
            part[y0:y1, x0:x1] |= mask >= 128
    assert np.array_equal(seen, town().ids > 0)


def test_areas_of_chips_add_up_to_the_scene(tmp_path: Path) -> None:
    tally = infer(str(write_scene(tmp_path / "s.tif")), tmp_path / "d.parquet", config())
    assert tally.area_m2 == pytest.approx((600 * town().grid.gsd_m) ** 2, rel=1e-3)


def test_progress_reaches_its_end_over_gaps_and_failures(tmp_path: Path) -> None:
    pixels = town_pixels() + np.uint8(1)
    pixels[:, 300:, 300:] = 0
    scene = break_tiles(write_scene(tmp_path / "s.tif", pixels, nodata=0), [0])
    counter = Counter()
    cfg = config(chips__overlap_px=0, model__name="geoseg.testing:blank")
    tally = infer(str(scene), tmp_path / "d.parquet", cfg, progress=counter)
    assert (tally.chips, tally.inferred, tally.skipped, len(tally.failed)) == (4, 2, 1, 1)
    assert counter.done == counter.total == 4


def test_readers_end_when_the_stream_is_left(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    with ExitStack() as stack:
        work = open_work(str(scene), config(), stack)
        predictor = load_predictor(config(model__batch_size=1), size_px=work.size_px)
        stream = detect(work, predictor, config(), Tally(), Silence())
        next(stream)
        assert readers()
        stream.close()
        assert readers() == []


def test_readers_end_before_the_scene_when_the_model_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    alive: list[list[str]] = []
    close = Scene.close

    def closing(scene: Scene) -> None:
        alive.append(readers())
        close(scene)

    def broken(self: Predictor, batch: object) -> None:
        raise ModelError("broken")

    scene = write_scene(tmp_path / "s.tif")
    monkeypatch.setattr(Scene, "close", closing)
    monkeypatch.setattr(Predictor, "predict", broken)
    with pytest.raises(ModelError, match="broken"):
        infer(str(scene), tmp_path / "d.parquet", config(model__batch_size=1))
    assert alive
    assert alive[-1] == []
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]


def test_no_chip_readable_is_an_error(tmp_path: Path) -> None:
    scene = break_tiles(write_scene(tmp_path / "s.tif"), [*range(25)])
    with pytest.raises(ReadError):
        infer(str(scene), tmp_path / "d.parquet", config())
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]


def test_chips_of_a_resolution_the_model_does_not_know_are_told(tmp_path: Path) -> None:
    pixels = np.zeros((3, 40, 40), np.uint8)
    transform = town().grid.transform
    coarse = type(transform)(3, 0, transform.c, 0, -3, transform.f)
    scene = write_scene(tmp_path / "s.tif", pixels, transform=coarse)
    tile(str(scene), tmp_path / "chips", load_config())
    with ExitStack() as stack, pytest.warns(ResolutionWarning, match="chips"):
        open_work(str(tmp_path / "chips"), config(model__name="maskrcnn_lite0"), stack)


def test_chips_are_as_they_were_cut(tmp_path: Path) -> None:
    tile(str(write_scene(tmp_path / "s.tif")), tmp_path / "chips", load_config())
    with ExitStack() as stack, pytest.warns(GeosegWarning, match="geoseg tile"):
        open_work(str(tmp_path / "chips"), config(scene__gsd=0.5), stack)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_work(str(tmp_path / "chips"), config(), stack).chips) == 9


def test_how_the_chips_were_cut_is_recorded_streaming_or_in_blocks(tmp_path: Path) -> None:
    scene, folder = str(write_scene(tmp_path / "s.tif")), tmp_path / "chips"
    as_cut = {"size_px": 200, "overlap_px": 40}
    tile(scene, folder, load_config(options={f"chips.{k}": v for k, v in as_cut.items()}))
    asked = config(chips__overlap_px=30)
    for path, cut in ((scene, {"size_px": 300, "overlap_px": 30}), (str(folder), as_cut)):
        with ExitStack() as stack:
            origin = open_work(path, asked, stack).origin
        assert origin.cut == cut
        job = describe(path, asked, tmp_path / "run")
        assert job.origin == origin
        unrecorded = replace(job, origin=replace(origin, config=asked.recorded()))
        assert unrecorded.origin.cut is None  # as in files that do not say
        keys = {detections_key(next(regions(one, 0))) for one in (job, unrecorded)}
        assert len(keys) == 1


def test_chips_whose_index_does_not_say_how_they_were_cut(tmp_path: Path) -> None:
    folder = tmp_path / "chips"
    tile(str(write_scene(tmp_path / "s.tif")), folder, load_config())
    table = pq.read_table(folder / "index.parquet")
    about = json.loads(table.schema.metadata[b"geoseg"])
    assert about.pop("chips") == {"size_px": 300, "overlap_px": 60}
    older = table.replace_schema_metadata({b"geoseg": json.dumps(about)})
    pq.write_table(older, folder / "index.parquet")
    with ExitStack() as stack:
        assert open_work(str(folder), config(), stack).origin.cut is None


def test_writing_over_the_area_of_interest_is_refused(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    area = tmp_path / "aoi.parquet"
    town().truth.to_parquet(area)
    with pytest.raises(ConfigError, match="input"):
        infer(str(scene), area, config(scene__aoi=str(area)))
