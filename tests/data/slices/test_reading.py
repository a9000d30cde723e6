"""Volumes read as slices: sizes, the cache, and what cannot be used."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mbir.data import SliceDataModule
from lightning_mbir.data.slices import datamodule as slice_datamodule
from lightning_mbir.data.slices import reading as slice_reading
from lightning_mbir.data.slices.reading import fit_in_plane
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from tests.data.slices.test_datamodule import folder_of_volumes, write_scan


def test_small_slices_are_padded_and_large_ones_averaged() -> None:
    data = torch.rand(2, 10, 14)
    padded = fit_in_plane(data, 16)
    torch.testing.assert_close(padded[:, 3:13, 1:15], data)
    assert float(padded.sum()) == pytest.approx(float(data.sum()), rel=1e-6)
    halved = fit_in_plane(torch.rand(2, 32, 32), 16)
    assert halved.shape == (2, 16, 16)
    blocks = torch.arange(4.0).reshape(1, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(fit_in_plane(blocks, 2), torch.arange(4.0).reshape(1, 2, 2))


def test_a_cache_is_used_again_and_knows_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_volumes(tmp_path)
    read = []

    def counted(path: Path, modality: Any) -> Volume:
        read.append(path)
        return read_volume(path, modality)

    monkeypatch.setattr(slice_reading, "read_volume", counted)

    def slices(size: int) -> torch.Tensor:
        data = SliceDataModule(tmp_path, image_size=size, phantom_fraction=0.0, cache_dir=tmp_path / "cache")
        data.setup("fit")
        assert data._train is not None
        return torch.stack(data._train[0])

    first = slices(24)
    files = set((tmp_path / "cache").iterdir())
    assert len(read) == 4
    torch.testing.assert_close(slices(24), first, rtol=0, atol=0)
    assert set((tmp_path / "cache").iterdir()) == files
    assert len(read) == 4  # no volume is read again
    assert slices(16).shape[-1] == 16 and len(read) == 8
    monkeypatch.setattr(slice_datamodule, "READING", -1)  # other code, other slices
    assert slices(24).shape == first.shape and len(read) == 12


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cache_that_was_cut_short_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    (tmp_path / "volumes").mkdir()
    folder_of_volumes(tmp_path / "volumes")

    def slices() -> torch.Tensor:
        cache = {"cache_dir": tmp_path / "cache"}
        data = SliceDataModule(tmp_path / "volumes", image_size=24, phantom_fraction=0.0, **cache)
        data.setup("fit")
        assert data._train is not None
        return torch.stack(data._train[0])

    first = slices()
    files = list((tmp_path / "cache").iterdir())
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
    sizes = [file.stat().st_size for file in files]
    torch.testing.assert_close(slices(), first, rtol=0, atol=0)
    assert [file.stat().st_size for file in files] == sizes  # another process may be writing them
    for file in files:
        os.utime(file, (0, 0))
    torch.testing.assert_close(slices(), first, rtol=0, atol=0)
    assert caplog.text.count("not a whole file of the cache") == 4
    caplog.clear()
    torch.testing.assert_close(slices(), first, rtol=0, atol=0)
    assert "of the cache" not in caplog.text  # what was made again is whole


def test_a_volume_without_signal_among_others_is_told_and_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in (("a_one", 1.0), ("b_one", 0.0), ("c_one", 1.0)):
        write_scan(tmp_path / f"{name}.nii.gz", torch.full((4, 16, 16), value))
    data = SliceDataModule(tmp_path, "mri", image_size=16, phantom_volumes=1)
    data.setup("fit")
    assert data.summary.startswith("2 volumes of 2 patients (c held out), 1 phantoms (15%); ")
    (message,) = [record.message for record in caplog.records if "no slice with signal" in record.message]
    assert "b_one.nii.gz" in message and "a_one" not in message


def test_a_voxel_that_half_precision_does_not_hold_is_refused(tmp_path: Path) -> None:
    """Else it would be infinite, and the training said to diverge."""
    volume = torch.rand(4, 32, 32)
    volume[0, 0, 0] = 1e6
    write_scan(tmp_path / "a_one.nii.gz", volume)
    with pytest.raises(InputError, match=r"a_one.nii.gz: a voxel is 1\S*e\+06 times as large as what counts as 1"):
        SliceDataModule(tmp_path, "mri", image_size=32, phantom_volumes=1).setup("fit")
