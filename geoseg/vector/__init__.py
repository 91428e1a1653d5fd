"""Vector files in and out: areas of interest, labels, footprints in every format we write.

`read`, `aoi` and `stored` read; `write` streams footprints through `spool` into one of `formats`.
Frames: geometries are (x, y) in the CRS stated beside them. No torch, no rasterio.
"""

from __future__ import annotations

from geoseg.vector.aoi import chips_touching, read_aoi
from geoseg.vector.formats import check_footprints_output
from geoseg.vector.read import read_vector
from geoseg.vector.spool import Spool
from geoseg.vector.stored import FootprintsInfo, footprints_info, read_footprints
from geoseg.vector.write import FootprintWriter

__all__ = [
    "FootprintWriter",
    "FootprintsInfo",
    "Spool",
    "check_footprints_output",
    "chips_touching",
    "footprints_info",
    "read_aoi",
    "read_footprints",
    "read_vector",
]
