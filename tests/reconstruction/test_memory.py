"""Peak memory of a piece of work, by the kernel's mark and by sampling."""

from pathlib import Path

import pytest
import torch

from lightning_mbir.reconstruction import memory
from lightning_mbir.reconstruction.memory import PeakMemory

MIB = 2**20
pytestmark = pytest.mark.skipif(not memory.STATUS.exists(), reason="memory is measured where there is /proc")


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "sampled"])
def test_what_is_taken_and_given_back_counts(kernel: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not kernel:
        monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "none")
    held = torch.ones(40 * MIB // 4)
    with PeakMemory(torch.device("cpu")) as first:
        for _ in range(5):
            taken = torch.ones(64 * MIB // 4) + held.sum()
            taken *= 1.5
        del taken
    with PeakMemory(torch.device("cpu")) as second:
        pass
    assert first.bytes is not None and second.bytes is not None
    assert 60 * MIB < first.bytes < 200 * MIB
    assert second.bytes < 10 * MIB


def test_without_proc_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "none")
    with PeakMemory(torch.device("cpu")) as peak:
        pass
    assert peak.bytes is None
