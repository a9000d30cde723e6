"""Controls against SimpleITK: the same voxels at the same places; tilted stacks are exact, and written straight."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lightning_mbir.data import read_volume
from lightning_mbir.data.volumes.dicom_reading import read_dicom
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.resample import cut_slices, on_own_grid
from lightning_mbir.data.volumes.writing import write_volume
from tests.data.volumes.dicom_made import value_at, worst, write_series

TURN = np.radians(20)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(TURN)), float(-np.sin(TURN)))
LPS = np.array([-1, -1, 1])


def by_itk(folder: Path) -> sitk.Image:
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.ReadImage(files)


def same(image: Image, itk: sitk.Image) -> None:
    np.testing.assert_allclose(image.array, sitk.GetArrayFromImage(itk).transpose(2, 1, 0), atol=1e-3)
    ends = np.array(image.array.shape) - 1
    for corner in np.ndindex(2, 2, 2):
        index = [int(n) for n in np.array(corner) * ends]
        own = (image.affine @ [*index, 1])[:3] * LPS
        np.testing.assert_allclose(own, itk.TransformIndexToPhysicalPoint(index), atol=2e-3)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, (0, 1, 0, 0, 0, -1)])
@pytest.mark.parametrize("step", [1, -1])
def test_made_series(tmp_path: Path, orientation: tuple[float, ...], step: int) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    write_series(tmp_path, orientation=orientation, step=2.5 * step * normal)
    same(read_dicom(tmp_path), by_itk(tmp_path))


def test_a_real_series(shared: Path) -> None:
    folder = shared / "data" / "ct" / "dicom_crlm1006"
    image = read_dicom(folder, modality="ct")
    assert image.array.shape == (512, 512, 51) and image.notes == ()
    same(image, by_itk(folder))


def test_a_tilted_stack_is_exact_and_told(tmp_path: Path) -> None:
    write_series(tmp_path, n=20, orientation=TILTED, step=(0, 0, 5.0))
    image = read_dicom(tmp_path)
    assert worst(image) <= 0.51
    (note,) = image.notes
    assert note.startswith("tilted by 20 degrees (gantry tilt)") and "12 x 32 x 20 straight voxels" in note
    axes = image.written.affine[:3, :3]  # type: ignore[union-attr]
    np.testing.assert_allclose(axes.T @ axes, np.diag([1.25, 1.5, 5 * np.cos(TURN)]) ** 2, atol=1e-5)


@pytest.mark.parametrize("step", [(0, 0, 5.0), (1.0, 2.0, 5.0), (-1.0, 0.5, 5.0)])
def test_a_tilted_stack_is_written_straight_with_all_slices_inside(tmp_path: Path, step: tuple[float, ...]) -> None:
    write_series(tmp_path / "scan", n=20, orientation=TILTED, step=step)
    volume = read_volume(tmp_path / "scan", "ct")
    write_volume(tmp_path / "recon.nii.gz", volume)
    itk, written = sitk.ReadImage(tmp_path / "recon.nii.gz"), nib.load(tmp_path / "recon.nii.gz")
    np.testing.assert_allclose(written.get_qform(), written.get_sform(), atol=1e-4)
    index = np.indices(itk.GetSize()).reshape(3, -1)
    place = (written.affine[:3, :3] @ index + written.affine[:3, 3:]) * LPS[:, None]
    at = np.linalg.inv(volume.affine) @ np.vstack([place * LPS[:, None], np.ones(place.shape[1])])
    last = np.array(volume.data.shape[::-1])[:, None] - 1
    inside = ((at[:3] >= -1e-3) & (at[:3] <= last + 1e-3)).all(0)
    values = written.get_fdata().reshape(-1)
    # linear in the place, so that interpolating between voxels changes nothing but their rounding
    assert np.abs(values - np.maximum(value_at(place), -1000))[inside].max() < 2
    assert inside.sum() > 0.8 * 10 * 12 * 20
    for corner in np.ndindex(2, 2, 2):  # of the slices as measured
        ras = volume.affine @ [*(np.array(corner) * last[:, 0]), 1]
        mine = np.linalg.inv(written.affine) @ ras
        assert (mine[:3] > -0.51).all() and (mine[:3] < np.array(itk.GetSize()) - 0.49).all()
    np.testing.assert_allclose(
        itk.TransformIndexToPhysicalPoint((3, 4, 5)), written.affine[:3] @ [3, 4, 5, 1] * LPS, atol=1e-3
    )


def test_a_part_of_a_tilted_stack(tmp_path: Path) -> None:
    write_series(tmp_path, n=20, orientation=TILTED, step=(0, 0, 5.0))
    part = cut_slices(read_volume(tmp_path, "ct"), 4, 9)
    data, affine = on_own_grid(part)
    assert data.shape[2] == 5
    whole, own = on_own_grid(read_volume(tmp_path, "ct"))
    np.testing.assert_allclose(affine[:3, 3], (own @ [0, 0, 4, 1])[:3])
    covered = data[:, :, 2] > 0
    np.testing.assert_allclose(data[:, :, 2][covered], whole[:, :, 6][covered], atol=1e-4)


def test_a_drift_below_a_tenth_of_a_pixel_is_no_tilt(tmp_path: Path) -> None:
    write_series(tmp_path, n=10, step=(0.01, 0, 3.0))
    image = read_dicom(tmp_path)
    assert image.written is None and image.notes == () and worst(image) <= 1
    axes = image.affine[:3, :3]
    np.testing.assert_allclose(axes.T @ axes, np.diag([1.25, 1.5, 3.0]) ** 2, atol=1e-9)


def test_rounded_directions_are_no_tilt(tmp_path: Path) -> None:
    def rounded(_: int, one: object) -> None:
        one.ImageOrientationPatient = [0.8, 0.6, 0.0, -0.36, 0.48, -0.8001]  # type: ignore[attr-defined]

    write_series(tmp_path, orientation=OBLIQUE, edit=rounded)
    image = read_dicom(tmp_path)
    assert image.written is None and worst(image) <= 1
