"""The networks: built by name, never enlarging a chip, and folded without changing their output."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from geoseg.errors import ConfigError, ModelError
from geoseg.models.architectures import ARCHITECTURES, build_architecture
from geoseg.models.optimise import fold_batch_norms, optimise_for_inference

CPU = torch.device("cpu")
NORMS = (nn.BatchNorm2d, torchvision.ops.FrozenBatchNorm2d)


def randomise_norms(module, seed=0):
    """Give every batch norm statistics as training would: none of them neutral."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, NORMS):
                for value, lo, hi in [
                    (layer.weight, 0.5, 1.5),
                    (layer.bias, -0.3, 0.3),
                    (layer.running_mean, -0.3, 0.3),
                    (layer.running_var, 0.5, 2.0),
                ]:
                    value.uniform_(lo, hi, generator=generator)
    return module


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_runs_on_a_chip_and_folding_keeps_its_features(name):
    torch.manual_seed(0)
    module = randomise_norms(build_architecture(name).eval())
    module.roi_heads.score_thresh = 0.0
    module.roi_heads.detections_per_img = 5  # masks are the costly part
    image = torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        images, _ = module.transform([image])
        before = module.backbone(images.tensors)
        fast = optimise_for_inference(module, CPU)
        after = fast.backbone(images.tensors)
        (found,) = fast([image])

    assert images.image_sizes == [(300, 300)]  # not enlarged, only padded
    assert not any(isinstance(layer, NORMS) for layer in fast.backbone.modules())
    for level, features in before.items():
        scale = float(features.abs().max())
        assert float((after[level] - features).abs().max()) <= 1e-4 * scale, level
    n = len(found["scores"])
    assert found["boxes"].shape == (n, 4)
    assert found["masks"].shape == (n, 1, 300, 300)
    assert found["labels"].dtype == torch.int64


def test_folding_lite0_keeps_detections():
    torch.manual_seed(0)
    module = randomise_norms(build_architecture("maskrcnn_lite0").eval())
    module.roi_heads.score_thresh = 0.0
    module.roi_heads.detections_per_img = 20
    images = list(torch.rand(2, 3, 128, 128))
    with torch.inference_mode():
        before = module(images)
        after = optimise_for_inference(copy.deepcopy(module), CPU)(images)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old["labels"], new["labels"])
        torch.testing.assert_close(new["scores"], old["scores"], atol=1e-4, rtol=0)
        torch.testing.assert_close(new["boxes"], old["boxes"], atol=1e-2, rtol=0)
        torch.testing.assert_close(new["masks"], old["masks"], atol=1e-3, rtol=0)


def test_folding_keeps_the_activation_of_timm_norms():
    body = randomise_norms(timm.create_model("tf_efficientnet_lite0", features_only=True).eval())
    activations = sum(isinstance(layer, nn.ReLU6) for layer in body.modules())
    folded = fold_batch_norms(copy.deepcopy(body))
    assert sum(isinstance(layer, nn.ReLU6) for layer in folded.modules()) == activations
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())


def test_folding_respects_a_bias_and_a_norm_without_affine_terms():
    conv, norm = nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    module = nn.Sequential(conv, norm).eval()
    images = torch.rand(1, 3, 8, 8)
    expected = module(images)
    torch.testing.assert_close(fold_batch_norms(module)(images), expected, atol=1e-5, rtol=0)
    assert isinstance(module[1], nn.Identity)


def test_norm_that_belongs_to_no_convolution_is_left_alone():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    fold_batch_norms(module.eval())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in module) == 2


class _Misleading(nn.Module):
    """Registers conv and norm as neighbours, but applies the norm to the wrong end."""

    out_channels = 3

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return {"0": self.conv(self.norm(images))}


def test_folding_that_would_change_the_output_is_undone(caplog):
    module = build_architecture("maskrcnn_lite0").eval()
    module.backbone = randomise_norms(_Misleading()).eval()
    fast = optimise_for_inference(module, CPU)
    assert isinstance(fast.backbone.norm, nn.BatchNorm2d)
    assert "left as they are" in caplog.text


def test_other_networks_come_back_as_they_are():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    assert optimise_for_inference(module, CPU) is module
    assert isinstance(module[1], nn.BatchNorm2d)


def test_resnet50_layers_are_torchvisions():
    ours = build_architecture("maskrcnn_resnet50_fpn", num_classes=91).state_dict()
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    shapes = {k: v.shape for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in ours.items()} == shapes


def test_chip_size_and_classes_reach_the_network():
    module = build_architecture("maskrcnn_lite0", num_classes=4, chip_size_px=512)
    assert module.transform.min_size == (512,)
    assert module.roi_heads.box_predictor.cls_score.out_features == 4
    assert module.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 4


def test_unknown_architecture_lists_those_there_are():
    with pytest.raises(ModelError) as e:
        build_architecture("maskrcnn_resnet9000")
    assert all(name in str(e.value) for name in ARCHITECTURES)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("options", [{"num_classes": 1}, {"chip_size_px": 0}])
@pytest.mark.parametrize("name", ["maskrcnn_lite0", "maskrcnn_resnet50_fpn"])
def test_sizes_out_of_range_are_refused(name, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build_architecture(name, **options)
