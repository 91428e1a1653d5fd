from __future__ import annotations

import numpy as np
import pytest
import torch

from geoseg.data.augment import augmented, make_augmentation, presets
from geoseg.data.copypaste import CopyPaste, paste
from geoseg.data.samples import Sample
from geoseg.errors import ConfigError


def painted_sample(seed: int = 0, *, size: int = 64, count: int = 4) -> Sample:
    """Build a sample whose image shows its masks: object i has value 40 (i + 1), ground 0."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    for i in range(count):
        row, col = rng.integers(0, size // 2 - 14, 2) + np.array([i // 2, i % 2]) * (size // 2)
        masks[i, row : row + 9 + i, col : col + 12] = True
    values = (masks * (40 * np.arange(1, count + 1))[:, None, None]).sum(axis=0)
    image = np.repeat(values[None].astype(np.uint8), 3, axis=0)
    return Sample(image=image, masks=masks, labels=np.arange(1, count + 1))


def shown(image: np.ndarray, label: int) -> np.ndarray:
    return image[0] == 40 * label


def test_flips_move_pixels_and_masks_alike():
    transform, seen = make_augmentation("flips"), set()
    sample = painted_sample()
    for seed in range(60):
        out = augmented(sample, transform, seed=seed)
        for mask, label in zip(out.masks, out.labels, strict=True):
            np.testing.assert_array_equal(mask, shown(out.image, int(label)))
        seen.add(out.image.tobytes())
    assert len(seen) == 8  # all of the square's symmetries, and nothing else


def test_zoom_moves_pixels_and_masks_alike():
    transform = make_augmentation("aerial-zoom").transforms[0]
    for seed in range(20):
        out = augmented(painted_sample(), transform, seed=seed)
        for mask, label in zip(out.masks, out.labels, strict=True):
            np.testing.assert_array_equal(mask, shown(out.image, int(label)))


@pytest.mark.parametrize("name", sorted(presets()))
def test_presets_give_whole_samples_and_the_same_for_the_same_seed(name):
    sample, transform = painted_sample(size=96), make_augmentation(name)
    before = sample.image.copy()
    for seed in range(25):
        out, again = (augmented(sample, transform, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(out.image, again.image)
        assert out.image.dtype == np.uint8
        assert out.image.shape == (3, 96, 96)
        assert len(out) == len(out.labels)
        assert (out.masks.sum(axis=(1, 2)) >= 12).all()
    np.testing.assert_array_equal(sample.image, before)


def test_colour_leaves_masks_where_they_are():
    light = make_augmentation("light").transforms[2:]
    sample = painted_sample()
    changed = 0
    for seed in range(10):
        for step in light:
            out = augmented(sample, step, seed=seed)
            np.testing.assert_array_equal(out.masks, sample.masks)
            changed += (out.image != sample.image).any()
    assert changed > 8


def test_augmenting_leaves_the_networks_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    augmented(painted_sample(), make_augmentation("aerial"), seed=9)
    assert torch.equal(torch.rand(4), expected)


def test_a_sample_without_objects_passes():
    empty = Sample(
        image=np.full((3, 40, 40), 90, np.uint8),
        masks=np.zeros((0, 40, 40), bool),
        labels=np.zeros(0, np.int64),
    )
    for seed in range(10):
        assert len(augmented(empty, make_augmentation("aerial"), seed=seed)) == 0


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match=r"augment must be one of none, flips.*got 'fancy'"):
        make_augmentation("fancy")


class Two:
    """Two samples, one to paste onto and one to paste from."""

    def __init__(self) -> None:
        self.samples = [painted_sample(0), painted_sample(1)]

    def __len__(self) -> int:
        return 2

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return self.samples[index]


def test_pasted_objects_cover_what_lies_below():
    onto, other = painted_sample(0), painted_sample(1)
    out = paste(onto, other, np.array([1]))
    np.testing.assert_array_equal(out.masks[-1], other.masks[1])
    assert out.labels[-1] == other.labels[1]
    assert not (out.masks[:-1] & other.masks[1]).any()
    inner = np.zeros_like(other.masks[1])
    rows, cols = np.nonzero(other.masks[1])
    inner[rows.min() + 3 : rows.max() - 2, cols.min() + 3 : cols.max() - 2] = True
    np.testing.assert_array_equal(out.image[:, inner], other.image[:, inner])
    away = ~other.masks[1]
    away[max(0, rows.min() - 4) : rows.max() + 5, max(0, cols.min() - 4) : cols.max() + 5] = False
    np.testing.assert_array_equal(out.image[:, away], onto.image[:, away])


def test_an_object_that_is_covered_is_gone():
    onto = painted_sample(0)
    assert len(paste(onto, onto, np.array([0]))) == len(onto)


def test_pasting_happens_as_often_as_asked():
    source = CopyPaste(source=Two(), chance=0.3)
    changed = [
        (source.sample(0, np.random.default_rng(i)).image != painted_sample(0).image).any()
        for i in range(400)
    ]
    assert np.mean(changed) == pytest.approx(0.3 * 0.5, abs=0.06)  # half paste onto itself


@pytest.mark.parametrize("chance", [-0.1, 1.1, float("nan")])
def test_a_chance_that_is_none_is_refused(chance):
    with pytest.raises(ConfigError, match="copy_paste must be in"):
        CopyPaste(source=Two(), chance=chance)
