"""Pixels in and out: the only package that opens rasters.

`Scene` reads windows on the working grid, `read_batches` keeps threads ahead of the network, and
the writers make chip images and mask rasters. Frames: pixels of a `Grid`. Must not import torch.
"""

from geoseg.raster.gdal import source_files
from geoseg.raster.images import read_chip_image, write_chip_image
from geoseg.raster.masks import MaskWriter, rasterize_footprints, rasterize_polygons
from geoseg.raster.readers import ChipSource, read_batches
from geoseg.raster.rescale import Rescale
from geoseg.raster.scene import Scene

__all__ = [
    "ChipSource",
    "MaskWriter",
    "Rescale",
    "Scene",
    "rasterize_footprints",
    "rasterize_polygons",
    "read_batches",
    "read_chip_image",
    "source_files",
    "write_chip_image",
]
