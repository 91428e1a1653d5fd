"""One step of training, and the arithmetic it is done in."""

from __future__ import annotations

import pytest
import torch

from geoseg.config import load_train_config
from geoseg.errors import ModelError
from geoseg.train.network import build_network
from geoseg.train.options import NetworkOptions
from geoseg.train.trainee import Trainee, choose_precision, make_trainee, take_step

CPU = torch.device("cpu")
SIDE = 96


def learner(**options: object) -> tuple[Trainee, object]:
    torch.manual_seed(0)
    given = {"loop.precision": "fp32", "optim.warmup_steps": 0} | options
    config = load_train_config(options=given)
    network = NetworkOptions(init="random")
    return make_trainee(build_network(network, num_classes=2, size_px=SIDE)[0], config, CPU), config


def batch() -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Return one chip with a bright square, and what is true of it."""
    image, mask = (torch.zeros(n, SIDE, SIDE, dtype=torch.uint8) for n in (3, 1))
    image[:, 20:60, 20:60], mask[:, 20:60, 20:60] = 255, 1
    box = torch.tensor([[20.0, 20, 60, 60]])
    return [image], [{"boxes": box, "labels": torch.ones(1, dtype=torch.int64), "masks": mask}]


def test_the_precision_asked_for_is_taken() -> None:
    assert [choose_precision(p, CPU) for p in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]
    assert choose_precision("auto", CPU) in {"fp32", "bf16"}


def test_steps_lower_the_loss_of_what_they_are_shown() -> None:
    trainee, config = learner(**{"optim.lr": 1e-3})
    trainee.module.train()
    losses = [take_step(trainee, [batch()], config, step) for step in range(8)]
    for one in losses:
        assert one["loss"] == pytest.approx(sum(v for k, v in one.items() if k != "loss"))
    assert losses[-1]["loss"] < 0.7 * losses[0]["loss"]


def test_the_average_follows_the_weights_at_a_distance() -> None:
    trainee, config = learner(**{"optim.ema": 0.9})
    before = {k: p.detach().clone() for k, p in trainee.module.named_parameters()}
    trainee.module.train()
    take_step(trainee, [batch()], config, 9)
    name = "roi_heads.box_predictor.cls_score.weight"
    now = dict(trainee.module.named_parameters())[name].detach()
    share = 1 - 10 / 19  # the decay rises towards .9: (1 + step) / (10 + step)
    expected = before[name] + share * (now - before[name])
    assert not torch.equal(now, before[name])
    assert torch.allclose(trainee.average.values[name], expected, atol=1e-7)


@pytest.mark.parametrize("value", [float("nan"), 1e8])
def test_a_loss_that_is_no_number_or_absurd_moves_nothing(value: float) -> None:
    trainee, config = learner()
    with torch.no_grad():
        trainee.module.rpn.head.cls_logits.bias.fill_(value)
    name = "roi_heads.box_predictor.cls_score.weight"
    before = dict(trainee.module.named_parameters())[name].detach().clone()
    with pytest.raises(ModelError, match=r"the loss is \S+ at step 4 .*lower optim.lr"):
        take_step(trainee, [batch()], config, 3)
    assert torch.equal(dict(trainee.module.named_parameters())[name], before)
