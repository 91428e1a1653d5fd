"""Plots, or the one line that says what they need."""

from __future__ import annotations

import sys

import pytest

from geoseg.data.plots import figure_class
from geoseg.errors import MissingExtraError


def test_a_figure_is_matplotlibs(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figure = figure_class()(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'geoseg\[train\]'"):
        figure_class()
