"""OSM files: written whole or not at all, the same bytes for the same objects.

Frame: WGS84. The extension chooses: `.osm` for JOSM, `.osm.pbf`, `.osc`, `.osc.gz`.
"""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import osmium

from geoseg import __version__
from geoseg.errors import OutputError
from geoseg.files import replacing
from geoseg.osm.formats import SUFFIXES, osm_suffix
from geoseg.osm.xml import change_xml, josm_xml, osm_xml

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from geoseg.osm.elements import OsmData

GENERATOR: Final = f"geoseg {__version__}"
GZIP_LEVEL: Final = 6


def write_osm(data: OsmData, path: str | os.PathLike[str], *, upload_allowed: bool = False) -> None:
    """Write objects to a file; one of the same name is replaced, at the end.

    Args:
        data: What is to be created.
        path: Its extension chooses the format.
        upload_allowed: Let JOSM upload the file; otherwise it says `upload="never"`.

    Raises:
        OutputError: An unknown extension, or writing failed; nothing is left behind.

    Example:
        >>> import tempfile
        >>> from geoseg.osm.objects.build import build
        >>> from geoseg.osm.objects.outlines import NO_OUTLINES
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_osm(build(NO_OUTLINES, []), f"{folder}/none.osc")
        ...     sorted(file.name for file in Path(folder).iterdir())
        ['none.osc']
    """
    suffix = osm_suffix(path)
    if suffix is None:
        raise OutputError(f"{path}: the extension must be one of {' '.join(SUFFIXES)}")
    with replacing(Path(path)) as new:
        if suffix == ".osm":
            _write_text(new, josm_xml(data, generator=GENERATOR, upload_allowed=upload_allowed))
        elif suffix == ".osm.pbf":
            plain = new.with_name("plain.osm")
            _write_text(plain, osm_xml(data, generator=GENERATOR))
            _convert(plain, new)
        else:
            _write_text(new, change_xml(data, generator=GENERATOR))


def _write_text(path: Path, texts: Iterable[str]) -> None:
    """Write UTF-8 text, compressed without name and time where the path ends in `.gz`."""
    with path.open("wb") as raw, _packed(raw, path.suffix.lower() == ".gz") as file:
        for text in texts:
            file.write(text.encode())


@contextmanager
def _packed(raw: IO[bytes], compressed: bool) -> Iterator[IO[bytes]]:
    if not compressed:
        yield raw
        return
    with gzip.GzipFile("", "wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0) as file:
        yield file  # type: ignore[misc] # GzipFile is no IO for mypy


def _convert(plain: Path, new: Path) -> None:
    """Turn XML into PBF inside libosmium."""
    header = osmium.io.Header()
    header.set("generator", GENERATOR)
    header.set("sorting", "Type_then_ID")
    try:
        with osmium.SimpleWriter(osmium.io.File(str(new), "pbf"), header=header) as writer:
            osmium.apply(str(plain), writer)
    except RuntimeError as error:
        raise OSError(str(error)) from error
