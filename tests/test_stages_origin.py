"""Where detections and footprints come from: in and out of JSON, and what it stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import make_grid

from geoseg.errors import FormatError
from geoseg.stages.origin import Origin


def origin() -> Origin:
    return Origin(
        scene_id="ort",
        scene_path="a b.tif",
        grid=make_grid(height=900, width=700),
        labels={1: "building", 7: "tent"},
        model={"name": "m", "sha256": None},
        config={"scene": {"bands": [1, 2, 3]}},
    )


def test_an_origin_survives_json() -> None:
    assert Origin.from_json(origin().to_json()) == origin()


def test_least_scores_and_cuts_are_those_recorded() -> None:
    curve = {"scores": [0, 0.8, 1], "probabilities": [0, 0.4, 1]}
    one = replace(
        origin(),
        model={"name": "m", "calibration": curve},
        config={"model": {"score": 0.2}, "chips": {"size_px": 512, "overlap_px": 64}},
    )
    assert one.is_calibrated
    assert one.least_raw == pytest.approx(0.4)
    assert one.cut == {"size_px": 512, "overlap_px": 64}
    raw = replace(one, config={"model": {"score": 0.2, "calibrate": False}})
    assert (raw.is_calibrated, raw.least_raw, raw.cut) == (False, 0.2, None)


@pytest.mark.parametrize(
    "changes", [{"name": "n"}, {"version": "2"}, {"sha256": "ab"}, {"mask_scores": True}]
)
def test_other_weights_and_another_way_to_score_are_another_network(changes: dict) -> None:
    one = origin()
    assert replace(one, config={}).network_id == one.network_id
    assert replace(one, model=one.model | {"mask_scores": False}).network_id == one.network_id
    assert replace(one, model=one.model | changes).network_id != one.network_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "5",
        '{"grid": 1}',
        '{"grid": {"crs": "x"}, "labels": {}}',
        "[" * 9999,
    ],
)
def test_a_damaged_origin_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="damaged"):
        Origin.from_json(text)


@pytest.mark.parametrize("value", [None, [], "x", 3])
@pytest.mark.parametrize("section", ["model", "chips", "morphology"])
def test_a_section_that_holds_nothing_is_refused(section: str, value: object) -> None:
    text = replace(origin(), config={section: value}).to_json()
    with pytest.raises(FormatError, match=rf"damaged.*config\.{section} must be dict"):
        Origin.from_json(text)


@pytest.mark.parametrize("chips", [{"size_px": "300"}, {"overlap_px": 0.5}])
def test_chips_of_no_size_are_refused(chips: dict) -> None:
    with pytest.raises(FormatError, match="damaged"):
        Origin.from_json(replace(origin(), config={"chips": chips}).to_json())
