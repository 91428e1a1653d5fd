"""`geoseg calibrate`: maps and outlines in, a spec with a calibration out, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
from builders import make_grid
from cli_support import assert_one_line, call, succeed
from shapely.geometry import box

from geoseg.evaluate.scorefit import fit_score_map
from geoseg.models.spec import BUILDING, ModelSpec
from geoseg.scores import ScoreMap
from geoseg.stages.origin import Origin
from geoseg.vector import FootprintWriter, footprints_info

if TYPE_CHECKING:
    from collections.abc import Callable

GRID = make_grid(height=2000, width=2000)  # 1 km, 0.5 m pixels
SHA = "ab" * 32
MAP = ScoreMap(scores=(0.0, 0.5, 1.0), probabilities=(0.0, 0.2, 1.0))


def write_map(
    folder: Path,
    name: str,
    *,
    seed: int = 0,
    n: int = 300,
    sha256: str | None = SHA,
    calibration: ScoreMap | None = None,
    origin: bool = True,
    mask_scores: bool = False,
    score: float = 0.0,
) -> tuple[Path, Path]:
    """Write squares of random scores, right as often as the squares of these, and their truth."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.02, 0.98, n)
    right = rng.uniform(size=n) < scores**2
    left, top = 500_000.0, 5_000_000.0
    corners = [(left + 5 + 48 * (i % 20), top - 45 - 48 * (i // 20)) for i in range(n)]
    shapes = [box(x, y, x + 20, y + 20) for x, y in corners]
    written = scores if calibration is None else calibration.apply(scores)
    frame = gpd.GeoDataFrame(
        {
            "id": [f"{i:016x}" for i in range(n)],
            "label": "building",
            "score": written,
            "area_m2": 400.0,
            "n_chips": np.ones(n, np.int32),
            "scene": name,
            "touches_edge": False,
        },
        geometry=shapes,
        crs=GRID.crs,
    )
    model = {"sha256": sha256, "calibration": calibration and calibration.to_dict()}
    model |= {"mask_scores": True} if mask_scores else {}  # older maps do not say
    about = Origin(
        scene_id=name,
        scene_path="s.tif",
        grid=GRID,
        labels={},
        model=model,
        config={"model": {"score": score}},
    ).to_json()
    path, truth = folder / f"{name}.parquet", folder / f"{name}.geojson"
    with FootprintWriter(path, crs=GRID.crs, metadata={"origin": about} if origin else {}) as file:
        file.write(frame)
    frame[right][["geometry"]].to_crs("EPSG:4326").to_file(truth)
    return path, truth


def write_spec(folder: Path, **changes: Any) -> Path:
    """Write weights that nobody will load, and their spec."""
    spec = ModelSpec(
        name="mine", architecture="a", categories=(BUILDING,), chip_size_px=300, gsd_range_m=None,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), sha256=SHA, licence="x", attribution=(),
        data="", version="1",
    )  # fmt: skip
    path = folder / "mine.safetensors"
    path.write_bytes(b"weights")
    path.with_suffix(".json").write_text(replace(spec, **changes).to_json())
    return path


def words(*maps: tuple[Path, Path]) -> list[object]:
    return [w for path, truth in maps for w in ("--footprints", path, "--truth", truth)]


def test_a_spec_learns_what_its_scores_stand_for(capsys, tmp_path: Path) -> None:
    maps = [write_map(tmp_path, name, seed=i) for i, name in enumerate("abc")]
    weights = write_spec(tmp_path, default_score_threshold=0.9)
    before = ModelSpec.read(weights.with_suffix(".json"))
    said = succeed(capsys, "calibrate", *words(*maps), "--model", weights, "--json").json
    spec = ModelSpec.read(weights.with_suffix(".json"))
    assert spec.calibration is not None
    at = np.array([0.3, 0.5, 0.7, 0.9])
    assert spec.calibration.apply(at) == pytest.approx(at**2, abs=0.1)
    assert spec.default_score_threshold == said["threshold"]
    assert replace(spec, calibration=None, default_score_threshold=0.9) == before
    families = {k: v["log_loss"] for k, v in said["cross-validated"].items()}
    assert min(families, key=lambda name: families[name]) == said["method"] != "as they are"


def test_maps_of_high_scores_only_are_warned_of(capsys, tmp_path: Path) -> None:
    path, truth = write_map(tmp_path, "a", score=0.6)
    cut = write_map(tmp_path, "b", score=0.6)[0]
    frame = gpd.read_parquet(cut)
    with FootprintWriter(cut, crs=GRID.crs, metadata=footprints_info(path).metadata) as file:
        file.write(frame[frame["score"] >= 0.6])
    done = call(capsys, "calibrate", *words((cut, truth)), "--method", "logistic", "--json")
    assert done.code == 0
    assert "only what the network scores 0.60 or more" in done.err
    found = ScoreMap.from_dict(
        {
            "scores": [float(s) for s in done.json["calibration"]],
            "probabilities": list(done.json["calibration"].values()),
        }
    )
    assert done.json["threshold"] >= found.apply(0.6) - 1e-3


def test_without_a_model_nothing_is_written(capsys, tmp_path: Path) -> None:
    maps = [write_map(tmp_path, name, seed=i) for i, name in enumerate("ab")]
    before = sorted(tmp_path.iterdir())
    text = succeed(capsys, "calibrate", *words(*maps)).out
    assert "threshold: 0." in text
    assert sorted(tmp_path.iterdir()) == before


def test_maps_with_calibrated_scores_are_turned_back_first(capsys, tmp_path: Path) -> None:
    """The same map with a calibration on it or not gives the same answer."""
    answers = []
    for name, on in (("plain", None), ("mapped", MAP)):
        folder = tmp_path / name
        folder.mkdir()
        maps = [write_map(folder, n, seed=i, calibration=on) for i, n in enumerate("ab")]
        found = succeed(capsys, "calibrate", *words(*maps), "--method", "logistic", "--json").json
        answers.append(found["calibration"])
    assert list(answers[0].values()) == pytest.approx(list(answers[1].values()), abs=1e-4)


def test_only_the_part_asked_for_counts(capsys, tmp_path: Path) -> None:
    path, truth = write_map(tmp_path, "a", n=400)
    frame = gpd.read_parquet(path)
    north = frame.geometry.centroid.y > 5_000_000 - 500
    rights = gpd.read_file(truth).to_crs(GRID.crs)
    right = frame.geometry.centroid.buffer(1).intersects(rights.union_all()).to_numpy()
    common = ("--method", "isotonic", "--json")
    found = succeed(
        capsys, "calibrate", *words((path, truth)), "--within", "0,0,1,0.5", *common
    ).json
    counts = f"{north.sum()}, {right[north].sum()}, {right[north].sum()}"
    assert found["footprints, right, buildings"] == {"map 1": counts}
    expected = fit_score_map(frame["score"].to_numpy()[north], right[north], method="isotonic")
    assert list(found["calibration"].values()) == pytest.approx(expected.probabilities)
    area = tmp_path / "north.gpkg"
    gpd.GeoDataFrame(geometry=[box(500_000, 4_999_500, 501_000, 5_000_000)], crs=GRID.crs).to_file(
        area
    )
    again = succeed(capsys, "calibrate", *words((path, truth)), "--within", area, *common).json
    assert again == found


def rewrite(path: Path, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame]) -> None:
    """Change the rows of a map, as editors do."""
    info = footprints_info(path)
    frame = change(gpd.read_parquet(path))
    with FootprintWriter(path, crs=GRID.crs, metadata=info.metadata) as file:
        file.write(frame)


def test_a_map_on_which_nothing_was_found_counts_for_the_threshold_only(
    capsys, tmp_path: Path
) -> None:
    maps = [write_map(tmp_path, name, seed=i) for i, name in enumerate("abc")]
    words_ = (*words(*maps[:2]), "--json")
    without = succeed(capsys, "calibrate", *words_).json
    rewrite(maps[2][0], lambda frame: frame[:0])
    found = succeed(capsys, "calibrate", *words_, *words(maps[2])).json
    assert found["cross-validated"] == without["cross-validated"]
    assert (found["method"], found["calibration"]) == (without["method"], without["calibration"])
    n_truth = len(gpd.read_file(maps[2][1]))
    assert found["footprints, right, buildings"]["map 3"] == f"0, 0, {n_truth}"
    assert found["f1 at threshold"]["map 3"] == 0
    rewrite(maps[1][0], lambda frame: frame[:0])
    done = call(capsys, "calibrate", *words_, *words(maps[2]))
    assert done.code == 2
    assert_one_line(done, "two maps", "got 1: give more, or name one with --method")


def test_rows_that_nobody_scored_are_left_out(capsys, tmp_path: Path) -> None:
    path, truth = write_map(tmp_path, "a")
    method = ("--method", "isotonic", "--json")
    rewrite(path, lambda frame: frame[3:])
    without = succeed(capsys, "calibrate", *words((path, truth)), *method).json
    path, truth = write_map(tmp_path, "a")
    rewrite(path, lambda frame: frame.assign(score=frame["score"].where(frame.index >= 3)))
    done = call(capsys, "calibrate", *words((path, truth)), *method)
    assert (done.code, done.json) == (0, without)
    assert f"{path}: rows without a score" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("score", [-0.1, 1.5, 87.0, np.inf])
def test_scores_that_are_none_are_refused(capsys, tmp_path: Path, score: float) -> None:
    path, truth = write_map(tmp_path, "a")
    rewrite(path, lambda frame: frame.assign(score=[score, *frame["score"][1:]]))
    done = call(capsys, "calibrate", *words((path, truth)), "--method", "logistic")
    assert done.code == 2
    assert_one_line(done, f"{path}: scores must be in [0, 1], got {score:g}")


@pytest.mark.parametrize(
    ("case", "needle"),
    [
        ("one map", "two maps"),
        ("counts", "one --truth for each"),
        ("part", "LEFT,TOP,RIGHT,BOTTOM"),
        ("nowhere", "does not exist"),
        ("origin", "which model made it"),
        ("mixed", "same weights"),
        ("other weights", "other weights"),
        ("scored differently", "scored alike"),
        ("scored otherwise", "another mask_scores"),
        ("factory", "factory"),
        ("all right", "right and wrong"),
        ("twice", "of different ground"),
    ],
)
def test_what_cannot_be_fitted_is_one_line_and_writes_nothing(
    capsys, tmp_path: Path, case: str, needle: str
) -> None:
    maps = [write_map(tmp_path, name, seed=i, n=40) for i, name in enumerate("ab")]
    weights = write_spec(tmp_path)
    extra: list[object] = ["--model", weights]
    if case == "one map":
        maps = maps[:1]
    elif case == "counts":
        extra += ["--truth", maps[0][1]]
    elif case == "part":
        extra += ["--within", "0,0,2,1", "--within", "all"]
    elif case == "nowhere":
        maps[1] = (maps[1][0], tmp_path / "no.geojson")
    elif case == "origin":
        maps[1] = write_map(tmp_path, "b", n=40, origin=False)
    elif case == "mixed":
        maps[1] = write_map(tmp_path, "b", n=40, sha256="cd" * 32)
    elif case == "other weights":
        weights = write_spec(tmp_path, sha256="cd" * 32)
    elif case == "scored differently":
        maps[1] = write_map(tmp_path, "b", n=40, mask_scores=True)
    elif case == "scored otherwise":
        weights = write_spec(tmp_path, mask_scores=True)
    elif case == "factory":
        extra = ["--model", "geoseg.testing:oracle"]
    elif case == "all right":
        gpd.read_parquet(maps[0][0]).to_file(maps[0][1])
        maps = maps[:1]
        extra += ["--method", "logistic"]
    elif case == "twice":
        maps = [maps[0], maps[0]]
    before = weights.with_suffix(".json").read_bytes()
    done = call(capsys, "calibrate", *words(*maps), *extra)
    assert done.code == 2
    assert_one_line(done, needle)
    assert weights.with_suffix(".json").read_bytes() == before
