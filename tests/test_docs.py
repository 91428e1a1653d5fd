"""The documents hold: links lead somewhere, commands and Python in them run, pictures are small.

Fenced `sh` blocks are run (lines that begin with `geoseg`) and `python` ones too, in order, in one
folder per document; `sh no-run` blocks need what a test has not.
"""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from geoseg.cli import VERBS, main
from geoseg.models import DEFAULT_MODEL, describe_model
from geoseg.testing import make_town, write_town

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("geoseg/models/bundled/*.md")]
)
RUNNABLE = [path for path in DOCUMENTS if "```sh\n" in path.read_text(encoding="utf-8")]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def by_name(path):
    return str(path.relative_to(ROOT))


def blocks(path):
    """Return (info, text) of a document's fenced blocks."""
    return FENCE.findall(path.read_text(encoding="utf-8"))


def commands(text):
    """Return the words of each `geoseg` line, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("geoseg ")]


def anchors(path):
    """Return the anchors GitHub gives a document's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder of what the documents' commands take for granted."""
    folder = tmp_path_factory.mktemp("docs")
    town = make_town(size_px=320)
    files = write_town(town, folder)
    files.image.rename(folder / "scene.tif")
    files.truth.rename(folder / "buildings.geojson")
    files.ids.unlink()
    west, south, east, north = town.grid.bounds
    area = shapely.box(west, south, (west + east) / 2, north)
    gpd.GeoSeries([area], crs=town.grid.crs).to_file(folder / "area.geojson")
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


@pytest.mark.parametrize("path", DOCUMENTS, ids=by_name)
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", RUNNABLE, ids=by_name)
def test_commands_and_python_run(path, inputs, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(inputs, folder)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for info, text in blocks(path):
        if info == "sh":
            for words in commands(text):
                with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
                    main(words)
                assert end.value.code == 0, words
        elif info == "python":
            exec(compile(text, f"{by_name(path)}, a block", "exec"), names)


@pytest.mark.parametrize("path", RUNNABLE, ids=by_name)
def test_commands_that_do_not_run_here_are_understood(path, capsys):
    for info, text in blocks(path):
        for words in commands(text) if info == "sh no-run" else []:
            with warnings.catch_warnings(), pytest.raises(SystemExit):
                main([*words[: 2 if words[0] in {"data", "osm"} else 1], "--help"])
            known = capsys.readouterr().out
            assert [word for word in words if word.startswith("--") and word not in known] == []


def test_readme_shows_every_verb():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [
        verb for verb in VERBS if f"`{verb}`" not in text and f"geoseg {verb} " not in text
    ] == []


def test_readme_states_the_bundled_models_resolutions():
    finest, coarsest = describe_model(DEFAULT_MODEL)["gsd_range_m"]
    assert f"{finest:g}-{coarsest:g} m" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert max(path.stat().st_size for path in pictures) < 600_000
