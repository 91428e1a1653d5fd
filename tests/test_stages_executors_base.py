"""Units of work in this process."""

from __future__ import annotations

import itertools

import pytest

from geoseg.errors import ReadError
from geoseg.stages.executors import Serial


def test_units_are_taken_one_at_a_time_and_in_order() -> None:
    taken: list[int] = []
    units = (taken.append(i) or i for i in itertools.count())
    done = Serial().map(lambda unit, pixels: (unit * unit, pixels), units, needs="cpu")
    assert taken == []
    assert list(itertools.islice(done, 3)) == [(0, (0, None)), (1, (1, None)), (2, (4, None))]
    assert taken == [0, 1, 2]


def test_an_error_of_a_unit_ends_the_run() -> None:
    def fail(unit: int, pixels: object) -> int:
        if unit == 1:
            raise ReadError("torn")
        return unit

    done = Serial().map(fail, range(3), needs="model")
    assert next(done) == (0, 0)
    with pytest.raises(ReadError, match="torn"):
        next(done)
