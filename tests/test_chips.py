"""Chip plans and batches."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_chip, make_grid

from geoseg.chips import ChipBatch, plan_chips
from geoseg.errors import ConfigError


def make_batch(n: int = 3, *, dtype: type = np.uint8, side: int = 8) -> ChipBatch:
    return ChipBatch(
        chips=tuple(make_chip(col=i) for i in range(n)),
        images=np.arange(n, dtype=dtype)[:, None, None, None] + np.zeros((n, 3, side, side), dtype),
        valid=np.ones((n, side, side), bool),
    )


def test_chips_come_row_by_row_and_carry_their_place() -> None:
    chips = plan_chips("town", make_grid(height=700, width=541))
    assert [(chip.row, chip.col) for chip in chips] == [(r, c) for r in range(3) for c in range(3)]
    assert {chip.scene_id for chip in chips} == {"town"}
    assert sum(chip.core.height * chip.core.width for chip in chips) == 700 * 541
    assert chips[-1].window.row_stop == 700


def test_chip_names_are_unique_and_safe() -> None:
    names = [chip.name for chip in plan_chips("a/b", make_grid(height=900, width=900))]
    assert len(set(names)) == len(names)
    assert names[0] == "r00000_c00000"


@pytest.mark.parametrize(("n", "size"), [(5, 2), (4, 2), (1, 4), (3, 1)])
def test_split_keeps_every_chip_with_its_pixels(n: int, size: int) -> None:
    parts = make_batch(n).split(size)
    assert all(len(part) <= size for part in parts)
    assert [chip.col for part in parts for chip in part.chips] == list(range(n))
    assert [part.images[i, 0, 0, 0] for part in parts for i in range(len(part))] == list(range(n))
    assert sum(len(part.valid) for part in parts) == n


def test_split_shares_the_pixels() -> None:
    batch = make_batch(4)
    assert all(np.shares_memory(part.images, batch.images) for part in batch.split(3))


def test_a_batch_with_wrong_pixels_is_refused() -> None:
    good = make_batch(2)
    with pytest.raises(ConfigError, match="images must be uint8"):
        make_batch(2, dtype=np.float32)
    with pytest.raises(ConfigError, match=r"images must be uint8 of shape \(2, 3"):
        ChipBatch(chips=good.chips, images=good.images[:1], valid=good.valid)
    with pytest.raises(ConfigError, match="valid must be bool"):
        ChipBatch(chips=good.chips, images=good.images, valid=good.valid[:, :4])
    with pytest.raises(ConfigError, match="valid must be bool"):
        ChipBatch(chips=good.chips, images=good.images, valid=good.valid.astype(np.uint8))


@pytest.mark.parametrize("overlap_px", [-1, 300])
def test_a_bad_overlap_is_refused(overlap_px: int) -> None:
    with pytest.raises(ConfigError, match="overlap_px"):
        plan_chips("s", make_grid(), overlap_px=overlap_px)
