from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from geoseg.data.dedupe import (
    _low_frequencies,
    _turned_frequencies,
    clean_manifest,
    find_duplicates,
    read_grey,
    take_prints,
    turned,
)
from geoseg.errors import ConfigError, InputNotFoundError, ReadError
from geoseg.testing import make_town

if TYPE_CHECKING:
    from geoseg.data.dedupe import Duplicates

SIDE = 300


def town_chips(seed: int, *, step: int = SIDE) -> list[np.ndarray]:
    image = make_town(size_px=1200, seed=seed).image
    places = range(0, 1200 - SIDE + 1, step)
    return [image[r : r + SIDE, c : c + SIDE] for r, c in itertools.product(places, places)]


def written(
    folder: Path, chips: list[np.ndarray], *, suffix: str = ".png", start: int = 0
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i + start:06d}{suffix}" for i in range(len(chips))]
    for path, chip in zip(paths, chips, strict=True):
        cv2.imwrite(str(path), chip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])
    return paths


def groups(found: Duplicates) -> list[set[str]]:
    names = np.array(found.prints.names)
    return [set(names[found.group == g]) for g in np.flatnonzero(found.sizes() > 1)]


@pytest.fixture(scope="module")
def base() -> list[np.ndarray]:
    return town_chips(41)


def test_frequencies_turn_with_the_thumbnail():
    rng = np.random.default_rng(0)
    thumbs = rng.integers(0, 255, (3, 32, 32)).astype(np.uint8)
    for symmetry in range(8):
        straight = _low_frequencies(np.ascontiguousarray(turned(thumbs, symmetry)))
        np.testing.assert_allclose(
            _turned_frequencies(_low_frequencies(thumbs), symmetry), straight, atol=0.05
        )
    assert len({turned(thumbs, s).tobytes() for s in range(8)}) == 8


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_copies_are_found_under_all_eight_symmetries(tmp_path, base, suffix):
    copies = [
        np.clip(np.rot90(m, k).astype(int) + 10, 0, 255).astype(np.uint8)
        for m in (base[3], base[3][:, ::-1])
        for k in range(4)
    ]
    paths = written(tmp_path, [*base, *copies], suffix=suffix)
    found = groups(find_duplicates(take_prints({"train": paths})))
    assert found == [{paths[3].name, *(p.name for p in paths[16:])}]


def test_a_copy_in_another_format_is_found(tmp_path, base):
    one = written(tmp_path / "a", base)
    other = written(tmp_path / "b", [np.rot90(c, 1) for c in base], suffix=".jpg", start=100)
    found = groups(find_duplicates(take_prints({"train": one, "val": other})))
    assert found == [{a.name, b.name} for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("seed", range(50, 54))
def test_different_places_of_a_town_are_different(tmp_path, seed):
    """Windows that overlap show the same houses, and are no duplicates."""
    paths = written(tmp_path, town_chips(seed, step=60))
    assert len(paths) == 256
    assert groups(find_duplicates(take_prints({"train": paths}))) == []


def test_chips_without_structure_are_the_same_only_to_the_pixel(tmp_path):
    rng = np.random.default_rng(0)
    water = [np.clip(rng.normal(90, 2, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8) for _ in range(5)]
    paths = written(tmp_path, [*water, water[2]])
    found = groups(find_duplicates(take_prints({"train": paths})))
    assert found == [{paths[2].name, paths[5].name}]


def test_leaks_are_counted_and_one_of_each_is_kept(tmp_path, base):
    train = written(tmp_path / "train", [*base[:10], base[0][::-1]])
    val = written(tmp_path / "val", [base[1], np.rot90(base[2]), *base[12:], base[12]], start=100)
    found = find_duplicates(take_prints({"train": train, "val": val}))
    assert found.leaks() == {("train", "val"): 2, ("val", "train"): 2}
    assert found.n_groups == 10 + 4
    manifest = clean_manifest(found)
    assert manifest.kept("val") == {p.name for p in val[:-1]}
    assert manifest.kept("train") == {p.name for p in [train[0], *train[3:10]]}
    dropped = manifest.splits["train"].dropped
    assert dropped[train[1].name] == "same as val/000100.png"
    assert dropped[train[10].name] == f"same as train/{train[0].name}"
    other = clean_manifest(found, drop_from="val")
    assert other.kept("train") == {p.name for p in train[:10]}


def test_memory_is_bounded_when_many_share_a_band(tmp_path, base, monkeypatch):
    monkeypatch.setattr("geoseg.data.dedupe.PAIRS_AT_ONCE", 3)
    paths = written(tmp_path, [*base[:5], *base[:5]])
    assert len(groups(find_duplicates(take_prints({"train": paths})))) == 5


def test_an_empty_set_has_no_duplicates():
    found = find_duplicates(take_prints({"train": []}))
    assert found.n_groups == 0


def test_missing_and_broken_chips_are_named(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"none.jpg: no such chip"):
        read_grey(tmp_path / "none.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"not a picture")
    with pytest.raises(ReadError, match=r"bad.jpg: must be a readable JPEG"):
        read_grey(tmp_path / "bad.jpg")


def test_a_split_that_is_not_there_is_refused(tmp_path, base):
    paths = written(tmp_path, base[:2])
    found = find_duplicates(take_prints({"train": paths}))
    with pytest.raises(ConfigError, match="drop_from must be one of train"):
        clean_manifest(found, drop_from="val")
