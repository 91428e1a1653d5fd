"""Which chips of each split are used: what `geoseg data dedupe` writes and training reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from geoseg.errors import ConfigError, FormatError, InputNotFoundError
from geoseg.files import check_output, replacing

if TYPE_CHECKING:
    from pathlib import Path

MAX_MANIFEST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitChoice:
    """What is kept of a split."""

    kept: tuple[str, ...]
    """File names."""
    dropped: dict[str, str] = field(default_factory=dict)
    """File name to the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The choice for each split."""

    splits: dict[str, SplitChoice]

    def kept(self, name: str) -> frozenset[str]:
        """Return the file names kept of a split.

        Raises:
            ConfigError: The manifest does not speak of it.
        """
        if name not in self.splits:
            raise ConfigError(f"the manifest must hold split {name!r}, has {sorted(self.splits)}")
        return frozenset(self.splits[name].kept)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        InputNotFoundError: There is no such file.
        FormatError: It is no manifest.
    """
    if not path.is_file():
        raise InputNotFoundError(f"no manifest {path}: check the path")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise FormatError(f"{path}: a manifest must be at most {MAX_MANIFEST_BYTES} bytes")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path}: must be a split manifest, got: {str(error)[:120]}") from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest.

    Raises:
        OutputError: It cannot be written; nothing is left behind.
    """
    splits = {
        name: {"kept": list(choice.kept), "dropped": choice.dropped}
        for name, choice in manifest.splits.items()
    }
    with replacing(check_output(path, (".json",))) as temporary:
        temporary.write_text(json.dumps({"splits": splits}, indent=1) + "\n", encoding="utf-8")
