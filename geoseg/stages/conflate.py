"""Conflate: a footprints file beside what is mapped, written again with what each footprint is."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from geoseg import __version__
from geoseg.errors import ConfigError
from geoseg.files import check_apart, check_output, staged
from geoseg.footprints import OPTIONAL, optional_columns
from geoseg.osm.conflate.compare import Conflation, conflate, near_footprints
from geoseg.osm.conflate.review import write_review
from geoseg.osm.conflate.rules import ConflateOptions
from geoseg.osm.mapped.layers import KINDS, Kind, Mapped
from geoseg.osm.mapped.read import read_mapped
from geoseg.stages.base import Tally
from geoseg.stages.maps import read_table
from geoseg.vector import FootprintWriter, check_footprints_output, footprints_info

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import geopandas as gpd

COLUMNS: Final = tuple(name for name in OPTIONAL if name.startswith("osm_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflationReport:
    """What a conflation found."""

    counts: dict[str, int]
    """Footprints by status."""
    mapped: dict[str, int]
    """What was mapped near them, by kind."""
    offsets: dict[str, dict[str, float] | None]
    """By scene, metres; None where there is too little evidence."""
    aligned: bool
    """Whether the offsets were applied."""
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        return {"footprints": sum(self.counts.values()), **asdict(self), "seconds": seconds}


def conflate_file(
    footprints: Path,
    against: Sequence[Path],
    output: Path,
    *,
    options: ConflateOptions | None = None,
    checks: Collection[Kind] = (),
    conflicts: Path | None = None,
) -> ConflationReport:
    """Say of each footprint of a file what it is to the map.

    Args:
        footprints: A file of footprints.
        against: What is mapped: OSM data, Overpass JSON or any vector files.
        output: The same footprints with the columns `osm_status`, `osm_id`, `osm_iou` and
            `osm_overlap`; shifted where aligned.
        options: Thresholds, and whether to align.
        checks: What else footprints are checked against: `road`, `rail`, `water`.
        conflicts: A GeoJSON file for what needs a look.

    Raises:
        GeosegError: An input is missing or damaged, or an output cannot be written; nothing is
            left behind.
    """
    options = options or ConflateOptions()
    _check(footprints, against, output, conflicts)
    info = footprints_info(footprints)
    tally = Tally()
    with tally.timed("read"):
        table = read_table(footprints)
        mapped = read_near(table, against, options, checks, scratch=output.resolve().parent)
    with tally.timed("conflate"):
        found = conflate(table, mapped, options=options)
    report = _report(found, options, tally.seconds)
    optional = optional_columns([*info.optional, *COLUMNS])
    metadata = {"version": __version__, **info.metadata, "conflation": _facts(report, against)}
    with (
        tally.timed("write"),
        nullcontext() if conflicts is None else staged(conflicts) as review,
        FootprintWriter(output, crs=info.crs, metadata=metadata, optional=optional) as writer,
    ):
        writer.write(found.footprints)
        if review is not None:
            write_review(review, found)
    return report


def read_near(
    footprints: gpd.GeoDataFrame,
    against: Sequence[Path],
    options: ConflateOptions,
    checks: Collection[Kind] = (),
    *,
    scratch: Path | None = None,
) -> Mapped:
    """Return what is mapped near footprints, of all files.

    Raises:
        GeosegError: A file is missing or damaged.
    """
    near = near_footprints(footprints, options=options)
    kinds: set[Kind] = {"building", *checks}
    return Mapped.concat(
        [read_mapped(path, near, kinds=kinds, scratch=scratch) for path in against]
    )


def check_conflate_outputs(output: Path, conflicts: Path | None) -> None:
    """Check that what is to be written can be, as far as a look at the names and folders tells.

    Raises:
        OutputError: An ending is unknown, or a folder is not there.
        ConfigError: Both are one file.
    """
    check_footprints_output(output)
    if conflicts is not None:
        check_output(conflicts, (".geojson",))
        if conflicts.resolve() == output.resolve():
            raise ConfigError(f"{conflicts}: is the other output too; give it another name")


def _check(footprints: Path, against: Sequence[Path], output: Path, conflicts: Path | None) -> None:
    check_conflate_outputs(output, conflicts)
    if not against:
        raise ConfigError("give at least one file of what is mapped")
    outputs = [path for path in (output, conflicts) if path is not None]
    check_apart(outputs, [footprints, *against])


def _report(
    found: Conflation, options: ConflateOptions, seconds: dict[str, float]
) -> ConflationReport:
    offsets = {
        scene: None if offset is None else {k: round(v, 3) for k, v in asdict(offset).items()}
        for scene, offset in found.offsets.items()
    }
    kinds = {kind: int((found.mapped.kinds == i).sum()) for i, kind in enumerate(KINDS)}
    return ConflationReport(
        counts=found.counts(),
        mapped={kind: count for kind, count in kinds.items() if count},
        offsets=offsets,
        aligned=options.align,
        seconds=seconds,
    )


def _facts(report: ConflationReport, against: Sequence[Path]) -> str:
    facts = {
        "against": [path.name for path in against],
        "aligned": report.aligned,
        "offsets": report.offsets,
    }
    return json.dumps(facts, sort_keys=True)
