"""Reader threads: order, completeness, bounds on reading ahead, clean ends. A fake source."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pyproj import CRS

from geoseg.chips import plan_chips
from geoseg.errors import ConfigError, ReadError
from geoseg.grid import Grid
from geoseg.raster import read_batches


def make_chips(height=400, width=500, size_px=50):
    grid = Grid(
        crs=CRS.from_epsg(32645),
        transform=Affine(0.2, 0, 3e5, 0, -0.2, 3e6),
        height=height,
        width=width,
    )
    return plan_chips("s", grid, size_px=size_px, overlap_px=10)


class FakeSource:
    """Each chip's pixels are its own number; chosen chips are empty, broken or slow."""

    def __init__(self, *, empty=(), broken=(), slow=()):
        self.empty, self.broken, self.slow = set(empty), set(broken), set(slow)
        self.n_read = 0
        self.lock = threading.Lock()

    def read_chip(self, chip):
        with self.lock:
            self.n_read += 1
        key = (chip.row, chip.col)
        if key in self.slow:
            time.sleep(0.02)
        if key in self.broken:
            raise ReadError(f"no pixels at {key}")
        shape = (chip.window.height, chip.window.width)
        value = (chip.row * 16 + chip.col) % 255 + 1
        return np.full((3, *shape), value, np.uint8), np.full(shape, key not in self.empty)


def reader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("geoseg-read")]


@settings(max_examples=30)
@given(
    data=st.data(),
    batch_size=st.integers(1, 20),
    threads=st.integers(1, 4),
    ahead=st.integers(1, 3),
)
def test_every_chip_comes_once_in_order_or_is_accounted_for(data, batch_size, threads, ahead):
    chips = make_chips()
    keys = [(c.row, c.col) for c in chips]
    some = st.lists(st.sampled_from(keys), max_size=40, unique=True)
    empty, broken = data.draw(some), data.draw(some)
    source = FakeSource(empty=empty, broken=broken, slow=keys[5:9])
    gone, failed = [], []
    batches = list(
        read_batches(
            source,
            chips,
            batch_size=batch_size,
            size_px=50,
            threads=threads,
            ahead=ahead,
            on_error=lambda chip, error: failed.append((chip.row, chip.col)),
            on_empty=lambda chip: gone.append((chip.row, chip.col)),
        )
    )
    got = [chip for batch in batches for chip in batch.chips]
    left_out = set(empty) | set(broken)
    assert got == [c for c in chips if (c.row, c.col) not in left_out]
    assert failed == [k for k in keys if k in set(broken)]
    assert gone == [k for k in keys if k in set(empty) - set(broken)]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    for batch in batches:
        for chip, image in zip(batch.chips, batch.images, strict=True):
            assert (image == (chip.row * 16 + chip.col) % 255 + 1).all()
    assert not reader_threads()


def test_threads_stay_a_bounded_number_of_batches_ahead():
    chips = make_chips(2000, 2000)
    source = FakeSource()
    batches = read_batches(source, chips, batch_size=8, size_px=50, ahead=2)
    next(batches)
    deadline = time.monotonic() + 5
    while source.n_read < 3 * 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert 3 * 8 <= source.n_read <= 4 * 8
    batches.close()
    assert not reader_threads()


def test_threads_end_when_the_consumer_stops_or_raises():
    def consume():
        for _ in read_batches(FakeSource(), make_chips(), batch_size=4, size_px=50):
            raise RuntimeError("the consumer's own")

    with pytest.raises(RuntimeError, match="own"):
        consume()
    for _ in read_batches(FakeSource(), make_chips(), batch_size=4, size_px=50):
        break
    assert not reader_threads()


def test_an_unreadable_chip_raises_where_nobody_listens():
    source = FakeSource(broken=[(2, 3)])
    with pytest.raises(ReadError, match=r"\(2, 3\)"):
        list(read_batches(source, make_chips(), batch_size=4, size_px=50))
    assert not reader_threads()


def test_other_errors_are_never_swallowed():
    class Broken:
        def read_chip(self, chip):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(
            read_batches(Broken(), make_chips(), batch_size=4, size_px=50, on_error=lambda *_: None)
        )
    assert not reader_threads()


def test_small_chips_lie_in_the_corner_of_the_frame():
    chips = make_chips(30, 20)
    (batch,) = read_batches(FakeSource(), chips, batch_size=4, size_px=50)
    assert batch.images.shape == (1, 3, 50, 50)
    want = np.zeros((50, 50), bool)
    want[:30, :20] = True
    assert_array_equal(batch.valid[0], want)
    assert_array_equal(batch.images[0] > 0, np.stack([want] * 3))


def test_nothing_to_read_yields_nothing():
    assert list(read_batches(FakeSource(), [], batch_size=4, size_px=50)) == []
    everything = [(c.row, c.col) for c in make_chips()]
    source = FakeSource(empty=everything)
    assert list(read_batches(source, make_chips(), batch_size=4, size_px=50)) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"threads": 0}, "threads"),
        ({"ahead": 0}, "ahead"),
        ({"size_px": 49}, "size_px=49"),
    ],
)
def test_bad_numbers_are_told_before_anything_is_read(options, words):
    source = FakeSource()
    with pytest.raises(ConfigError, match=words):
        read_batches(source, make_chips(), **{"batch_size": 4, "size_px": 50, **options})
    assert source.n_read == 0
