"""A scene cut into a folder of chips, and the folder read back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from cli_support import snapshot, town, town_pixels, write_scene
from PIL import Image

from geoseg.chips import plan_chips
from geoseg.config import load_config
from geoseg.errors import FormatError, GeosegError, InputNotFoundError, OutputError, ReadError
from geoseg.raster import Scene
from geoseg.stages.chipfolder import ChipFolder
from geoseg.stages.tile import tile


class Counter:
    """Progress that adds up."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, stage: str, total: int) -> None:
        self.total = total

    def advance(self, count: int) -> None:
        self.done += count


def tiled(
    tmp: Path, pixels: np.ndarray | None = None, *, fmt: str = "png", **options: object
) -> Path:
    """Cut the town, or other pixels, and return the folder."""
    nodata = options.pop("nodata", None)
    scene = write_scene(tmp / "s.tif", pixels, nodata=nodata)
    config = load_config(options={key.replace("__", "."): v for key, v in options.items()})
    assert fmt in {"png", "tif"}
    tile(str(scene), tmp / "chips", config, image_format="png" if fmt == "png" else "tif")
    return tmp / "chips"


@pytest.mark.parametrize("fmt", ["png", "tif"])
def test_the_folder_reads_back_as_the_scene(tmp_path: Path, fmt: str) -> None:
    folder = ChipFolder.open(tiled(tmp_path, fmt=fmt))
    grid = town().grid
    assert folder.grid == grid
    assert list(folder.chips) == plan_chips("s", grid)
    assert folder.scene_path == str(tmp_path / "s.tif")
    with Scene.open(folder.scene_path) as scene:
        for chip in folder.chips:
            for mine, its in zip(folder.read_chip(chip), scene.read_chip(chip), strict=True):
                assert np.array_equal(mine, its)


def test_pixels_without_data_stay_so(tmp_path: Path) -> None:
    pixels = town_pixels() + np.uint8(1)
    pixels[:, :, :280] = 0
    folder = ChipFolder.open(tiled(tmp_path, pixels, nodata=0, chips__overlap_px=0))
    names = [chip.name for chip in folder.chips]
    assert names == ["r00000_c00000", "r00000_c00001", "r00001_c00000", "r00001_c00001"]
    _, valid = folder.read_chip(folder.chips[0])
    assert np.array_equal(valid, np.broadcast_to(np.arange(300) >= 280, (300, 300)))
    table = gpd.read_parquet(tmp_path / "chips" / "index.parquet")
    assert table["valid_fraction"].tolist() == pytest.approx([20 / 300, 1, 20 / 300, 1])


def test_chips_without_data_are_left_out_and_progress_reaches_its_end(tmp_path: Path) -> None:
    pixels = town_pixels() + np.uint8(1)
    pixels[:, :, :300] = 0
    scene = write_scene(tmp_path / "s.tif", pixels, nodata=0)
    counter = Counter()
    config = load_config(options={"chips.overlap_px": 0})
    tally = tile(str(scene), tmp_path / "chips", config, progress=counter)
    assert (tally.chips, tally.inferred, tally.skipped) == (4, 2, 2)
    assert (counter.total, counter.done) == (4, 4)
    assert len(list((tmp_path / "chips" / "images").iterdir())) == 2
    assert len(json.loads((tmp_path / "chips" / "annotation.json").read_text())["images"]) == 2


def test_the_index_is_geoparquet_of_the_chips_outlines(tmp_path: Path) -> None:
    table = gpd.read_parquet(tiled(tmp_path) / "index.parquet")
    assert table.crs == town().grid.crs
    assert len(table) == 9
    assert shapely.equals(table.geometry.iloc[0].envelope, table.geometry.iloc[0])
    assert table.total_bounds.tolist() == pytest.approx(list(town().grid.bounds))
    cores = (table["core_height"] * table["core_width"]).sum()
    assert cores == 600 * 600
    assert set(table["crs"]) == {"EPSG:32736"}
    for row in table.itertuples():
        place = rasterio.Affine(*row.transform)
        assert (place.c, place.f) == pytest.approx((row.geometry.bounds[0], row.geometry.bounds[3]))


def test_tiff_chips_know_their_place(tmp_path: Path) -> None:
    folder = ChipFolder.open(tiled(tmp_path, fmt="tif"))
    chip = folder.chips[4]
    with rasterio.open(folder.folder / folder.files[chip.name]) as image:
        assert image.transform.almost_equals(folder.grid.window_grid(chip.window).transform)
        assert image.crs.to_epsg() == 32736


def test_scenes_smaller_than_a_chip_work(tmp_path: Path) -> None:
    folder = ChipFolder.open(tiled(tmp_path, town_pixels()[:, :70, :90]))
    (chip,) = folder.chips
    assert folder.read_chip(chip)[0].shape == (3, 70, 90)


def test_gsd_is_that_of_the_scene_unless_one_is_given(tmp_path: Path) -> None:
    assert ChipFolder.open(tiled(tmp_path / "a")).grid.width == 600
    assert ChipFolder.open(tiled(tmp_path / "b", scene__gsd=0.6)).grid.width == 300


@pytest.mark.parametrize("labels", ["none.geojson", "torn.geojson"])
def test_bad_labels_leave_nothing(tmp_path: Path, labels: str) -> None:
    scene = write_scene(tmp_path / "s.tif")
    (tmp_path / "torn.geojson").write_text('{"type": "FeatureColl')
    before = snapshot(tmp_path)
    with pytest.raises(GeosegError):
        tile(str(scene), tmp_path / "chips", load_config(), labels=str(tmp_path / labels))
    assert snapshot(tmp_path) == before


def test_a_failure_keeps_the_former_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiled(tmp_path)
    before = snapshot(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geoseg.stages.tile.write_index", full)
    with pytest.raises(OutputError, match="No space left"):
        tile(str(tmp_path / "s.tif"), folder, load_config(), overwrite=True)
    assert snapshot(tmp_path) == before


def test_the_former_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiled(tmp_path)
    before = snapshot(tmp_path)
    move = Path.replace

    def stuck(path: Path, target: Path) -> Path:
        if path.name == "chips" and path != folder:
            raise OSError(5, "Input/output error")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", stuck)
    with pytest.raises(OutputError):
        tile(str(tmp_path / "s.tif"), folder, load_config(), overwrite=True)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before


def test_an_index_may_be_filtered_and_shuffled(tmp_path: Path) -> None:
    path = tiled(tmp_path) / "index.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([8, 0, 4]), path)
    names = [chip.name for chip in ChipFolder.open(tmp_path / "chips").chips]
    assert names == ["r00000_c00000", "r00001_c00001", "r00002_c00002"]


def test_a_folder_without_an_index_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="geoseg tile"):
        ChipFolder.open(tmp_path)


@pytest.mark.parametrize(
    "about",
    [
        b"",
        b"[]",
        b"{}",
        b'{"scene_id": "a", "scene_path": "b", "grid": {}}',
        b'{"grid": {"crs": "rubbish", "transform": [1,0,0,0,1,0], "height": 1, "width": 1}}',
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, about: bytes) -> None:
    path = tiled(tmp_path) / "index.parquet"
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"geoseg": about}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(FormatError, match=r"index\.parquet"):
        ChipFolder.open(tmp_path / "chips")


@pytest.mark.parametrize("column", ["row", "core_height", "file_name"])
def test_an_index_without_a_column_is_refused(tmp_path: Path, column: str) -> None:
    path = tiled(tmp_path) / "index.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(FormatError, match=column):
        ChipFolder.open(tmp_path / "chips")


def test_an_index_names_only_images_of_its_folder(tmp_path: Path) -> None:
    folder = tiled(tmp_path)
    Image.new("RGB", (300, 300)).save(tmp_path / "secret.png")
    path = folder / "index.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("file_name")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "images/../../secret.png"):
        names = pa.array([name] * len(table))
        pq.write_table(table.set_column(place, "file_name", names), path)
        with pytest.raises(FormatError, match="folder"):
            ChipFolder.open(folder)


def test_a_chip_of_another_size_is_unreadable(tmp_path: Path) -> None:
    folder = ChipFolder.open(tiled(tmp_path))
    os.replace(  # noqa: PTH105 - both in one line
        folder.folder / folder.files[folder.chips[0].name], tmp_path / "away.png"
    )
    with pytest.raises(ReadError):
        folder.read_chip(folder.chips[0])
    Image.new("RGB", (10, 300)).save(folder.folder / folder.files[folder.chips[0].name])
    with pytest.raises(ReadError, match="300x300"):
        folder.read_chip(folder.chips[0])
