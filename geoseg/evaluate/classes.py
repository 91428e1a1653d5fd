"""Say what a model found in the classes of the truth it is compared with.

A model and a document each have classes of their own; what they share is a COCO id or a name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from geoseg.data.annotations import Annotations
    from geoseg.models.spec import Category


def in_classes_of(truth: Annotations, results: Annotations) -> Annotations:
    """Return results with the labels that the truth's classes have.

    Classes are one where their COCO ids and names agree, else where their names do, else where
    their ids do; a model with a single class finds what a document with a single class shows,
    whatever both call it. What a model knows and the document does not is left out.

    Args:
        truth: Says which classes there are.
        results: What was found, in the model's classes.

    Raises:
        ConfigError: They have no class in common.
    """
    if results.categories == truth.categories:
        return results
    labels = np.zeros(max((c.label for c in results.categories), default=0) + 1, np.int16)
    for category in results.categories:
        labels[category.label] = _label(category, truth.categories)
    if not labels.any() and len(truth.categories) == len(results.categories) == 1:
        labels[results.categories[0].label] = truth.categories[0].label
    if not labels.any():
        raise ConfigError(
            f"the model must know a class of the document ({_names(truth.categories)}), "
            f"it knows {_names(results.categories)}"
        )
    moved = replace(results, labels=labels[results.labels], categories=truth.categories)
    return moved.where(moved.labels > 0)


def _label(category: Category, known: tuple[Category, ...]) -> int:
    """Return the label among known classes, 0 where there is none."""
    for same in (
        [c for c in known if (c.id, c.name) == (category.id, category.name)],
        [c for c in known if c.name == category.name],
        [c for c in known if c.id == category.id],
    ):
        if same:
            return same[0].label
    return 0


def _names(categories: tuple[Category, ...]) -> str:
    return ", ".join(f"{c.name} ({c.id})" for c in categories)
