"""The notebooks run from top to bottom, here on a small town."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore")  # Jupyter's own, about event loops and sockets
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("SIZE_PX = 600", "SIZE_PX = 320")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}})

    client.execute()

    assert any("image/png" in output.get("data", {}) for output in _outputs(notebook))


def test_there_are_notebooks():
    assert NOTEBOOKS


def _outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]
