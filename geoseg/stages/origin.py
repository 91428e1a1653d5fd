"""Where detections and footprints come from: what their files say of scene, model and options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from geoseg.errors import FormatError
from geoseg.scores import ScoreMap
from geoseg.stages.base import cut_from, grid_from, grid_values

if TYPE_CHECKING:
    from geoseg.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where detections or footprints come from, in plain values kept with the file."""

    scene_id: str
    scene_path: str
    grid: Grid
    labels: dict[int, str]
    """Name of each of the model's labels."""
    model: dict[str, Any]
    """Name, sha256, licence and attribution of the weights, and what their scores stand for."""
    config: dict[str, Any]
    """All options; least score and cut as they were settled."""

    @property
    def network_id(self) -> str:
        """What finds in the same pixels depend on: the weights, and how finds are scored."""
        weights = [str(self.model.get(name)) for name in ("name", "version", "sha256")]
        return "-".join([*weights, "mask-scores"] if self.mask_scores else weights)

    @property
    def mask_scores(self) -> bool:
        """Whether finds are scored by class and mask: `ModelSpec.mask_scores`."""
        return bool(self.model.get("mask_scores", False))

    @property
    def calibration(self) -> ScoreMap | None:
        """What the network's scores stand for; None where it is not known."""
        known = self.model.get("calibration")
        return None if known is None else ScoreMap.from_dict(known)

    @property
    def is_calibrated(self) -> bool:
        """Whether the least score recorded, and the scores of footprints, are probabilities."""
        asked = self.config.get("model", {}).get("calibrate", True)
        return bool(asked) and self.calibration is not None

    @property
    def least_raw(self) -> float:
        """Least of the network's own scores that detections were kept at."""
        score = float(self.config.get("model", {}).get("score") or 0.0)
        calibration = self.calibration if self.is_calibrated else None
        return score if calibration is None else calibration.invert(score)

    @property
    def cut(self) -> dict[str, int] | None:
        """Side and least overlap of the scene's chips, px; None where that was not recorded."""
        return cut_from(self.config.get("chips", {}))

    def to_json(self) -> str:
        """Return the origin as JSON text."""
        plain = {
            name: getattr(self, name) for name in ("scene_id", "scene_path", "model", "config")
        }
        return json.dumps({**plain, "labels": self.labels, "grid": grid_values(self.grid)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            FormatError: The text is something else.
        """
        try:
            values = json.loads(text)
            grid = values.pop("grid")
            _check_types(values)
            return cls(
                grid=grid_from(grid),
                labels={int(label): str(name) for label, name in values.pop("labels").items()},
                **values,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise FormatError(f"the file's description of its scene is damaged: {text}") from error


def _check_types(values: dict[str, Any]) -> None:
    kinds = {"scene_id": str, "scene_path": str, "model": dict, "config": dict}
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise TypeError(f"{name} must be {kind.__name__}")
    for section in ("model", "chips", "morphology"):
        if not isinstance(values["config"].get(section, {}), dict):
            raise TypeError(f"config.{section} must be dict")
    cut_from(values["config"].get("chips", {}))
    if not isinstance(values["config"].get("model", {}).get("score"), float | int | None):
        raise TypeError("config.model.score must be a number")
    if (known := values["model"].get("calibration")) is not None:
        ScoreMap.from_dict(known)
