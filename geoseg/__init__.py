"""Aerial GeoTIFFs in, georeferenced building footprints out.

The package reads left to right along the pipeline: `grid` and `chips` plan, `raster` reads,
`predict` runs the network, `stitch` and `polygonize` make footprints, `vector` writes them;
`stages` chains these and `cli` exposes them. Importing `geoseg` itself imports nothing heavy.
"""

__version__ = "0.1.0"
