"""Volumes keep their values, their place in the world, and refuse what they are not."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from lightning_mbir.data.units import MU_WATER, magnitude_percentile
from lightning_mbir.data.volumes.listing import list_volumes
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.data.volumes.resample import resize_in_plane
from lightning_mbir.data.volumes.volume import Volume, hu_to_mu, mu_to_hu
from lightning_mbir.data.volumes.writing import write_volume
from lightning_mbir.errors import InputError

AFFINE = np.array([[2.0, 0, 0, -30], [0, 2.0, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def test_axes_are_slices_rows_columns(tmp_path: Path) -> None:
    array = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    volume = read_volume(save(tmp_path / "v.nii.gz", array), "mri")
    assert volume.data.shape == (6, 5, 4)
    assert volume.name == "v"
    assert volume.spacing == (3.0, 2.0, 2.0)
    torch.testing.assert_close(volume.data[3, 2, 1], torch.tensor(array[1, 2, 3]))


def test_any_orientation_is_turned_to_ras_and_voxels_keep_their_place(tmp_path: Path) -> None:
    flipped = np.array([[0, 0, -3.0, 9], [-2.0, 0, 0, 20], [0, 1.5, 0, 7], [0, 0, 0, 1]])
    array = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    volume = read_volume(save(tmp_path / "v.nii", array, flipped), "mri")
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    world = flipped @ [1, 2, 3, 1]
    x, y, z = np.rint(np.linalg.solve(volume.affine, world)[:3]).astype(int)
    assert float(volume.data[z, y, x]) == array[1, 2, 3]


def test_ct_is_attenuation_inside_and_hounsfield_in_files(tmp_path: Path) -> None:
    hu = np.array([-1024, -1000, 0, 1000], dtype=np.int16).reshape(2, 2, 1).repeat(3, axis=2)
    volume = read_volume(save(tmp_path / "v.nii.gz", hu), "ct")
    mu = volume.data[0].T.flatten()
    torch.testing.assert_close(mu, torch.tensor([0.0, 0.0, MU_WATER, 2 * MU_WATER]))
    write_volume(tmp_path / "out.nii.gz", volume)
    back = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(back.get_fdata()[..., 0].flatten(), [-1000, -1000, 0, 1000], atol=1e-3)
    np.testing.assert_allclose(back.affine, AFFINE)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".partial")] == []


def test_hounsfield_round_trip() -> None:
    hu = torch.linspace(-1000, 3000, 50)
    torch.testing.assert_close(mu_to_hu(hu_to_mu(hu)), hu, atol=1e-3, rtol=0)


def test_reading_a_dicom_series_equals_its_nifti(shared: Path) -> None:
    series = read_volume(shared / "data/ct/dicom_crlm1006", "ct")
    nifti = read_volume(shared / "data/ct/train/crlm1006_abdomen.nii.gz", "ct")
    assert series.data.shape == (51, 512, 512)
    assert series.spacing[0] == pytest.approx(5.0, abs=1e-3)
    halved = torch.nn.functional.avg_pool2d(series.data[:, None], 2)[:, 0]
    # The NIfTI is the 2x2 mean in whole HU; clamping padding before and after the mean differs at its rim alone.
    assert float((halved - nifti.data).abs().median()) < 2e-5
    np.testing.assert_allclose(series.affine[:3, 2], nifti.affine[:3, 2], atol=1e-3)


def test_resize_keeps_the_world(tmp_path: Path) -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(32.0), indexing="ij")
    volume = Volume((x + 100 * y).expand(3, 48, 32).contiguous(), AFFINE, "v", "mri")
    small = resize_in_plane(volume, 24)
    assert small.data.shape == (3, 24, 24)
    # Index (x, y) = (12, 12) averages columns 16..17 (after 8 of padding) and rows 24..25.
    assert float(small.data[1, 12, 12]) == pytest.approx(16.5 + 100 * 24.5)
    np.testing.assert_allclose(small.affine @ [12, 12, 1, 1], AFFINE @ [16.5, 24.5, 1, 1], atol=1e-6)
    assert small.spacing == (3.0, 4.0, 4.0)


def test_percentile_matches_numpy() -> None:
    values = torch.randn(3, 50, 40, generator=torch.Generator().manual_seed(0))
    expected = np.percentile(values.abs().numpy(), 99.5)
    assert magnitude_percentile(values) == pytest.approx(float(expected), rel=1e-2)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("flat.nii.gz", np.zeros((4, 4), np.float32), "3D"),
        ("four.nii.gz", np.zeros((4, 4, 4, 2), np.float32), "not one 3D volume"),
        ("nan.nii.gz", np.full((4, 4, 4), np.nan, np.float32), "NaN"),
    ],
)
def test_what_is_not_a_volume_is_refused(tmp_path: Path, name: str, array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_volume(save(tmp_path / name, array), "mri")


def test_missing_cut_short_and_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "gone.nii.gz", "ct")
    whole = save(tmp_path / "v.nii.gz", np.random.default_rng(0).random((16, 16, 16))).read_bytes()
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(cut, "ct")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no volume"):
        list_volumes(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("no volume")
    with pytest.raises(InputError, match="not a volume"):
        list_volumes(tmp_path / "notes.txt")


def test_what_cannot_be_written_is_refused_before_it_is(tmp_path: Path) -> None:
    scan = Volume(torch.ones(2, 4, 4), np.eye(4), "v", "mri")
    with pytest.raises(InputError, match=r"v\.png: volumes are written as NIfTI; give a name that ends with \.nii"):
        write_volume(tmp_path / "v.png", scan)
    for wrong in (scan.data, scan.with_data(scan.data[0]), scan.with_data(scan.data + 1j), replace(scan, data=None)):
        with pytest.raises(InputError, match=r"v\.nii: give a Volume, whose data are a real tensor"):
            write_volume(tmp_path / "v.nii", wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
