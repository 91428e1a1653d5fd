"""Files that appear whole or not at all, and what is checked of their places."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg.errors import ConfigError, OutputError, ReadError
from geoseg.files import HIDDEN, check_apart, check_output, output_errors, replacing, staged

WRITER = """
import sys
from pathlib import Path
from geoseg.files import replacing
with replacing(Path(sys.argv[1])) as new:
    new.write_text("of another process")
    print("ready", flush=True)
    sys.stdin.readline()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def spawn_writer(path: Path) -> subprocess.Popen[str]:
    """Return a process that has written half of a file and waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_appears_when_it_is_whole(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path, sync=sync) as new:
        new.write_text("new")
        assert new.suffix == ".txt"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def failing() -> None:
        with replacing(path) as new:
            new.write_text("half")
            new.with_name("beside").write_text("")
            raise error

    with pytest.raises(OutputError if error is OSError else error):
        failing()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    with replacing(link) as new:
        new.write_text("new")
        assert names(tmp_path) == ["link.json", "there"]
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert names(tmp_path / "there") == ["real.json"]


def test_a_long_name_is_written_and_one_too_long_is_one_line(tmp_path: Path) -> None:
    long = tmp_path / ("n" * 250 + ".txt")
    with replacing(long) as new:
        new.write_text("")
    assert names(tmp_path) == [long.name]
    too_long = tmp_path / ("n" * 256)
    with pytest.raises(OutputError, match="name too long") as caught, replacing(too_long) as new:
        new.write_text("")
    assert str(too_long) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == [long.name]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        with replacing(path) as new:
            new.write_text("half")
            if step == "write":
                full()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full) if step == "fsync" else None
        patch.setattr(Path, "replace", full) if step == "replace" else None
        with pytest.raises(OutputError) as caught:
            write()
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); check the folder and the free space"
    )
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_swept_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    process = spawn_writer(path)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert [name.startswith(HIDDEN) for name in names(tmp_path)] == [True]
    with replacing(path) as new:
        new.write_text("new")
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "new"


def test_what_a_living_process_has_is_let_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    process = spawn_writer(path)
    with replacing(path) as new, replacing(path) as second:
        new.write_text("of ours")
        second.write_text("of ours too")
    assert path.read_text() == "of ours"
    assert len(names(tmp_path)) == 2
    process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert path.read_text() == "of another process"
    assert names(tmp_path) == ["a.txt"]


def test_a_disk_without_locks_is_written_to_and_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = tmp_path / "a.txt"
    with replacing(path) as other, monkeypatch.context() as patch:
        other.write_text("other")
        patch.setattr("geoseg.files.fcntl.flock", refuses)
        with replacing(path) as new:
            new.write_text("new")
        assert path.read_text() == "new"
        assert other.read_text() == "other"
    assert path.read_text() == "other"
    assert names(tmp_path) == ["a.txt"]


def test_what_stands_in_the_way_is_neither_used_nor_removed(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "a.txt", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    with replacing(path) as new:
        new.touch()
        hidden = new.parent
    hidden.symlink_to(elsewhere)
    with replacing(path) as new:
        new.write_text("new")
        assert new.parent != hidden
    assert names(elsewhere) == ["kept"]
    assert names(tmp_path) == [hidden.name, "a.txt", "elsewhere"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.txt", tmp_path / "plain.txt"
    plain.touch()
    path.touch(mode=0o600)
    with replacing(path) as new:
        new.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_errors_of_writing_are_told_by_their_cause_and_others_are_what_they_are() -> None:
    def fail(error: Exception, *kinds: type[Exception]) -> None:
        with output_errors(Path("a.txt"), *kinds):
            raise error from ValueError("the\n cause.")

    with pytest.raises(OutputError, match=r"^a\.txt: cannot be written \(the cause\);"):
        fail(RuntimeError("see above"), RuntimeError)
    for error in (RuntimeError("as it is"), ReadError("as it is"), OutputError("as it is")):
        with pytest.raises(type(error), match=r"^as it is$"):
            fail(error, KeyError)


def test_staged_files_appear_together(tmp_path: Path) -> None:
    with staged(tmp_path / "a") as a, staged(tmp_path / "b") as b:
        a.write_text("a")
        b.write_text("b")
        assert not any(path.is_file() for path in tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b").read_text() == "b"


def test_staged_files_vanish_on_failure_and_errors_name_what_the_user_knows(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").write_text("former")

    def failing() -> None:
        with staged(tmp_path / "a") as place:
            place.write_text("new")
            raise OutputError(f"{place}: the disk is full")

    with pytest.raises(OutputError) as failed:
        failing()
    assert str(failed.value) == f"{tmp_path / 'a'}: the disk is full"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "former"


def test_new_files_are_checked_before_work(tmp_path: Path) -> None:
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    check_output(tmp_path / "a.PNG", (".png",))
    for name in ("dir.png", "pipe.png", "a.jpg", "a", "no/a.png", "dir.png/x/a.png"):
        with pytest.raises(OutputError, match=r"[^\n]+"):
            check_output(tmp_path / name, (".png",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.png", "pipe.png"]


def test_inputs_are_never_outputs(tmp_path: Path) -> None:
    scene, other = tmp_path / "s.tif", tmp_path / "o.tif"
    scene.touch()
    check_apart([other], [scene, None, "s3://bucket/o.tif"])
    other.touch()
    check_apart([other], [scene, None])
    (tmp_path / "link.tif").symlink_to(scene)
    os.link(scene, tmp_path / "hard.tif")
    for name in ("s.tif", "link.tif", "hard.tif", "x/../s.tif"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="input"):
            check_apart([other, tmp_path / name], [str(scene)])
