"""What an upload would send: files read and split into changesets, and the tags of these.

Without a network. Frame: WGS84. Must not import osmium.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoseg import __version__
from geoseg.errors import ConfigError, FormatError
from geoseg.osm.changesets import MAX_BBOX_KM, MAX_ELEMENTS, split_changesets
from geoseg.osm.elements import DEGREE_E7
from geoseg.osm.exchange.changes import check_tag, read_changes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geoseg.osm.elements import OsmData


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UploadPlan:
    """What an upload would send: a changeset's objects each, with the file they are from."""

    files: tuple[str, ...]
    parts: tuple[OsmData, ...]
    file_of: tuple[int, ...]
    """Position in `files`, of each part."""
    digests: tuple[str, ...]
    """Checksum of what would be sent, of each part."""

    @property
    def n_elements(self) -> int:
        """Nodes, ways and relations of all changesets."""
        return sum(part.n_elements for part in self.parts)

    def bounds_deg(self, part: int) -> tuple[float, float, float, float]:
        """Return west, south, east, north of a part in degrees, WGS84."""
        lonlat = self.parts[part].lonlat_e7
        (west, south), (east, north) = lonlat.min(axis=0).tolist(), lonlat.max(axis=0).tolist()
        return west / DEGREE_E7, south / DEGREE_E7, east / DEGREE_E7, north / DEGREE_E7


def plan_upload(
    paths: Sequence[Path], *, max_elements: int = MAX_ELEMENTS, max_bbox_km: float = MAX_BBOX_KM
) -> UploadPlan:
    """Read files and split them into changesets, without a network.

    Args:
        paths: `.osc` or `.osc.gz` files of new objects.
        max_elements: Most elements of a changeset.
        max_bbox_km: Longest side of a changeset's bounding box, km.

    Raises:
        InputNotFoundError: A file is not there.
        FormatError: A file holds anything but complete new objects.
        ConfigError: A limit is not positive, or two files hold the same.
    """
    parts: list[OsmData] = []
    file_of: list[int] = []
    seen: dict[str, int] = {}
    for position, path in enumerate(paths):
        data = read_changes(path)
        for part in split_changesets(data, max_elements=max_elements, max_bbox_km=max_bbox_km):
            twin = seen.setdefault(_digest(part), position)
            if twin != position:
                raise ConfigError(
                    f"{path}: holds the same as {paths[twin]}; each building goes up once"
                )
            parts.append(part)
            file_of.append(position)
    return UploadPlan(
        files=tuple(path.name for path in paths),
        parts=tuple(parts),
        file_of=tuple(file_of),
        digests=tuple(seen),
    )


def changeset_tags(
    comment: str,
    *,
    source: str | None = None,
    hashtags: Sequence[str] = (),
    discussion_url: str | None = None,
) -> dict[str, str]:
    """Return the tags of an import's changesets.

    Raises:
        ConfigError: One is empty, too long, or has control characters; a hashtag is not one.

    Example:
        >>> changeset_tags("Buildings of Kouvola", hashtags=["#roofs"])["hashtags"]
        '#roofs'
    """
    for hashtag in hashtags:
        if not hashtag.startswith("#") or len(hashtag) < 2 or set(hashtag) & set(" ;,\t\n"):
            raise ConfigError(f"a hashtag must be # and a word, got {hashtag[:40]!r}")
    tags = {
        "comment": comment,
        "created_by": f"geoseg/{__version__}",
        "import": "yes",
        **({"source": source} if source is not None else {}),
        **({"hashtags": ";".join(hashtags)} if hashtags else {}),
        **({"url": discussion_url} if discussion_url is not None else {}),
    }
    try:
        for key, value in tags.items():
            check_tag(key, value)
    except FormatError as error:
        raise ConfigError(f"a changeset's {error}") from error
    return tags


def _digest(data: OsmData) -> str:
    """Return a checksum of objects that does not depend on how they are written."""
    relations = [
        [r.id, [[m.way_id, m.role] for m in r.members], dict(r.tags)] for r in data.relations
    ]
    words = json.dumps([[dict(tags) for tags in data.way_tags], relations], sort_keys=True)
    checksum = hashlib.sha256(words.encode())
    for values in (data.node_ids, data.lonlat_e7, data.way_ids, data.way_offsets, data.way_nodes):
        checksum.update(np.ascontiguousarray(values, "<i8").tobytes())
    return checksum.hexdigest()
