"""Fair times on a machine that others use too: interleaved rounds, compared pair by pair."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of several contenders, round by round."""

    rounds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Return a contender's median, seconds."""
        return statistics.median(self.rounds[name])

    def ratio(self, over: str, under: str) -> float:
        """Return the median of the rounds' ratios: a slow spell hits both sides of a round."""
        return statistics.median(self.ratios(over, under))

    def ratios(self, over: str, under: str) -> list[float]:
        """Return each round's ratio."""
        pairs = zip(self.rounds[over], self.rounds[under], strict=True)
        return [a / b for a, b in pairs]

    def about(self, over: str, under: str) -> str:
        """Say what a ratio was made of."""
        ratios = self.ratios(over, under)
        fastest = min(self.rounds[over]) / min(self.rounds[under])
        return (
            f"{over} {self.median(over):.2f} s / {under} {self.median(under):.2f} s, "
            f"{len(ratios)} rounds of {min(ratios):.3f}-{max(ratios):.3f}, "
            f"fastest to fastest {fastest:.3f}"
        )


def interleave(contenders: Mapping[str, Callable[[], float]], *, rounds: int) -> Times:
    """Run the contenders in turn: A B A B ..., after one round that is thrown away.

    Args:
        contenders: Name to a function that does the work and returns the seconds that count.
        rounds: How often each is run.
    """
    for measure in contenders.values():
        measure()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            seconds[name].append(measure())
    return Times(rounds={name: tuple(values) for name, values in seconds.items()})


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
