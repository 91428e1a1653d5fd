"""How far imagery is off: one shift that lays most footprints over the buildings they show.

Frame: any in metres, the same for both sides. Every footprint votes for the way from its centre
to each building of like size around it. True ways agree, others are spread: the densest place
among all votes is the offset, whatever share of the buildings is not mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.ndimage import uniform_filter

from geoseg.osm.conflate.pairs import near_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoseg.osm.conflate.pairs import Centres

MOST_VOTERS: Final = 20_000
"""With more footprints of a scene, evenly spread, the estimate gets no better."""
_CELL_M: Final = 0.5
_RADIUS_M: Final = 2.0  # votes this near to the densest place are for it: drawing is that uncertain
_ROUNDS: Final = 5
_LIKE_SIZE: Final = 1.6  # areas that differ by more are not the same building
_ABOVE_CHANCE: Final = 3.0
_MEDIAN_RADIUS: Final = 1.1774  # of a round normal distribution, in standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """A shift that lays footprints over what is mapped."""

    dx_m: float
    """To be added to the footprints: east is positive."""
    dy_m: float
    """North is positive."""
    n_pairs: int
    """Footprints that agree on it, each with a building."""
    spread_m: float
    """Standard deviation of their ways around it, along one axis; robust."""

    @property
    def length_m(self) -> float:
        """How far."""
        return float(np.hypot(self.dx_m, self.dy_m))


def estimate_offset(
    footprints: Centres,
    buildings: Centres,
    *,
    max_offset_m: float = 10.0,
    min_pairs: int = 10,
) -> Offset | None:
    """Estimate the systematic offset between footprints and mapped buildings.

    Args:
        footprints: Of one scene; `MOST_VOTERS` of them are plenty.
        buildings: In the same frame.
        max_offset_m: Longer offsets are not looked for.
        min_pairs: Fewer footprints are no evidence.

    Returns:
        The offset, or None where too few footprints agree, or no more than chance would have it.

    Example:
        >>> import shapely
        >>> from geoseg.osm.conflate.pairs import Centres
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.uniform(0, 500, (2, 40))
        >>> town = shapely.box(x, y, x + 12, y + 9)
        >>> seen = shapely.transform(town, lambda xy: xy + [3, -1])
        >>> found = estimate_offset(Centres.of(seen), Centres.of(town))
        >>> round(found.dx_m, 2), round(found.dy_m, 2), found.n_pairs
        (-3.0, 1.0, 40)
    """
    voters, _, votes = near_pairs(
        footprints, buildings, within_m=max_offset_m, max_ratio=_LIKE_SIZE
    )
    if len(votes) < min_pairs:
        return None
    place = _densest(votes, max_offset_m)
    for _ in range(_ROUNDS):
        place = np.median(votes[_near(votes, place)], axis=0)
    near = _near(votes, place)
    agree = votes[near]
    by_chance = (len(votes) - len(agree)) * (_RADIUS_M / max_offset_m) ** 2
    if len(agree) < max(min_pairs, _ABOVE_CHANCE * by_chance):
        return None
    radius = np.median(np.hypot(*(agree - place).T))
    return Offset(
        dx_m=float(place[0]),
        dy_m=float(place[1]),
        n_pairs=len(np.unique(voters[near])),
        spread_m=float(radius / _MEDIAN_RADIUS),
    )


def _densest(votes: NDArray[np.float64], max_offset_m: float) -> NDArray[np.float64]:
    n = int(np.ceil(max_offset_m / _CELL_M)) + 2
    edges = (np.arange(2 * n + 2) - n - 0.5) * _CELL_M  # a cell's middle at no offset
    counts, _, _ = np.histogram2d(votes[:, 0], votes[:, 1], bins=[edges, edges])
    smooth = uniform_filter(counts, size=3, mode="constant")
    column, row = np.unravel_index(np.argmax(smooth), smooth.shape)
    return np.array([column - n, row - n], np.float64) * _CELL_M


def _near(votes: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.hypot(*(votes - place).T) <= _RADIUS_M)
