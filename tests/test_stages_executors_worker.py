"""What a worker is told, and what it tells."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from geoseg.stages.executors.worker import (
    DEVICE_VARIABLE,
    ModelPlugin,
    limited,
    limited_with,
    sees,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("marks", "variable", "told"),
    [
        ({}, None, (None, True)),
        ({"CPU": 1.0}, None, (None, False)),
        ({"GPU": 1.0}, None, ("cuda", True)),
        ({"GPU": 1.0}, "mps", ("mps", True)),
    ],
)
def test_models_are_loaded_where_models_run(
    monkeypatch: pytest.MonkeyPatch,
    marks: dict[str, float],
    variable: str | None,
    told: tuple[str | None, bool],
) -> None:
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(DEVICE_VARIABLE, variable)
    heard: list[Any] = []
    plugin = ModelPlugin("key", lambda device, models: heard.append((device, models)))
    worker: Any = SimpleNamespace(state=SimpleNamespace(total_resources=marks))
    plugin.setup(worker)
    assert heard == [told]


def test_without_a_limit_no_worker_is_needed() -> None:
    assert limited(max, (3, 7), math.inf) == 7
    assert limited_with(lambda unit, pixels: (unit, pixels), "unit", "pixels", 0) == (
        "unit",
        "pixels",
    )


def test_a_file_that_may_not_be_looked_at_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text("")
    assert sees(str(tmp_path / "run.yaml"))
    assert not sees(str(tmp_path / "absent"))

    def refuse(path: object) -> None:
        raise PermissionError(13, "refused")

    monkeypatch.setattr(os, "stat", refuse)
    assert not sees(str(tmp_path / "run.yaml"))
