"""What kind of mistakes a network makes on chips: missed, doubled, merged, split, misplaced.

Frame: masks in pixels of their own chip. Must not import torch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.coco import mask_ious, pack_runs
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
    """Of the detections, highest first."""
    areas: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Pixels of the objects and of the detections."""
    rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Where the objects are in the truth, and the detections in the results."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each detection matches an object."""
        return np.array([kind == "matched" for kind in self.found], np.bool_)

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

    def above(self, score: float) -> Mistakes:
        """Return the mistakes at a higher score threshold, from the overlaps known already."""
        return Mistakes(chips=tuple(_above(chip, score) for chip in self.chips), score=score)

    def best_score(self) -> float:
        """Return the score threshold with the highest F1 at IoU .5; that of now without a match."""
        if not any(len(chip.found) for chip in self.chips):
            return self.score
        scores = np.concatenate([chip.scores for chip in self.chips])
        right = np.concatenate([chip.right for chip in self.chips])
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(right[order])
        ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])  # ties stay together
        n_truth = sum(len(chip.truth) for chip in self.chips)
        f1 = 2 * hits[ends] / (ends + 1 + n_truth)
        return float(scores[ends[f1.argmax()]]) if f1.max() > 0 else self.score

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

    Detections below the score are left out, and so are crowds and the unmatched detections that lie
    mostly in one. Classes are not told apart. Matching is COCO's at IoU .5: the higher score
    chooses first. What remains is judged in this order, by masks:

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
        crowds = [i for i in range(there.start, there.stop) if truth.crowd[i]]
        chips.append(_compare(name, truth, results, real=real, crowds=crowds, kept=kept))
    return Mistakes(chips=tuple(chips), score=score)


def _compare(
    name: str,
    truth: Annotations,
    results: Annotations,
    *,
    real: Sequence[int],
    crowds: Sequence[int],
    kept: Sequence[int],
) -> ChipMistakes:
    """Measure the overlaps of one chip and judge them."""
    scores = np.zeros(0, np.float32) if results.scores is None else results.scores
    kept = sorted(kept, key=lambda i: -float(scores[i]))
    there, seen = _rles(truth, real), _rles(results, kept)
    overlaps = mask_ious(there, seen)
    if crowds and seen:
        shared = _shares(_rles(truth, crowds), seen).max(axis=0) >= MOST_PART
        clear = ~shared | (overlaps >= MATCH_IOU).any(axis=0)
        kept = [i for i, keep in zip(kept, clear, strict=True) if keep]
        seen = _rles(results, kept)
        overlaps = overlaps[:, clear]
    return _judged(
        name,
        overlaps,
        areas=(_areas(there), _areas(seen)),
        rows=(np.array(real, np.int64), np.array(kept, np.int64)),
        scores=scores[kept],
    )


def _above(chip: ChipMistakes, score: float) -> ChipMistakes:
    """Return a chip's mistakes with the detections at or above a score."""
    n = int((chip.scores >= score).sum())  # the first ones
    (there, seen), (real, kept) = chip.areas, chip.rows
    return _judged(
        chip.name,
        chip.overlaps[:, :n],
        areas=(there, seen[:n]),
        rows=(real, kept[:n]),
        scores=chip.scores[:n],
    )


def _judged(
    name: str,
    overlaps: NDArray[np.float64],
    *,
    areas: tuple[NDArray[np.float64], NDArray[np.float64]],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    scores: NDArray[np.float32],
) -> ChipMistakes:
    of_truth, of_found = areas[0][:, None], areas[1][None]
    shared = overlaps * (of_truth + of_found) / (1 + overlaps)
    truth_kinds, found_kinds = ["missed"] * len(areas[0]), ["background"] * len(areas[1])
    _mark_near(overlaps, truth_kinds, found_kinds)
    _mark_split(shared / np.maximum(of_found, 1), truth_kinds, found_kinds)
    _mark_merged(shared / np.maximum(of_truth, 1), truth_kinds, found_kinds)
    _mark_matched(overlaps, truth_kinds, found_kinds)
    return ChipMistakes(
        name=name,
        overlaps=overlaps,
        truth=tuple(truth_kinds),
        found=tuple(found_kinds),
        scores=scores,
        areas=areas,
        rows=rows,
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
        best = len(candidates) - 1 - int(candidates[::-1].argmax())  # the last of equals, as COCO
        if candidates[best] >= MATCH_IOU:
            free[best] = False
            truth[best], found[f] = "matched", "matched"
        elif len(truth) and overlaps[:, f].max() >= MATCH_IOU:
            found[f] = "duplicate"


def _rles(side: Annotations, rows: Sequence[int]) -> list[dict[str, Any]]:
    sizes = side.images.sizes_hw
    return [side.rle(i, *map(int, sizes[side.image_index[i]])) for i in rows]


def _areas(rles: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Return the pixels (N,) of masks: a mask's IoU with its whole chip is its share of it."""
    if not rles:
        return np.zeros(0)
    height, width = rles[0]["size"]
    whole = [{"size": [height, width], "counts": pack_runs([0, height * width], height, width)}]
    return np.asarray(np.rint(mask_ious(list(rles), whole)[:, 0] * height * width))


def _shares(
    crowds: Sequence[dict[str, Any]], seen: Sequence[dict[str, Any]]
) -> NDArray[np.float64]:
    """Return how much (C, N) of each detection lies in each crowd."""
    overlaps = mask_ious(crowds, seen)
    both = _areas(crowds)[:, None] + _areas(seen)[None]
    return np.asarray(overlaps * both / (1 + overlaps) / np.maximum(_areas(seen)[None], 1))


def _range(rows: slice) -> range:
    return range(rows.start, rows.stop)


def _wrong(chip: ChipMistakes) -> int:
    return sum(k != "matched" for k in (*chip.truth, *chip.found))
