"""`geoseg data`: look at annotated chips before training on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoseg.cli import EXIT_PARTIAL
from geoseg.cli.report import show

if TYPE_CHECKING:
    from geoseg.data.layout import Split

FINDINGS_SHOWN = 20
_PATH = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_small = click.option("--small", is_flag=True, help="Read annotation-small.json.")
_images = click.option("--images", type=_PATH, help="Folder of the images [images/ beside it].")


@click.group("data")
def command() -> None:
    """Check, clean, measure and convert annotated chips.

    SOURCE is a folder in crowdAI's layout (train/, val/, test/, each with images/ and
    annotation.json) or a COCO document.
    """


@command.command("check")
@click.argument("source", type=_PATH)
@_images
@_small
@click.option("--fix", "fix_to", type=_PATH, help="Write a clean copy of the document here.")
@_json
def check_command(
    source: Path, images: Path | None, fix_to: Path | None, *, small: bool, as_json: bool
) -> int:
    """Find what breaks training; exit code 3 if there is something."""
    from geoseg.data.check import check, fix

    splits = _splits(source, images, small=small)
    if fix_to is not None and len(splits) > 1:
        raise click.UsageError("--fix is for one document: give train/annotation.json and so on")
    _check_output(fix_to, splits, ".json")
    results = {}
    for split in splits:
        checked = (
            fix(split.document, split.images, fix_to)
            if fix_to
            else check(split.document, split.images)
        )
        results[split.name] = checked
    if as_json:
        values = {
            name: {"counts": c.counts(), "findings": [str(f) for f in c.findings]}
            for name, c in results.items()
        }
        click.echo(json.dumps(values))
    else:
        for name, checked in results.items():
            _show_findings(name, checked)
    return EXIT_PARTIAL if any(c.findings for c in results.values()) else 0


@command.command("dedupe")
@click.argument("source", type=_PATH)
@_images
@_small
@click.option("--manifest", type=_PATH, help="Write which chips to keep, JSON.")
@click.option("--drop-from", default="train", show_default=True, help="Split that loses leaks.")
@_json
def dedupe_command(
    source: Path,
    images: Path | None,
    manifest: Path | None,
    drop_from: str,
    *,
    small: bool,
    as_json: bool,
) -> int:
    """Find chips that are there twice, turned, mirrored or not, and leaks between splits."""
    from geoseg.data.cocofile import read_coco
    from geoseg.data.dedupe import clean_manifest, find_duplicates, take_prints
    from geoseg.data.manifest import write_manifest
    from geoseg.errors import FormatError

    splits = _splits(source, images, small=small)
    _check_output(manifest, splits, ".json")
    chips = {
        s.name: [s.images / n for n in read_coco(s.document).images.file_names] for s in splits
    }
    if not any(chips.values()):
        raise FormatError(f"{source}: must list at least one image, has none")
    folders = {split.name: split.images for split in splits}
    found = find_duplicates(take_prints(chips, folders=folders))
    if len(splits) == 1:
        drop_from = splits[0].name
    clean = clean_manifest(found, drop_from=drop_from)
    if manifest is not None:
        write_manifest(manifest, clean)
    values = {
        "chips": {name: len(paths) for name, paths in chips.items()},
        "different": found.n_groups,
        "kept": {name: len(choice.kept) for name, choice in clean.splits.items()},
        "leaks": {f"{one} in {other}": n for (one, other), n in found.leaks().items()},
    }
    show(values, as_json=as_json)
    return 0


@command.command("stats")
@click.argument("source", type=_PATH)
@_images
@_small
@click.option(
    "--gsd", type=float, help="Ground metres per pixel, for sizes in metres [GeoTIFFs tell theirs]."
)
@click.option("--plot", type=_PATH, help="Draw histograms of one document, PNG.")
@_json
def stats_command(
    source: Path,
    images: Path | None,
    gsd: float | None,
    plot: Path | None,
    *,
    small: bool,
    as_json: bool,
) -> int:
    """Count chips and objects and measure their sizes and, of GeoTIFFs, their ground resolution."""
    from geoseg.data.cocofile import read_coco
    from geoseg.data.plots import figure_class
    from geoseg.data.stats import chip_gsds_m, plot_stats, stats

    splits = _splits(source, images, small=small)
    if plot is not None and len(splits) > 1:
        raise click.UsageError("--plot is for one document: give train/annotation.json and so on")
    _check_output(plot, splits, ".png")
    if plot is not None:
        figure_class()
    values = {}
    for split in splits:
        annotations = read_coco(split.document)
        gsds = chip_gsds_m(annotations, split.images) if gsd is None else gsd
        values[split.name] = stats(annotations, gsd_m=gsds).as_dict()
        if plot is not None:
            plot_stats(annotations, plot)
    show(values, as_json=as_json)
    return 0


@command.command("convert")
@click.argument("source", type=_PATH)
@click.option("-o", "--output", type=_PATH, required=True, help="A .json file or a folder.")
@click.option(
    "--from",
    "kind",
    required=True,
    type=click.Choice(["coco", "via", "instance-masks", "semantic-masks", "mask-folders"]),
    help="Form of SOURCE.",
)
@click.option(
    "--to", type=click.Choice(["coco", "instance-masks"]), default="coco", show_default=True
)
@click.option("--images", type=_PATH, help="Folder of the images.")
@_json
def convert_command(
    source: Path, output: Path, kind: Any, to: Any, *, images: Path | None, as_json: bool
) -> int:
    """Turn annotations of other tools into a COCO document, or into instance masks."""
    from geoseg.data.convert import files_read, read_annotations, write_annotations

    annotations = read_annotations(source, kind=kind, images=images)
    inputs = files_read(source, annotations, kind=kind, images=images)
    write_annotations(output, annotations, kind=to, inputs=inputs)
    crowds = int(annotations.crowd.sum()) if to == "instance-masks" else 0
    values: dict[str, Any] = {"output": str(output), "chips": len(annotations.images)}
    values["objects"] = len(annotations) - crowds
    if crowds:
        values["crowds_left_out"] = crowds
    show(values, as_json=as_json)
    return 0


def _splits(source: Path, images: Path | None, *, small: bool) -> list[Split]:
    from geoseg.data.layout import Split, find_splits, images_beside

    if source.is_dir():
        return find_splits(source, small=small)
    return [Split(name=source.stem, images=images or images_beside(source), document=source)]


def _check_output(path: Path | None, splits: list[Split], ending: str) -> None:
    """Say before long work why a file cannot be written, if one is asked for."""
    from geoseg.cli.values import wrong_use
    from geoseg.files import check_apart, check_output

    if path is not None:
        with wrong_use():
            check_output(path, (ending,))
            check_apart([path], [split.document for split in splits])


def _show_findings(name: str, checked: Any) -> None:
    counted = checked.annotations
    click.echo(f"{name}: {len(counted.images)} chips, {len(counted)} objects")
    for finding in checked.findings[:FINDINGS_SHOWN]:
        click.echo(f"  {finding}")
    if len(checked.findings) > FINDINGS_SHOWN:
        click.echo(f"  and {len(checked.findings) - FINDINGS_SHOWN} more")
    for kind, count in checked.counts().items():
        click.echo(f"  {count:6d} x {kind}")
    if not checked.findings:
        click.echo("  nothing wrong")
