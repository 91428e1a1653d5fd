from __future__ import annotations

import pytest

from geoseg.errors import ConfigError
from geoseg.evaluate import coco_figures
from geoseg.evaluate.classes import in_classes_of
from geoseg.models.spec import BUILDING, Category
from tests.test_evaluate_coco import annotated

HOUSE, SHED = (10, 10, 30, 30), (50, 50, 80, 80)


def kinds(*classes: tuple[int, str]) -> tuple[Category, ...]:
    return tuple(Category(label=k, id=i, name=name) for k, (i, name) in enumerate(classes, 1))


def found(*classes: tuple[int, str], labels: list[int]):
    boxes = [HOUSE, SHED][: len(labels)]
    return annotated(
        [boxes], [[0.9, 0.8][: len(labels)]], categories=kinds(*classes), labels=[labels]
    )


def test_the_same_classes_stay_as_they_are():
    truth, results = annotated([[HOUSE]]), annotated([[HOUSE]], [[0.9]])
    assert in_classes_of(truth, results) is results


def test_single_classes_are_one_whatever_they_are_called():
    truth = annotated([[HOUSE]], categories=kinds((3, "roof")))
    results = in_classes_of(truth, annotated([[HOUSE]], [[0.9]], categories=(BUILDING,)))
    assert coco_figures(truth, results).ap == 1
    assert results.categories == truth.categories


def test_names_go_before_ids_and_order_does_not_matter():
    """The model's id 2 is a shed, the document's a house."""
    truth = annotated([[HOUSE, SHED]], categories=kinds((2, "house"), (5, "shed")), labels=[[1, 2]])
    results = in_classes_of(truth, found((2, "shed"), (7, "house"), labels=[2, 1]))
    assert results.labels.tolist() == [1, 2]
    assert coco_figures(truth, results).ap == 1


def test_what_the_document_does_not_know_is_left_out():
    truth = annotated([[HOUSE]], categories=kinds((1, "house"), (4, "pool")))
    results = in_classes_of(truth, found((1, "house"), (9, "car"), labels=[1, 2]))
    assert results.labels.tolist() == [1]


def test_nothing_in_common_is_refused():
    truth = annotated([[HOUSE]], categories=kinds((1, "house"), (4, "pool")))
    with pytest.raises(ConfigError, match=r"house \(1\), pool \(4\).*knows car \(9\)"):
        in_classes_of(truth, found((9, "car"), labels=[1]))
