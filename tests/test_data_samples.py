from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.data.samples import Mixture, Sample, boxes_of, draw
from geoseg.errors import ConfigError


class Numbered:
    """A source whose samples say which they are, and show a number drawn by chance."""

    def __init__(self, count: int, *, first: int = 0) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        image = np.full((3, 4, 4), self.first + index, np.uint8)
        image[1] = rng.integers(256)
        return Sample(image=image, masks=np.ones((1, 4, 4), bool), labels=np.ones(1, np.int64))


def index_of(sample: Sample) -> int:
    return int(sample.image[0, 0, 0])


@given(st.integers(1, 200), st.integers(0, 5), st.integers(0, 2**31 - 1))
def test_every_epoch_is_an_order_of_the_whole_source(count, epoch, seed):
    drawn = [index_of(draw(Numbered(count), epoch * count + i, seed=seed)) for i in range(count)]
    assert sorted(drawn) == list(range(count))


def test_epochs_and_seeds_differ_in_order():
    def order(epoch: int, seed: int) -> list[int]:
        return [index_of(draw(Numbered(100), epoch * 100 + i, seed=seed)) for i in range(100)]

    orders = [order(0, 0), order(1, 0), order(0, 1), list(range(100))]
    assert len({tuple(o) for o in orders}) == 4


def test_a_sample_is_decided_by_its_number_and_seed():
    source = Numbered(10)
    first, again = (draw(source, 123, seed=5).image for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert any((draw(source, n, seed=5).image[1] != first[1]).any() for n in range(10))


def test_a_mixture_draws_from_its_sources_by_weight():
    mixture = Mixture(sources=(Numbered(5), Numbered(5, first=100)), weights=(3.0, 1.0))
    drawn = np.array([index_of(draw(mixture, i, seed=0)) for i in range(2000)])
    assert (drawn >= 100).mean() == pytest.approx(0.25, abs=0.04)
    assert set(drawn) == {*range(5), *range(100, 105)}


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, float("inf"))])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ConfigError, match="weights"):
        Mixture(sources=(Numbered(1), Numbered(1)), weights=weights)


@given(st.data())
def test_boxes_hold_their_masks_and_nothing_less_would(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    mask = np.zeros((1, height, width), bool)
    for _ in range(data.draw(st.integers(1, 5))):
        row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        mask[0, row, col] = True
    rows, cols = np.nonzero(mask[0])
    expected = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
    assert boxes_of(mask)[0].tolist() == expected
