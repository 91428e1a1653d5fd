"""The scenes that benchmarks run on: the synthetic town, and real ones where they are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import shapely
from rasterio.windows import Window

from geoseg.testing import make_town, write_town
from geoseg.vector import read_vector

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

REAL_SCENES = Path(__file__).resolve().parents[2] / "shared" / "scenes"
"""OpenAerialMap imagery with outlines beside it; benchmarks that need it skip visibly."""

NOT_HERE = "real scenes are not here: ../shared/scenes"
DENSE_PX = 1500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A raster and the outlines of its buildings."""

    name: str
    path: Path
    truth: gpd.GeoDataFrame


def town_picture(folder: Path, *, size_px: int) -> Scene:
    """Render the synthetic town as imagery."""
    town = make_town(size_px=size_px)
    return Scene(name=f"town {size_px}", path=write_town(town, folder).image, truth=town.truth)


def real_scene(name: str) -> Scene | None:
    """Return a real scene, or None where it is not here."""
    path = REAL_SCENES / f"{name}.tif"
    if not path.is_file():
        return None
    return Scene(name=name, path=path, truth=read_vector(path.with_suffix(".geojson")))


def densest_part(scene: Scene, folder: Path, *, size_px: int = DENSE_PX) -> Scene:
    """Cut out the square with the most buildings and the outlines centred in it."""
    with rasterio.open(scene.path) as source:
        truth = scene.truth.to_crs(source.crs)
        centres = shapely.get_coordinates(shapely.centroid(truth.geometry.to_numpy()))
        cols, rows = ~source.transform * centres.T
        window = _densest(np.column_stack([rows, cols]), source.shape, size_px)
        profile = source.profile | {
            "height": window.height,
            "width": window.width,
            "transform": source.window_transform(window),
        }
        path = folder / f"{scene.name}_dense.tif"
        with rasterio.open(path, "w", **profile) as part:
            part.write(source.read(window=window))
            part.write_mask(source.dataset_mask(window=window))
    inside = (
        (rows >= window.row_off)
        & (rows < window.row_off + window.height)
        & (cols >= window.col_off)
        & (cols < window.col_off + window.width)
    )
    return Scene(name=f"{scene.name} densest {size_px}", path=path, truth=truth[inside])


def _densest(centres_rc: NDArray[np.float64], shape_hw: tuple[int, int], size_px: int) -> Window:
    """Return the window with most centres, of those at every 100th pixel."""
    height, width = (min(size_px, side) for side in shape_hw)
    best = (-1, 0, 0)
    for row in range(0, shape_hw[0] - height + 1, 100):
        for col in range(0, shape_hw[1] - width + 1, 100):
            inside = ((centres_rc >= (row, col)) & (centres_rc < (row + height, col + width))).all(
                axis=1
            )
            best = max(best, (int(inside.sum()), -row, -col))
    return Window(-best[2], -best[1], width, height)
