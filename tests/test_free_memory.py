"""Free memory, and running out of it in earnest."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_mbir import free_memory as module
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits, free_memory, total_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("own", "files", "room"),
    [
        ("0::/", {"memory.max": "5000", "memory.current": "3000", "memory.stat": "anon 1\ninactive_file 500\n"}, 2500),
        (
            "0::/jobs/a",
            {
                "memory.max": "max",
                "memory.current": "1",
                "memory.stat": "",
                "jobs/memory.max": "900",
                "jobs/memory.current": "1000",
                "jobs/memory.stat": "",
                "jobs/a/memory.max": "700",
                "jobs/a/memory.current": "200",
                "jobs/a/memory.stat": "inactive_file 0",
            },
            0,
        ),
        (
            "9:name=systemd:/\n4:cpu,memory:/job",
            {
                "memory/job/memory.limit_in_bytes": "800",
                "memory/job/memory.usage_in_bytes": "300",
                "memory/job/memory.stat": "cache 7\ntotal_inactive_file 50",
            },
            550,
        ),
        ("0::/", {"memory.max": "max", "memory.current": "3000", "memory.stat": ""}, 1 << 20),
        ("", {}, 1 << 20),
    ],
)
def test_a_container_or_a_batch_job_has_the_memory_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], room: int
) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemAvailable: 1024 kB\n")
    monkeypatch.setattr(module, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(module, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(module, "MEMINFO", tmp_path / "meminfo")
    assert free_memory(CPU) == room


def test_what_there_is_in_all_does_not_follow_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CGROUPS", tmp_path)
    monkeypatch.setattr(module, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(module, "MEMINFO", tmp_path / "meminfo")
    for free in (1024, 512):
        (tmp_path / "meminfo").write_text(f"MemTotal: 4096 kB\nMemAvailable: {free} kB\n")
        assert (total_memory(CPU), free_memory(CPU)) == (4096 << 10, free << 10)
    for name, text in {"memory.max": "3000000", "memory.current": "1000000", "memory.stat": ""}.items():
        (tmp_path / name).write_text(text)
    assert (total_memory(CPU), free_memory(CPU)) == (3000000, 512 << 10)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: 2 << 30)
    check_fits("a volume", 2 << 30, "give less")
    with pytest.raises(InputError, match=r"a volume: takes 3.0 GiB of memory, of which 2.0 are free; give less"):
        check_fits("a volume", 3 << 30, "give less")


SCARCE = """
import logging, resource
from pathlib import Path
import torch
from lightning_mbir.prior import SliceDenoiser, load_prior

torch.set_num_threads(1)
logging.basicConfig(level=logging.WARNING)
network = load_prior("phantom").network
x = torch.rand(24, 96, 96)
few = SliceDenoiser(network, load_prior("phantom").unit, slice_batch=1)(x, 0.5)
for room in (64, 32, 16, 8):  # MiB; how much 24 slices need differs from machine to machine
    status = Path("/proc/self/status").read_text().splitlines()
    taken = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (taken + (room << 20), resource.RLIM_INFINITY))
    denoise = SliceDenoiser(network, load_prior("phantom").unit, slice_batch=24)
    many = denoise(x, 0.5)
    if denoise.chosen:
        break
print(float((few - many).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to limit the memory of a process")
def test_where_memory_really_runs_out_smaller_batches_give_the_same() -> None:
    """No stand-in: the allocator fails in a process that may not take more."""
    done = subprocess.run([sys.executable, "-c", SCARCE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "out of memory with 24 slices at once; going on with 12" in done.stderr
    assert float(done.stdout) < 1e-4
