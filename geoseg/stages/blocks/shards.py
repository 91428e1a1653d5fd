"""Shards: Parquet files that appear whole, know what they were made from and can be checked.

A shard's footer holds its key (a digest of all that its contents depend on), what its maker had to
say, and the SHA-256 of the file itself, taken with zeros in the place of the sum. A shard that is
torn, changed by a bit or made from something else is not trusted.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from geoseg.files import hidden_folder, move, output_errors
from geoseg.raster import source_files

if TYPE_CHECKING:
    from types import TracebackType

SEAL: Final = "geoseg-seal"
_SUM: Final = b'"shard_sha256": "'
_ZEROS: Final = b"0" * 64
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What a shard says of itself, true as far as its checksum can tell."""

    key: str
    about: dict[str, Any]
    """What its maker wrote down: counts, failures, seconds."""
    sha256: str
    """Of the file, and so the name of its contents for whatever is made from it."""


def make_key(**parts: Any) -> str:
    """Return the digest of everything that a shard depends on, given as plain values.

    Example:
        >>> make_key(stage="infer", score=0.5) == make_key(score=0.5, stage="infer")
        True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_identity(path: str) -> str:
    """Return what changes when a file does: its size and when it was written.

    Of a mosaic of files (a VRT) that is all of them; of a folder of chips its index. What is not a
    local file is known by its name alone.
    """
    local = Path(path) / "index.parquet" if Path(path).is_dir() else Path(path)
    if not local.exists():
        return path
    files = [local, *(source_files(local) if local.suffix.lower() == ".vrt" else [])]
    stats = [file.stat() for file in files if file.exists()]
    return ",".join(f"{stat.st_size}-{stat.st_mtime_ns}" for stat in stats)


class ShardWriter:
    """Write one shard; it appears at a clean exit, complete. A context manager.

    Several writers of one shard do not disturb each other: the last to end wins, and as a shard
    depends on its key alone, either will do.

    Args:
        path: The `.parquet` file.
        schema: Of the tables to come.
        key: See `make_key`.

    Raises:
        OutputError: The disk is full or the folder cannot be written to; nothing is left behind.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, key: str) -> None:
        self.about: dict[str, Any] = {}
        self._path = path
        self._schema = schema
        self._key = key

    def __enter__(self) -> Self:
        with ExitStack() as stack, output_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._new = stack.enter_context(hidden_folder(self._path)) / self._path.name
            self._file = self._new.open("xb")
            self._writer = pq.ParquetWriter(
                self._file, self._schema, compression="zstd", use_dictionary=False
            )
            self._stack = stack.pop_all()
        return self

    def write(self, table: pa.Table) -> None:
        """Add rows, as one row group."""
        with output_errors(self._path):
            self._writer.write_table(table)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            try:
                if kind is None:
                    with output_errors(self._path):
                        self._finish()
            finally:
                with suppress(OSError):  # a full disk, reported already
                    self._writer.close()
                with suppress(OSError):
                    self._file.close()

    def _finish(self) -> None:
        text = json.dumps({"key": self._key, "about": self.about, "shard_sha256": _ZEROS.decode()})
        self._writer.add_key_value_metadata({SEAL: text})
        self._writer.close()
        self._file.flush()
        sum_hex, at = _sum_of(self._new)
        assert at is not None, "the seal was just written"
        self._file.close()
        with self._new.open("r+b") as file:
            file.seek(at)
            file.write(sum_hex.encode())
        move(self._new, self._path)


def read_seal(path: Path) -> Seal | None:
    """Return the seal of a shard that is whole; None where there is none or it is damaged."""
    try:
        with pq.ParquetFile(path) as file:
            text = (file.metadata.metadata or {}).get(SEAL.encode())
        values = json.loads(text or b"null")
        seal = Seal(key=values["key"], about=dict(values["about"]), sha256=values["shard_sha256"])
        sum_hex, at = _sum_of(path)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    return seal if at is not None and sum_hex == seal.sha256 else None


def _sum_of(path: Path) -> tuple[str, int | None]:
    """Return a file's SHA-256 with its own sum left out, and where that stands in the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        tail_at = max(0, size - _footer_bytes(path, size))
        file.seek(tail_at)
        tail = bytearray(file.read())
        found = tail.rfind(_SUM)
        if found >= 0:
            start = found + len(_SUM)
            tail[start : start + len(_ZEROS)] = _ZEROS
        file.seek(0)
        digest = hashlib.sha256()
        left = tail_at
        while left > 0:
            part = file.read(min(_READ_BYTES, left))
            if not part:
                break
            digest.update(part)
            left -= len(part)
        digest.update(tail)
    return digest.hexdigest(), tail_at + start if found >= 0 else None


def _footer_bytes(path: Path, size: int) -> int:
    """Return the length of a Parquet file's footer with what follows it."""
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        return int.from_bytes(file.read(4), "little") + 8
