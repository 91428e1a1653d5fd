"""Shards: whole or not there, and no bit of them can change unnoticed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from geoseg.errors import OutputError
from geoseg.stages.blocks.shards import ShardWriter, file_identity, make_key, read_seal

if TYPE_CHECKING:
    from pathlib import Path

TABLE = pa.table(
    {"value": list(range(2000)), "text": [f'"shard_sha256": "{i}' for i in range(2000)]}
)


def write(path: Path, key: str = "k", table: pa.Table = TABLE) -> bytes:
    with ShardWriter(path, table.schema, key=key) as shard:
        shard.write(table)
        shard.about["count"] = 3
    return path.read_bytes()


def test_a_shard_says_what_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "s.parquet"
    write(path, key="abc")
    seal = read_seal(path)
    assert seal is not None
    assert (seal.key, seal.about) == ("abc", {"count": 3})
    assert pa.parquet.read_table(path).equals(TABLE)
    assert [p.name for p in path.parent.iterdir()] == ["s.parquet"]


def test_no_changed_bit_is_trusted(tmp_path: Path) -> None:
    path, bad = tmp_path / "s.parquet", tmp_path / "bad.parquet"
    data = write(path, table=TABLE.slice(0, 40))
    rng = random.Random(1)
    for i in range(len(data)):
        changed = bytearray(data)
        changed[i] ^= 1 << rng.randrange(8)
        bad.write_bytes(changed)
        assert read_seal(bad) is None, f"byte {i} of {len(data)}"


def test_torn_foreign_and_missing_shards_have_no_seal(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    data = write(path)
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        assert read_seal(path) is None
    path.write_bytes(data + b"x")
    assert read_seal(path) is None
    pa.parquet.write_table(TABLE, path)
    assert read_seal(path) is None
    path.write_text("not a shard")
    assert read_seal(path) is None
    assert read_seal(tmp_path / "none.parquet") is None


def test_a_failed_writer_leaves_the_former_shard_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    before = write(path)
    new = ShardWriter(path, TABLE.schema, key="n").__enter__()
    new.write(TABLE)
    new.__exit__(RuntimeError, RuntimeError("on the way"), None)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def test_a_shard_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "s.parquet")


def test_keys_depend_on_every_part_and_not_on_their_order() -> None:
    assert make_key(a=1, b=[2, None]) == make_key(b=[2, None], a=1)
    others = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": None}]
    assert len({make_key(**parts) for parts in others}) == 5


def test_identity_follows_the_file_and_the_parts_of_a_mosaic(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    first = file_identity(str(file))
    file.write_bytes(b"four")
    assert file_identity(str(file)) != first
    assert file_identity("https://example.org/a.tif") == "https://example.org/a.tif"
