"""What is mapped already, as columns: buildings, and on request roads, railways and water.

Frame: WGS84 longitude and latitude in degrees. Which tags make what lies here, so that every
source of OSM data is read by the same rules. Must not import osmium.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

Kind = Literal["building", "road", "rail", "water"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

TagGetter: TypeAlias = Callable[[str], str | None]
"""Gives the value of a key, or None."""

KEYS: Final[dict[Kind, tuple[str, ...]]] = {
    "building": ("building",),
    "road": ("highway",),
    "rail": ("railway",),
    "water": ("natural", "waterway", "landuse"),
}
"""Keys of which at least one is there on an object of a kind."""

_NO_ROADS: Final = frozenset(
    {
        "no", "proposed", "planned", "construction", "razed", "abandoned", "disused", "platform",
        "corridor", "elevator", "via_ferrata", "services", "rest_area", "bus_stop",
    }
)  # fmt: skip
_RAILS: Final = frozenset(
    {"rail", "light_rail", "tram", "subway", "narrow_gauge", "monorail", "funicular", "preserved"}
)
_WATERWAYS: Final = frozenset(
    {"river", "stream", "canal", "drain", "ditch", "tidal_channel", "riverbank", "dock"}
)
_NO: Final = (None, "no")
_WATER_AREAS: Final = frozenset({"riverbank", "dock"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mapped:
    """Objects of one or more kinds, one per position."""

    ids: NDArray[Any]
    """(N,) text: `way/123`, `relation/45`, or what a vector file calls its rows."""
    kinds: NDArray[np.int8]
    """(N,) positions in `KINDS`."""
    shapes: NDArray[Any]
    """(N,) polygons and multipolygons; roads, railways and streams are lines. Valid, not empty."""

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, kind: Kind) -> Mapped:
        """Return the objects of one kind."""
        return self.take(self.kinds == KINDS.index(kind))

    def take(self, chosen: NDArray[Any]) -> Mapped:
        """Return the objects at positions or where a mask is true."""
        return Mapped(ids=self.ids[chosen], kinds=self.kinds[chosen], shapes=self.shapes[chosen])

    @classmethod
    def of_columns(
        cls,
        ids: Sequence[str],
        kinds: Sequence[int] | NDArray[Any],
        shapes: Sequence[Any] | NDArray[Any],
    ) -> Self:
        """Make columns of sequences of equal length."""
        columns = np.empty(len(ids), object), np.empty(len(ids), object)
        columns[0][:], columns[1][:] = ids, shapes
        return cls(ids=columns[0], kinds=np.asarray(kinds, np.int8), shapes=columns[1])

    @classmethod
    def concat(cls, parts: Iterable[Mapped]) -> Self:
        """Put several one after the other."""
        found: list[Mapped] = [cls.of_columns([], [], []), *parts]
        return cls(
            ids=np.concatenate([part.ids for part in found]),
            kinds=np.concatenate([part.kinds for part in found]),
            shapes=np.concatenate([part.shapes for part in found]),
        )


def kind_of(get: TagGetter, wanted: Collection[Kind]) -> Kind | None:
    """Return what an object is by its tags, or None if it is none of the kinds wanted.

    Ways in tunnels, under roofs and on other levels cross nothing that stands on the ground.

    Example:
        >>> kind_of({"building": "yes"}.get, {"building"})
        'building'
        >>> kind_of({"highway": "footway", "tunnel": "building_passage"}.get, {"road"})
    """
    if "building" in wanted and get("building") not in _NO:
        return "building"
    kind = _line_kind(get, wanted)
    return kind if kind is None or _on_the_ground(get) else None


def encloses(get: TagGetter, kind: Kind) -> bool:
    """Return whether a closed way of a kind means what it encloses, not its course.

    Example:
        >>> encloses({"waterway": "ditch"}.get, "water")
        False
    """
    if kind == "water":
        return get("waterway") in {None, *_WATER_AREAS} or get("natural") == "water"
    return kind == "building"


def _line_kind(get: TagGetter, wanted: Collection[Kind]) -> Kind | None:
    if "road" in wanted and get("highway") not in {None, *_NO_ROADS}:
        return "road"
    if "rail" in wanted and get("railway") in _RAILS:
        return "rail"
    is_water = (
        get("natural") == "water"
        or get("waterway") in _WATERWAYS
        or get("landuse") in {"reservoir", "basin"}
    )
    return "water" if "water" in wanted and is_water else None


def _on_the_ground(get: TagGetter) -> bool:
    return (
        get("tunnel") in _NO
        and get("covered") in _NO
        and get("bridge") in _NO
        and get("layer") in {None, "0"}
        and get("location") not in {"underground", "overhead", "overground"}
        and get("indoor") in _NO
    )
