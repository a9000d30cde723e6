"""Volumes on their way to reconstruction: their place in the world, their names, and what is refused."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.data.volumes.datamodule import DEMO_SEED, demo_volume, parsed
from lightning_mbir.data.volumes.listing import volume_name
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.flag_values import slice_range

AFFINE = np.array([[2.0, 0, 0, -30], [0, 2.0, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def save(path: Path, shape: tuple[int, ...] = (24, 32, 6), fill: float | None = None) -> Path:
    array = np.random.default_rng(0).random(shape) if fill is None else np.full(shape, fill)
    nib.save(nib.Nifti1Image(array.astype(np.float32), AFFINE), path)  # type: ignore[attr-defined]
    return path


def volume(data: VolumeDataModule, index: int = 0) -> Volume:
    scan = data.scan(index)
    assert isinstance(scan, Volume)
    return scan


def world(affine: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    return (affine @ [x, y, z, 1.0])[:3]


def test_slices_are_padded_to_a_square_and_averaged_and_stay_in_place(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz")
    resized = volume(VolumeDataModule(path=path, modality="mri", image_size=16))
    assert resized.data.shape == (6, 16, 16)
    assert resized.spacing == pytest.approx((3.0, 4.0, 4.0))
    # 24 columns are padded by 4 on either side to 32; pixel (0, 0) is then the mean of a padded corner.
    for x, y, z in [(0, 0, 0), (15, 0, 0), (0, 15, 5), (15, 15, 5), (7.5, 7.5, 2.5)]:
        old = (2 * x + 0.5 - 4, 2 * y + 0.5, z)
        np.testing.assert_allclose(world(resized.affine, x, y, z), world(AFFINE, *old), atol=1e-5)
    original = torch.from_numpy(nib.load(path).get_fdata().astype(np.float32))  # type: ignore[attr-defined]
    torch.testing.assert_close(resized.data[3, 5, 4], original[4:6, 10:12, 3].mean())
    assert float(resized.data[:, :, :2].abs().max()) == 0


def test_a_bright_voxel_keeps_its_place_in_the_world(tmp_path: Path) -> None:
    array = np.zeros((40, 64, 5), np.float32)
    array[12:16, 40:44, 2] = 1
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "v.nii")  # type: ignore[attr-defined]
    found = volume(VolumeDataModule(path=tmp_path / "v.nii", modality="mri", image_size=16))
    z, y, x = np.argwhere(found.data.numpy() > 0.5)[0]
    np.testing.assert_allclose(world(found.affine, x, y, z), world(AFFINE, 13.5, 41.5, 2), atol=1e-5)


def test_part_of_the_slices_keeps_its_place(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", (16, 16, 9))
    whole = volume(VolumeDataModule(path=path, modality="mri", image_size=0))
    part = volume(VolumeDataModule(path=path, modality="mri", image_size=0, slices="2:6"))
    torch.testing.assert_close(part.data, whole.data[2:6])
    np.testing.assert_allclose(world(part.affine, 1, 2, 0), world(whole.affine, 1, 2, 2))


def test_folders_give_their_volumes_by_name(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nii"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    data = VolumeDataModule(path=tmp_path, modality="mri", image_size=16)
    data.setup("predict")
    assert [scan.name for scan in data.predict_dataloader()] == ["a", "b"]
    assert [scan.name for scan in data.test_dataloader()] == ["a", "b"]


def test_a_folder_is_called_by_its_name_from_inside_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "series").mkdir()
    monkeypatch.chdir(tmp_path / "series")
    assert volume_name(Path()) == "series"
    assert volume_name(Path("scan.nii.gz")) == "scan"


def test_ct_is_attenuation(tmp_path: Path) -> None:
    found = volume(VolumeDataModule(path=save(tmp_path / "v.nii", fill=0.0), modality="ct", image_size=16))
    torch.testing.assert_close(found.data[:, :, 4:12], torch.full((6, 16, 8), MU_WATER))
    assert float(found.data[:, :, 0].max()) == 0  # padded with air


def test_dicom_series_and_slices_of_it(shared: Path) -> None:
    path = shared / "data/ct/dicom_crlm1006"
    found = volume(VolumeDataModule(path=path, modality="ct", image_size=128, slices="10:14"))
    assert found.data.shape == (4, 128, 128)
    assert found.spacing == pytest.approx((5.0, 3.21, 3.21), abs=0.02)
    assert float(found.data.min()) >= 0 and 0.02 < float(found.data.max()) < 0.09


def test_demo_volumes_fit_the_modality_and_no_training_has_seen_them() -> None:
    head = volume(VolumeDataModule(modality="mri", image_size=32, demo_volumes=2), 1)
    assert head.name == "demo_head_1"
    assert head.data.shape == (32, 32, 32)
    np.testing.assert_allclose(world(head.affine, 15.5, 15.5, 15.5), 0, atol=1e-9)
    assert DEMO_SEED >= 10_000
    torch.testing.assert_close(head.data, demo_volume("mri", 1, 32).data)
    part = volume(VolumeDataModule(modality="mri", image_size=32, demo_volumes=2, slices="3:9"), 1)
    torch.testing.assert_close(part.data, head.data[3:9])
    chest = volume(VolumeDataModule(modality="ct", image_size=32))
    assert chest.name == "demo_chest_0"
    assert 0.015 < float(chest.data.max()) < 0.08


def test_slices_are_parsed() -> None:
    assert parsed("slices", None, slice_range) is None
    assert parsed("slices", "20:44", slice_range) == (20, 44)
    for wrong in ("20", "5:5", "9:3", "a:b", ":4", "-3:4", "1:2:3", "²:4", ""):
        with pytest.raises(InputError, match="20:44"):
            parsed("slices", wrong, slice_range)


def paths(folder: Path) -> dict[str, Path]:
    (folder / "empty").mkdir()
    (folder / "none").mkdir()
    (folder / "none/notes.txt").write_text("nothing")
    (folder / "twice").mkdir()
    save(folder / "twice/a.nii")
    save(folder / "twice/a.nii.gz")
    (folder / "torn.nii.gz").write_bytes(save(folder / "good.nii.gz").read_bytes()[:300])
    return {
        "missing": folder / "nowhere.nii.gz",
        "empty": folder / "empty",
        "no volume": folder / "none",
        "text": folder / "none/notes.txt",
        "twice": folder / "twice",
        "torn": folder / "torn.nii.gz",
        "two": save(folder / "two.nii", (20, 20)),
        "four": save(folder / "four.nii", (20, 20, 4, 3)),
        "nan": save(folder / "nan.nii", fill=float("nan")),
        "good": folder / "good.nii.gz",
    }


@pytest.mark.parametrize(
    ("case", "options", "words"),
    [
        ("missing", {}, "no such file or folder"),
        ("empty", {}, "holds no volume"),
        ("no volume", {}, "holds no volume"),
        ("text", {}, "not a volume"),
        ("twice", {}, "rename one"),
        ("torn", {}, "cannot be read"),
        ("two", {}, "2?D|three axes|single slice"),
        ("four", {}, "20 x 20 x 4 x 3|three axes"),
        ("nan", {}, "NaN"),
        ("good", {"slices": "2:7"}, "has slices 0:6"),
        ("good", {"slices": "7"}, "20:44"),
        ("good", {"image_size": 8}, "at least 16"),
        ("good", {"measurement": Path("y.npz")}, "not both"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    case: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        given = {"path": paths(tmp_path)[case], "modality": "mri", "image_size": 32, **options}
        VolumeDataModule(**given).setup("")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"demo_volumes": 0}, "demo_volumes"),
        ({"slices": "0:33"}, "0:32"),
        ({"measurement": Path("nowhere.npz")}, "no such file"),
        ({"axes": "coil y x"}, "--data.axes coil y x: .*--data.measurement"),
        ({"rotation_center": 0.0}, "--data.rotation_center 0"),
        ({"series": "3"}, "--data.series 3: .*--data.path"),
        ({"spacing": "3,1,1"}, "--data.spacing 3,1,1: .*--data.path"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        VolumeDataModule(modality="mri", image_size=32, **options)


def test_slices_keep_their_size_and_what_is_done_to_them_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", (24, 32, 6))
    own = volume(VolumeDataModule(path=path, modality="mri"))
    assert own.data.shape == (6, 32, 32) and own.spacing == pytest.approx((3.0, 2.0, 2.0))
    assert own.notes[-2:] == (
        "slices of 32 x 24 are padded to 32 x 32",
        "a volume that is written goes back to the file's own grid",
    )
    resized = volume(VolumeDataModule(path=path, modality="mri", image_size=16))
    assert "slices of 32 x 24 pixels of 2 mm are resized to 16 x 16 of 4 mm" in resized.notes
    square = volume(VolumeDataModule(path=save(tmp_path / "s.nii.gz", (32, 32, 6)), modality="mri"))
    assert not any("slices" in note for note in square.notes)


@pytest.mark.parametrize(("modality", "air"), [("ct", -1000), ("ct", -32768), ("mri", 0)])
def test_air_alone_is_refused_before_the_work(modality: Modality, air: int, tmp_path: Path) -> None:
    array = np.full((16, 16, 6), air, np.int16)
    array[4:12, 4:12, 4:] = 40
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "v.nii")
    VolumeDataModule(tmp_path / "v.nii", modality=modality).setup("predict")
    with pytest.raises(InputError, match="air alone"):
        VolumeDataModule(tmp_path / "v.nii", modality=modality, slices="0:4").setup("predict")


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_values_that_no_method_takes_are_refused_before_the_work(value: float, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((16, 16, 6), value, np.float32), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(InputError, match="too small or too large"):
        VolumeDataModule(tmp_path / "v.nii", modality="mri").setup("predict")
