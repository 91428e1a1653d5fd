"""What kind of mistakes a network makes on chips: missed, doubled, merged, split, misplaced.

Frame: masks in pixels of their own chip. Must not import torch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoseg.coco import mask_ious
from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geoseg.data.annotations import Annotations

MATCH_IOU = 0.5
NEAR_IOU = 0.1
MOST_PART = 0.5  # of an object's area: what covers this much of it, covers it
TRUTH_KINDS = ("matched", "merged", "split", "localisation", "missed")
FOUND_KINDS = ("matched", "duplicate", "merged", "split", "localisation", "background")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChipMistakes:
    """How the objects of one chip and what was found there go together."""

    name: str
    overlaps: NDArray[np.float64]
    """(truth, found) IoU of masks."""
    truth: tuple[str, ...]
    """Kind of each object, one of `TRUTH_KINDS`."""
    found: tuple[str, ...]
    """Kind of each detection, one of `FOUND_KINDS`."""
    scores: NDArray[np.float32]
    """Of the detections."""

    @property
    def f1(self) -> float:
        """F1 at IoU .5; 1 where there is nothing and nothing was found."""
        both = len(self.truth) + len(self.found)
        return 2 * self.truth.count("matched") / both if both else 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mistakes:
    """The mistakes of all chips at one score threshold."""

    chips: tuple[ChipMistakes, ...]
    score: float

    def totals(self) -> dict[str, dict[str, int]]:
        """Return how many objects and detections are of each kind."""
        truth, found = Counter[str](), Counter[str]()
        for chip in self.chips:
            truth.update(chip.truth)
            found.update(chip.found)
        return {
            "truth": {kind: truth[kind] for kind in TRUTH_KINDS},
            "found": {kind: found[kind] for kind in FOUND_KINDS},
        }

    def worst(self, count: int) -> list[ChipMistakes]:
        """Return chips by the number of mistakes in them, most first."""
        return sorted(self.chips, key=lambda c: (-_wrong(c), c.name))[:count]

    def best(self, count: int) -> list[ChipMistakes]:
        """Return chips without or with few mistakes, those with most objects first."""
        return sorted(self.chips, key=lambda c: (-c.f1, -len(c.truth), c.name))[:count]


def find_mistakes(truth: Annotations, results: Annotations, *, score: float = 0.5) -> Mistakes:
    """Say of each object and each detection what became of it.

    Detections below the score are left out, and crowds with them. Matching is COCO's at IoU .5:
    the higher score chooses first. What remains is judged in this order, by masks:

    - *duplicate*: a detection with IoU of at least .5 with an object that another one took.
    - *merged*: a detection that covers most of two or more objects; and these objects.
    - *split*: two or more detections that lie mostly in one object; and that object.
    - *localisation*: IoU of at least .1, but below .5.
    - *background* for a detection, *missed* for an object: nothing there.

    Args:
        truth: What is there.
        results: What was found, with scores; chips are matched by their ids.
        score: Least score of a detection that counts.

    Raises:
        ConfigError: The results have no scores.
    """
    if results.scores is None and len(results):
        raise ConfigError("results must have scores")
    rows = {int(v): i for i, v in enumerate(results.images.ids)}
    chips = []
    for at, name in enumerate(truth.images.file_names):
        there = truth.of_image(at)
        real = [i for i in range(there.start, there.stop) if not truth.crowd[i]]
        row = rows.get(int(truth.images.ids[at]))
        seen = range(0) if row is None else _range(results.of_image(row))
        kept = [i for i in seen if results.scores is not None and results.scores[i] >= score]
        chips.append(_judge(name, truth, real, results, kept))
    return Mistakes(chips=tuple(chips), score=score)


def _judge(
    name: str, truth: Annotations, real: Sequence[int], results: Annotations, kept: Sequence[int]
) -> ChipMistakes:
    kept = sorted(kept, key=lambda i: -float(results.scores[i]))  # type: ignore[index] # there are scores
    overlaps = mask_ious(_rles(truth, real), _rles(results, kept))
    areas = _areas(truth, real)[:, None], _areas(results, kept)[None]
    shared = overlaps * (areas[0] + areas[1]) / (1 + overlaps)
    of_truth = shared / np.maximum(areas[0], 1)
    of_found = shared / np.maximum(areas[1], 1)
    truth_kinds, found_kinds = ["missed"] * len(real), ["background"] * len(kept)
    _mark_near(overlaps, truth_kinds, found_kinds)
    _mark_split(of_found, truth_kinds, found_kinds)
    _mark_merged(of_truth, truth_kinds, found_kinds)
    _mark_matched(overlaps, truth_kinds, found_kinds)
    return ChipMistakes(
        name=name,
        overlaps=overlaps,
        truth=tuple(truth_kinds),
        found=tuple(found_kinds),
        scores=np.array([results.scores[i] for i in kept], np.float32),  # type: ignore[index]
    )


def _mark_near(overlaps: NDArray[np.float64], truth: list[str], found: list[str]) -> None:
    near = overlaps >= NEAR_IOU
    for t in np.flatnonzero(near.any(axis=1)):
        truth[t] = "localisation"
    for f in np.flatnonzero(near.any(axis=0)):
        found[f] = "localisation"


def _mark_split(of_found: NDArray[np.float64], truth: list[str], found: list[str]) -> None:
    inside = of_found >= MOST_PART
    for t in np.flatnonzero(inside.sum(axis=1) >= 2):
        truth[t] = "split"
        for f in np.flatnonzero(inside[t]):
            found[f] = "split"


def _mark_merged(of_truth: NDArray[np.float64], truth: list[str], found: list[str]) -> None:
    covered = of_truth >= MOST_PART
    for f in np.flatnonzero(covered.sum(axis=0) >= 2):
        found[f] = "merged"
        for t in np.flatnonzero(covered[:, f]):
            truth[t] = "merged"


def _mark_matched(overlaps: NDArray[np.float64], truth: list[str], found: list[str]) -> None:
    """Match as COCO does, detections in order of their scores; second choices are duplicates."""
    free = np.ones(len(truth), bool)
    for f in range(len(found)):
        candidates = np.where(free, overlaps[:, f], 0) if len(truth) else np.zeros(1)
        best = int(candidates.argmax())
        if candidates[best] >= MATCH_IOU:
            free[best] = False
            truth[best], found[f] = "matched", "matched"
        elif len(truth) and overlaps[:, f].max() >= MATCH_IOU:
            found[f] = "duplicate"


def _rles(side: Annotations, rows: Sequence[int]) -> list[dict[str, object]]:
    sizes = side.images.sizes_hw
    return [side.rle(i, *map(int, sizes[side.image_index[i]])) for i in rows]


def _areas(side: Annotations, rows: Sequence[int]) -> NDArray[np.float64]:
    return np.array([float(side.object_mask(i).sum()) for i in rows])


def _range(rows: slice) -> range:
    return range(rows.start, rows.stop)


def _wrong(chip: ChipMistakes) -> int:
    return sum(k != "matched" for k in (*chip.truth, *chip.found))
