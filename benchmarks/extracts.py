"""Rules of conflation on real towns: what of their own buildings, moved and partly removed, is new.

`python -m benchmarks.extracts` prints the table of docs/conflation.md.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely

from benchmarks.rows import Row, at_least, at_most
from geoseg.frames import ground_frame, moved
from geoseg.osm.conflate.compare import conflate
from geoseg.osm.conflate.pairs import overlapping_pairs
from geoseg.osm.conflate.rules import ConflateOptions
from geoseg.osm.mapped.near import Near
from geoseg.osm.mapped.read import read_mapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pyproj import CRS

    from geoseg.osm.mapped.layers import Mapped

    Rule = Callable[["Case"], NDArray[np.bool_]]

EXTRACTS = Path(__file__).resolve().parents[2] / "shared" / "osm"
TOWNS = {"kouvola": (26.9, 60.5, 27.0, 60.6), "helsinki": (24.9, 60.1, 25.0, 60.2)}
SHIFTS_M = (0.0, 1.0, 2.0)
REMOVED = 0.2
SEEDS = 5
NOT_HERE = "the extracts are not here"
LEAST_RECALL = {0.0: 0.99, 1.0: 0.97, 2.0: 0.97}
MOST_ADDED = 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A town's buildings as footprints, all moved one way, and the map without some of them."""

    outlines: NDArray[Any]
    """(N,) in metres, where the map has them."""
    seen: NDArray[Any]
    """(N,) the footprints."""
    mapped: Mapped
    """All of them."""
    removed: NDArray[np.bool_]
    """(N,) what the map lacks."""
    covered: NDArray[np.bool_]
    """(N,) what another building of the map covers by half or more, or is covered by."""
    frame: CRS


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a rule makes of cases."""

    recall: float
    """Removed buildings that are new."""
    recall_clear: float
    """The same without those that another building covers by half, or is covered by."""
    added: float
    """Of what is new, what the map has already."""


def extracts(folder: Path) -> list[Row]:
    """Judge conflation on the buildings of two real towns.

    They are taken as footprints, all moved in one random direction, and a fifth of them is removed
    from the map; five draws each, both towns together.
    """
    del folder
    if not EXTRACTS.is_dir():
        return [Row(benchmark="extracts", name="both towns", value=None, note=NOT_HERE)]
    rows = []
    for shift_m in SHIFTS_M:
        for name in ("geoseg", "geoseg --align"):
            found = [run for town in TOWNS for run in outcome(town, RULES[name], shift_m)]
            result = score(found)
            about = f"{name}, footprints {shift_m:g} m off, both towns"
            rows += [
                Row(
                    benchmark="extracts",
                    name=f"removed buildings found as new, {about}",
                    value=round(result.recall, 4),
                    **at_least(LEAST_RECALL[shift_m]),
                ),
                Row(
                    benchmark="extracts",
                    name=f"share of new footprints that are mapped, {about}",
                    value=round(result.added, 4),
                    **at_most(MOST_ADDED),
                ),
            ]
    return rows


def make_case(town: str, shift_m: float, seed: int) -> Case:
    """Remove a fifth of a town's buildings at random, and move all footprints in some direction."""
    mapped = read_town(town)
    rng = np.random.default_rng(seed)
    removed = rng.random(len(mapped)) < REMOVED
    turn = rng.uniform(0, 2 * np.pi)
    way = shift_m * np.array([np.cos(turn), np.sin(turn)])
    frame = ground_frame(mapped.shapes)
    outlines = moved(mapped.shapes, "OGC:CRS84", frame)
    pairs = overlapping_pairs(outlines, outlines)
    twins = pairs.footprint[(pairs.footprint != pairs.mapped) & (pairs.overlap >= 0.5)]
    return Case(
        outlines=outlines,
        seen=shapely.transform(outlines, lambda xy: xy + way),
        mapped=mapped,
        removed=removed,
        covered=np.isin(np.arange(len(mapped)), twins),
        frame=frame,
    )


@functools.cache
def read_town(town: str) -> Mapped:
    """Return the buildings of a town."""
    near = Near.of(np.array([shapely.box(*TOWNS[town])]), margin_m=0)
    return read_mapped(EXTRACTS / f"{town}.osm.pbf", near)


def by_iou(case: Case) -> NDArray[np.bool_]:
    """Call new what reaches IoU .5 with no building."""
    pairs = overlapping_pairs(case.seen, case.outlines[~case.removed])
    return ~np.isin(np.arange(len(case.seen)), pairs.footprint[pairs.iou >= 0.5])


def by_overlap(case: Case) -> NDArray[np.bool_]:
    """Call new what shares less than .3 of the smaller area with every building."""
    pairs = overlapping_pairs(case.seen, case.outlines[~case.removed])
    return ~np.isin(np.arange(len(case.seen)), pairs.footprint[pairs.overlap >= 0.3])


def by_any(case: Case) -> NDArray[np.bool_]:
    """Call new what shares less than .01 of the smaller area with every building."""
    pairs = overlapping_pairs(case.seen, case.outlines[~case.removed])
    return ~np.isin(np.arange(len(case.seen)), pairs.footprint[pairs.overlap >= 0.01])


def ours(case: Case, *, align: bool = False) -> NDArray[np.bool_]:
    """Call new what geoseg calls new."""
    footprints = gpd.GeoDataFrame(geometry=case.seen, crs=case.frame)
    found = conflate(
        footprints, case.mapped.take(~case.removed), options=ConflateOptions(align=align)
    )
    return np.asarray(found.footprints["osm_status"] == "new")


RULES: dict[str, Rule] = {
    "IoU < .5": by_iou,
    "overlap < .3": by_overlap,
    "no overlap": by_any,
    "geoseg": ours,
    "geoseg --align": lambda case: ours(case, align=True),
}


Outcome = list[tuple["NDArray[np.bool_]", Case]]


def outcome(town: str, rule: Rule, shift_m: float) -> Outcome:
    """Return what a rule calls new in a town, for each seed."""
    cases = [make_case(town, shift_m, seed) for seed in range(SEEDS)]
    return [(rule(case), case) for case in cases]


def score(found: Outcome) -> Score:
    """Score a rule over all cases together."""
    new = np.concatenate([new for new, _ in found])
    removed = np.concatenate([case.removed for _, case in found])
    covered = np.concatenate([case.covered for _, case in found])
    return Score(
        recall=float(new[removed].mean()),
        recall_clear=float(new[removed & ~covered].mean()),
        added=float((new & ~removed).sum() / max(1, new.sum())),
    )


def main() -> None:
    print("| rule | town | " + " | ".join(f"{shift:g} m" for shift in SHIFTS_M) + " |")
    print("|---|---|" + "---|" * len(SHIFTS_M))
    for name, rule in RULES.items():
        found = {town: [outcome(town, rule, shift) for shift in SHIFTS_M] for town in TOWNS}
        found["both"] = [[*a, *b] for a, b in zip(*found.values(), strict=True)]
        for town, shifts in found.items():
            scores = [score(runs) for runs in shifts]
            cells = [f"{s.recall:.3f} ({s.recall_clear:.3f}), {s.added:.1%}" for s in scores]
            print(f"| {name} | {town} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
