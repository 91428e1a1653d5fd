"""Say what a model found, or one document shows, in the classes of another.

Each has classes of its own, labelled by rank; what they share is a COCO id or a name.
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

    What a model knows and the document does not is left out.

    Args:
        truth: Says which classes there are.
        results: What was found, in the model's classes.

    Raises:
        ConfigError: They have no class in common.
    """
    found = relabelled(results, truth.categories)
    if found is None:
        raise ConfigError(
            f"the model must know a class of the document ({class_names(truth.categories)}), "
            f"it knows {class_names(results.categories)}"
        )
    return found


def relabelled(annotations: Annotations, known: tuple[Category, ...]) -> Annotations | None:
    """Return annotations with the labels that known classes have, without what is of no such class.

    Classes are one where their COCO ids and names agree, else where their names do, else where
    their ids do; a single class is the other side's single class, whatever both call it.

    Args:
        annotations: Objects in classes of their own.
        known: The classes they are to be in.

    Returns:
        The objects whose class is known; None where there is no class in common.
    """
    own = annotations.categories
    if own == known:
        return annotations
    labels = np.zeros(max((c.label for c in own), default=0) + 1, np.int16)
    for category in own:
        labels[category.label] = _label(category, known)
    if not labels.any() and len(known) == len(own) == 1:
        labels[own[0].label] = known[0].label
    if not labels.any():
        return None
    moved = replace(annotations, labels=labels[annotations.labels], categories=known)
    return moved.where(moved.labels > 0)


def class_names(categories: tuple[Category, ...]) -> str:
    """Return classes as an error names them: each by its name and COCO id."""
    return ", ".join(f"{c.name} ({c.id})" for c in categories)


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
