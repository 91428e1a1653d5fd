"""`geoseg evaluate`: what a model or a map is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from geoseg.cli import options

_PATH = click.Path(path_type=Path)
_ALWAYS = {"report", "as_json", "verbose"}
_OF_MAPS = {"footprints", "truth", "within", "compare", "gallery"}
_OF_CHIPS = {"document", "results", "images", "manifest", "split", "at_score"}
"""Parameters by what they are about; all others say how a model sees chips."""


def _share(context: click.Context, option: click.Parameter, value: float) -> float:
    if not 0 <= value <= 1:  # NaN neither
        raise click.BadParameter(f"must be in [0, 1], got {value:g}")
    return value


@click.command("evaluate")
@click.option("--footprints", type=_PATH, help="Footprints to compare with --truth.")
@click.option("--truth", type=_PATH, help="Outlines, any vector file.")
@click.option(
    "--within",
    default="all",
    metavar="all|L,T,R,B|FILE",
    help="Area that counts: a part of the scene in shares, or a vector file [all].",
)
@click.option("--coco", "document", type=_PATH, help="Annotated chips, a COCO document.")
@click.option("--results", type=_PATH, help="Results for --coco that lie on disk.")
@click.option("--images", type=_PATH, help="Folder of the chips [images/ beside the document].")
@click.option("--manifest", type=_PATH, help="Take what a split manifest keeps.")
@click.option("--split", default="val", show_default=True, help="Split of the manifest.")
@click.option(
    "--at-score",
    default=0.5,
    callback=_share,
    show_default=True,
    help="Score that mistakes are told at.",
)
@click.option("--report", type=_PATH, help="Write a page with tables, plots and pictures, .html.")
@options.compare_options
@options.model_options
@options.tta_options
@options.chip_score_option
@options.morphology_options
@options.config_options
def command(**parameters: Any) -> int:
    """Compare a map with outlines or with another map, or a model with annotated chips.

    \b
    geoseg evaluate --footprints out.parquet --truth buildings.geojson
    geoseg evaluate --footprints out.parquet --compare before.parquet --gallery changes.png
    geoseg evaluate --model weights.safetensors --coco val/annotation.json
    geoseg evaluate --results predictions.json --coco val/annotation.json
    """  # noqa: D301 - a real backspace: click's mark of lines that are not to be wrapped
    if parameters["gallery"] is not None and parameters["compare"] is None:
        raise click.UsageError("--gallery goes with --compare, the map to compare with")
    if (parameters["footprints"] is None) == (parameters["document"] is None):
        raise click.UsageError("give either --footprints with --truth, or --coco")
    _check_meanings(parameters)
    _check_report(parameters["report"])
    if parameters["footprints"] is not None:
        return _evaluate_map(parameters)
    return _evaluate_chips(parameters)


def _check_meanings(parameters: dict[str, Any]) -> None:
    """Refuse options that would not be heeded beside the others."""
    context = click.get_current_context()
    given = {
        str(option.name): option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT
    }
    has = {name for name, value in parameters.items() if value is not None}
    of_models = given.keys() - _ALWAYS - _OF_MAPS - _OF_CHIPS
    for unheeded, names, partner in (
        ("footprints" in has, _OF_CHIPS | of_models, "--coco, not --footprints"),
        ("document" in has, _OF_MAPS, "--footprints, not --coco"),
        ("results" in has, of_models, "--coco without --results"),
        ("results" in has and "report" not in has, {"images"}, "--report, which shows them"),
        ("manifest" not in has, {"split"}, "--manifest"),
    ):
        words = [word for name, word in given.items() if name in names]
        if unheeded and words:
            verb = "go" if len(words) > 1 else "goes"
            raise click.UsageError(f"{', '.join(words)} {verb} with {partner}")


def _check_report(path: Path | None) -> None:
    """Say before any work why no page could be written."""
    if path is None:
        return
    from geoseg.cli.values import wrong_use
    from geoseg.data.plots import figure_class
    from geoseg.files import check_output

    with wrong_use():
        check_output(path, (".html",))
    figure_class()


def _evaluate_map(parameters: dict[str, Any]) -> int:
    path, truth, within = (parameters[name] for name in ("footprints", "truth", "within"))
    if truth is None and parameters["compare"] is None:
        raise click.UsageError("--footprints needs --truth, the outlines to compare with")
    if truth is None and parameters["report"] is not None:
        raise click.UsageError("--report needs --truth, the outlines to compare with")

    from geoseg.cli.compare import Comparison
    from geoseg.cli.report import show

    comparison = Comparison.of(parameters)
    values: dict[str, Any] = {}
    if truth is not None:
        from geoseg.stages.evaluate import evaluate_map, report_map

        found = evaluate_map(path, truth, within=within)
        values = found.as_dict()
    values |= comparison.told(path, truth=truth, within=within)
    show(values, as_json=parameters["as_json"])
    if parameters["report"] is not None:  # figures come first: a full disk does not hide them
        report_map(parameters["report"], found)
    return 0


def _evaluate_chips(parameters: dict[str, Any]) -> int:
    from geoseg.stages.predict_dir import DEFAULTS

    config = options.make_config(parameters, defaults=DEFAULTS)

    from geoseg.cli import EXIT_PARTIAL
    from geoseg.cli.report import TerminalProgress, show
    from geoseg.data.cocofile import read_results
    from geoseg.data.layout import images_beside
    from geoseg.errors import InputNotFoundError
    from geoseg.stages.base import Tally
    from geoseg.stages.evaluate import evaluate_chips, evaluate_model, read_truth, report_chips

    document, images = parameters["document"], parameters["images"]
    if images is not None and not images.is_dir():
        raise InputNotFoundError(f"no folder {images}: check the path")
    truth = read_truth(document, manifest=parameters["manifest"], split=parameters["split"])
    images = images or images_beside(document)
    tally = Tally()
    if parameters["results"] is not None:
        results = read_results(parameters["results"], truth)
    else:
        with TerminalProgress() as progress:
            results = evaluate_model(
                truth,
                images,
                config.model,
                tally,
                tta=config.tta,
                morphology=config.morphology,
                progress=progress,
            )
    found = evaluate_chips(truth, results, score=parameters["at_score"])
    for name, reason in tally.failed:
        click.echo(f"chip {name} failed: {reason}", err=True)
    show(found.as_dict(), as_json=parameters["as_json"])
    if parameters["report"] is not None:  # figures come first: a full disk does not hide them
        report_chips(parameters["report"], found, images=images)
    return EXIT_PARTIAL if tally.failed else 0
