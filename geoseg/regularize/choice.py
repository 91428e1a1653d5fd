"""Which regular polygon an outline becomes: simple ones first, others where these lie far off.

Right angles in one direction suit most buildings. Several directions, small jogs and circles are
tried where the outline is not followed to within half a pixel or so, and have to bring it nearer
by more than noise would: anything follows noise that has corners enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.regularize.circles import are_round, circles
from geoseg.regularize.directions import histogram, peaks
from geoseg.regularize.fit import Terms, fit_polygons
from geoseg.regularize.samples import sample_rings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from geoseg.regularize.options import RegularizeOptions

    Floats = NDArray[np.float64]
    Shapes = NDArray[np.object_]

STEP_PX = 1.0
"""Outlines are looked at in steps of a pixel: below it there is only noise."""
TRIM_PX = 1.0
"""What lies this near to a corner does not count for the walls: outlines are rounded there."""
PLAIN_PX = 0.1
"""Outlines are simplified by this much to be compared: five times faster, and as exact."""
POOR_PX = 0.6
"""Mean distance of a fit from the raw outline from which on other fits are tried."""
BEND_SHARE = 0.12
"""Share of the outline that must run in a further direction ..."""
BEND_GAIN = 0.7
"""... and of the distance that it may leave: noise alone makes it 0.75."""
FINE_PRICE = 0.2
"""Price of a corner, of the usual one, where small jogs are wanted ..."""
FINE_GAIN = 0.9
"""... and the share of the distance that they may leave."""
JOG_SHARE = 0.6
"""Of the least wall: a step aside of as much is a wall where small jogs are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A kind of polygon, and what it must be worth."""

    directions: int = 1
    """How many directions its walls may have."""
    angles: int = 90
    """Degrees of which the angles between walls of one direction are multiples."""
    price: float = 1.0
    """Of a corner, of the usual one."""
    poor_px: float = POOR_PX
    """Mean distance so far above which it is tried."""
    circle: bool = False
    """Whether it is a circle, and has no walls."""
    jogs: bool = False
    """Whether walls may step aside."""
    gain: float = 1.0
    """Share of the distance so far that it may leave."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fits:
    """What was found for P raw outlines so far."""

    shapes: Shapes
    """(P,) polygons, None where nothing was found."""
    raw: Shapes
    """(P,) the raw outlines, plain enough to be compared quickly."""
    shared: Floats
    """(P,) area of both, square metres."""

    @property
    def iou(self) -> Floats:
        """(P,) IoU with the raw outline; 0 where nothing was found."""
        both = shapely.area(self.raw) + np.nan_to_num(shapely.area(self.shapes))
        return np.asarray(self.shared / np.maximum(both - self.shared, np.finfo(float).tiny))

    @property
    def distance(self) -> Floats:
        """(P,) mean distance from the raw outline, metres; infinite where nothing was found."""
        apart = shapely.area(self.raw) + shapely.area(self.shapes) - 2 * self.shared
        return np.asarray(np.nan_to_num(apart / shapely.length(self.raw), nan=np.inf))

    def or_better(self, found: Shapes, *, gain: float = 1.0) -> Fits:
        """Return fits with those found in their place that leave only a share of the distance."""
        valid = shapely.is_valid(found)
        found = found.copy()
        found[~valid] = None
        some = np.flatnonzero(valid)
        shared = np.zeros(len(found))
        shared[some] = shapely.area(shapely.intersection(found[some], self.raw[some]))
        new = replace(self, shapes=found, shared=shared)
        better = new.distance < self.distance * gain
        return replace(
            self,
            shapes=np.where(better, found, self.shapes),
            shared=np.where(better, shared, self.shared),
        )


def best_fits(raw: Shapes, *, pixel_m: float, options: RegularizeOptions) -> Fits:
    """Fit regular polygons.

    Args:
        raw: (P,) polygons, traced densely, in metres.
        pixel_m: Metres per pixel of the masks that they were traced from.
        options: What is regular.
    """
    rings, owner = shapely.get_rings(raw, return_index=True)
    samples = sample_rings(rings, owner, step_m=STEP_PX * pixel_m)
    directions, shares = peaks(histogram(samples, len(raw)), options.directions)
    fits = _none_yet(raw, PLAIN_PX * pixel_m)
    for plan in _plans(options):
        wanted = fits.distance > plan.poor_px * pixel_m
        if plan.directions > 1:
            wanted &= shares[:, plan.directions - 1] >= BEND_SHARE
        if plan.circle:
            found = _circles(raw, wanted)
        else:
            found = fit_polygons(
                [part.take(wanted) for part in samples],
                directions[:, : plan.directions],
                terms=_terms(plan, options, pixel_m),
            )
        fits = fits.or_better(found, gain=plan.gain)
    return fits


def _plans(options: RegularizeOptions) -> Iterator[Plan]:
    yield Plan()
    if options.circles:
        yield Plan(circle=True)
    if options.angles != Plan().angles:
        yield Plan(angles=options.angles, poor_px=POOR_PX / 2, gain=BEND_GAIN)
    for count in range(2, options.directions + 1):
        yield Plan(directions=count, gain=BEND_GAIN)
    yield Plan(price=FINE_PRICE, jogs=True, gain=FINE_GAIN)


def _terms(plan: Plan, options: RegularizeOptions, pixel_m: float) -> Terms:
    return Terms(
        turns=360 // plan.angles,
        corner_m=options.least_wall_m / 2 * plan.price,
        trim_m=TRIM_PX * pixel_m,
        jog_m=JOG_SHARE * options.least_wall_m if plan.jogs else np.inf,
    )


def _circles(raw: Shapes, wanted: NDArray[np.bool_]) -> Shapes:
    found = np.full(len(raw), None, object)
    around = np.flatnonzero(wanted)
    around = around[are_round(raw[around])]
    found[around] = circles(raw[around])
    return found


def _none_yet(raw: Shapes, tolerance: float) -> Fits:
    plain = shapely.simplify(raw, tolerance, preserve_topology=False)
    plain = np.where(shapely.is_valid(plain) & ~shapely.is_empty(plain), plain, raw)
    return Fits(shapes=np.full(len(raw), None, object), raw=plain, shared=np.zeros(len(raw)))
