"""Work in blocks: one answer for every cut, order, executor and interruption."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from builders import make_grid
from cli_support import ORACLE, break_tiles, town, write_scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg.config import Config, load_config
from geoseg.errors import BusyError, ConfigError, OutputError, ReadError
from geoseg.files import HIDDEN
from geoseg.scores import ScoreMap
from geoseg.stages.base import Silence
from geoseg.stages.blocks.detect import _Predictors
from geoseg.stages.blocks.job import describe, infer_blocks, run_blocks
from geoseg.stages.blocks.plan import SceneJob, levels, regions
from geoseg.stages.blocks.rundir import RunDir, RunManifest
from geoseg.stages.blocks.shards import read_seal
from geoseg.stages.executors import Serial, UnitLostError
from geoseg.stages.infer import infer
from geoseg.stages.origin import Origin
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.stages.store import read_detections
from geoseg.stages.tile import tile
from geoseg.testing import assert_footprints_valid, make_town, write_town

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shuffled:
    """An executor that does its units in any order, and may be killed on the way."""

    def __init__(self, seed: int, *, die_after: int | None = None) -> None:
        self._random = random.Random(seed)
        self._left = die_after

    def map(self, function: Any, units: Any, **_: Any) -> Iterator[Any]:
        units = list(units)
        self._random.shuffle(units)
        for unit in units:
            if self._left is not None:
                if self._left == 0:
                    raise KeyboardInterrupt
                self._left -= 1
            yield unit, function(unit, None)


class Losing(Serial):
    """An executor whose workers die at the unit of one name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def map(self, function: Any, units: Any, **options: Any) -> Iterator[Any]:
        for unit in units:
            if unit.stem == self._name and function.__name__ == "detect":
                yield unit, UnitLostError("its workers died")
            else:
                yield from super().map(function, [unit], **options)


def config(**options: object) -> Config:
    defaults = {
        "model__name": "geoseg.testing:noisy_oracle",
        "model__device": "cpu",
        "chips__size_px": 150,
        "chips__overlap_px": 30,
        "scale__block_chips": 2,
    }
    options = {**defaults, **options}
    return load_config(options={key.replace("__", "."): v for key, v in options.items()})


def map_blocks(scene: Path, out: Path, cfg: Config, executor: Any = None) -> Any:
    plan = OutputPlan(vector=out)
    return run_blocks([str(scene)], [plan], cfg, progress=Silence(), executor=executor)


def rows(path: Path) -> list[tuple[Any, ...]]:
    """Return everything in a file of footprints, sorted, geometry as WKB."""
    frame = gpd.read_parquet(path)
    assert_footprints_valid(frame)
    wkb = frame.geometry.to_wkb()
    return sorted(zip(frame["id"], wkb, *(frame[c] for c in frame.columns[1:-1]), strict=True))


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.startswith(HIDDEN)]


@given(
    seed=st.integers(0, 10_000),
    size_px=st.integers(256, 520),
    chip_px=st.integers(70, 200),
    overlap=st.floats(0.0, 0.45),
    regular=st.booleans(),
    order=st.integers(0, 1000),
    cut=st.integers(0, 30),
)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_one_answer_for_every_cut_order_and_interruption(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    size_px: int,
    chip_px: int,
    overlap: float,
    regular: bool,
    order: int,
    cut: int,
) -> None:
    tmp = tmp_path_factory.mktemp("cut")
    scene = write_town(make_town(size_px=size_px, seed=seed), tmp).ids
    chips = {
        "chips__size_px": chip_px,
        "chips__overlap_px": int(chip_px * overlap),
        "regularize__enabled": regular,
    }
    whole = tmp / "whole.parquet"
    run(str(scene), OutputPlan(vector=whole), config(**chips))
    expected = rows(whole)
    for block_chips in (1, 4, 16):
        out = tmp / f"b{block_chips}.parquet"
        map_blocks(scene, out, config(**chips, scale__block_chips=block_chips), Shuffled(order))
        assert rows(out) == expected, f"blocks of {block_chips} chips a side"
    cfg = config(**chips, scale__block_chips=1, scale__run_dir=str(tmp / "run"))
    out = tmp / "killed.parquet"
    for attempt in range(100):
        try:
            map_blocks(scene, out, cfg, Shuffled(order + attempt, die_after=cut + 5 * attempt))
        except KeyboardInterrupt:
            assert not out.exists()
            continue
        break
    assert rows(out) == expected, "killed and resumed"
    assert leftovers(tmp) == []
    shutil.rmtree(tmp)


def test_files_are_byte_identical_to_those_of_one_process(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    run(str(scene), OutputPlan(vector=tmp_path / "a.parquet"), config())
    map_blocks(scene, tmp_path / "b.parquet", config(), Shuffled(3))
    a, b = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    assert a.equals(b)
    assert a.schema.metadata == b.schema.metadata


@pytest.mark.parametrize("claims", ["none", "score"])
def test_masks_are_refined_once_whatever_the_blocks(tmp_path: Path, claims: str) -> None:
    scene = write_scene(tmp_path / "s.tif")
    steps = {"erode": 1, "close": "0.5m", "dilate": "0.9m", "claims": claims, "score": "mask"}
    refined = {f"morphology__{name}": value for name, value in steps.items()}
    run(str(scene), OutputPlan(vector=tmp_path / "a.parquet"), config())
    run(str(scene), OutputPlan(vector=tmp_path / "b.parquet"), config(**refined))
    plain, expected = rows(tmp_path / "a.parquet"), rows(tmp_path / "b.parquet")
    assert plain != expected
    for block_chips in (1, 2, 3):
        out = tmp_path / f"{block_chips}.parquet"
        map_blocks(scene, out, config(**refined, scale__block_chips=block_chips), Shuffled(5))
        assert rows(out) == expected, f"blocks of {block_chips} chips a side"


def test_regular_outlines_are_byte_identical_to_those_of_one_process(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    cfg = config(regularize__enabled=True, model__name="geoseg.testing:soft_oracle")
    run(str(scene), OutputPlan(vector=tmp_path / "a.parquet"), cfg)
    map_blocks(scene, tmp_path / "b.parquet", cfg, Shuffled(3))
    a, b = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    assert a.equals(b)
    assert a.schema.metadata == b.schema.metadata
    assert sum(a.column("regularized").to_pylist()) > 0
    assert 0 < min(a.column("iou_raw").to_pylist()) < 1


def test_mask_and_picture_are_those_of_one_process(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    outputs = []
    for kind in ("ids", "probability"):
        for way in ("stream", "blocks"):
            folder = tmp_path / kind / way
            folder.mkdir(parents=True)
            plan = OutputPlan(
                vector=folder / "o.parquet",
                mask=folder / "m.tif",
                mask_kind=kind,  # type: ignore[arg-type]
                preview=folder / "p.png",
            )
            if way == "stream":
                run(str(scene), plan, config())
            else:
                run_blocks([str(scene)], [plan], config(), progress=Silence())
            with rasterio.open(folder / "m.tif") as mask:
                outputs.append((mask.read(), (folder / "p.png").read_bytes()))
    for one, other in (outputs[:2], outputs[2:]):
        assert one[0].any()
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]


def test_detections_are_those_of_one_process_in_the_same_order(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    infer(str(scene), tmp_path / "a.parquet", config())
    infer_blocks(str(scene), tmp_path / "b.parquet", config(), progress=Silence())
    pairs = zip(
        read_detections(tmp_path / "a.parquet"),
        read_detections(tmp_path / "b.parquet"),
        strict=True,
    )
    for (chip_a, a), (chip_b, b) in pairs:
        assert chip_a == chip_b
        np.testing.assert_array_equal(a.mask_data, b.mask_data)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_a_folder_of_chips_gives_what_its_scene_gives(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    tile(str(scene), tmp_path / "chips", config())
    map_blocks(scene, tmp_path / "a.parquet", config())
    map_blocks(tmp_path / "chips", tmp_path / "b.parquet", config())
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")


def test_an_area_of_interest_limits_blocks_as_it_limits_chips(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    x0, y0, x1, y1 = town().grid.bounds
    corner = gpd.GeoSeries.from_wkt(
        [f"POINT ({x0 + (x1 - x0) * 0.2} {y0 + (y1 - y0) * 0.2})"], crs=town().grid.crs
    )
    corner.buffer(20).to_file(tmp_path / "aoi.gpkg")
    cfg = config(scene__aoi=str(tmp_path / "aoi.gpkg"), scale__block_chips=1)
    run(str(scene), OutputPlan(vector=tmp_path / "a.parquet"), cfg)
    tally = map_blocks(scene, tmp_path / "b.parquet", cfg)
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    assert 0 < len(rows(tmp_path / "b.parquet")) < 71
    assert tally.chips == tally.inferred < 25


def stages(run_dir: Path) -> dict[str, tuple[int, int]]:
    """Return units done and reused by stage, as the manifest says."""
    manifest = RunManifest.load(run_dir)
    return {name: (stage.done, stage.reused) for name, stage in manifest.stages.items()}


def test_a_rerun_redoes_only_what_reads_what_changed(tmp_path: Path) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    keep = {"scale__run_dir": str(run_dir)}
    map_blocks(scene, tmp_path / "a.parquet", config(**keep))
    first = stages(run_dir)
    n = first["infer"][0]
    assert n > 1
    assert all(reused == 0 for _, reused in first.values())
    map_blocks(scene, tmp_path / "b.parquet", config(**keep))
    assert stages(run_dir) == {name: (0, done) for name, (done, _) in first.items()}
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")

    changed = [
        {"polygonize__min_area_m2": 20.0},
        {"stitch__agree_iou": 0.5},
        {"model__score": 0.6},
        {"morphology__dilate": 1},
        {"regularize__enabled": True},
    ]
    for change in changed:
        map_blocks(scene, tmp_path / "b.parquet", config(**keep, **change))
        assert stages(run_dir)["infer"] == (0, n), change
        assert stages(run_dir)["stitch"] == (n, 0), change
    map_blocks(scene, tmp_path / "b.parquet", config(**keep, model__score=0.3))
    assert stages(run_dir)["infer"] == (n, 0), "detections below .5 were never kept"
    map_blocks(scene, tmp_path / "b.parquet", config(**keep, model__name="geoseg.testing:oracle"))
    assert stages(run_dir)["infer"] == (n, 0), "another model"
    map_blocks(scene, tmp_path / "b.parquet", config(**keep, chips__overlap_px=40))
    assert stages(run_dir)["infer"][1] == 0, "another cut"
    write_scene(scene)
    map_blocks(scene, tmp_path / "b.parquet", config(**keep))
    assert stages(run_dir)["infer"] == (n, 0), "another file"
    for same in ({"model__batch_size": 2}, {"model__readers": 1}, {"scale__block_limit_s": 5.0}):
        map_blocks(scene, tmp_path / "b.parquet", config(**keep, **same))
        assert stages(run_dir)["infer"] == (0, n), same


def test_a_process_that_runs_on_takes_the_threshold_of_a_new_calibration() -> None:
    strict, mild = (
        ScoreMap(scores=(0.0, at, 1.0), probabilities=(0.0, 0.5, 1.0)) for at in (0.8, 0.4)
    )
    predictors = _Predictors()
    least = [
        predictors.get(scene_job(calibration=curve)).score_threshold
        for curve in (strict, mild, mild)
    ]
    assert least == [pytest.approx(0.8), pytest.approx(0.4), pytest.approx(0.4)]
    same = predictors.get(scene_job(calibration=mild))
    assert predictors.get(scene_job(calibration=mild)) is same


def scene_job(*, calibration: ScoreMap) -> SceneJob:
    """Return a scene of which the oracle's scores stand for something."""
    origin = Origin(
        scene_id="s", scene_path="s.tif", grid=make_grid(height=600, width=600), labels={},
        model={"name": ORACLE[1], "calibration": calibration.to_dict()}, config={},
    )  # fmt: skip
    chosen = load_config(options={"model.name": ORACLE[1], "model.device": "cpu"})
    return SceneJob(
        path="s.tif", identity="x", config=chosen, origin=origin, plan=None, shape_chips=(1, 1),
        size_px=300, folder=Path("run"),
    )  # fmt: skip


def test_a_higher_score_filters_kept_detections_to_the_same_footprints(tmp_path: Path) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    map_blocks(scene, tmp_path / "a.parquet", config(scale__run_dir=str(run_dir), model__score=0.1))
    map_blocks(scene, tmp_path / "a.parquet", config(scale__run_dir=str(run_dir), model__score=0.8))
    map_blocks(scene, tmp_path / "b.parquet", config(model__score=0.8))
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "swap", "remove"])
def test_a_damaged_shard_is_redone_not_trusted(tmp_path: Path, damage: str) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    cfg = config(scale__run_dir=str(run_dir))
    map_blocks(scene, tmp_path / "a.parquet", cfg)
    rng = random.Random(damage)
    for kind in ("infer", "footprints"):
        shards = sorted((run_dir / kind).rglob("*.parquet"))
        shard, other = rng.sample(shards, 2)
        data = bytearray(shard.read_bytes())
        if damage == "flip":
            data[rng.randrange(len(data))] ^= 4
        elif damage == "cut":
            data = data[: len(data) // 2]
        elif damage == "empty":
            data = bytearray()
        elif damage == "foreign":
            data = bytearray((tmp_path / "a.parquet").read_bytes())
        elif damage == "swap":
            data = bytearray(other.read_bytes())
        shard.write_bytes(data)
        if damage == "remove":
            shard.unlink()
    map_blocks(scene, tmp_path / "b.parquet", cfg)
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    assert stages(run_dir)["infer"][0] == 1
    assert all(read_seal(path) is not None for path in run_dir.rglob("*.parquet"))


def test_chips_that_cannot_be_read_are_named_and_the_rest_is_mapped(tmp_path: Path) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    good = scene.read_bytes()
    break_tiles(scene, [7])
    run(str(scene), OutputPlan(vector=tmp_path / "a.parquet"), config())
    tally = map_blocks(scene, tmp_path / "b.parquet", config(scale__run_dir=str(run_dir)))
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    assert tally.failed
    manifest = RunManifest.load(run_dir)
    assert [tuple(failure) for failure in manifest.failures] == tally.failed
    assert manifest.stages["infer"].failed >= 1
    with pytest.raises(ReadError, match=r"s\.tif"):
        map_blocks(scene, tmp_path / "c.parquet", config(scale__strict=True))
    assert not (tmp_path / "c.parquet").exists()

    stamp = scene.stat()
    scene.write_bytes(good)
    os.utime(scene, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    tally = map_blocks(scene, tmp_path / "b.parquet", config(scale__run_dir=str(run_dir)))
    assert not tally.failed, "what failed is tried again"
    done, reused = stages(run_dir)["infer"]
    assert done >= 1
    assert reused >= 1


def test_a_scene_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    scene = break_tiles(write_scene(tmp_path / "s.tif"), list(range(25)))
    with pytest.raises(ReadError):
        map_blocks(scene, tmp_path / "b.parquet", config())
    assert not (tmp_path / "b.parquet").exists()


def test_a_block_that_is_lost_is_named_and_done_in_the_next_run(tmp_path: Path) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    map_blocks(scene, tmp_path / "a.parquet", config())
    cfg = config(scale__run_dir=str(run_dir))
    tally = map_blocks(scene, tmp_path / "b.parquet", cfg, Losing("b0001-0001"))
    assert tally.failed == [("block s/b0001-0001", "its workers died")]
    assert 0 < len(rows(tmp_path / "b.parquet")) < len(rows(tmp_path / "a.parquet"))
    assert not map_blocks(scene, tmp_path / "b.parquet", cfg).failed
    assert stages(run_dir)["infer"][0] == 1
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    with pytest.raises(UnitLostError):
        map_blocks(scene, tmp_path / "c.parquet", config(scale__strict=True), Losing("b0001-0001"))


def test_regions_partition_the_chips_at_every_level(tmp_path: Path) -> None:
    scene = describe(str(write_scene(tmp_path / "s.tif")), config(scale__block_chips=1), tmp_path)
    for level in range(levels(scene)):
        places = [
            (row, col) for part in regions(scene, level) for row in part.rows for col in part.cols
        ]
        assert len(places) == len(set(places)) == scene.shape_chips[0] * scene.shape_chips[1]
        if level:
            below = [part.stem for region in regions(scene, level) for part in region.parts()]
            assert sorted(below) == sorted(part.stem for part in regions(scene, level - 1))
    assert len(list(regions(scene, levels(scene) - 1))) == 1


def test_the_run_folder_beside_the_output_goes_when_all_went_well(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif")
    with pytest.raises(KeyboardInterrupt):
        map_blocks(scene, tmp_path / "b.parquet", config(), Shuffled(1, die_after=3))
    left = tmp_path / "b.parquet.run"
    assert RunManifest.load(left).state == "interrupted"
    map_blocks(scene, tmp_path / "b.parquet", config())
    assert not left.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 - a device
def test_a_journal_that_does_not_fit_hides_no_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the first of all"):
        _fail_on_a_full_disk(tmp_path / "run")
    with RunDir(tmp_path / "run", config(), outputs=[]):
        pass


def _fail_on_a_full_disk(folder: Path) -> None:
    with RunDir(folder, config(), outputs=[]) as run_dir:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, run_dir._journal.fileno())
        os.close(full)
        run_dir._journal.write("a line")
        raise OutputError("the first of all")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    scene, folder = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    with RunDir(folder, config(), outputs=[]), pytest.raises(BusyError, match=r"pid \d+ on"):
        map_blocks(scene, tmp_path / "b.parquet", config(scale__run_dir=str(folder)))
    map_blocks(scene, tmp_path / "b.parquet", config(scale__run_dir=str(folder)))


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    scene, folder = write_scene(tmp_path / "s.tif"), tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_text("cat")
    with pytest.raises(OutputError, match="must be new, empty or the folder of a run"):
        map_blocks(scene, tmp_path / "b.parquet", config(scale__run_dir=str(folder)))
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


def test_scenes_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [write_scene(tmp_path / folder / "s.tif") for folder in "ab"]
    plans = [OutputPlan(vector=tmp_path / f"{i}.parquet") for i in range(2)]
    with pytest.raises(ConfigError, match="twice"):
        run_blocks([str(path) for path in paths], plans, config(), progress=Silence())


def test_the_journal_has_a_line_per_unit(tmp_path: Path) -> None:
    scene, run_dir = write_scene(tmp_path / "s.tif"), tmp_path / "run"
    map_blocks(scene, tmp_path / "b.parquet", config(scale__run_dir=str(run_dir)))
    with (run_dir / "blocks.jsonl").open("a") as journal:
        journal.write('{"stage": "inf')  # as a killed run leaves it
    lines = list(RunManifest.units(run_dir))
    units = [line["unit"] for line in lines if line["stage"] == "infer"]
    scene_job = describe(str(scene), config(), run_dir)
    assert sorted(units) == sorted(region.name for region in regions(scene_job, 0))
    assert all(line["seconds"]["infer"] > 0 for line in lines if line["stage"] == "infer")


@pytest.mark.slow
def test_a_real_network_gives_the_same_buildings_in_any_blocks(tmp_path: Path) -> None:
    scene = write_town(make_town(size_px=1000, seed=2), tmp_path).image
    real: dict[str, object] = {"model__name": "maskrcnn_lite0", "chips__size_px": None}
    found = []
    for block_chips, batch_size in ((1, 4), (2, 3), (16, 1)):
        out = tmp_path / f"{block_chips}.parquet"
        cut = {"scale__block_chips": block_chips, "model__batch_size": batch_size}
        map_blocks(scene, out, config(**real, **cut))
        found.append(gpd.read_parquet(out).set_index("id").sort_index())
    first = found[0]
    assert len(first) > 50
    for other in found[1:]:
        assert other.index.equals(first.index)
        apart = first.geometry.hausdorff_distance(other.geometry)
        assert apart.max() < 0.05 * 0.3, "pixels of 0.3 m"
        np.testing.assert_allclose(first["score"], other["score"], atol=1e-4)
