"""The house itself: quick imports, documented modules, a wheel with what it needs and no more."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import geoseg
from geoseg.config import Config, load_config

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "geoseg").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DEFAULTS = ROOT / "configs" / "footprints.yaml"
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "rasterio",
    "geopandas",
    "pandas",
    "shapely",
    "cv2",
    "pyproj",
}


def imported_by(code: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter holds after running `code`."""
    ending = "import json, sys; print(json.dumps([name.split('.')[0] for name in sys.modules]))"
    command = [sys.executable, "-c", f"{code}\n{ending}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_geoseg_imports_nothing_heavy():
    assert not imported_by("import geoseg, geoseg.errors") & (HEAVY | {"numpy", "click"})


@pytest.mark.parametrize("words", ["--help", "--version", "-h"])
def test_help_imports_nothing_heavy(words):
    code = f"""
from geoseg.cli import main
try:
    main([{words!r}])
except SystemExit as end:
    assert end.code == 0, end.code
"""
    assert not imported_by(code) & (HEAVY | {"numpy"})


def test_describing_a_model_needs_no_torch():
    assert "torch" not in imported_by("from geoseg.models import describe_model, list_models")


def test_version_is_the_one_of_pyproject_and_has_a_changelog_entry():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert geoseg.__version__ == project["version"]
    assert f"## {geoseg.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_bound_says_why():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    end = lines.index("[project.scripts]")
    bounds = [line for line in lines[start:end] if ">=" in line]
    assert bounds
    assert [line for line in bounds if "# " not in line] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_has_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_modules_have_no_vague_names():
    vague = {"utils", "helpers", "common", "core", "misc"}
    assert not {path.stem for path in MODULES} & vague


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_define_nothing(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    trees = [ast.parse("".join(cell["source"])) for cell in code]
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not any(isinstance(node, defined) for tree in trees for node in ast.walk(tree))


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.py")), ids=lambda p: p.stem)
def test_pipelines_define_no_class(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree))


def test_config_file_holds_every_option_with_its_default():
    assert load_config(DEFAULTS) == Config()
    written = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    known = Config().to_dict()
    assert list(written) == list(known)
    assert {section: list(keys) for section, keys in written.items()} == {
        section: list(keys) for section, keys in known.items()
    }


def test_config_file_explains_every_key():
    lines = DEFAULTS.read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if line.startswith("  ")]
    assert len(keys) == sum(len(section) for section in Config().to_dict().values())
    assert [line for line in keys if " # " not in line] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in the wheel that pip builds without a network, through hatchling's own hook."""
    folder = tmp_path_factory.mktemp("wheel")
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    path = Path(next(iter(builder.build(directory=str(folder), versions=["standard"]))))
    with zipfile.ZipFile(path) as archive:
        return {item.filename: item.file_size for item in archive.infolist()}


def test_wheel_holds_the_package_and_its_weights(wheel):
    sources = {str(path.relative_to(ROOT)) for path in MODULES}
    assert sources <= set(wheel)
    bundled = {name for name in wheel if name.startswith("geoseg/models/bundled/")}
    for name in ("maskrcnn_lite0.safetensors", "maskrcnn_lite0.json", "maskrcnn_lite0.md"):
        assert f"geoseg/models/bundled/{name}" in bundled
    assert "geoseg/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"geoseg"}
    assert not any("test_" in name or name.endswith((".pyc", ".ipynb")) for name in wheel)


def test_bundled_weights_are_small(wheel):
    weights = {name: size for name, size in wheel.items() if name.endswith(".safetensors")}
    assert weights
    assert max(weights.values()) <= 25_000_000
