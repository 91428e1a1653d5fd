from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.annotations import Annotations
from geoseg.data.collect import Collector
from geoseg.data.samples import Sample
from geoseg.models.spec import BUILDING
from tests.builders import make_detections


def random_sample(rng: np.random.Generator, count: int) -> Sample:
    masks = rng.random((count, 20, 30)) < 0.3
    masks[:, 0, 0] = True
    image = np.zeros((3, 20, 30), np.uint8)
    return Sample(image=image, masks=masks, labels=np.ones(count, np.int64))


def collected(samples: list[Sample]) -> Annotations:
    collector = Collector((BUILDING,))
    for i, sample in enumerate(samples):
        collector.add_sample(f"{i}.png", sample)
    return collector.finish()


@settings(max_examples=20)
@given(st.lists(st.integers(0, 4), max_size=6), st.integers(0, 99))
def test_masks_come_back_and_rows_are_taken_whole(counts, seed):
    rng = np.random.default_rng(seed)
    samples = [random_sample(rng, n) for n in counts]
    annotations = collected(samples)
    assert len(annotations) == sum(counts)
    taken = [i for i in range(len(counts)) if rng.random() < 0.5]
    part = annotations.take(taken)
    assert part.images.file_names == tuple(f"{i}.png" for i in taken)
    for row, i in enumerate(taken):
        objects = part.of_image(row)
        masks = [part.object_mask(k) for k in range(objects.start, objects.stop)]
        np.testing.assert_array_equal(np.array(masks, bool).reshape(-1, 20, 30), samples[i].masks)


def test_detections_are_placed_in_their_chip():
    collector = Collector((BUILDING,))
    found = make_detections(boxes=[(3, 5, 9, 12), (100, 0, 140, 30)], scores=[0.8, 0.4])
    collector.add_detections("a.png", found, image_id=7)
    annotations = collector.finish()
    assert annotations.images.ids.tolist() == [7]
    assert annotations.scores is not None
    np.testing.assert_allclose(annotations.scores, [0.8, 0.4])
    assert annotations.boxes_xywh.tolist() == [[3, 5, 6, 7], [100, 0, 40, 30]]
    assert annotations.areas_px2.tolist() == [42, 1200]
    assert annotations.object_mask(0)[5:12, 3:9].all()
    assert annotations.object_mask(0).sum() == 42


def test_names_choose_chips_in_the_documents_order():
    annotations = collected([random_sample(np.random.default_rng(0), 1) for _ in range(4)])
    assert annotations.keep({"3.png", "1.png", "9.png"}).images.file_names == ("1.png", "3.png")
