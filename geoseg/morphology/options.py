"""What may be done to masks, in the order it is done in, and how far that reaches in pixels."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

from geoseg.errors import ConfigError, GeosegWarning
from geoseg.morphology.lengths import MAX_RADIUS_PX, parse_area, parse_length

RADII = ("erode", "open", "close", "dilate")
OFF = {"masks": "soft", "join": 0, "split": 0, "parts": "keep", "claims": "none", "score": "model"}
"""What steps other than those of radii and areas are called when they are off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MorphologyOptions:
    """Steps on the masks of a chip, before they are stitched. By default duplicates go.

    Radii are pixels of the chip (2 or 2px), metres on the ground (0.6m, to the nearest pixel), or
    kernels (5x5: 2 px).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    masks: Literal["soft", "binary"] = "soft"
    """Work on probabilities, or on masks cut at 0.5 beforehand."""
    duplicate_ios: float = 0.6
    """Of two masks of a label that share this part of the smaller, the weaker goes; 0: none."""
    join: float = 0.0
    """A mask that lies by this share in the faint part (probability 0.2) of one of a higher score
    is a fragment of it, and joins it; 0: none does."""
    split: float = 0.0
    """A mask is cut where it is narrower than this share of the parts that it links; 0: none is."""
    erode: str | float = 0
    """Radius by which masks shrink."""
    open: str | float = 0
    """Radius: what is narrower than twice this goes."""
    close: str | float = 0
    """Radius: gaps narrower than twice this are filled."""
    restore: bool = True
    """Objects that eroding or opening would erase stay as they were."""
    small_px: float = 0.0
    """Side of a square in pixels: objects of less area are not eroded or opened."""
    small: Literal["spared", "grown"] = "spared"
    """Small objects are dilated as the others are, or they alone are."""
    parts: Literal["keep", "split", "largest"] = "keep"
    """A mask in several parts stays one, becomes one for each, or keeps the largest alone."""
    claims: Literal["none", "score", "probability"] = "none"
    """Pixels that several masks claim go to that of the higher score, or probability there."""
    dilate: str | float = 0
    """Radius by which masks grow, never into another's."""
    contested: Literal["nearest", "last"] = "nearest"
    """Who gets ground into which several grow: the nearest; or the last in order all of it, with
    what was another's, as where an image of labels is dilated."""
    element: Literal["disk", "square"] = "disk"
    """What masks shrink and grow by."""
    border: Literal["ignored", "background"] = "ignored"
    """Eroding at the chip's border: what lies beyond is not known, or there is nothing."""
    connectivity: Literal[4, 8] = 8
    """Pixels that touch at a corner are one object with 8."""
    min_area: str | float = 0
    """Smaller masks are dropped: 14px or 5m2; but not at a border that is ignored."""
    score: Literal["model", "mask"] = "model"
    """The network's, or the mean probability times the root of the share of the chip covered."""

    def __post_init__(self) -> None:
        for name in RADII:
            parse_length(getattr(self, name), name=name)
        parse_area(self.min_area, name="min_area")
        for name in ("duplicate_ios", "join", "split"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {value}")
        if not 0 <= self.small_px <= 1000:
            raise ConfigError(f"small_px must be in [0, 1000], got {self.small_px}")

    @property
    def works_on_masks(self) -> bool:
        """Whether there is more to do than to leave out duplicates."""
        return _works_on_masks(self)


NO_STEPS = MorphologyOptions(duplicate_ios=0.0)
"""Every detection as the network gave it. COCO's figures are highest with these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The options of lengths and areas in pixels of a chip."""

    erode: float = 0.0
    open: float = 0.0
    close: float = 0.0
    dilate: float = 0.0
    min_area: float = 0.0


@functools.lru_cache(maxsize=256)  # asked for at every chip
def reach_of(options: MorphologyOptions, gsd_m: float | None) -> Reach:
    """Return what options come to where a pixel is `gsd_m` metres wide; None: not known.

    Radii in metres are rounded to whole pixels.

    Raises:
        ConfigError: A radius is too large, or in metres where a pixel's size is not known.

    Example:
        >>> reach_of(MorphologyOptions(erode="0.6m", dilate="3x3"), 0.3).erode
        2.0
    """
    values = {}
    for name in RADII:
        radius = parse_length(getattr(options, name), name=name)
        values[name] = radius.to_px(gsd_m, name=name)
        if not radius.is_px:  # a scene's pixels of 0.3 m are seldom that to the last digit
            values[name] = float(round(values[name]))
        if values[name] > MAX_RADIUS_PX:
            raise ConfigError(
                f"{name} must be at most {MAX_RADIUS_PX:g} px, got {radius.value:g} m, "
                f"which is {values[name]:.0f} px of {gsd_m:.2g} m"
            )
    area = parse_area(options.min_area, name="min_area")
    px_m2 = None if gsd_m is None else gsd_m**2
    return Reach(**values, min_area=area.to_px(px_m2, name="min_area"))


def warn_of_nothing(options: MorphologyOptions, *, gsd_m: float) -> None:
    """Warn of radii that were asked for and are too small for pixels of `gsd_m` metres.

    Raises:
        ConfigError: As `reach_of`.
    """
    reach = reach_of(options, gsd_m)
    for name in RADII:
        asked = getattr(options, name)
        if getattr(reach, name) < 1 and parse_length(asked, name=name).value > 0:
            warnings.warn(
                f"{name} {asked}: nothing is done below a pixel, which is {gsd_m:.2g} m here",
                GeosegWarning,
                stacklevel=2,
            )


@functools.lru_cache(maxsize=256)  # asked for at every chip
def _works_on_masks(options: MorphologyOptions) -> bool:
    reach = [parse_length(getattr(options, name), name=name).value for name in RADII]
    reach.append(parse_area(options.min_area, name="min_area").value)
    return any(reach) or any(getattr(options, name) != off for name, off in OFF.items())
