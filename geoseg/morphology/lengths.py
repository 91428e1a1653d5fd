"""Lengths and areas as users write them: pixels of the chip, or metres on the ground.

`2` and `2px` are pixels, `0.6m` metres, `5x5` a kernel of that side, which is a radius of 2 px.
Areas are `14px` or `5m2`. What they come to in pixels is known once the ground resolution is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from geoseg.errors import ConfigError

MAX_RADIUS_PX: Final = 64.0
"""Larger radii would pass buildings, and most of a chip."""

_NUMBER: Final = (
    r"(?P<value>(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,2})?)"
)
_LENGTH: Final = re.compile(rf"{_NUMBER}\s*(?P<unit>px|m)?")
_KERNEL: Final = re.compile(r"([0-9]{1,4})x([0-9]{1,4})")
_AREA: Final = re.compile(rf"{_NUMBER}\s*(?P<unit>px|m2|m²)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A length or an area, in the unit it was given in."""

    value: float
    is_px: bool
    """In pixels, or square pixels; otherwise in metres, or square metres."""

    def to_px(self, px_m: float | None, *, name: str) -> float:
        """Return the value in pixels.

        Args:
            px_m: Metres of a pixel, or square metres of one where this is an area; None where
                nothing says how large a pixel is.
            name: What the value is for, for the message.

        Raises:
            ConfigError: It is in metres, and a pixel's size is not known.
        """
        if self.is_px or self.value == 0:
            return self.value
        if px_m is None:
            raise ConfigError(
                f"{name} must be in px here, as pictures do not say how large a pixel is; "
                f"got {self.value:g} in metres"
            )
        return self.value / px_m


def parse_length(given: str | float, *, name: str) -> Measure:
    """Read a radius.

    Args:
        given: As users write it; whole numbers are pixels.
        name: Of the option, for the message.

    Raises:
        ConfigError: It is no length of 0 or more, or has no unit where it needs one.

    Example:
        >>> parse_length("0.6m", name="erode"), parse_length("5x5", name="erode").value
        (Measure(value=0.6, is_px=False), 2.0)
    """
    text = _text(given)
    if kernel := _KERNEL.fullmatch(text):
        return _radius_of_kernel(int(kernel[1]), int(kernel[2]), name)
    found = _match(_LENGTH, text, name, like="2px or 0.6m")
    value = float(found["value"])
    if found["unit"] is None and not value.is_integer():
        raise ConfigError(f"{name} needs a unit: {text}m or {text}px, got {text!r}")
    measure = Measure(value=value, is_px=found["unit"] != "m")
    if measure.is_px and value > MAX_RADIUS_PX:
        raise ConfigError(f"{name} must be at most {MAX_RADIUS_PX:g} px, got {text!r}")
    return measure


def parse_area(
    given: str | float, *, name: str, bare: Literal["px", "m2"] | None = None
) -> Measure:
    """Read an area.

    Args:
        given: As users write it.
        name: Of the option, for the message.
        bare: The unit of a number without one; None asks for a unit.

    Raises:
        ConfigError: It is no area of 0 or more, or has no unit where it needs one.

    Example:
        >>> parse_area("14px", name="min_area")
        Measure(value=14.0, is_px=True)
    """
    text = _text(given)
    found = _match(_AREA, text, name, like="14px or 5m2")
    value, unit = float(found["value"]), found["unit"] or bare
    if unit is None and value > 0:
        raise ConfigError(f"{name} needs a unit: {text}px or {text}m2, got {text!r}")
    return Measure(value=value, is_px=unit in {None, "px"})


def _text(given: str | float) -> str:
    if isinstance(given, float) and given.is_integer():
        return f"{given:.0f}"
    return str(given).strip()


def _match(pattern: re.Pattern[str], text: str, name: str, *, like: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is not None:
        return found
    shown = repr(text[:40])
    if text.startswith("-"):
        raise ConfigError(f"{name} must be 0 or more, got {shown}")
    if text.endswith("%"):
        raise ConfigError(f"{name} must be a size such as {like}, not a percentage; got {shown}")
    raise ConfigError(f"{name} must be a size such as {like}, got {shown}")


def _radius_of_kernel(height: int, width: int, name: str) -> Measure:
    came = f"got {height}x{width}"
    if height != width:
        raise ConfigError(f"{name}: a kernel must be as high as wide, {came}")
    if height % 2 == 0:
        odd = height + 1
        raise ConfigError(f"{name}: a kernel must have a middle pixel, such as {odd}x{odd}; {came}")
    radius = (height - 1) / 2
    if radius > MAX_RADIUS_PX:
        raise ConfigError(f"{name} must be at most {MAX_RADIUS_PX:g} px, {came}")
    return Measure(value=radius, is_px=True)
