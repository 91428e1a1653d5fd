"""The demo: a synthetic town is rendered, mapped and scored, and a picture drawn.

Run `make demo`, or `python pipelines/demo.py --help`. No algorithm lives here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from geoseg.config import load_config
from geoseg.evaluate import evaluate_footprints
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.testing import make_town, write_town
from geoseg.vector import read_vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geoseg.evaluate import EvalResult
    from geoseg.testing import Town

ORACLE = "geoseg.testing:oracle"
README_PANEL_PX = 640
README_COLOURS = 256  # a palette keeps the README's picture below 600 KB
GAP_PX = 8


def main(words: Sequence[str] | None = None) -> None:
    """Run the demo and say where its files are."""
    parser = argparse.ArgumentParser(description="Render a synthetic town, map it, score it.")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of the results")
    parser.add_argument("--size", type=int, default=1200, help="side of the town, px")
    parser.add_argument("--seed", type=int, default=0, help="which town")
    parser.add_argument("--readme", type=Path, metavar="PNG", help="only draw the README's picture")
    options = parser.parse_args(words)
    town = make_town(size_px=options.size, seed=options.seed)
    if options.readme is not None:
        draw_readme(town, options.readme)
        return
    files = write_town(town, options.output)
    footprints, preview = options.output / "footprints.geojson", options.output / "preview.png"
    print(f"A town of {len(town.truth)} buildings, {files.image}. Mapping it takes a moment.\n")
    network = map_town(files.image, town, vector=footprints, preview=preview)
    with tempfile.TemporaryDirectory() as work:
        oracle = map_town(files.ids, town, vector=Path(work, "oracle.geojson"), model=ORACLE)
    print_scores({"bundled network": network, "perfect network": oracle})
    geoseg = os.path.relpath(Path(sys.executable).with_name("geoseg"))
    print(
        f"\nThe picture:    {preview}\nThe footprints: {footprints} (open it in QGIS)"
        f"\n\nNext, a scene of yours:\n  {geoseg} run scene.tif -o footprints.geojson --regularize"
    )


def map_town(
    raster: Path, town: Town, *, vector: Path, preview: Path | None = None, model: str | None = None
) -> EvalResult:
    """Map a raster of the town and compare what came with what is there."""
    config = load_config(options={"model.name": model, "regularize.enabled": True})
    run(str(raster), OutputPlan(vector=vector, preview=preview), config)
    return evaluate_footprints(read_vector(str(vector), crs=town.grid.crs), town.truth)


def print_scores(results: dict[str, EvalResult]) -> None:
    """Print a table, one row per network."""
    head = ("", "found", "of", "precision", "recall", "F1", "mean IoU", "area ratio")
    print("{:17}{:>6}{:>6}{:>11}{:>8}{:>7}{:>10}{:>12}".format(*head))
    for name, result in results.items():
        level = result.at(0.5)
        print(
            f"{name:17}{result.n_pred:6}{result.n_truth:6}{level.precision:11.3f}"
            f"{level.recall:8.3f}{level.f1:7.3f}{result.mean_iou:10.3f}{result.area_ratio:12.3f}"
        )
    print(
        "\nMatches at IoU 0.5. The perfect network reads its answers from painted pixels: a count"
        "\nor F1 that is not exact would be the pipeline's own fault; its IoU is what pixels allow."
        "\nThe bundled network knows drone imagery of three places and other drawn towns."
    )


def draw_readme(town: Town, path: Path) -> None:
    """Draw imagery and map side by side, small enough for a repository."""
    with tempfile.TemporaryDirectory() as work:
        preview = Path(work, "preview.png")
        raster = write_town(town, work).image
        map_town(raster, town, vector=Path(work, "footprints.geojson"), preview=preview)
        with Image.open(preview) as mapped:
            panels = [Image.fromarray(town.image), mapped.convert("RGB")]
    side = README_PANEL_PX
    sheet = Image.new("RGB", (2 * side + GAP_PX, side), "white")
    for panel, left in zip(panels, (0, side + GAP_PX), strict=True):
        sheet.paste(panel.resize((side, side), Image.Resampling.BOX), (left, 0))
    sheet.quantize(README_COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
