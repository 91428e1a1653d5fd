"""`geoseg info`: what a scene, a model or a file of ours is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from geoseg.grid import Grid


VECTORS = frozenset({".geojson", ".geojsonl", ".gpkg", ".fgb", ".shp", ".pmtiles"})


@click.command("info")
@click.argument("thing", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(thing: str, *, as_json: bool) -> int:
    """Describe THING: a scene, `model`, a model's name, our files or a folder of chips."""
    facts = _describe(thing)
    if as_json:
        click.echo(json.dumps(facts, default=str))
    else:
        width = max(len(key) for key in facts)
        for key, value in facts.items():
            click.echo(f"{key.ljust(width)}  {_text(value)}")
    return 0


def _describe(thing: str) -> dict[str, Any]:
    path = Path(thing)
    if path.is_dir():
        return _chips(path)
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    if path.suffix.lower() in VECTORS:
        return _footprints(path)
    from geoseg.models import DEFAULT_MODEL, describe_model, list_models

    if thing == "model":
        return {"bundled": list(list_models()), **describe_model(DEFAULT_MODEL)}
    is_factory = ":" in thing and "/" not in thing and not path.exists()
    if thing in list_models() or path.suffix == ".safetensors" or is_factory:
        return describe_model(thing)
    return _scene(thing)


def _scene(path: str) -> dict[str, Any]:
    from geoseg.raster import Scene

    with Scene.open(path, gsd="native") as scene:
        return {
            "scene": scene.path,
            **_grid(scene.native_grid),
            "bands": list(scene.bands),
            "dtype": str(scene.dtype),
            "rescale": None
            if scene.rescale is None
            else [list(scene.rescale.low), list(scene.rescale.high)],
        }


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "size_px": [grid.width, grid.height],
        "crs": f"{grid.crs.to_string()[:40]} {grid.crs.name}",
        "gsd_m": round(grid.gsd_m, 4),
        "pixel_m": [round(side, 4) for side in grid.pixel_size_m],
        "bounds": list(grid.bounds),
    }


def _parquet(path: Path) -> dict[str, Any]:
    from geoseg.errors import FormatError
    from geoseg.stages.store import count_detections, detections_origin

    try:
        origin = detections_origin(path)
    except FormatError:
        return _footprints(path)
    return {"detections": count_detections(path), **_origin(origin)}


def _footprints(path: Path) -> dict[str, Any]:
    from geoseg.stages.origin import Origin
    from geoseg.vector import footprints_info

    info = footprints_info(path)
    facts = {"footprints": info.count, "crs": info.crs.to_string()[:60], "bounds": info.bounds}
    if "origin" not in info.metadata:
        return facts
    return {**facts, **_origin(Origin.from_json(info.metadata["origin"]))}


def _origin(origin: Any) -> dict[str, Any]:
    return {
        "scene": origin.scene_path,
        "grid": _grid(origin.grid),
        "model": origin.model,
        "config": origin.config,
    }


def _chips(folder: Path) -> dict[str, Any]:
    from geoseg.stages.chipfolder import ChipFolder

    chips = ChipFolder.open(folder)
    return {"chips": len(chips.chips), "scene": chips.scene_path, **_grid(chips.grid)}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    return str(value)
