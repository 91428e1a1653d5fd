"""What is sent to a server: XML of a changeset's tags, of new objects, of objects to be deleted.

Deterministic: the same objects give the same bytes. Frame: WGS84. Must not import osmium.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import quoteattr

from geoseg import __version__
from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.exchange.changes import check_tag
from geoseg.osm.xml import HEAD, change_xml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from geoseg.osm.elements import OsmData
    from geoseg.osm.exchange.replies import Element

_GENERATOR: Final = f"geoseg/{__version__}"


def changeset_document(tags: Mapping[str, str]) -> bytes:
    """Return the document that opens a changeset.

    Raises:
        FormatError: A tag is empty, too long, or has control characters.

    Example:
        >>> print(changeset_document({"comment": "A & B"}).decode().splitlines()[1])
        <osm><changeset><tag k="comment" v="A &amp; B"/></changeset></osm>
    """
    for key, value in tags.items():
        check_tag(key, value)
    lines = "".join(f"<tag k={quoteattr(k)} v={quoteattr(v)}/>" for k, v in tags.items())
    return f"{HEAD}<osm><changeset>{lines}</changeset></osm>\n".encode()


def creation_document(data: OsmData, changeset: int) -> bytes:
    """Return the osmChange document that creates objects in a changeset.

    Args:
        data: The objects; what is referred to comes before what refers to it.
        changeset: Number of the open changeset.

    Raises:
        FormatError: A server would refuse a tag.
    """
    for tags in itertools.chain(data.way_tags, (relation.tags for relation in data.relations)):
        for key, value in tags.items():
            check_tag(key, value)
    text = "".join(change_xml(data, generator=_GENERATOR, changeset=changeset))
    return text.encode()


def deletion_document(elements: Iterable[Element], changeset: int) -> bytes:
    """Return the osmChange document that deletes objects which nothing else uses.

    Args:
        elements: As the server holds them; relations, then ways, then nodes, whatever the order.
        changeset: Number of the open changeset.
    """
    order = {"relation": 0, "way": 1, "node": 2}
    lines = (
        f'<{e.kind} id="{e.id}" version="{e.version}" changeset="{changeset}"{_place(e)}/>\n'
        for e in sorted(elements, key=lambda e: (order[e.kind], e.id))
    )
    text = "".join(lines)
    head = f'{HEAD}<osmChange version="0.6" generator={quoteattr(_GENERATOR)}>\n'
    return f'{head}<delete if-unused="true">\n{text}</delete>\n</osmChange>\n'.encode()


def degrees(value_e7: int) -> str:
    """Return whole 1e-7 degrees as text, exactly.

    Example:
        >>> degrees(-5), degrees(607_000_000)
        ('-0.0000005', '60.7000000')
    """
    sign = "-" if value_e7 < 0 else ""
    whole, rest = divmod(abs(value_e7), DEGREE_E7)
    return f"{sign}{whole}.{rest:07d}"


def _place(element: Element) -> str:
    if element.lonlat_e7 is None:
        return ""
    lon, lat = element.lonlat_e7
    return f' lat="{degrees(lat)}" lon="{degrees(lon)}"'
