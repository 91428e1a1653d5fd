"""Scenes on disk and calls of the command line, shared by the tests of both."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import rasterio
from PIL import Image

from geoseg.cli import main
from geoseg.testing import Town, ids_to_rgb, make_town

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

ORACLE = ("--model", "geoseg.testing:oracle")
BLANK = ("--model", "geoseg.testing:blank")
UTM = "EPSG:32736"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        value = json.loads(line)
        assert isinstance(value, dict)
        return value


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    """Call the command line in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return Outcome(code=code, out=out, err=err)


def succeed(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    """Call and insist on exit code 0 without a word on stderr."""
    outcome = call(capsys, *words)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return outcome


def spawn(*words: object, code: str = "from geoseg.cli import main; main()", **options: Any) -> Any:
    """Start the command line as a process of its own."""
    command = [sys.executable, "-c", code, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{**pipes, **options})


def assert_one_line(outcome: Outcome, *needles: str) -> None:
    """Assert that the user sees one line that says what is needed."""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("geoseg: "), lines
    assert len(lines[0]) < 500, lines
    for needle in needles:
        assert needle.lower() in lines[0].lower(), (needle, lines[0])


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return every file and folder below, hidden ones too, with contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@functools.cache
def town() -> Town:
    """Return a small town: 71 buildings."""
    return make_town(size_px=600)


def town_pixels() -> np.ndarray:
    """Return the town painted with ids, (3, 600, 600)."""
    return ids_to_rgb(town().ids).transpose(2, 0, 1)


def write_scene(path: Path, pixels: np.ndarray | None = None, **profile: Any) -> Path:
    """Write a GeoTIFF of (bands, H, W); by default the town painted with ids, in 128 px tiles."""
    if pixels is None:
        pixels = town_pixels()
    count, height, width = pixels.shape
    grid = town().grid
    place = {"crs": grid.crs.to_wkt(), "transform": grid.transform}
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {**place, **tiles, **profile}
    profile = {key: value for key, value in profile.items() if value is not None}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        **profile,
    ) as raster:
        raster.write(pixels)
    return path


def break_tiles(path: Path, tiles: list[int]) -> Path:
    """Overwrite compressed tiles of a GeoTIFF with rubbish."""
    with Image.open(path) as image:
        offsets, lengths = image.tag_v2[324], image.tag_v2[325]
    data = bytearray(path.read_bytes())
    for tile in tiles:
        data[offsets[tile] : offsets[tile] + lengths[tile]] = b"\xa5" * lengths[tile]
    path.write_bytes(data)
    return path


def cut_short(path: Path, share: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
