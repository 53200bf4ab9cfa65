"""What training asks of a machine: devices, threads and memory that are not there are told by name."""

import os
from types import SimpleNamespace

import pytest
import torch

from ctr.errors import ConfigError
from ctr.training import machine
from ctr.training.machine import free_memory, pick_device, pick_threads


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are so many GPUs, and no other device."""

    def pretend(count: int, cuda: str | None = "12.8") -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", None)

    return pretend


def test_auto_is_the_gpu_where_there_is_one(gpus):
    gpus(0)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    gpus(1)
    assert pick_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "count", "cuda", "expected"),
    [
        (
            "cuda",
            0,
            "12.8",
            ': PyTorch finds no GPU (its driver, or CUDA_VISIBLE_DEVICES, may hide it); use "auto"',
        ),
        ("cuda:0", 0, None, f': PyTorch {torch.__version__} was built without CUDA; use "auto" or "cpu"'),
        ("cuda:1", 1, "12.8", ': found 1 GPU, counted from 0; use "auto" or "cpu" or "cuda:0"'),
        ("cuda:3", 2, "12.8", ': found 2 GPUs, counted from 0; use "auto" or "cpu" or "cuda:0" or "cuda:1"'),
        ("mps", 0, "12.8", '; use "auto" or "cpu"'),
    ],
)
def test_a_device_that_is_not_there_is_refused_by_name_with_those_that_are(gpus, name, count, cuda, expected):
    gpus(count, cuda)
    with pytest.raises(ConfigError) as caught:
        pick_device(name)
    assert str(caught.value).startswith(f'training.device: "{name}" is not available here{expected}')
    assert caught.value.exit_code == 2


def test_a_device_that_is_there_is_taken(gpus):
    gpus(2)
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")


def test_threads_are_at_most_the_cores(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert [pick_threads(stated) for stated in (0, 1, 4)] == [4, 1, 4]
    with pytest.raises(ConfigError) as caught:
        pick_threads(5)
    assert str(caught.value) == (
        "training.threads = 5: expected at most the 4 cores that this process may use here; "
        "state fewer, or 0, which takes all of them"
    )


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system whose files are given by path."""

    def make(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(machine, "_SYSTEM", tmp_path)
    return make


CPU = torch.device("cpu")
MEMINFO = {"proc/meminfo": "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:  5000 kB\n"}


def test_free_memory_is_what_the_system_calls_available(system):
    system(MEMINFO)
    assert free_memory(CPU) == 5000 * 1024


def test_a_container_leaves_what_its_limit_leaves_and_pages_of_files_are_free(system):
    group = "sys/fs/cgroup/batch/job"
    files = {
        "proc/self/cgroup": "0::/batch/job\n",
        f"{group}/memory.max": "max\n",
        f"{group}/memory.current": "900000\n",
        "sys/fs/cgroup/batch/memory.max": "1000000\n",
        "sys/fs/cgroup/batch/memory.current": "900000\n",
        "sys/fs/cgroup/batch/memory.stat": "anon 600000\nfile 300000\nfile_mapped 7\n",
    }
    system(MEMINFO | files)
    assert free_memory(CPU) == 400_000


def test_limits_of_the_older_control_groups_count_as_well(system):
    root = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/gone/from/here\n0::/\n",
        f"{root}/memory.limit_in_bytes": "2000000\n",
        f"{root}/memory.usage_in_bytes": "500000\n",
        f"{root}/memory.stat": "cache 1\ntotal_cache 100000\n",
    }
    system(MEMINFO | files)
    assert free_memory(CPU) == 1_600_000


def test_a_limit_that_is_far_above_the_memory_does_not_raise_it(system):
    files = {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63}\n"}
    files["sys/fs/cgroup/memory/memory.usage_in_bytes"] = "1\n"
    system(MEMINFO | files)
    assert free_memory(CPU) == 5000 * 1024


def test_without_any_of_these_it_is_the_memory_that_is_built_in_or_unknown(system, monkeypatch):
    assert free_memory(CPU) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(os, "sysconf", lambda _: -1)
    assert free_memory(CPU) is None


def test_a_gpu_has_what_its_driver_tells_and_what_pytorch_keeps_ready(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 500)
    assert free_memory(torch.device("cuda:1")) == 1200
    assert free_memory(torch.device("mps")) is None


def test_the_speed_of_bf16_is_a_ratio_of_two_measured_times(monkeypatch):
    clock = iter([0.0, 9.0, 9.0, 13.0, 13.0, 15.0, 15.0, 18.0, 0.0, 9.0, 9.0, 10.0, 10.0, 13.0, 13.0, 20.0])
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert machine.bf16_speed() == 2.0  # the least of three each, 2 and 1; the first, of 9, warms up


def test_products_are_rounded_in_bf16_alone():
    device, ones = torch.device("cpu"), torch.ones(2, 2)
    with machine.rounding("bf16", device):
        assert (ones @ ones).dtype == torch.bfloat16
    for precision in ("float32", "tf32"):
        with machine.rounding(precision, device):
            assert (ones @ ones).dtype == torch.float32
