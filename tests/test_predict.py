"""Prediction against torchvision's own forward, and with networks that misbehave."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from builders import make_chip, make_window
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from geoseg.chips import Chip, ChipBatch
from geoseg.errors import ConfigError, DeviceError, ModelError
from geoseg.models import LoadedModel, load_model
from geoseg.predict import CPU_BATCH, Predictor, _forward_unpasted, default_batch_size
from geoseg.testing import blank, ids_to_rgb, make_town, oracle, soft_oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoseg.detections import Detections

CPU = torch.device("cpu")
SPEC = load_model("geoseg.testing:blank", device="cpu").spec


def make_predictor(
    module: nn.Module, *, score_threshold: float = 0.0, batch_size: int | None = None
) -> Predictor:
    model = LoadedModel(module=module.eval(), spec=SPEC, device=CPU)
    return Predictor(model, score_threshold=score_threshold, batch_size=batch_size)


def make_batch(images: np.ndarray, *, windows: list | None = None) -> ChipBatch:
    """Build a batch of (B, H, W, 3) pictures."""
    windows = windows or [make_window(0, 300 * i, *images.shape[1:3]) for i in range(len(images))]
    return ChipBatch(
        chips=tuple(make_chip(col=i, window=w) for i, w in enumerate(windows)),
        images=np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        valid=np.ones(images.shape[:3], bool),
    )


def painted(n: int = 3, side: int = 32) -> tuple[ChipBatch, np.ndarray]:
    """Build chips with painted ids: chip i holds i houses, its first one empty."""
    ids = np.zeros((n, side, side), np.int32)
    for i in range(n):
        for k in range(i):
            ids[i, 2 + 5 * k : 6 + 5 * k, 3 : 10 + k] = k + 1
    return make_batch(np.stack([ids_to_rgb(part) for part in ids])), ids


def contents(found: list[tuple[Chip, Detections]]) -> list[tuple[object, ...]]:
    return [
        (chip.col, d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), d.mask_data.tobytes())
        for chip, d in found
    ]


def test_every_chip_comes_back_in_order_with_its_own_masks() -> None:
    batch, ids = painted(5)
    found = list(make_predictor(oracle(), batch_size=2).stream([batch]))
    assert [chip for chip, _ in found] == list(batch.chips)
    for (chip, detections), truth in zip(found, ids, strict=True):
        assert detections.window == chip.window
        assert detections.scene_id == chip.scene_id
        assert len(detections) == truth.max()
        for k, (x0, y0, x1, y1) in enumerate(detections.mask_boxes.tolist(), start=1):
            assert np.array_equal(detections.mask(k - 1) == 255, truth[y0:y1, x0:x1] == k)
            assert (truth == k).sum() == (detections.mask(k - 1) == 255).sum()


def test_nothing_found_is_empty_detections() -> None:
    batch, _ = painted(2)
    assert [len(d) for _, d in make_predictor(blank()).stream([batch])] == [0, 0]
    assert list(make_predictor(blank()).stream([])) == []


class Scripted(nn.Module):
    """Returns what it is told to."""

    def __init__(self, answer: Callable[[list[Tensor]], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: list[Tensor]) -> object:
        return self.answer(images)


def detection(n: int = 2, side: int = 32, **changes: object) -> dict[str, object]:
    masks = torch.zeros(n, 1, side, side)
    masks[:, :, 4:9, 4:9] = 1
    good = {
        "boxes": torch.tensor([[4.0, 4, 9, 9]]).repeat(n, 1),
        "labels": torch.ones(n, dtype=torch.int64),
        "scores": torch.linspace(0.9, 0.1, n),
        "masks": masks,
    }
    return good | changes


def run_with(**changes: object) -> list[tuple[Chip, Detections]]:
    batch, _ = painted(1)
    return list(make_predictor(Scripted(lambda _: [detection(**changes)])).stream([batch]))


def test_a_network_is_fed_float_images_in_zero_to_one() -> None:
    seen: list[Tensor] = []
    batch = make_batch(np.full((2, 32, 32, 3), 255, np.uint8))

    def answer(images: list[Tensor]) -> object:
        seen.extend(images)
        return [detection(0)] * len(images)

    list(make_predictor(Scripted(answer)).stream([batch]))
    assert [tuple(image.shape) for image in seen] == [(3, 32, 32)] * 2
    assert all(image.dtype == torch.float32 and image.max() == 1 for image in seen)


@pytest.mark.parametrize(
    "output",
    [
        None,
        [],
        [detection(), detection()],
        detection(),
        [None],
        [{key: value for key, value in detection().items() if key != "masks"}],
        [detection(masks=None)],
        [detection(scores=np.zeros(2))],
    ],
    ids=["none", "too few", "too many", "a dict", "no dict", "no masks", "null", "an array"],
)
def test_what_is_not_the_contract_is_a_model_error(output: object) -> None:
    batch, _ = painted(1)
    with pytest.raises(ModelError, match="one dict of boxes, labels, scores, masks per image"):
        list(make_predictor(Scripted(lambda _: output)).stream([batch]))


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": torch.zeros(3, 4)},
        {"boxes": torch.zeros(2, 5)},
        {"boxes": torch.zeros(8)},
        {"labels": torch.ones(1)},
        {"scores": torch.ones(2, 1)},
        {"scores": torch.tensor(0.5)},
        {"masks": torch.zeros(2, 32, 32)},
        {"masks": torch.zeros(2, 2, 32, 32)},
        {"masks": torch.zeros(1, 1, 32, 32)},
        {"masks": torch.zeros(2, 1, 28, 28)},
    ],
)
def test_arrays_that_disagree_are_a_model_error(changes: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="disagree"):
        run_with(**changes)


@pytest.mark.parametrize("name", ["boxes", "scores", "masks"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_a_model_error(name: str, value: float) -> None:
    bad = detection()[name].clone()
    bad.view(-1)[1] = value
    if (name, value) == ("scores", float("inf")):
        assert run_with(scores=bad)[0][1].scores.max() == 1
        return
    with pytest.raises(ModelError, match="NaN or infinite"):
        run_with(**{name: bad})


@pytest.mark.parametrize("value", [-3.0, 5.0, 255.0])
def test_masks_that_are_no_probabilities_are_a_model_error(value: float) -> None:
    with pytest.raises(ModelError, match=r"masks must be probabilities in \[0, 1\]"):
        run_with(masks=torch.full((2, 1, 32, 32), value))


def test_rounding_a_little_over_one_is_forgiven() -> None:
    ((_, found),) = run_with(
        masks=torch.full((2, 1, 32, 32), 1.0005), scores=torch.full((2,), 1.01)
    )
    assert set(found.mask_data.tolist()) == {255}
    assert found.scores.tolist() == [1, 1]


def test_an_empty_output_may_have_masks_of_any_size() -> None:
    ((_, found),) = run_with(n=0, masks=torch.zeros(0, 1, 28, 28))
    assert len(found) == 0


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_scores_below_the_threshold_are_dropped(threshold: float) -> None:
    scores = torch.tensor([0.9, 0.5, 0.3, 0.2999])
    batch, _ = painted(1)
    module = Scripted(lambda _: [detection(4, scores=scores)])
    ((_, found),) = make_predictor(module, score_threshold=threshold).stream([batch])
    kept = [score for score in scores.numpy() if score >= np.float32(threshold)]
    assert found.scores.tolist() == [float(score) for score in kept]


class SmallMemory(nn.Module):
    """An oracle on a device that holds `room` chips; keeps a list of what was asked."""

    def __init__(self, room: int, message: str | None = None) -> None:
        super().__init__()
        self.oracle, self.room, self.message = oracle(), room, message
        self.asked: list[int] = []

    def forward(self, images: list[Tensor]) -> object:
        self.asked.append(len(images))
        if len(images) > self.room:
            if self.message is None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            raise RuntimeError(self.message)
        return self.oracle(images)


@pytest.mark.parametrize(
    "message",
    [
        None,
        "MPS backend out of memory (MPS allocated: 8 GB)",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes",
    ],
)
@pytest.mark.parametrize(("n", "batch_size", "room"), [(7, 7, 3), (5, 4, 1), (6, 6, 2), (3, 8, 2)])
def test_out_of_memory_halves_the_batch_and_changes_nothing_else(
    n: int, batch_size: int, room: int, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    batch, _ = painted(n)
    module = SmallMemory(room, message)
    predictor = make_predictor(module, batch_size=batch_size)
    with caplog.at_level(logging.WARNING):
        found = list(predictor.stream([batch, batch]))
    expected = list(make_predictor(oracle(), batch_size=1).stream([batch, batch]))
    assert contents(found) == contents(expected)
    assert predictor.batch_size <= room
    assert "out of memory" in caplog.text


def test_a_batch_that_failed_is_not_tried_at_that_size_again() -> None:
    batch, _ = painted(16)
    module = SmallMemory(2)
    list(make_predictor(module, batch_size=8).stream([batch, batch]))
    assert module.asked == [8, 4, *[2] * 16]


def test_a_device_that_holds_no_chip_is_a_device_error() -> None:
    batch, _ = painted(4)
    with pytest.raises(DeviceError, match="one chip does not fit in the memory of cpu"):
        list(make_predictor(SmallMemory(0), batch_size=4).stream([batch]))


def test_whatever_else_a_network_raises_is_a_model_error() -> None:
    batch, _ = painted(4)
    module = SmallMemory(0, "shape '[3]' is invalid")
    with pytest.raises(ModelError, match=r"RuntimeError: .*is invalid"):
        list(make_predictor(module, batch_size=4).stream([batch]))
    assert module.asked == [4]


@pytest.mark.parametrize(
    ("threshold", "size", "message"),
    [(-0.1, 1, "score_threshold"), (1.1, 1, "score_threshold"), (0.5, 0, "batch_size")],
)
def test_numbers_out_of_range_are_refused(threshold: float, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_predictor(blank(), score_threshold=threshold, batch_size=size)
    assert default_batch_size(CPU) == CPU_BATCH


def test_a_chip_smaller_than_the_frame_gets_masks_inside_its_window() -> None:
    ids = np.zeros((1, 64, 64), np.int32)
    ids[0, 30:64, 20:64] = 1
    ids[0, 50:60, 2:10] = 2  # outside the window
    batch = make_batch(ids_to_rgb(ids[0])[None], windows=[make_window(5, 7, 40, 33)])
    for model in (oracle(), soft_oracle()):
        ((_, found),) = make_predictor(model).stream([batch])
        assert len(found) == 1
        x0, y0, x1, y1 = found.mask_boxes[0].tolist()
        assert (x1, y1) == (33, 40)
        on = found.mask(0) >= 128
        assert on.sum() == pytest.approx(10 * 13, abs=4)
        assert x0 <= 20
        assert y0 <= 30


@pytest.fixture(scope="module")
def lite0() -> LoadedModel:
    """Return the bundled network, its finds scored by class alone as torchvision does."""
    loaded = load_model("maskrcnn_lite0", device="cpu", score_threshold=0.05)
    return replace(loaded, spec=replace(loaded.spec, mask_scores=False))


@pytest.fixture(scope="module")
def town_batch() -> ChipBatch:
    image = make_town(size_px=600, seed=1).image
    corners = [(0, 0), (300, 0), (150, 280)]
    return make_batch(np.stack([image[y : y + 300, x : x + 300] for y, x in corners]))


def assert_like_torchvision(
    found: list[Detections], expected: list[dict[str, Tensor]], *, least_score: float
) -> None:
    for detections, output in zip(found, expected, strict=True):
        keep = output["scores"] >= least_score
        pasted = output["masks"][keep, 0].numpy()
        shown = (np.rint(pasted * 255) >= 128).any(axis=(1, 2))
        assert np.array_equal(detections.boxes, output["boxes"][keep].numpy()[shown])
        assert np.array_equal(detections.scores, output["scores"][keep].numpy()[shown])
        assert np.array_equal(detections.labels, output["labels"][keep].numpy()[shown])
        for i, mask in enumerate(pasted[shown]):
            x0, y0, x1, y1 = detections.mask_boxes[i].tolist()
            full = np.zeros_like(mask)
            full[y0:y1, x0:x1] = detections.mask(i) / 255
            assert np.abs(full - mask).max() <= 0.5 / 255 + 1e-4
            assert ((full >= 0.5) != (mask >= 0.5)).sum() <= 1


def test_the_bundled_network_detects_what_torchvisions_own_forward_does(
    lite0: LoadedModel, town_batch: ChipBatch
) -> None:
    assert isinstance(lite0.module, MaskRCNN)
    images = list(torch.from_numpy(town_batch.images).float().div(255))
    with torch.inference_mode():
        expected = lite0.module(images)
    assert sum(len(output["boxes"]) for output in expected) > 20, "a picture with buildings"
    for least in (0.05, 0.5):
        found = Predictor(lite0, score_threshold=least).predict(town_batch)
        assert_like_torchvision(found, expected, least_score=least)


def test_mask_scores_are_the_class_s_times_the_root_of_the_iou_the_mask_expects(
    lite0: LoadedModel, town_batch: ChipBatch
) -> None:
    by_mask = replace(lite0, spec=replace(lite0.spec, mask_scores=True))
    plain = Predictor(lite0, score_threshold=0.05).predict(town_batch)
    by_class = np.concatenate([d.scores for d in plain])
    scores = [d.scores * np.sqrt(d.expected_ious()) for d in plain]
    gaps = by_class - np.concatenate(scores)
    between = float(by_class[gaps.argmax()] - gaps.max() / 2)  # its class's is enough, its own not
    for least in (0.05, between):
        found = Predictor(by_mask, score_threshold=least).predict(town_batch)
        for by_both, alone, expected in zip(found, plain, scores, strict=True):
            kept = expected >= np.float32(least)
            assert np.array_equal(by_both.scores, expected[kept])
            assert np.array_equal(by_both.mask_data, alone.take(kept).mask_data)
    assert sum(map(len, found)) < (by_class >= between).sum()


def test_mask_scores_of_a_foreign_network_count_its_own_masks() -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, 0, 4:9, 4:9], masks[1, 0, 4:9, 4:9] = 1, 0.8
    batch, _ = painted(1)
    module = Scripted(lambda _: [detection(scores=torch.tensor([0.5, 0.52]), masks=masks)])
    model = LoadedModel(module=module, spec=replace(SPEC, mask_scores=True), device=CPU)
    ((_, found),) = Predictor(model, score_threshold=0.46).stream([batch])
    assert found.scores.tolist() == pytest.approx([0.5, 0.52 * 0.8**0.5])
    ((_, found),) = Predictor(model, score_threshold=0.47).stream([batch])
    assert found.scores.tolist() == [0.5]


def test_the_bundled_network_repeats_to_the_bit_and_for_any_batch_size(
    lite0: LoadedModel, town_batch: ChipBatch
) -> None:
    first, again, single = (
        list(Predictor(lite0, score_threshold=0.3, batch_size=size).stream([town_batch]))
        for size in (3, 3, 1)
    )
    assert contents(first) == contents(again)
    for (_, a), (_, b) in zip(first, single, strict=True):
        assert len(a) == len(b)
        assert np.allclose(a.boxes, b.boxes, atol=1e-2)
        assert np.allclose(a.scores, b.scores, atol=1e-3)


def test_chips_that_the_network_resizes_have_boxes_in_their_own_pixels(
    lite0: LoadedModel, town_batch: ChipBatch
) -> None:
    small = ChipBatch(
        chips=town_batch.chips[:1],
        images=np.ascontiguousarray(town_batch.images[:1, :, :220, :220]),
        valid=town_batch.valid[:1, :220, :220],
    )
    chip = make_chip(window=make_window(0, 0, 220, 220))
    small = ChipBatch(chips=(chip,), images=small.images, valid=small.valid)
    images = list(torch.from_numpy(small.images).float().div(255))
    with torch.inference_mode():
        expected = lite0.module(images)
    found = Predictor(lite0, score_threshold=0.05).predict(small)
    assert_like_torchvision(found, expected, least_score=0.05)


def test_a_mask_rcnn_whose_body_returns_one_tensor_works() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8, padding=1), nn.ReLU())
    body.out_channels = 8
    module = MaskRCNN(
        body,
        num_classes=2,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((1.0,),)),
        box_roi_pool=_pool(7),
        mask_roi_pool=_pool(14),
        box_score_thresh=0.0,
    ).eval()
    batch = make_batch(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8))
    with torch.inference_mode():
        expected = module(list(torch.from_numpy(batch.images).float().div(255)))
    assert len(expected[0]["boxes"]) > 0
    found = make_predictor(module).predict(batch)
    assert_like_torchvision(found, expected, least_score=0.0)


def _pool(size: int) -> nn.Module:
    return MultiScaleRoIAlign(featmap_names=["0"], output_size=size, sampling_ratio=2)


def test_boxes_are_decoded_in_single_precision_under_autocast() -> None:
    module = load_model("maskrcnn_lite0", device="cpu", score_threshold=0.0).module
    predictor = make_predictor(module)
    batch = make_batch(make_town(size_px=256).image[None, :96, :96])
    images = torch.from_numpy(batch.images).float() / 255
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        (output,) = _forward_unpasted(predictor.model.module, images)
    assert output["boxes"].dtype == torch.float32
    assert len(output["boxes"]) > 0
    assert (output["boxes"] != output["boxes"].bfloat16().float()).any()


def test_overflow_inside_the_network_is_an_error_not_an_empty_map() -> None:
    module = load_model("maskrcnn_lite0", device="cpu").module
    for bias in (p for name, p in module.backbone.fpn.named_parameters() if name.endswith("bias")):
        bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN or infinite"):
        make_predictor(module).predict(make_batch(np.zeros((1, 64, 64, 3), np.uint8)))
