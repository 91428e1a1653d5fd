"""XML of strangers, element by element: no document types, no entities, bounded size and depth.

A push parser over blocks of bytes, so that a file of millions of elements is never in memory. Must
not import osmium, and knows nothing of OSM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.parsers import expat

from geoseg.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_DEPTH: Final = 16
"""Deepest nesting; OSM's documents have five levels."""

BLOCK_BYTES: Final = 1 << 20
"""Bytes handed to the parser at a time."""


def walk_xml(
    blocks: Iterable[bytes],
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None],
    *,
    max_bytes: int,
) -> None:
    """Call `start(name, attributes)` and `end(name)` for each element of a document.

    Args:
        blocks: The document, UTF-8 or what its declaration says, in pieces.
        start: Told the beginning of each element.
        end: Told the end of each.
        max_bytes: Most bytes of the document, counted after decompression.

    Raises:
        FormatError: Not XML, torn, too large, too deep, or with a document type.

    Example:
        >>> walk_xml([b"<a><b k='1'/>", b"</a>"], print, lambda name: None, max_bytes=100)
        a {}
        b {'k': '1'}
    """
    parser = expat.ParserCreate()
    depth = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise FormatError(f"XML must be at most {MAX_DEPTH} levels deep, line {_line(parser)}")
        start(name, attributes)

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name)

    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        size = 0
        for block in blocks:
            size += len(block)
            if size > max_bytes:
                raise FormatError(f"XML must have at most {max_bytes / 1e6:,.0f} MB; cut it")
            parser.Parse(block, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise FormatError(f"not XML, or torn: {error}") from error


def _line(parser: expat.XMLParserType) -> int:
    return parser.CurrentLineNumber


def _refuse_doctype(*_: object) -> None:
    raise FormatError("XML must have no document type: entities can fill a memory")
