"""Slices for training: drawn by patient, held out by patient, in the prior's unit."""

from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from lightning_mbir.data import SliceDataModule
from lightning_mbir.data.volume import MU_WATER
from lightning_mbir.errors import InputError


def folder_of_volumes(folder: Path) -> Path:
    """Patients a (two scans), b and c; each voxel tells the patient by its value."""
    for name, n_slices, value in (("a_one", 4, 100), ("a_two", 4, 100), ("b_one", 24, 200), ("c_one", 3, 300)):
        array = np.full((20, 24, n_slices), value, np.int16)
        array[..., -1] = -1000  # a slice of air
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def test_patients_are_drawn_equally_and_the_last_is_held_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = SliceDataModule(
        folder_of_volumes(tmp_path), "ct", image_size=24, phantom_fraction=0.0, slices_per_epoch=2000, batch_size=50
    )
    data.setup("fit")
    data._augmentation = lambda: None  # type: ignore[method-assign, assignment, return-value]
    drawn: Counter[int] = Counter()
    for batch in data.train_dataloader():
        assert batch.shape == (50, 1, 24, 24)
        drawn.update(round(float(v) * 1e3) for v in batch[:, 0, 12, 12])
    unit = {round(MU_WATER * (1 + hu / 1000) / (2 * MU_WATER) * 1e3): hu for hu in (100, 200, 300)}
    assert {unit[k] for k in drawn} == {100, 200}  # c is held out, air left out
    assert abs(drawn[550] - 1000) < 5 * (2000 * 0.25) ** 0.5
    held = next(iter(data.val_dataloader()))
    assert len(held) == 2
    assert float(held[0, 0, 12, 12]) == pytest.approx(0.65)


def test_augmented_slices_stay_in_range(tmp_path: Path) -> None:
    data = SliceDataModule(folder_of_volumes(tmp_path), "mri", image_size=24, phantom_volumes=1, batch_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert type(batch) is torch.Tensor and batch.dtype == torch.float32
    assert bool(torch.isfinite(batch).all()) and float(batch.min()) >= 0 and float(batch.max()) < 2


def test_phantoms_alone_need_no_files() -> None:
    data = SliceDataModule(image_size=32, phantom_volumes=2, batch_size=4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.shape == (4, 1, 32, 32) and float(batch.std()) > 0.1
    assert "2 phantoms" in data.summary


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="held_out"):
        SliceDataModule(folder_of_volumes(tmp_path), held_out="nobody", phantom_volumes=1)
    with pytest.raises(InputError, match="no such file"):
        SliceDataModule(tmp_path / "gone", phantom_volumes=1)
    with pytest.raises(InputError, match="batch_size"):
        SliceDataModule(batch_size=0)
    with pytest.raises(InputError, match="phantom_fraction"):
        SliceDataModule(phantom_fraction=2.0)
