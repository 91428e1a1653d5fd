"""Which processes a run starts on this machine."""

from __future__ import annotations

import pytest

from geoseg.config import ScaleOptions
from geoseg.errors import DeviceError
from geoseg.stages.executors.local import local_workers


def test_gpus_are_pinned_each_to_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    spec = local_workers(ScaleOptions(gpus=2, workers=3), cores=8)
    gpus = [worker["options"] for name, worker in spec.items() if name.startswith("device")]
    assert [options["env"]["CUDA_VISIBLE_DEVICES"] for options in gpus] == ["0", "1"]
    assert all(options["resources"] == {"GPU": 1} for options in gpus)
    others = [worker["options"] for name, worker in spec.items() if name.startswith("worker")]
    assert [options["resources"] for options in others] == [{"CPU": 1}] * 3
    assert all(options["nthreads"] == 1 for options in [*gpus, *others])

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-8932f937,6")
    spec = local_workers(ScaleOptions(devices=("cuda:1", "cuda")), cores=8)
    pinned = [spec[f"device-{i}"]["options"]["env"]["CUDA_VISIBLE_DEVICES"] for i in range(2)]
    assert pinned == ["GPU-8932f937", "4"]
    with pytest.raises(DeviceError, match="--gpus 4: found 3"):
        local_workers(ScaleOptions(gpus=4), cores=8)
    with pytest.raises(DeviceError, match="found 3 GPUs"):
        local_workers(ScaleOptions(devices=("cuda:3",)), cores=8)


def test_without_devices_every_worker_does_everything() -> None:
    spec = local_workers(ScaleOptions(workers=2), cores=8)
    assert list(spec) == ["worker-0", "worker-1"]
    for worker in spec.values():
        assert worker["options"]["resources"] == {}
        assert worker["options"]["env"] == {"OMP_NUM_THREADS": "4"}
        assert worker["options"]["host"] == "127.0.0.1"
