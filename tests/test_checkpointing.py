"""What is kept of a run: when, under which names, and what of it is gone on from."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_mbir import checkpointing
from lightning_mbir.checkpointing import UNKEPT, Checkpoint, StateFolder
from lightning_mbir.errors import WriteError
from lightning_mbir.slabs import Slab, gathered, holding
from tests.ranks import on_ranks

DEPTH, ALWAYS = 5, 1e-9
CPU = torch.device("cpu")


@dataclass
class Shared:
    v: tuple[Tensor, ...] = ()
    threshold: float = 0.0


def iterated(checkpoint: Checkpoint, steps: int = 6, last: int = 99, start: int = 0, stop: int = DEPTH) -> Tensor:
    """A toy whose every number depends on all before it, of some slices; stopped after a step by a KeyError."""
    x, z = torch.arange(start, stop, dtype=torch.float32)[:, None, None].expand(-1, 2, 3), torch.zeros((), dtype=CD)
    checkpoint.begin(0, CPU)
    done, x, z, shared, count = checkpoint.resume(x, z, Shared(), 0)
    for k in range(done, steps):
        checkpoint.reached(k, x, z, shared, count)
        old = shared.v[0] if shared.v else torch.zeros_like(x).to(CD)
        x, z, count = 0.9 * x + k * old.real, z + k * (1 + 2j), count + 2
        shared = Shared((old + x * 1j, torch.full((), float(k))), shared.threshold / 3 + 0.1)
        if k + 1 == last:
            raise KeyError
    assert count == 2 * steps
    return torch.view_as_real(x * z + shared.v[0] + shared.v[1] * shared.threshold)


CD = torch.complex128


class Keeping:
    """Makes what keeps the state, and has what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()

    def __call__(self, minutes: float = ALWAYS, key: str = "a", **identity: object) -> StateFolder:
        return StateFolder(self.folder, identity, key * 64, minutes, "v", self.said.append)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []

    def stopped(self, last: int = 4, **given: object) -> None:
        with pytest.raises(KeyError):
            iterated(self(**given), last=last)  # type: ignore[arg-type]


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path / "state")


def test_nothing_is_kept_by_default() -> None:
    assert UNKEPT.resume(1, "x") == (0, 1, "x") and not UNKEPT.found and UNKEPT.seconds == 0


def test_a_run_goes_on_to_the_same_bits(keeping: Keeping) -> None:
    keeping.stopped()
    assert keeping.names == [f"{'a' * 16}-0-3-0of1.safetensors"] and keeping.said == []
    again = keeping()
    assert torch.equal(iterated(again), iterated(UNKEPT)) and again.found and again.seconds > 0
    (line,) = keeping.said
    assert line.startswith("v: goes on after 3 steps, as they were kept 2")
    assert len(keeping.names) == 1  # of the last step: whose the run is deletes it


def test_only_where_it_is_time(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: clock[0])
    checkpoint, kept = keeping(1.0), []
    checkpoint.begin(0, CPU)
    checkpoint.resume(torch.zeros(2))
    for k in range(12):
        clock[0] = 25.0 * k
        checkpoint.reached(k, torch.zeros(2))
        kept += [k] if any(f"-{k}-0of1" in name for name in keeping.names) else []
    assert kept == [3, 6, 9]  # each the first after a minute


def test_none_is_kept_with_0_but_one_that_is_there_is_used(keeping: Keeping) -> None:
    keeping.stopped(minutes=0.0)
    assert keeping.names == []
    keeping.stopped()
    assert torch.equal(iterated(keeping(0.0)), iterated(UNKEPT))
    assert "goes on after 3 steps" in keeping.said[0]


@pytest.mark.parametrize("how", ["cut", "another bit", "text", "empty", "header"])
def test_what_is_damaged_is_said_and_not_used(keeping: Keeping, how: str) -> None:
    keeping.stopped()
    path = keeping.folder / keeping.names[0]
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    other = {"cut": data[:-9], "another bit": data, "text": b"hello" * 99, "empty": b""}
    path.write_bytes(other.get(how, path.read_bytes().replace(b"seconds", b"Seconds")))
    assert torch.equal(iterated(keeping()), iterated(UNKEPT))
    (line,) = keeping.said
    assert line.startswith("v: the state that was kept is damaged (") and line.endswith("); starting again")


def test_a_state_of_other_settings_is_said_and_goes_with_the_first_of_this(keeping: Keeping) -> None:
    keeping.stopped(steps=50, seed=1)
    before = keeping.names
    keeping.stopped(last=1, key="b", steps=60, seed=1)  # before there is one
    (line,) = keeping.said
    assert line == "v: the state that was kept is of other settings (steps) and not used; starting again"
    assert keeping.names == before
    keeping.stopped(key="b", steps=60, seed=1)
    assert keeping.names == [f"{'b' * 16}-0-3-0of1.safetensors"]


def test_a_state_of_another_sample_is_not_used(keeping: Keeping) -> None:
    keeping.stopped()
    checkpoint = keeping()
    checkpoint.begin(1, CPU)
    assert not checkpoint.found and checkpoint.resume(torch.zeros(2))[0] == 0 and keeping.said == []


def test_a_full_disk_is_said_once_and_the_run_goes_on(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping.stopped()  # there was room for one
    before, tries, write = keeping.names, [], checkpointing.write_whole

    def full(path: Path, data: bytes) -> None:
        tries.append(path)
        raise WriteError(f"{path.name}: no space is left on the disk; make room")

    monkeypatch.setattr(checkpointing, "write_whole", full)
    assert torch.equal(iterated(keeping()), iterated(UNKEPT))
    (_, line) = keeping.said
    assert len(tries) == 1 and line.startswith(f"v: {tries[0].name}: no space is left on the disk; make room; the run")
    assert line.endswith("goes on, and no state of it is kept from here")
    assert keeping.names == before
    monkeypatch.setattr(checkpointing, "write_whole", write)
    assert torch.equal(iterated(keeping()), iterated(UNKEPT))  # from the old one


def test_slices_at_once_are_as_before(keeping: Keeping) -> None:
    key = (8, 8, "cpu", False)
    checkpoint = keeping()
    checkpoint.begin(0, CPU, [{key: 4}, {}])
    checkpoint.resume(torch.zeros(2))
    checkpoint.reached(1, torch.zeros(2))
    settled: list[checkpointing.Settled] = [{}, {key: 2}]
    keeping().begin(0, CPU, settled)
    assert settled == [{key: 4}, {key: 2}]


KILLED = """
import sys, pathlib, itertools, torch
from lightning_mbir.checkpointing import StateFolder
checkpoint = StateFolder(pathlib.Path(sys.argv[1]), {}, "a" * 64, 1e-9, "v")
checkpoint.begin(0, torch.device("cpu"))
done, x = checkpoint.resume(torch.zeros(64, 64, 64))
print(done, float(x[0, 0, 0]), bool((x == x[0, 0, 0]).all()), flush=True)
for k in itertools.count(done):
    checkpoint.reached(k, x)
    x = x + 1
"""


@pytest.mark.slow
def test_killed_at_any_moment_there_is_a_state(tmp_path: Path) -> None:
    """``SIGKILL`` while it writes nothing but states."""
    before = 0
    for moment in (0.3, 0.05, 0.11):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            if before:
                assert "goes on" in run.stdout.readline()
            done, value, alike = run.stdout.readline().split()
            assert int(done) == float(value) and alike == "True" and int(done) >= before
            for _ in range(600):  # until there is a newer one
                steps = [int(path.name.split("-")[2]) for path in tmp_path.glob("a*")]
                if max(steps, default=0) > int(done):
                    break
                signal.sigtimedwait([], 0.05)
            signal.sigtimedwait([], moment)
            run.kill()
        before = max(int(path.name.split("-")[2]) for path in tmp_path.glob("a*"))
        assert before > int(done)


def in_slabs(folder: Path, state: Path, last: int, steps: int) -> tuple[Tensor, list[str], bool]:
    slab, keeping = Slab(DEPTH, dist.get_rank(), tuple(range(dist.get_world_size()))), Keeping(state)
    with holding(slab):
        checkpoint = keeping()
        try:
            x = gathered(iterated(checkpoint, steps, last, slab.start, slab.stop))
        except KeyError:
            x = torch.zeros(0)
    return x, keeping.said, checkpoint.found


@pytest.fixture
def kept_by_two(tmp_path: Path) -> Iterator[Path]:
    on_ranks(in_slabs, tmp_path / "two", 2, tmp_path / "state", 4, 6)
    assert [path.name[17:] for path in sorted((tmp_path / "state").iterdir())] == [
        f"0-3-{rank}of2.safetensors" for rank in range(2)
    ]
    yield tmp_path / "state"


def test_in_other_slabs(kept_by_two: Path, tmp_path: Path) -> None:
    whole = iterated(UNKEPT)
    for ranks in (3, 2):
        shutil.copytree(kept_by_two, tmp_path / f"state_{ranks}")
        found = on_ranks(in_slabs, tmp_path / f"again_{ranks}", ranks, tmp_path / f"state_{ranks}", 99, 6)
        assert torch.equal(found[0][0], whole)
        assert [len(said) for _, said, _ in found] == [1] + [0] * (ranks - 1)  # the first tells
        assert all(resumed for *_, resumed in found)
    keeping = Keeping(kept_by_two)
    assert torch.equal(iterated(keeping()), whole) and "goes on after 3" in keeping.said[0]


def test_a_state_of_which_a_slab_is_missing_or_damaged(kept_by_two: Path, tmp_path: Path) -> None:
    """As where one process of two was killed in its writing: the older state counts, or none."""
    first, second = sorted(kept_by_two.iterdir())
    newer = kept_by_two / first.name.replace("-3-", "-4-")
    newer.write_bytes(first.read_bytes())
    found = on_ranks(in_slabs, tmp_path / "older", 2, kept_by_two, 4, 6)
    assert "goes on after 3 steps" in found[0][1][0] and not newer.exists()
    os.truncate(second, 100)
    found = on_ranks(in_slabs, tmp_path / "damaged", 2, kept_by_two, 99, 6)
    assert [resumed for *_, resumed in found] == [False, False] and "is damaged" in found[0][1][0]
    assert torch.equal(found[0][0], iterated(UNKEPT))
