"""A PMTiles archive without tiles: GDAL cannot write one, and no footprints is a result too.

Specification: https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md.
"""

from __future__ import annotations

import gzip
import json
import struct
from typing import TYPE_CHECKING, Final

from geoseg.footprints import OPTIONAL, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from geoseg.vector.spool import Spool

HEADER_BYTES: Final = 127
GZIP: Final = 2
VECTOR_TILES: Final = 1
WORLD_E7: Final = (-1_800_000_000, -850_511_287, 1_800_000_000, 850_511_287)
_TYPES: Final[Mapping[str, str]] = {"str": "String", "bool": "Boolean"}
"""Of the fields of vector tiles, by type of column; all others are numbers."""


def write_empty_pmtiles(spool: Spool, path: Path, *, layer: str, zooms: tuple[int, int]) -> None:
    """Write a valid archive of no tiles whose metadata names the layer and the spool's fields.

    Raises:
        OSError: The file cannot be written.
    """
    kinds = {**SCHEMA, **OPTIONAL}
    fields = {name: _TYPES.get(kinds[name], "Number") for name in spool.schema.names[:-1]}
    layers = [{"id": layer, "minzoom": zooms[0], "maxzoom": zooms[1], "fields": fields}]
    directory = gzip.compress(b"\x00", mtime=0)  # a varint: no entries
    metadata = gzip.compress(
        json.dumps({"name": layer, "format": "pbf", "vector_layers": layers}).encode(), mtime=0
    )
    root, start = HEADER_BYTES, HEADER_BYTES + len(directory)
    data = start + len(metadata)
    header = b"PMTiles\x03" + struct.pack(
        "<11Q6B4iB2i",
        *(root, len(directory), start, len(metadata), data, 0, data, 0, 0, 0, 0),
        *(1, GZIP, GZIP, VECTOR_TILES, *zooms),
        *WORLD_E7,
        *(zooms[0], 0, 0),
    )
    path.write_bytes(header + directory + metadata)
