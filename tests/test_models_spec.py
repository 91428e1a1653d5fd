"""Model specs: they survive a round trip, and hostile JSON gives one line that names the key."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import ConfigError, FormatError, InputNotFoundError
from geoseg.models.spec import BUILDING, MAX_SPEC_BYTES, Category, ModelSpec
from geoseg.scores import ScoreMap


def make_spec(**changes):
    values = {
        "name": "mine",
        "architecture": "maskrcnn_lite0",
        "categories": (BUILDING,),
        "chip_size_px": 300,
        "gsd_range_m": (0.1, 0.4),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "sha256": "ab" * 32,
        "licence": "CC BY 4.0",
        "attribution": ("A", "B"),
        "data": "a town",
        "version": "1",
    }
    return ModelSpec(**(values | changes))


texts = st.text(min_size=1, max_size=30).filter(str.isprintable)
numbers = st.floats(0.01, 100, allow_nan=False)
triples = st.tuples(numbers, numbers, numbers)

score_maps = st.lists(st.floats(0.01, 0.99), unique=True, max_size=5).map(
    lambda inner: ScoreMap(
        scores=(0.0, *sorted(inner), 1.0), probabilities=(0.0, *(s / 2 for s in sorted(inner)), 1.0)
    )
)


@st.composite
def specs(draw):
    names = draw(st.lists(texts, min_size=1, max_size=4))
    gsd = draw(st.none() | st.tuples(numbers, numbers).map(lambda p: (min(p), max(p))))
    return make_spec(
        name=draw(texts),
        categories=tuple(
            Category(label=i, id=draw(st.integers(0, 2**31 - 1)), name=name)
            for i, name in enumerate(names, start=1)
        ),
        chip_size_px=draw(st.integers(32, 8192)),
        gsd_range_m=gsd,
        mean=draw(triples),
        std=draw(triples),
        sha256=draw(st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)),
        attribution=tuple(draw(st.lists(texts, max_size=3))),
        data=draw(texts),
        default_score_threshold=draw(st.none() | st.floats(0, 1)),
        calibration=draw(st.none() | score_maps),
        mask_scores=draw(st.booleans()),
    )


@given(specs())
def test_spec_survives_json(spec):
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_json(spec.to_json().encode()) == spec


def test_spec_survives_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(make_spec().to_json())
    assert ModelSpec.read(path) == make_spec()


def test_num_classes_counts_background():
    assert make_spec().num_classes == 2


HOSTILE = {
    "name": ["", 3, None, "two\nlines", "bell\x07", "\ud800"],
    "architecture": ["", []],
    "categories": [
        [],
        None,
        "building",
        [3],
        [{"label": 1}],
        [{"label": 2, "id": 1, "name": "a"}],
        [{"label": True, "id": 1, "name": "a"}],
        [{"label": 1, "id": -1, "name": "a"}],
        [{"label": 1, "id": 1, "name": ""}],
    ],
    "chip_size_px": [0, 31, 10**9, 300.0, "300", True, None],
    "gsd_range_m": [[0.4, 0.1], [0.1], [0.1, "x"], 0.3, [-1, 1], [float("nan"), 1.0]],
    "mean": [[0.5, 0.5], [0.5, 0.5, None], 0.5, [float("inf"), 0, 0], [True, 0, 0]],
    "std": [[0, 0.5, 0.5], [-1, 1, 1], [1e-9, 1, 1], {}],
    "sha256": ["", "AB" * 32, "ab" * 31, 5],
    "licence": ["", None],
    "attribution": ["text", [1], [""], ["two\nlines"]],
    "data": [None, "two\nlines"],
    "version": [1, ""],
    "default_score_threshold": [-0.1, 1.1, "0.5", float("nan")],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in HOSTILE.items() for v in vs])
def test_hostile_value_is_one_line_that_names_the_key(tmp_path, key, value):
    values = json.loads(make_spec().to_json()) | {key: value}
    path = tmp_path / "hostile.json"
    path.write_text(json.dumps(values))
    # A category's own keys are named instead of "categories" where they are missing.
    with pytest.raises(FormatError, match=f"hostile.json: .*({key}|category key)") as e:
        ModelSpec.read(path)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400 + len(str(path))


@pytest.mark.parametrize("key", [k for k in HOSTILE if k != "default_score_threshold"])
def test_missing_key_is_named(key):
    values = json.loads(make_spec().to_json())
    del values[key]
    with pytest.raises(FormatError, match=f"'{key}' is missing"):
        ModelSpec.from_json(json.dumps(values))


def test_unknown_and_doubled_keys_are_named():
    text = make_spec().to_json()
    with pytest.raises(FormatError, match="unknown key 'colour'"):
        ModelSpec.from_json(text.replace("{", '{"colour": 1,', 1))
    with pytest.raises(FormatError, match="'name' appears twice"):
        ModelSpec.from_json(text.replace("{", '{"name": "x",', 1))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"3",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"chip_size_px": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_one_line(text):
    with pytest.raises(FormatError, match="bad model spec") as e:
        ModelSpec.from_json(text)
    assert "\n" not in str(e.value)


@given(st.text(string.printable, max_size=80))
def test_no_text_escapes_format_error(text):
    with pytest.raises(FormatError):
        ModelSpec.from_json(text)


def test_oversized_spec_is_not_parsed(tmp_path):
    path = tmp_path / "big.json"
    path.write_bytes(b" " * (MAX_SPEC_BYTES + 1))
    with pytest.raises(FormatError, match="at most"):
        ModelSpec.read(path)


def test_absent_spec_and_folder_are_told_apart(tmp_path):
    with pytest.raises(InputNotFoundError, match="beside"):
        ModelSpec.read(tmp_path / "none.json")
    with pytest.raises(FormatError, match="cannot be read"):
        ModelSpec.read(tmp_path)


def test_constructor_checks_types_that_json_cannot_express():
    with pytest.raises(ConfigError, match="attribution"):
        make_spec(attribution=["a list"])
    with pytest.raises(ConfigError, match="categories"):
        make_spec(categories=(1,))


def test_a_spec_turns_probabilities_into_its_networks_scores():
    halved = ScoreMap(scores=(0.0, 0.8, 1.0), probabilities=(0.0, 0.4, 1.0))
    assert make_spec(calibration=halved).raw_score(0.2) == pytest.approx(0.4)
    assert make_spec().raw_score(0.2) == 0.2
    with pytest.raises(ConfigError, match="calibration"):
        make_spec(calibration={"scores": [0, 1], "probabilities": [0, 1]})


def test_finds_are_scored_by_class_alone_unless_a_spec_says_otherwise():
    values = json.loads(make_spec(mask_scores=True).to_json())
    assert ModelSpec.from_json(json.dumps(values)).mask_scores
    del values["mask_scores"]
    assert not ModelSpec.from_json(json.dumps(values)).mask_scores
    with pytest.raises(FormatError, match="bad model spec: mask_scores must be true or false"):
        ModelSpec.from_json(json.dumps({**values, "mask_scores": 1}))


@pytest.mark.parametrize(
    "value", [3, [], {"scores": [0, 1]}, {"scores": [0, 1], "probabilities": [0, 0.5]}]
)
def test_a_spec_with_a_calibration_that_is_none_names_it(value):
    text = json.dumps({**json.loads(make_spec().to_json()), "calibration": value})
    with pytest.raises(FormatError, match="bad model spec: calibration"):
        ModelSpec.from_json(text)
