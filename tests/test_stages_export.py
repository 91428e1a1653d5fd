"""Export: other formats, masks and pictures, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from cli_support import snapshot, town, write_scene
from PIL import Image

from geoseg.config import load_config
from geoseg.errors import ConfigError, FormatError, FormatWarning, InputNotFoundError, OutputError
from geoseg.stages.export import export
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run

if TYPE_CHECKING:
    from pathlib import Path


def mapped(tmp: Path, name: str = "f.parquet") -> Path:
    """Map the town and return its footprints' file."""
    config = load_config(options={"model.name": "geoseg.testing:oracle", "model.device": "cpu"})
    run(str(write_scene(tmp / "s.tif")), OutputPlan(vector=tmp / name), config)
    return tmp / name


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_formats_keep_every_row_and_its_place(tmp_path: Path, suffix: str) -> None:
    source = mapped(tmp_path)
    tally = export(source, OutputPlan(vector=tmp_path / f"o{suffix}"))
    before = gpd.read_parquet(source)
    reader = gpd.read_parquet if suffix == ".parquet" else gpd.read_file
    after = reader(tmp_path / f"o{suffix}").set_index("id").loc[before["id"]]
    assert tally.footprints == len(after) == len(before)
    shared = before.geometry.reset_index(drop=True).symmetric_difference(
        after.geometry.reset_index(drop=True)
    )
    assert shared.area.max() < 1e-6
    assert after["score"].tolist() == before["score"].tolist()


def test_a_shapefile_comes_with_a_warning(tmp_path: Path) -> None:
    source = mapped(tmp_path)
    with pytest.warns(FormatWarning, match="Shapefile"):
        export(source, OutputPlan(vector=tmp_path / "o.shp"))
    assert len(gpd.read_file(tmp_path / "o.shp")) == 71


def test_an_exported_file_still_knows_its_scene(tmp_path: Path) -> None:
    export(mapped(tmp_path), OutputPlan(vector=tmp_path / "o.gpkg"))
    plan = OutputPlan(
        vector=tmp_path / "p.fgb", mask=tmp_path / "m.tif", preview=tmp_path / "p.png"
    )
    export(tmp_path / "o.gpkg", plan)
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert mask.shape == (600, 600)
        assert ((mask.read(1) > 0) != (town().ids > 0)).mean() < 0.01
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (600, 600)


def test_a_file_that_forgot_its_scene_needs_it_given(tmp_path: Path) -> None:
    source = mapped(tmp_path)
    export(source, OutputPlan(vector=tmp_path / "o.fgb"))
    plan = OutputPlan(vector=tmp_path / "p.gpkg", mask=tmp_path / "m.tif")
    before = snapshot(tmp_path)
    with pytest.raises(InputNotFoundError, match="--scene"):
        export(tmp_path / "o.fgb", plan)
    assert snapshot(tmp_path) == before
    export(tmp_path / "o.fgb", plan, scene_path=str(tmp_path / "s.tif"))
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert len(np.unique(mask.read(1))) == 72


def test_a_picture_of_a_lost_scene_leaves_nothing(tmp_path: Path) -> None:
    source = mapped(tmp_path)
    (tmp_path / "s.tif").unlink()
    before = snapshot(tmp_path)
    plan = OutputPlan(vector=tmp_path / "o.gpkg", preview=tmp_path / "p.png")
    with pytest.raises(InputNotFoundError, match="--scene"):
        export(source, plan)
    assert snapshot(tmp_path) == before


def test_probabilities_need_detections(tmp_path: Path) -> None:
    plan = OutputPlan(vector=tmp_path / "o.gpkg", mask=tmp_path / "m.tif", mask_kind="probability")
    with pytest.raises(ConfigError, match="detections"):
        export(mapped(tmp_path), plan)


def test_the_scene_is_never_written_over(tmp_path: Path) -> None:
    source = mapped(tmp_path)
    before = snapshot(tmp_path)
    plan = OutputPlan(vector=tmp_path / "o.gpkg", mask=tmp_path / "s.tif")
    for scene in (None, str(tmp_path / "s.tif")):
        with pytest.raises(ConfigError, match="input"):
            export(source, plan, scene_path=scene)
    assert snapshot(tmp_path) == before


@pytest.mark.filterwarnings("ignore:Non closed ring")  # GDAL's, on the torn row
@pytest.mark.parametrize("suffix", [".geojsonl", ".geojson", ".gpkg", ".fgb", ".parquet"])
def test_torn_rows_leave_nothing_and_keep_the_former_file(tmp_path: Path, suffix: str) -> None:
    source = mapped(tmp_path, f"f{suffix}")
    (tmp_path / "o.gpkg").write_text("former")
    source.write_bytes(source.read_bytes()[:-200])
    before = snapshot(tmp_path)
    with pytest.raises(FormatError, match=r"f\."):
        export(
            source,
            OutputPlan(vector=tmp_path / "o.gpkg", mask=tmp_path / "m.tif"),
            scene_path=str(tmp_path / "s.tif"),
        )
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"vector": "o.doc"}, "extension"),
        ({"mask": "m.jpg"}, ".tif"),
        ({"preview": "p.gif"}, ".png"),
        ({"mask": "no/m.tif"}, "does not exist"),
        ({"preview": "dir.png"}, "folder"),
    ],
)
def test_plans_are_checked_before_work(
    tmp_path: Path, changes: dict[str, str], needle: str
) -> None:
    (tmp_path / "dir.png").mkdir()
    names = {"vector": "o.fgb", **changes}
    plan = OutputPlan(**{key: tmp_path / name for key, name in names.items()})
    with pytest.raises(OutputError, match=needle):
        plan.check()


def test_paths_are_those_asked_for(tmp_path: Path) -> None:
    plan = OutputPlan(vector=tmp_path / "o.fgb", preview=tmp_path / "p.png")
    plan.check()
    assert plan.paths == [tmp_path / "o.fgb", tmp_path / "p.png"]
