"""What a training that was killed leaves, and how the next one finds it."""

import errno
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_mbir.cli.lightning import SaveConfig
from lightning_mbir.errors import WriteError
from lightning_mbir.prior.training.shared import WholeCheckpoints, resumable


def checkpoint(runs: Path, version: int, seconds: float) -> Path:
    path = runs / f"version_{version}/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    os.utime(path, (seconds, seconds))
    return path


def test_the_training_that_has_not_ended_is_the_one_of_the_last_checkpoint(tmp_path: Path) -> None:
    assert resumable(tmp_path / "nowhere") is None and resumable(tmp_path) is None
    first = checkpoint(tmp_path, 0, 100)
    assert resumable(tmp_path) == first
    second = checkpoint(tmp_path, 1, 200)
    assert resumable(tmp_path) == second
    (tmp_path / "version_1/prior.safetensors").touch()  # gone on with in another folder, and ended
    assert resumable(tmp_path) is None
    checkpoint(tmp_path, 2, 300)
    (tmp_path / "version_2/unet.safetensors").touch()
    assert resumable(tmp_path) is None


def test_it_is_told_in_one_line_and_what_is_half_written_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lightning_mbir")
    last = checkpoint(tmp_path, 0, 100)
    for folder in (last.parent, last.parent.parent):
        (folder / ".partial-x").touch()
    told: Any = SimpleNamespace(config={"ckpt_path": None})
    SaveConfig._tell_of_others(told, tmp_path)
    line = f"{last.parents[1]} is of a training that has not ended; to go on with it: --ckpt_path {last}"
    assert caplog.messages == [line]
    caplog.clear()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["last.ckpt"]
    told.config["ckpt_path"] = str(last)
    SaveConfig._tell_of_others(told, tmp_path)
    assert not caplog.messages


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoints/last.ckpt"
    writer = WholeCheckpoints()
    writer.save_checkpoint({"weights": torch.ones(3)}, path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(WriteError, match=r"last\.ckpt: no space is left on the disk"):
        patch.setattr(os, "fsync", full)
        writer.save_checkpoint({"weights": torch.zeros(3)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.ones(3))
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_does_not_pass_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    WholeCheckpoints().save_checkpoint({"weights": torch.ones(3)}, str(tmp_path / "a.ckpt"))
    assert (tmp_path / "a.ckpt").is_file()
