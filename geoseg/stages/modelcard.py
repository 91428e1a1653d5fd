"""A model card beside weights: what they are, what they learnt from, what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg.files import check_output, replacing
from geoseg.models import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIGURES = ("ap", "ap50", "ap75", "challenge_ar50")


def write_model_card(
    weights: Path, scores: Mapping[str, Mapping[str, float]], *, command: str, limits: str
) -> Path:
    """Write a card of the same name as the weights, Markdown, and return its path.

    Args:
        weights: A `.safetensors` file with its spec beside it.
        scores: Name of what was measured on to its figures, as `CocoFigures.as_dict` has them.
        command: What makes the weights again.
        limits: What the model should not be used for, in sentences.

    Raises:
        GeosegError: The spec cannot be read, or the card cannot be written.
    """
    spec = ModelSpec.read(weights.with_suffix(".json"))
    gsd = "unknown" if spec.gsd_range_m is None else "{:g}-{:g} m".format(*spec.gsd_range_m)
    credits_ = [f"- {line}" for line in spec.attribution] or ["- none given"]
    rows = [
        f"| {name} | " + " | ".join(f"{figures[f]:.3f}" for f in FIGURES) + " |"
        for name, figures in scores.items()
    ]
    lines = [
        f"# Model card: {spec.name}",
        "",
        f"- **Network**: {spec.architecture}, chips of {spec.chip_size_px} px.",
        f"- **Classes**: {', '.join(f'{c.name} (COCO category {c.id})' for c in spec.categories)}.",
        f"- **Ground resolution**: {gsd} per pixel.",
        f"- **Weights**: sha256 {spec.sha256}.",
        "",
        "## Data",
        spec.data or "Not described.",
        "",
        "## Made by",
        "```sh",
        command,
        "```",
        "",
        "## Scores",
        "COCO mask figures; AR50 is at 100 detections a chip.",
        "",
        "| measured on | AP | AP50 | AP75 | AR50 |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "## Limits",
        limits,
        "",
        "## Licence and attribution",
        f"{spec.licence}. Credit:",
        "",
        *credits_,
    ]
    path = check_output(weights.with_suffix(".md"), (".md",))
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
