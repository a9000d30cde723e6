"""What every reader's volumes go through: their values, what is said of them, and the way back to a file."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import MU_WATER
from lightning_mbir.data.volumes import reading
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.data.volumes.volume import Volume, mu_to_hu
from lightning_mbir.data.volumes.writing import write_volume
from lightning_mbir.errors import InputError

sitk: Any = SimpleITK
OBLIQUE = np.array([[1.9, 0.3, 0, -20], [-0.3, 1.9, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def ct(folder: Path, *values: float) -> Volume:
    """A volume in which the values follow each other again and again."""
    array = np.resize(np.array(values, np.float32), (6, 5, 4))
    image = nib.Nifti1Image(array, np.eye(4))
    nib.save(image, folder / "v.nii")
    return read_volume(folder / "v.nii", "ct")


def test_hounsfield_units_become_attenuation_in_place(tmp_path: Path) -> None:
    found = ct(tmp_path, -1000, 0, 1000, -1024)
    expected = np.resize(np.array([0, MU_WATER, 2 * MU_WATER, 0], np.float32), (6, 5, 4)).transpose(2, 1, 0)
    np.testing.assert_allclose(found.data.numpy(), expected, atol=1e-7)
    assert found.notes == () and found.data.dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 24, 1024, 2000), "stored without their intercept of -1024"),
        ((0, 10, 300), "nothing is below 0 HU, as air is: is it CT"),
        ((0, 0.02, 0.05), "values from 0 to 0.05 look like attenuation"),
        ((-1, 0, 1), "values from -1 to 1 look like attenuation"),
        ((-160, 40, 240), "nothing is below -160 HU, as air is: are values cut off at a window"),
        ((-3024, -1000, 0), "40 voxels below -1024 HU, down to -3024, are taken as air"),
        ((-1000, 0, 2e6), "40 voxels above 100000 HU, up to 2e+06"),
    ],
)
def test_what_hounsfield_units_are_not_is_told_and_not_changed(
    values: tuple[float, ...], words: str, tmp_path: Path
) -> None:
    found = ct(tmp_path, *values)
    (note,) = found.notes
    assert words in note
    back = mu_to_hu(found.data).numpy().transpose(2, 1, 0)
    expected = np.maximum(np.resize(np.array(values, np.float32), (6, 5, 4)), -1000)
    np.testing.assert_allclose(back, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("filling", "told"), [(0, True), (-100, True), (-1000, False), (-1024, False)])
def test_a_background_of_water_is_told(filling: int, told: bool, tmp_path: Path) -> None:
    """A mask that was applied leaves 0 HU around the patient, which counts as water in every projection."""
    array = np.full((12, 12, 3), filling, np.int16)
    array[3:9, 3:9] = np.arange(-900, 900, 50).reshape(6, 6, 1)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "v.nii")
    notes = read_volume(tmp_path / "v.nii", "ct").notes
    assert any(f"the outer voxels of slices are {filling} HU, which is no air" in note for note in notes) == told


def test_mri_keeps_its_values_and_says_nothing_of_hounsfield(tmp_path: Path) -> None:
    array = np.resize(np.array([-5000.0, 0, 1e6], np.float32), (6, 5, 4))
    image = nib.Nifti1Image(array, np.eye(4))
    nib.save(image, tmp_path / "v.nii")
    found = read_volume(tmp_path / "v.nii", "mri")
    np.testing.assert_array_equal(found.data.numpy().transpose(2, 1, 0), array)
    assert found.notes == ()


def test_ct_that_is_taken_for_mri_is_told(tmp_path: Path) -> None:
    """As it is where --task is left out: of `predict` that is MRI."""
    array = np.resize(np.array([-1000, 40, 1500], np.int16), (6, 5, 4))
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "v.nii")
    (note,) = read_volume(tmp_path / "v.nii", "mri").notes
    assert "values from -1000 to 1500, as HU are: is it MRI?" in note and "--task sv_ct" in note


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.mha", "v.mhd", "v.nrrd", "v.nhdr", "v.mgz", "v.npy"])
def test_every_format_comes_back_on_its_own_grid_with_its_own_bits(name: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((6, 9, 4), dtype=np.float32) + 0.5
    path, spacing = tmp_path / name, None
    if name.endswith(("nii", "gz")):
        nib.save((nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image)(array, OBLIQUE), path)
        affine = nib.load(path).affine
    elif name.endswith("npy"):
        np.save(path, array.T)
        affine, spacing = np.diag([-0.8, -0.8, 3, 1]), "3,0.8,0.8"
    else:
        image = sitk.GetImageFromArray(array.T.copy())
        axes = np.diag([-1.0, -1, 1]) @ OBLIQUE[:3, :3]
        lengths = np.linalg.norm(axes, axis=0)
        image.SetSpacing(lengths.tolist())
        image.SetDirection((axes / lengths).ravel().tolist())
        image.SetOrigin((np.diag([-1.0, -1, 1]) @ OBLIQUE[:3, 3]).tolist())
        sitk.WriteImage(image, str(path))
        affine = OBLIQUE
    scan = VolumeDataModule(path, modality="mri", spacing=spacing).scan(0)
    assert isinstance(scan, Volume)
    assert scan.data.shape == (4, 16, 16)  # padded
    write_volume(tmp_path / "out.nii.gz", scan)
    back = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), array)
    np.testing.assert_allclose(back.affine, affine, atol=1e-5)


def test_flags_of_other_formats_are_refused(tmp_path: Path) -> None:
    ct(tmp_path, -1000, 0)
    with pytest.raises(InputError, match=r"--data\.spacing: \S+v\.nii tells its own voxel size"):
        read_volume(tmp_path / "v.nii", "ct", spacing=(1, 1, 1))
    with pytest.raises(InputError, match=r"--data\.series 2: \S+v\.nii is no folder"):
        read_volume(tmp_path / "v.nii", "ct", series="2")


def test_no_more_than_two_volumes_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read and what is turned; parts of it are converted at a time."""
    made: list[int] = []
    empty, contiguous = np.empty, np.ascontiguousarray

    def counted(make: Any) -> Any:
        def call(*args: Any, **options: Any) -> np.ndarray:
            array: np.ndarray = make(*args, **options)
            made.append(array.nbytes)
            return array

        return call

    monkeypatch.setattr(np, "empty", counted(empty))
    monkeypatch.setattr(reading.np, "ascontiguousarray", counted(contiguous))
    array = np.resize(np.array([-1000, 40, 700], np.int16), (64, 64, 96))
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), tmp_path / "v.nii.gz")
    made.clear()
    found = read_volume(tmp_path / "v.nii.gz", "ct")
    assert sorted(made)[-2:] == [4 * array.size, 4 * array.size]
    assert sum(made[:-2]) < array.size
    assert float(found.data.max()) == pytest.approx(1.7 * MU_WATER)


@pytest.mark.parametrize("spacing", [(0.001, 2.0, 3.0), (2.0, 2.0, 250.0)])
def test_voxels_far_longer_than_wide_are_refused(spacing: tuple[float, float, float], tmp_path: Path) -> None:
    """Square pixels of 5 x 6 such ones were 10000 a side, and took a quarter of an hour."""
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.int16), np.diag([*spacing, 1.0])), tmp_path / "v.nii")
    with pytest.raises(InputError, match="over 100 times as long as wide"):
        read_volume(tmp_path / "v.nii", "mri")
