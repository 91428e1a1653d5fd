"""Stitching a town whose every mask is off by a pixel: houses neither fuse nor split."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch
from builders import make_grid, plan

from geoseg.detections import crop_masks
from geoseg.polygonize import PolygonizeOptions, contour, to_ground
from geoseg.stitch import Instance, stitch
from geoseg.testing import ids_to_rgb, make_town, noisy_oracle, oracle


def detect_and_stitch(
    ids: np.ndarray, model: torch.nn.Module, *, overlap_px: int
) -> list[Instance]:
    rgb = ids_to_rgb(ids)
    found = []
    for chip in plan(ids, size_px=300, overlap_px=overlap_px):
        image = torch.from_numpy(rgb[chip.window.slices].transpose(2, 0, 1).copy()) / 255
        out = {name: tensor.numpy() for name, tensor in model([image])[0].items()}
        masks = out.pop("masks")[:, 0]
        found.append((chip, crop_masks("s", chip.window, masks=masks, **out)))
    return stitch(found, shape_hw=ids.shape)


def f1(instances: list[Instance], truth: np.ndarray) -> float:
    """Match one to one by IoU above 0.5, where at most one partner is possible."""
    shapes = contour(
        [item.soft for item in instances],
        [(item.window.col_off, item.window.row_off) for item in instances],
    )
    i, j = shapely.STRtree(truth).query(shapes)
    shared = shapely.area(shapely.intersection(shapes[i], truth[j]))
    iou = shared / (shapely.area(shapes[i]) + shapely.area(truth[j]) - shared)
    return 2 * int((iou > 0.5).sum()) / (len(shapes) + len(truth))


def painted_shapes(ids: np.ndarray) -> np.ndarray:
    masks = [np.where(ids == k, 255, 0).astype(np.uint8) for k in range(1, ids.max() + 1)]
    return contour(masks, [(0, 0)] * len(masks))


@pytest.mark.parametrize(("seed", "overlap_px"), [(0, 60), (5, 60), (11, 60), (11, 100)])
def test_a_pixel_of_noise_on_every_mask_costs_almost_nothing(seed: int, overlap_px: int) -> None:
    ids = make_town(size_px=760, seed=seed).ids
    instances = detect_and_stitch(ids, noisy_oracle(), overlap_px=overlap_px)
    assert abs(len(instances) / ids.max() - 1) <= 0.015
    assert f1(instances, painted_shapes(ids)) >= 0.988


def test_without_noise_the_town_is_exact() -> None:
    ids = make_town(size_px=760, seed=2).ids
    instances = detect_and_stitch(ids, oracle(), overlap_px=60)
    assert len(instances) == ids.max()
    assert f1(instances, painted_shapes(ids)) == 1.0
    sizes = sorted(int((item.soft >= 128).sum()) for item in instances)
    assert sizes == sorted(np.bincount(ids.ravel())[1:].tolist())


def test_area_has_no_bias_under_noise() -> None:
    ids = make_town(size_px=760, seed=3).ids
    instances = detect_and_stitch(ids, noisy_oracle(), overlap_px=60)
    shapes = contour([i.soft for i in instances], [(0, 0)] * len(instances))
    _, area_m2 = to_ground(
        shapes, make_grid(height=760, width=760), options=PolygonizeOptions(min_area_m2=0)
    )
    assert area_m2.sum() / (np.count_nonzero(ids) * 0.25) == pytest.approx(1, abs=0.03)
