"""Lengths and areas: what is understood, and that all else is refused in a line that names it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import ConfigError, GeosegWarning
from geoseg.morphology import (
    MorphologyOptions,
    parse_area,
    parse_length,
    reach_of,
    warn_of_nothing,
)
from geoseg.morphology.lengths import MAX_RADIUS_PX


@pytest.mark.parametrize(
    ("text", "px"),
    [
        (0, 0),
        (2, 2),
        (2.0, 2),
        ("2", 2),
        ("2px", 2),
        (" 2 px ", 2),
        ("1.5px", 1.5),
        (".5px", 0.5),
        ("0.6m", 2),
        ("1x1", 0),
        ("3x3", 1),
        ("5x5", 2),
        ("0m", 0),
        ("2.", 2),
        ("6e-1m", 2),
    ],
)
def test_lengths_come_to_pixels(text: str | float, px: float) -> None:
    assert parse_length(text, name="erode").to_px(0.3, name="erode") == pytest.approx(px)


@pytest.mark.parametrize(
    ("text", "px"),
    [("14px", 14), ("1.4e1 px", 14), ("4.5m2", 50), ("4.5m²", 50), (0, 0), ("0", 0)],
)
def test_areas_come_to_pixels(text: str | float, px: float) -> None:
    assert parse_area(text, name="min_area").to_px(0.09, name="min_area") == pytest.approx(px)


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("-2px", "0 or more"),
        (-1, "0 or more"),
        ("-0.5m", "0 or more"),
        ("10%", "percentage"),
        ("0.6", "0.6m or 0.6px"),
        (0.6, "0.6m or 0.6px"),
        ("2cm", "2px or 0.6m"),
        ("2m2", "2px or 0.6m"),
        ("px", "2px or 0.6m"),
        ("", "2px or 0.6m"),
        ("1e3", "at most"),
        ("1e", "2px or 0.6m"),
        ("nan", "2px or 0.6m"),
        (float("inf"), "2px or 0.6m"),
        ("٢px", "2px or 0.6m"),
        ("2px\n", None),
        ("2x2", "3x3"),
        ("0x0", "middle pixel"),
        ("3x5", "as high as wide"),
        ("999x999", "at most"),
        (65, "at most"),
        ("9999999999px", "at most"),
        ("1e999px", "2px or 0.6m"),
    ],
)
def test_bad_lengths_are_refused_in_one_line(text: str | float, needle: str | None) -> None:
    if needle is None:
        assert parse_length(text, name="erode").value == 2
        return
    with pytest.raises(ConfigError) as refused:
        parse_length(text, name="erode")
    message = str(refused.value)
    assert message.startswith("erode")
    assert needle in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        (5, "5px or 5m2"),
        ("5", "5px or 5m2"),
        ("5m", "14px or 5m2"),
        ("5%", "percentage"),
        ("-5m2", "0 or more"),
        ("3x3", "14px or 5m2"),
    ],
)
def test_bad_areas_are_refused(text: str | float, needle: str) -> None:
    with pytest.raises(ConfigError, match="min_area") as refused:
        parse_area(text, name="min_area")
    assert needle in str(refused.value)


@given(st.text(max_size=12) | st.floats() | st.integers())
def test_anything_is_a_length_of_0_or_more_or_refused(given_: str | float) -> None:
    try:
        measure = parse_length(given_, name="dilate")
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either way is right
    else:
        assert measure.value >= 0
        assert not measure.is_px or measure.value <= MAX_RADIUS_PX


def test_pictures_have_no_metres() -> None:
    with pytest.raises(ConfigError, match="dilate must be in px here"):
        reach_of(MorphologyOptions(dilate="0.6m"), None)
    with pytest.raises(ConfigError, match="min_area must be in px here"):
        reach_of(MorphologyOptions(min_area="5m2"), None)
    assert reach_of(MorphologyOptions(dilate="2px", erode="0m"), None).dilate == 2


def test_a_radius_in_metres_is_bounded_where_the_pixels_are_known() -> None:
    options = MorphologyOptions(erode="30m")
    with pytest.raises(ConfigError, match="at most 64 px, got 30 m, which is 300 px"):
        reach_of(options, 0.1)
    assert reach_of(options, 1.0).erode == 30


def test_a_radius_below_a_pixel_is_told() -> None:
    with pytest.warns(
        GeosegWarning, match="erode 0.1m: nothing is done below a pixel, which is 0.3 m"
    ):
        warn_of_nothing(MorphologyOptions(erode="0.1m", dilate="3px"), gsd_m=0.3)


@pytest.mark.parametrize(
    ("gsd_m", "px"), [(0.3, 2), (0.29997, 2), (0.30003, 2), (0.25, 2), (0.2, 3)]
)
def test_metres_are_whole_pixels(gsd_m: float, px: int) -> None:
    assert reach_of(MorphologyOptions(dilate="0.6m"), gsd_m).dilate == px


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("duplicate_ios", -0.1),
        ("duplicate_ios", 1.1),
        ("join", float("nan")),
        ("split", 2.0),
        ("small_px", -1.0),
        ("small_px", float("inf")),
    ],
)
def test_options_check_themselves(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        MorphologyOptions(**{name: value})
