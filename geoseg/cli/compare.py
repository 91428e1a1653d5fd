"""`--compare` and `--gallery`, which two verbs have: checked before any work, told after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from geoseg.cli.values import wrong_use
from geoseg.errors import ConfigError, InputNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A map to compare with, and a picture to draw; either may be None."""

    before: Path | None
    gallery: Path | None

    @classmethod
    def of(cls, parameters: dict[str, Any], *, outputs: Iterable[Path] = ()) -> Self:
        """Return what a call asks for.

        Args:
            parameters: Of the call: `compare` and `gallery`.
            outputs: What the call writes besides.

        Raises:
            GeosegError: The map is not there, or the picture cannot be written.
        """
        before, gallery = parameters["compare"], parameters["gallery"]
        if before is None:
            return cls(before=None, gallery=None)
        inputs = [before, parameters.get("truth"), parameters.get("footprints")]
        for path in (before, parameters.get("truth")):
            if path is not None and not path.exists():
                raise InputNotFoundError(f"{path} does not exist: check the path")
        if gallery is not None:
            from geoseg.files import check_apart, check_output

            with wrong_use():
                check_output(gallery, (".png",))
            check_apart([gallery], inputs)
            if gallery.resolve() in {path.resolve() for path in outputs}:
                raise ConfigError(
                    f"{gallery}: is written by this call already; choose another name"
                )
        if before.resolve() in {path.resolve() for path in outputs}:
            raise ConfigError(f"{before}: is an input of this run too; write to another name")
        return cls(before=before, gallery=gallery)

    @property
    def paths(self) -> list[Path]:
        """The files that will be there."""
        return [] if self.gallery is None else [self.gallery]

    def told(self, after: Path, *, truth: Path | None, within: str = "all") -> dict[str, Any]:
        """Return what changed, and draw it where that is asked for.

        Raises:
            GeosegError: A file is not what it should be, or the picture cannot be written.
        """
        if self.before is None:
            return {}
        from geoseg.stages.compare import compare_maps, draw_changes

        found = compare_maps(self.before, after, truth=truth, within=within)
        if self.gallery is not None:
            draw_changes(self.gallery, found)
        return found.as_dict()
