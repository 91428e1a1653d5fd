"""Config: the defaults, the file, the assignments, and files that mean harm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geoseg.config import MAX_CONFIG_BYTES, Config, load_config
from geoseg.errors import ConfigError, InputNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [f"{section}.{key}" for section, keys in Config().to_dict().items() for key in keys]


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path | None = None, **words: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(path, **words)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    assert load_config() == Config()
    assert load_config(written(tmp_path, "")) == Config()
    assert load_config(written(tmp_path, "# only a comment")) == Config()
    assert load_config(written(tmp_path, "scene:\nmodel:\n")) == Config()
    assert load_config(options={"model.score": None}) == Config()


def test_defaults_round_trip_through_yaml_and_json(tmp_path: Path) -> None:
    plain = json.loads(json.dumps(Config().to_dict()))
    assert load_config(written(tmp_path, yaml.safe_dump(plain))) == Config()


@given(
    bands=st.none() | st.lists(st.integers(1, 20), min_size=3, max_size=3).map(tuple),
    gsd=st.sampled_from(["auto", "native"]) | st.floats(0.01, 100),
    rescale=st.just("auto") | st.tuples(st.floats(-1e6, 0), st.floats(1, 1e6)),
    score=st.floats(0, 1),
    size_px=st.none() | st.integers(200, 2000),
    aoi=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1),
)
def test_any_config_round_trips(
    bands: Any, gsd: Any, rescale: Any, score: float, size_px: int | None, aoi: str | None
) -> None:
    options = {
        "scene.bands": bands,
        "scene.gsd": gsd,
        "scene.rescale": rescale,
        "scene.aoi": aoi,
        "model.score": score,
        "chips.size_px": size_px,
    }
    config = load_config(options=options)
    plain = json.loads(json.dumps(config.to_dict()))
    again = {f"{s}.{k}": value for s, keys in plain.items() for k, value in keys.items()}
    assert load_config(options=again) == config


def test_later_sources_win(tmp_path: Path) -> None:
    path = written(tmp_path, "model: {score: 0.1, readers: 5}\nchips: {overlap_px: 70}")
    config = load_config(
        path,
        assignments=["model.score=0.2", "chips.overlap_px=80"],
        options={"model.score": 0.3},
    )
    assert (config.model.score, config.chips.overlap_px, config.model.readers) == (0.3, 80, 5)


def test_every_key_refuses_a_value_of_another_kind_by_name() -> None:
    for key in KEYS:
        assert key in refusal(options={key: {"a": {"b": 1}}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scene.bands", [1, 2]),
        ("scene.bands", [0, 1, 2]),
        ("scene.rescale", [2, 1]),
        ("scene.rescale", [0, float("inf")]),
        ("scene.rescale", [float("nan"), 1]),
        ("scene.gsd", -1),
        ("scene.gsd", float("inf")),
        ("chips.size_px", 0),
        ("chips.overlap_px", -1),
        ("model.batch_size", 0),
        ("model.batch_size", 10**9),
        ("model.readers", 0),
        ("model.readers", 10**9),
        ("model.score", 1.01),
        ("model.score", float("nan")),
        ("stitch.agree_iou", 0),
        ("stitch.contain_ios", 2),
        ("stitch.duplicate_ios", float("nan")),
        ("polygonize.tolerance_m", -1),
        ("polygonize.min_area_m2", float("inf")),
    ],
)
def test_values_out_of_range_are_refused_by_name(key: str, value: object) -> None:
    section, _, name = key.partition(".")
    message = refusal(options={key: value})
    assert section in message
    assert name in message


def test_overlap_must_fit_the_size_given() -> None:
    message = refusal(options={"chips.size_px": 50, "chips.overlap_px": 50})
    assert "size_px=50" in message
    assert "overlap_px" in message


@pytest.mark.parametrize(
    ("assignment", "needle"),
    [
        ("score=1", "section.key"),
        ("model.score", "--set"),
        ("model.score.x=1", "section.key"),
        ("=1", "section.key"),
        (".=1", "section.key"),
        ("model.=1", "section.key"),
        ("model.score=[", "YAML"),
        ("modle.score=1", "modle"),
        ("model.scroe=1", "model.scroe"),
        ("model.score=!!python/object/apply:os.getcwd []", "YAML"),
    ],
)
def test_bad_assignments_are_refused(assignment: str, needle: str) -> None:
    assert needle in refusal(assignments=[assignment])


def test_assignments_are_read_as_yaml() -> None:
    config = load_config(assignments=["scene.bands=[3, 2, 1]", "scene.gsd=0.3", "scene.aoi=null"])
    assert config.scene.bands == (3, 2, 1)
    assert config.scene.gsd == 0.3
    assert config.scene.aoi is None


def lines(levels: int, fill: str) -> str:
    """Return a tower of aliases, each holding the one before ten times."""
    rows = [f"a0: &a0 {fill}"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(rows)


def merges(levels: int) -> str:
    """Return a tower of merge keys, which multiply while the file is parsed."""
    rows = ["a0: &a0 {x: 1}"]
    rows += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, levels)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    "text",
    [
        lines(12, "[1]"),
        merges(12),
        "scene: &a {aoi: *a}",
        "model: !!python/object/apply:os.system ['touch pwned']",
        "model: !!python/name:os.system",
        "!!python/object/new:type {}",
        "[" * 30_000,
        "{a: " * 20_000,
        "a: 1\n  b: 2",
        "- a\n- b",
        "just text",
        "12",
        "true",
        "? [1, 2]\n: 3",
        "? {a: b}\n: 3",
        "1: 2",
        "model: {1: 2}",
        "model: {null: 2}",
        "model: [1]",
        "model: 5",
        "2001-99-99",
        "model: {score: " + "9" * 5000 + "}",
        "%YAML 9.9\n---\n",
        "---\na: 1\n---\nb: 2",
        "\x00",
        "model: {name: '\x07'}",
        "a" * (MAX_CONFIG_BYTES + 1),
    ],
    ids=lambda text: text[:24].encode("unicode_escape").decode(),
)
def test_hostile_yaml_is_refused_quickly_and_runs_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(written(tmp_path, text))
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"model:\n  name: \xe9", bytes(range(128, 256))])
def test_files_that_are_no_utf8_are_refused(data: bytes, tmp_path: Path) -> None:
    assert "UTF-8" in refusal(written(tmp_path, data))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_refused(tmp_path_factory: Any, data: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), data)
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either way is right


def test_a_missing_file_and_a_folder_are_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputNotFoundError, match="config"):
            load_config(path)
