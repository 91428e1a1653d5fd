"""Geometries between the two frames of a scene: its CRS, and the pixels of its grid.

Pixels are points (x = col, y = row) at pixel edges. Every point moves by itself, so corners that
neighbours share stay shared to the bit. Imports numpy and shapely only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from geoseg.grid import apply_transform

if TYPE_CHECKING:
    from geoseg.grid import Grid

Geometries = np.ndarray
"""1-d object array of shapely geometries."""


def to_px(geometries: Geometries, grid: Grid) -> Geometries:
    """Return geometries (N,) of a grid's CRS in its pixels.

    Example:
        >>> from geoseg.testing import make_town
        >>> town = make_town(size_px=300)
        >>> outlines = to_px(town.truth.geometry.to_numpy(), town.grid)
        >>> bool((shapely.total_bounds(outlines) < 300).all())
        True
    """
    to_pixels = ~grid.transform
    moved = shapely.transform(geometries, lambda xy: apply_transform(to_pixels, xy))
    return np.asarray(moved, object)


def from_px(geometries: Geometries, grid: Grid) -> Geometries:
    """Return geometries (N,) of a grid's pixels in its CRS; rings turn where the rows go south."""
    moved = shapely.transform(geometries, lambda xy: apply_transform(grid.transform, xy))
    return np.asarray(moved, object)
