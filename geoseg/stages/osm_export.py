"""OSM export: footprints become files of OpenStreetMap objects, for review by a person."""

from __future__ import annotations

import warnings
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import ConfigError, GeosegWarning, OutputError
from geoseg.files import check_apart, check_output, staged
from geoseg.osm.changesets import MAX_BBOX_KM, MAX_ELEMENTS, split_changesets
from geoseg.osm.files import write_osm
from geoseg.osm.formats import SUFFIXES, numbered, osm_suffix
from geoseg.osm.objects.build import build
from geoseg.osm.objects.outlines import concatenate, without_twins
from geoseg.osm.objects.sanitize import sanitize
from geoseg.osm.objects.snap import MAX_SNAP_M, snap
from geoseg.osm.tags import TagTemplate
from geoseg.stages.base import Tally
from geoseg.stages.maps import footprints_origin
from geoseg.stages.selection import Selection, selected
from geoseg.vector import footprints_info

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from geopandas import GeoDataFrame
    from pyproj import CRS

    from geoseg.osm.elements import OsmData, Tags
    from geoseg.osm.objects.outlines import Outlines

TWICE = "that came twice"
SERVER_ELEMENTS = 10_000
"""What the server takes in one changeset."""

DEFAULT_SNAP_M = 0.25
"""Less than a pixel of usual imagery: what it cannot part, it does not show apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OsmOptions:
    """How footprints become OSM objects and files."""

    tags: TagTemplate = field(default_factory=TagTemplate)
    snap_m: float = DEFAULT_SNAP_M
    """Corners this near to a neighbour's corner or wall are shared with it, metres."""
    max_elements: int | None = None
    """Most objects of a file; several files where there are more. None: one file, unless
    `max_bbox_km` is given."""
    max_bbox_km: float | None = None
    """Longest side of a file's bounding box, km."""
    upload_allowed: bool = False
    """Let JOSM upload a `.osm` file."""

    def __post_init__(self) -> None:
        if not 0 <= self.snap_m <= MAX_SNAP_M:
            raise ConfigError(f"snap_m must be in [0, {MAX_SNAP_M:g}] metres, got {self.snap_m}")
        if self.max_elements is not None and self.max_elements < 1:
            raise ConfigError(f"max_elements must be at least 1, got {self.max_elements}")
        if self.max_bbox_km is not None and not self.max_bbox_km > 0:
            raise ConfigError(f"max_bbox_km must be above 0, got {self.max_bbox_km}")

    @property
    def splits(self) -> bool:
        """Whether there may be several files."""
        return self.max_elements is not None or self.max_bbox_km is not None

    def split(self, data: OsmData) -> list[OsmData]:
        """Return the contents of each file, at least one."""
        if not self.splits:
            return [data]
        parts = split_changesets(
            data,
            max_elements=self.max_elements or MAX_ELEMENTS,
            max_bbox_km=self.max_bbox_km or MAX_BBOX_KM,
        )
        return parts or [data]


@dataclass(frozen=True, slots=True, kw_only=True)
class OsmExport:
    """What an export wrote."""

    paths: list[Path]
    tally: Tally
    left_out: dict[str, int] = field(default_factory=dict)
    """Footprints that were not written, by what they are to the map."""


def export_osm(
    footprints: Path,
    output: Path,
    options: OsmOptions | None = None,
    *,
    selection: Selection | None = None,
) -> OsmExport:
    """Write a footprints file as OSM objects.

    Args:
        footprints: A file of footprints.
        output: Ends in .osm, .osm.pbf, .osc or .osc.gz. Several files are called
            `name-001.osc` and so on.
        options: Tags, snapping and limits.
        selection: Which footprints are written, and what they are compared with before.

    Raises:
        GeosegError: The input is damaged or an output cannot be written; nothing is left behind.
    """
    selection = selection or Selection()
    check_osm_output(output)
    check_apart([output], [footprints, *selection.against])
    origin = footprints_origin(footprints)
    model = str(origin.model.get("name", "")) if origin else ""
    crs = footprints_info(footprints).crs
    left_out = Counter[str]()
    frames = selected(footprints, selection, left_out=left_out, scratch=output.resolve().parent)
    done = write_frames(frames, crs, output, options, model=model)
    return replace(done, left_out=dict(left_out))


def check_osm_output(output: Path) -> None:
    """Raise OutputError, before any work, if an OSM file cannot be written."""
    if osm_suffix(output) is None:
        raise OutputError(f"{output}: must end in one of {' '.join(SUFFIXES)}")
    check_output(output, (output.suffix.lower(),))


def write_frames(
    frames: Iterable[GeoDataFrame],
    crs: CRS,
    output: Path,
    options: OsmOptions | None = None,
    *,
    model: str = "",
) -> OsmExport:
    """Write footprints, as they come, as OSM objects.

    What cannot be an OSM object is left out with a warning that counts it, and so are footprints
    that equal one before; those that overlap others are written, with a warning.

    Args:
        frames: Footprints.
        crs: Their CRS.
        output: See `export_osm`.
        options: Tags, snapping and limits.
        model: What `{model}` stands for in tags.

    Raises:
        GeosegError: As `export_osm`.
    """
    options = options or OsmOptions()
    tally = Tally()
    with tally.timed("read"):
        outlines, tags = gather(frames, crs, options.tags, model)
    with tally.timed("snap"):
        snapped = snap(outlines, tolerance_m=options.snap_m)
    if len(snapped.overlapping):
        _warn(
            f"{len(snapped.overlapping)} footprints overlap others: look at them before an upload"
        )
    tally.footprints = len(np.unique(outlines.polygon_row))
    with tally.timed("build"):
        parts = options.split(build(snapped.outlines, tags))
    with tally.timed("write"):
        paths = _names(output, len(parts)) if options.splits else [output]
        _write(parts, paths, upload_allowed=options.upload_allowed)
    return OsmExport(paths=paths, tally=tally)


def gather(
    frames: Iterable[GeoDataFrame], crs: CRS, template: TagTemplate, model: str
) -> tuple[Outlines, list[Tags]]:
    """Return the outlines of all footprints and the tags of each; warn of what was left out.

    Args:
        frames: Footprints.
        crs: Their CRS.
        template: What becomes their tags.
        model: What `{model}` stands for.
    """
    parts: list[Outlines] = []
    tags: list[Tags] = []
    counts: list[int] = []
    left_out: Counter[str] = Counter()
    for frame in frames:
        found = sanitize(frame.geometry.to_numpy(), crs)
        parts.append(found.outlines)
        counts.append(len(frame))
        tags += template.fill(frame, model=model)
        left_out += found.left_out
    outlines = concatenate(parts, counts)
    single = without_twins(outlines)
    left_out[TWICE] = len(np.unique(outlines.polygon_row)) - len(np.unique(single.polygon_row))
    if +left_out:
        counted = ", ".join(f"{count} {reason}" for reason, count in (+left_out).items())
        _warn(f"footprints left out: {counted}")
    return single, tags


def _warn(text: str) -> None:
    warnings.warn(text, GeosegWarning, stacklevel=3)


def _names(output: Path, count: int) -> list[Path]:
    """Return a name for each of several files, or the one of a single file.

    Raises:
        OutputError: A file of an export before this one would stay among them, and be uploaded too.
    """
    paths = [output]
    stale = [numbered(output, 1)]
    if count > 1:
        paths = [numbered(output, i) for i in range(1, count + 1)]
        stale = [output, numbered(output, count + 1)]
    for path in stale:
        if path.exists():
            raise OutputError(f"{path}: is of an export before this one; remove that first")
    return paths


def _write(parts: list[OsmData], paths: list[Path], *, upload_allowed: bool) -> None:
    """Write a file for each part, all or none."""
    largest = max(part.n_elements for part in parts)
    if len(parts) > 1 and largest > SERVER_ELEMENTS:
        _warn(f"one file holds {largest} objects that hang together; a changeset takes 10,000")
    with ExitStack() as stack:
        for part, path in zip(parts, paths, strict=True):
            write_osm(part, stack.enter_context(staged(path)), upload_allowed=upload_allowed)
