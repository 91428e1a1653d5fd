"""OSM documents built by hand, shared by the tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import shapely

from geoseg.osm.mapped.near import Near

EXTRACTS = Path(__file__).resolve().parents[2] / "shared" / "osm"
EVERYWHERE = Near.of(shapely.box([-179, -90, 0, 90], -80, [-90, 0, 90, 179], 80), margin_m=0)

Nodes = dict[int, tuple[float, float]]
Ways = dict[int, tuple[list[int], dict[str, str]]]
Relations = dict[int, tuple[list[tuple[int, str]], dict[str, str]]]


def osm_xml(nodes: Nodes, ways: Ways, relations: Relations | None = None) -> str:
    """Return an .osm document of nodes (lon, lat), ways (refs, tags), relations (members, tags)."""
    lines = ["<?xml version='1.0' encoding='UTF-8'?>", "<osm version='0.6'>"]
    lines += [f"<node id='{i}' version='1' lon='{x}' lat='{y}'/>" for i, (x, y) in nodes.items()]
    for i, (refs, tags) in ways.items():
        inside = "".join(f"<nd ref='{ref}'/>" for ref in refs)
        lines.append(f"<way id='{i}' version='1'>{inside}{_tags(tags)}</way>")
    for i, (members, tags) in (relations or {}).items():
        inside = "".join(f"<member type='way' ref='{w}' role='{role}'/>" for w, role in members)
        lines.append(f"<relation id='{i}' version='1'>{inside}{_tags(tags)}</relation>")
    return "\n".join([*lines, "</osm>"])


def overpass_json(
    nodes: Nodes, ways: Ways, relations: Relations | None = None, *, geom: bool
) -> str:
    """Return the same as Overpass answers it: with geometries, or as a body with nodes."""
    course = {i: [dict(zip(("lon", "lat"), nodes[n], strict=True)) if n in nodes else None
                  for n in refs] for i, (refs, _) in ways.items()}  # fmt: skip
    elements: list[dict[str, Any]] = []
    for i, (refs, tags) in ways.items():
        element: dict[str, Any] = {"type": "way", "id": i, "nodes": refs, "tags": tags}
        elements.append(element | ({"geometry": course[i]} if geom else {}))
    for i, (members, tags) in (relations or {}).items():
        listed = [
            {"type": "way", "ref": w, "role": role}
            | ({"geometry": course[w]} if geom and w in course else {})
            for w, role in members
        ]
        elements.append({"type": "relation", "id": i, "members": listed, "tags": tags})
    if not geom:
        elements += [{"type": "node", "id": i, "lon": x, "lat": y} for i, (x, y) in nodes.items()]
    else:  # untagged ways come with the relation only
        elements = [e for e in elements if e["type"] != "way" or e["tags"]]
    return json.dumps({"version": 0.6, "elements": elements})


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    """Return the corners of a square, counterclockwise."""
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def _tags(tags: dict[str, str]) -> str:
    return "".join(f"<tag k={quoteattr(k)} v={quoteattr(v)}/>" for k, v in tags.items())
