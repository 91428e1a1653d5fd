"""OSM's XML, written as text: JOSM's files and osmChange, object by object the same every time.

Frame: WGS84. Must not import osmium, which can write neither JOSM's attributes nor this fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import quoteattr

import numpy as np

from geoseg.osm.elements import DEGREE_E7, OsmData
from geoseg.osm.tags import clean_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from geoseg.osm.elements import Tags

BLOCK: Final = 50_000
"""Objects turned into text at a time: some megabytes."""

HEAD: Final = "<?xml version='1.0' encoding='UTF-8'?>\n"
NEW_VERSION: Final = ' version="1"'
"""What osmium and OSM's server want of objects that are to be created."""

IN_JOSM: Final = ' action="modify"'
"""What JOSM wants of them."""


def josm_xml(data: OsmData, *, generator: str, upload_allowed: bool = False) -> Iterator[str]:
    """Yield the text of a file for JOSM; unless allowed, JOSM refuses to upload it.

    Example:
        >>> from geoseg.osm.objects.build import build
        >>> from geoseg.osm.objects.outlines import NO_OUTLINES
        >>> print("".join(josm_xml(build(NO_OUTLINES, []), generator="geoseg")))
        <?xml version='1.0' encoding='UTF-8'?>
        <osm version="0.6" generator="geoseg" upload="never">
        </osm>
        <BLANKLINE>
    """
    upload = "true" if upload_allowed else "never"
    yield f'{HEAD}<osm version="0.6" generator={quoteattr(generator)} upload="{upload}">\n'
    yield from _objects(data, IN_JOSM)
    yield "</osm>\n"


def osm_xml(data: OsmData, *, generator: str) -> Iterator[str]:
    """Yield the text of a plain OSM file, for other programs."""
    yield f'{HEAD}<osm version="0.6" generator={quoteattr(generator)}>\n'
    yield from _objects(data, NEW_VERSION)
    yield "</osm>\n"


def change_xml(data: OsmData, *, generator: str, changeset: int | None = None) -> Iterator[str]:
    """Yield the text of an osmChange file that creates everything.

    Args:
        data: The objects.
        generator: Name of the program.
        changeset: Number of the changeset on the server; None for a file that knows none yet.
    """
    extra = NEW_VERSION if changeset is None else f'{NEW_VERSION} changeset="{changeset}"'
    yield f'{HEAD}<osmChange version="0.6" generator={quoteattr(generator)}>\n'
    if data.n_elements:
        yield "<create>\n"
        yield from _objects(data, extra)
        yield "</create>\n"
    yield "</osmChange>\n"


def _objects(data: OsmData, extra: str) -> Iterator[str]:
    inside = _tag_writer()
    yield from _nodes(data, extra)
    yield from _ways(data, extra, inside)
    yield from _relations(data, extra, inside)


def _nodes(data: OsmData, extra: str) -> Iterator[str]:
    line = f'<node id="%d"{extra} lat="%s%d.%07d" lon="%s%d.%07d"/>\n'
    for start in range(0, len(data.node_ids), BLOCK):
        block = slice(start, start + BLOCK)
        lon, lat = (_decimal(values) for values in data.lonlat_e7[block].T)
        columns = (data.node_ids[block].tolist(), *lat, *lon)
        flat = [value for row in zip(*columns, strict=True) for value in row]
        yield (line * len(columns[0])) % tuple(flat)


def _decimal(values: NDArray[np.int64]) -> tuple[list[str], list[int], list[int]]:
    """Return sign, whole degrees and 1e-7 degrees: exact, as no float would be."""
    whole, rest = np.divmod(np.abs(values), DEGREE_E7)
    return np.where(values < 0, "-", "").tolist(), whole.tolist(), rest.tolist()


def _ways(data: OsmData, extra: str, inside: Callable[[Tags], str]) -> Iterator[str]:
    for start in range(0, len(data.way_ids), BLOCK):
        ids = data.way_ids[start : start + BLOCK].tolist()
        offsets = data.way_offsets[start : start + BLOCK + 1]
        refs = [f'<nd ref="{i}"/>\n' for i in data.way_nodes[offsets[0] : offsets[-1]].tolist()]
        ends = (offsets - offsets[0]).tolist()
        tags = data.way_tags[start : start + BLOCK]
        yield "".join(
            f'<way id="{i}"{extra}>\n{"".join(refs[a:b])}{inside(of)}</way>\n'
            for i, a, b, of in zip(ids, ends, ends[1:], tags, strict=False)
        )


def _relations(data: OsmData, extra: str, inside: Callable[[Tags], str]) -> Iterator[str]:
    for relation in data.relations:
        members = "".join(
            f'<member type="way" ref="{member.way_id}" role={quoteattr(member.role)}/>\n'
            for member in relation.members
        )
        yield f'<relation id="{relation.id}"{extra}>\n{members}{inside(relation.tags)}</relation>\n'


def _tag_writer() -> Callable[[Tags], str]:
    """Return what turns tags into text, cleaned once for each mapping that objects share."""
    last: tuple[Tags | None, str] = (None, "")

    def write(tags: Tags) -> str:
        nonlocal last
        if tags is not last[0]:
            lines = (
                f"<tag k={quoteattr(key)} v={quoteattr(value)}/>\n"
                for key, value in clean_tags(tags).items()
            )
            last = (tags, "".join(lines))
        return last[1]

    return write
