"""Workers in processes of their own that die, hang, run out of disk or vanish: nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import geopandas as gpd
import psutil
import pytest
from cli_support import break_tiles, spawn, write_scene
from test_stages_blocks import config, leftovers, map_blocks, rows, stages

from geoseg.errors import ClusterError, DeviceError, OutputError
from geoseg.stages.base import Silence
from geoseg.stages.blocks.job import run_blocks
from geoseg.stages.blocks.rundir import RunManifest
from geoseg.stages.outputs import OutputPlan
from geoseg.stages.run import run
from geoseg.testing import make_town, write_town

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parent
SLOW = {"model__name": "stubs:slow_oracle", "scale__block_chips": 1}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A town of 25 chips with the footprints that one process finds beside it."""
    folder = tmp_path_factory.mktemp("scene")
    path = write_scene(folder / "s.tif")
    cfg = config(**SLOW)
    run(str(path), OutputPlan(vector=folder / "expected.parquet"), cfg)
    return path


def expected(scene: Path) -> list[Any]:
    return rows(scene.parent / "expected.parquet")


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the worker processes below a process: those that dask spawned."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if "spawn_main" in line or "dask worker" in line:
                    found.append(child)
    return found


@contextlib.contextmanager
def killing(
    count: int, *, seed: int, every_s: tuple[float, float], run_dir: Path
) -> Iterator[list[int]]:
    """Kill a random worker of this process again and again, from the first block done on."""
    rng, killed, over = random.Random(seed), [], threading.Event()

    def kill() -> None:
        while len(killed) < count and not over.wait(rng.uniform(*every_s)):
            alive = workers_of(os.getpid())
            if alive and finished(run_dir, "infer"):
                victim = rng.choice(alive)
                with contextlib.suppress(psutil.Error):
                    victim.kill()
                    killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_workers_give_what_one_process_gives(scene: Path, tmp_path: Path) -> None:
    cfg = config(**SLOW, scale__workers=2, scale__run_dir=str(tmp_path / "run"))
    map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert rows(tmp_path / "o.parquet") == expected(scene)
    assert leftovers(tmp_path) == []
    map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert all(done == 0 for done, _ in stages(tmp_path / "run").values())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same(scene: Path, tmp_path: Path, workers: int) -> None:
    map_blocks(scene, tmp_path / "o.parquet", config(**SLOW, scale__workers=workers))
    assert rows(tmp_path / "o.parquet") == expected(scene)


def test_devices_have_a_process_each_and_others_read_for_them(scene: Path, tmp_path: Path) -> None:
    cfg = config(
        **{**SLOW, "scale__block_chips": 2},
        scale__devices=("cpu", "cpu"),
        scale__workers=1,
        scale__run_dir=str(tmp_path / "run"),
    )
    map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert rows(tmp_path / "o.parquet") == expected(scene)


def test_more_gpus_than_there_are_is_one_line_before_any_work(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="--gpus 64: found"):
        map_blocks(scene, tmp_path / "o.parquet", config(scale__gpus=64))


def test_three_deaths_cost_their_block_alone(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOSEG_TEST_SECONDS", "0.3")
    cfg = config(**SLOW, scale__workers=2, scale__run_dir=str(tmp_path / "run"))
    with killing(3, seed=1, every_s=(0.5, 1.5), run_dir=tmp_path / "run") as killed:
        tally = map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert len(killed) == 3
    assert not tally.failed
    assert rows(tmp_path / "o.parquet") == expected(scene)
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_twenty_deaths_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = write_town(make_town(size_px=1300, seed=5), tmp_path).ids
    run(str(scene), OutputPlan(vector=tmp_path / "a.parquet"), config(**SLOW))
    monkeypatch.setenv("GEOSEG_TEST_SECONDS", "2.0")
    cfg = config(**SLOW, scale__workers=2, scale__run_dir=str(tmp_path / "run"))
    with killing(20, seed=2, every_s=(1.0, 6.0), run_dir=tmp_path / "run") as killed:
        tally = map_blocks(scene, tmp_path / "b.parquet", cfg)
    assert len(killed) == 20
    assert not tally.failed
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    assert leftovers(tmp_path) == []


def test_a_killed_client_goes_on_where_it_stopped(scene: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = ["run", scene, "-o", tmp_path / "o.parquet", "--run-dir", run_dir, "--workers", 2]
    words += ["--model", "stubs:slow_oracle", "--chip-size", 150, "--overlap", 30]
    words += ["--set", "scale.block_chips=1", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(TESTS), "GEOSEG_TEST_SECONDS": "0.4"}
    client = spawn(*words, env=env)
    done_before = wait_until(lambda: finished(run_dir, "infer") or None, client)
    assert done_before >= 1
    workers = workers_of(client.pid)
    assert workers
    client.send_signal(signal.SIGKILL)
    client.communicate()
    assert RunManifest.load(run_dir).state == "interrupted"
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert len(gone) == 2, f"workers outlive their client: {alive}"
    assert not (tmp_path / "o.parquet").exists()
    again = spawn(*words, env={**env, "GEOSEG_TEST_SECONDS": "0"})
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "footprints" in out
    assert [line for line in err.splitlines() if not line.startswith("dashboard: http")] == []
    assert stages(run_dir)["infer"][1] >= done_before
    assert rows(tmp_path / "o.parquet") == expected(scene)
    assert leftovers(tmp_path) == []


def finished(run_dir: Path, stage: str) -> int:
    with contextlib.suppress(Exception):
        return len(list((run_dir / stage).glob("*/b*.parquet")))
    return 0


def wait_until(ask: Callable[[], int | None], process: Any, seconds: float = 90) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        if (answer := ask()) is not None:
            return answer
        time.sleep(0.05)
    raise TimeoutError("what was waited for did not come")


@contextlib.contextmanager
def cluster(folder: Path, *, workers: int = 2) -> Iterator[tuple[str, Any, list[Any]]]:
    """Start a scheduler and workers as a user would, each a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    dask = [sys.executable, "-m", "dask"]
    log = (folder / "cluster.log").open("wb")
    options: dict[str, Any] = {"stdout": log, "stderr": log, "env": env, "cwd": folder}
    where = folder / f"scheduler-{time.monotonic_ns()}.json"
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where)]
    scheduler = subprocess.Popen([*dask, "scheduler", *words], **options)
    running = [scheduler]
    try:
        wait_until(lambda: 1 if where.exists() and where.stat().st_size else None, scheduler)
        words = ["--nthreads", "1", "--no-dashboard", "--scheduler-file", str(where)]
        words += ["--local-directory", str(folder / "scratch"), "--death-timeout", "30"]
        nannies = [subprocess.Popen([*dask, "worker", *words], **options) for _ in range(workers)]
        running += nannies
        yield json.loads(where.read_text())["address"], scheduler, nannies
    finally:
        for process in running:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()
        log.close()


def test_a_cluster_that_runs_already_serves_and_its_death_is_survived(
    scene: Path, tmp_path: Path
) -> None:
    plan = OutputPlan(vector=tmp_path / "o.parquet")

    def at(address: str, slow: bool) -> Any:
        options = {**SLOW, "scale__run_dir": str(tmp_path / "run"), "scale__scheduler": address}
        return run_blocks([str(scene)], [plan], config(**options), progress=Progress(slow))

    class Progress(Silence):
        """Kills the scheduler when some blocks are done."""

        def __init__(self, kills: bool) -> None:
            self.done, self.kills = 0, kills

        def advance(self, count: int) -> None:
            self.done += count
            if self.kills and self.done >= 4:
                scheduler.kill()

    with cluster(tmp_path) as (address, scheduler, _):
        with pytest.raises(ClusterError, match="run again to go on"):
            at(address, slow=True)
        assert RunManifest.load(tmp_path / "run").state == "failed"
        assert not plan.vector.exists()
    before = finished(tmp_path / "run", "infer")
    assert before >= 4
    with cluster(tmp_path) as (address, scheduler, _):
        at(address, slow=False)
    assert stages(tmp_path / "run")["infer"][1] >= before
    assert rows(plan.vector) == expected(scene)
    assert leftovers(tmp_path / "run") == []


def test_no_cluster_at_an_address_is_one_line(scene: Path, tmp_path: Path) -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ClusterError, match="no Dask scheduler answers") as error,
    ):
        map_blocks(scene, tmp_path / "o.parquet", config(scale__scheduler="tcp://127.0.0.1:1"))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_worker_that_hangs_once_is_ended_and_its_block_done_elsewhere(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = tmp_path / "hang"
    hang.write_text("")
    monkeypatch.setenv("GEOSEG_TEST_HANG", str(hang))
    cfg = config(**SLOW, scale__workers=2, scale__block_limit_s=5.0)
    tally = map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert not hang.exists()
    assert not tally.failed
    assert rows(tmp_path / "o.parquet") == expected(scene)


@pytest.mark.slow
def test_a_block_that_always_hangs_is_named_and_the_rest_is_done(
    scene: Path, tmp_path: Path
) -> None:
    options = {**SLOW, "model__name": "stubs:hanging_oracle", "scale__block_limit_s": 8.0}
    cfg = config(**{**options, "scale__block_chips": 2}, scale__workers=2)
    tally = map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert tally.failed == [("block s/b0000-0001", "took longer than 8 s, 2 times")]
    found = gpd.read_parquet(tmp_path / "o.parquet")
    assert 40 < len(found) < len(expected(scene))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    scene: Path, tmp_path: Path, small_disk: Path
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 200_000)
    run_dir = small_disk / "run"
    cfg = config(**SLOW, scale__workers=2, scale__run_dir=str(run_dir))
    with pytest.raises(OutputError, match="No space left"):
        map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert not (tmp_path / "o.parquet").exists()
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    map_blocks(scene, tmp_path / "o.parquet", cfg)
    assert rows(tmp_path / "o.parquet") == expected(scene)
    assert leftovers(small_disk) == []


@pytest.mark.slow
def test_workers_redo_a_corrupt_shard_and_name_chips_they_cannot_read(tmp_path: Path) -> None:
    scene = break_tiles(write_scene(tmp_path / "s.tif"), [7])
    run(str(scene), OutputPlan(vector=tmp_path / "a.parquet"), config(**SLOW))
    run_dir = tmp_path / "run"
    cfg = config(**SLOW, scale__workers=2, scale__run_dir=str(run_dir))
    first = map_blocks(scene, tmp_path / "b.parquet", cfg)
    assert first.failed
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    rng = random.Random(4)
    for kind in ("infer", "footprints"):
        shard = rng.choice(sorted((run_dir / kind).rglob("*.parquet")))
        data = bytearray(shard.read_bytes())
        data[rng.randrange(len(data))] ^= 16
        shard.write_bytes(data)
    again = map_blocks(scene, tmp_path / "b.parquet", cfg)
    assert sorted(again.failed) == sorted(first.failed), "what cannot be read still cannot"
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    assert leftovers(tmp_path) == []
