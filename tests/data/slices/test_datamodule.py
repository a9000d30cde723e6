"""Slices for training: drawn by patient, held out by patient, varied by key, in the prior's unit."""

from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch import Tensor

from lightning_mbir.data import SliceDataModule
from lightning_mbir.data.phantoms import chest_phantom
from lightning_mbir.data.slices import datamodule as slice_datamodule
from lightning_mbir.data.slices.sampling import augmentation
from lightning_mbir.data.units import CT_SCALE, MU_WATER
from lightning_mbir.errors import InputError
from lightning_mbir.prior import ScorePriorModule, SliceDenoiser, Unit


def folder_of_volumes(folder: Path) -> Path:
    """Patients a (two scans), b and c; each voxel tells the patient by its value."""
    for name, n_slices, value in (("a_one", 4, 100), ("a_two", 4, 100), ("b_one", 24, 200), ("c_one", 3, 300)):
        array = np.full((20, 24, n_slices), value, np.int16)
        array[..., -1] = -1000  # a slice of air
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def test_patients_are_drawn_equally_and_the_last_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_datamodule, "augmentation", lambda *_: Compose([]))
    torch.manual_seed(0)
    data = SliceDataModule(
        folder_of_volumes(tmp_path), "ct", image_size=24, phantom_fraction=0.0, slices_per_epoch=2000, batch_size=50
    )
    data.setup("fit")
    drawn: Counter[int] = Counter()
    for batch in data.train_dataloader():
        assert batch.shape == (50, 1, 24, 24)
        drawn.update(round(float(v) * 1e3) for v in batch[:, 0, 12, 12])
    unit = {round(MU_WATER * (1 + hu / 1000) / (2 * MU_WATER) * 1e3): hu for hu in (100, 200, 300)}
    assert {unit[k] for k in drawn} == {100, 200}  # c is held out, air left out
    assert abs(drawn[550] - 1000) < 5 * (2000 * 0.25) ** 0.5
    (loader,) = data.val_dataloader()
    held = next(iter(loader))
    assert len(held) == 2
    assert float(held[0, 0, 12, 12]) == pytest.approx(0.65, abs=3e-4)  # kept in half precision


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("p01_T1W.nii.gz", "p01"),
        ("a_b_T1W.nii", "a_b"),
        ("scan.nii.gz", "scan"),
        ("sub-01_ses-2_T1w.nii.gz", "sub-01"),
        ("sub-01_T2w.nii.gz", "sub-01"),
    ],
)
def test_a_patient_is_known_by_the_name(name: str, who: str) -> None:
    assert slice_datamodule.patient(Path(name)) == who


def test_volumes_that_cannot_be_ct_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, low in (("mri_a", 0), ("ct_a", -1000)):
        array = np.full((20, 24, 4), 300, np.int16)
        array[[0, -1]] = array[:, [0, -1]] = low
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    SliceDataModule(tmp_path, "ct", image_size=24, phantom_volumes=1).setup("fit")
    (message,) = (record.message for record in caplog.records if "0 HU" in record.message)
    assert "mri_a" in message and "--data.modality mri" in message


def test_workers_do_not_change_the_slices(tmp_path: Path) -> None:
    batches = []
    for workers in (0, 2):
        torch.manual_seed(3)
        data = SliceDataModule(image_size=32, phantom_volumes=1, batch_size=4, slices_per_epoch=12, num_workers=workers)
        data.setup("fit")
        batches.append(torch.cat(list(data.train_dataloader())))
    torch.testing.assert_close(batches[0], batches[1], rtol=0, atol=0)


def test_augmented_slices_stay_in_range(tmp_path: Path) -> None:
    data = SliceDataModule(folder_of_volumes(tmp_path), "mri", image_size=24, phantom_volumes=1, batch_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert type(batch) is torch.Tensor and batch.dtype == torch.float32
    assert bool(torch.isfinite(batch).all()) and float(batch.min()) >= 0 and float(batch.max()) < 2


def test_several_sizes_come_whole_in_batches_of_their_own() -> None:
    data = SliceDataModule(image_size=[64, 32], phantom_volumes=1, batch_size=16, slices_per_epoch=320)
    data.setup("fit")
    assert data.sizes == [32, 64]
    shapes = {tuple(batch.shape) for batch in data.train_dataloader()}
    assert shapes == {(16, 1, 32, 32), (4, 1, 64, 64)}  # as many pixels in each
    assert [next(iter(loader)).shape[-1] for loader in data.val_dataloader()] == [32, 64]


def test_larger_slices_are_cropped_when_asked_for() -> None:
    data = SliceDataModule(image_size=[64, 32], crop_size=32, phantom_volumes=1, batch_size=16, slices_per_epoch=64)
    data.setup("fit")
    assert {tuple(batch.shape) for batch in data.train_dataloader()} == {(16, 1, 32, 32)}


def test_some_of_the_larger_slices_stay_whole_among_crops() -> None:
    options: dict[str, Any] = {"image_size": [64, 32], "crop_size": 32, "phantom_volumes": 1}
    data = SliceDataModule(whole_fraction=0.5, batch_size=4, slices_per_epoch=4 * 400, **options)
    data.setup("fit")
    pixels = Counter(tuple(batch.shape) for batch in data.train_dataloader())
    assert set(pixels) == {(4, 1, 32, 32), (1, 1, 64, 64)}
    # Slices of both sizes are drawn alike; of the larger half stay whole. Five standard errors.
    assert pixels[1, 1, 64, 64] / 400 == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 400) ** 0.5)
    assert "crops of 32 (50% of the larger ones whole)" in data.summary
    with pytest.raises(InputError, match="whole_fraction"):
        SliceDataModule(whole_fraction=0.5, image_size=32, crop_size=32, phantom_volumes=1)


def test_the_benchmark_of_trainings_takes_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its docstring says and its table in docs/training.md was measured: a step is 8 slices of 128 x 128."""
    prior_training = pytest.importorskip("benchmarks.prior_training")  # no part of the sdist
    (tmp_path / "ct" / "train").mkdir(parents=True)
    for name in ("a_one", f"{prior_training.HELD_OUT}_chest"):
        write_scan(tmp_path / "ct" / "train" / f"{name}.nii.gz", torch.zeros(3, 128, 128))  # water
    data: list[SliceDataModule] = []
    monkeypatch.setattr(L.Trainer, "fit", lambda trainer, module, given: data.append(given))
    prior_training.train({}, Namespace(data=tmp_path, steps=20, output=tmp_path))
    data[0].phantom_fraction = 0.0  # takes long to draw
    data[0].setup("fit")
    assert [tuple(batch.shape) for batch in data[0].train_dataloader()] == 20 * [(8, 1, 128, 128)]


def test_other_axes_slice_the_other_way(tmp_path: Path) -> None:
    array = np.zeros((16, 12, 8), np.float32)  # x, y, z
    array[:, :, 2] = 1.0
    array[3] = 2.0
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "one_scan.nii.gz")
    shapes = {}
    for axis, count in (("axial", 8), ("coronal", 16), ("sagittal", 16)):  # y is padded to 16, as in axial slices
        data = SliceDataModule(
            tmp_path,
            "mri",
            axis=axis,
            image_size=16,
            phantom_fraction=0.0,
            min_signal=0.0,
            batch_size=1,  # type: ignore[arg-type]
        )
        data.setup("fit")
        assert data._train is not None
        shapes[axis] = torch.stack(data._train[0])
        assert len(shapes[axis]) == count
    # Where x was highest in the file, the sagittal stack has its one bright slice; z is mirrored from 8 to 16.
    assert sorted((shapes["sagittal"] == 1).sum((1, 2)).tolist())[-1] == 16 * 12
    with pytest.raises(InputError, match="axis"):
        SliceDataModule(axis="oblique")  # type: ignore[arg-type]


def coronal(path: Path | None = None, **options: Any) -> SliceDataModule:
    options = {"modality": "mri", "phantom_fraction": 0.0, "batch_size": 4, **options}
    return SliceDataModule(path, axis="coronal", **options)


def write_scan(path: Path, data: Tensor) -> None:
    """A volume ``(Z, Y, X)`` in RAS."""
    nib.save(nib.Nifti1Image(data.permute(2, 1, 0).numpy(), np.eye(4)), path)


class Spy(torch.nn.Module):
    """Says what a network is shown."""

    stride = 16

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.shown = x
        return x


def test_coronal_slices_are_those_of_the_axial_volume_as_a_reconstruction_shows_them(tmp_path: Path) -> None:
    """One unit for both axes, the share of signal that of the slice itself, z mirrored as before a network."""
    torch.manual_seed(0)  # signal in half of each coronal slice, in a quarter of each axial one
    volume = torch.zeros(10, 32, 32)
    volume[:, 8:24, 8:24] = torch.rand(10, 16, 16) + 0.5
    write_scan(tmp_path / "one_scan.nii.gz", volume)
    stacks = {}
    for axis in ("axial", "coronal"):
        options: dict[str, Any] = {"modality": "mri", "axis": axis, "phantom_fraction": 0.0, "min_signal": 0.2}
        data = SliceDataModule(tmp_path, image_size=32, **options)
        data.setup("fit")
        assert data._train is not None
        stacks[axis] = torch.stack(data._train[0]).float()
    assert stacks["axial"].shape == (10, 32, 32)
    assert stacks["coronal"].shape == (16, 16, 32)
    found, expected = stacks["coronal"], stacks["axial"].transpose(0, 1)[8:24]
    torch.testing.assert_close(found[:, :10], expected, rtol=0, atol=0)

    network = Spy()
    SliceDenoiser(network, Unit(), slice_batch=16)(expected.contiguous(), 1.0)
    torch.testing.assert_close(found, network.shown[:, 0], rtol=0, atol=0)


def test_a_short_stack_is_mirrored_more_than_once(tmp_path: Path) -> None:
    volume = torch.rand(3, 32, 32) + 0.5
    write_scan(tmp_path / "one_scan.nii.gz", volume)
    data = coronal(tmp_path, image_size=32)
    data.setup("fit")
    assert data._train is not None
    stack = torch.stack(data._train[0])
    for row in range(16):
        torch.testing.assert_close(stack[:, row], stack[:, (0, 1, 2, 1)[row % 4]], rtol=0, atol=0)


def test_phantoms_are_sliced_along_the_same_axis() -> None:
    for axis, order in (("coronal", (1, 0, 2)), ("sagittal", (2, 0, 1))):
        data = SliceDataModule(axis=axis, image_size=32, phantom_volumes=1, min_signal=0.0)  # type: ignore[arg-type]
        data.setup("fit")
        assert data._train is not None
        expected = chest_phantom((32, 32, 32), seed=0).permute(order) / CT_SCALE
        torch.testing.assert_close(torch.stack(data._train[0]), expected.half(), rtol=0, atol=0)


def heights(folder: Path) -> Path:
    """Patients a (8 slices), b and c (40 slices)."""
    for name, depth in (("a_one", 8), ("b_one", 40), ("c_one", 40)):
        write_scan(folder / f"{name}.nii.gz", torch.ones(depth, 32, 32))
    return folder


def test_stacks_of_other_heights_come_in_batches_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = coronal(heights(tmp_path), image_size=32, slices_per_epoch=400)
    data.setup("fit")
    batches = list(data.train_dataloader())
    drawn = Counter(tuple(batch.shape) for batch in batches)
    assert set(drawn) == {(8, 1, 16, 32), (2, 1, 48, 32)}  # no more pixels than 4 of 32 x 32
    assert abs(drawn[8, 1, 16, 32] - 50) < 20  # a and b alike, though b has as many slices
    assert all(float(batch.min()) > 0.79 for batch in batches)  # a stack's end is no border of air
    assert [next(iter(loader)).shape for loader in data.val_dataloader()] == [(2, 1, 48, 32)]


def test_crops_are_no_taller_than_the_stack(tmp_path: Path) -> None:
    data = coronal(heights(tmp_path), image_size=[64, 32], crop_size=32, slices_per_epoch=80)
    data.setup("fit")
    assert {tuple(batch.shape) for batch in data.train_dataloader()} == {(8, 1, 16, 32), (4, 1, 32, 32)}
    shapes = [next(iter(loader)).shape for loader in data.val_dataloader()]
    assert shapes == [(2, 1, 48, 32), (1, 1, 48, 64)]  # whole ones, with as many pixels


def test_a_prior_of_coronal_slices_is_trained_at_the_stride_of_its_network(tmp_path: Path) -> None:
    """Also on stacks of several heights, in training and in validation."""
    write_scan(heights(tmp_path) / "c_two.nii.gz", torch.rand(9, 32, 32) + 0.5)
    torch.manual_seed(0)
    data = coronal(tmp_path, image_size=32, slices_per_epoch=16, held_out="c")
    module = ScorePriorModule(network_options={"channels": [8, 16], "blocks": 1, "attention": False})
    trainer = L.Trainer(
        max_steps=4, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path / "out",
    )  # fmt: skip
    trainer.fit(module, data)
    assert data._train is not None
    assert {tuple(image.shape) for image in data._train[0]} == {(8, 32), (40, 32)}
    assert set(data._validation) == {(12, 32), (40, 32)}
    assert list(module.validation_psnr) == [32]
    assert bool(torch.isfinite(torch.tensor(module.validation_psnr[32])).all())


def test_complex_slices_have_two_channels() -> None:
    data = SliceDataModule(modality="mri", complex=True, image_size=32, phantom_volumes=1, batch_size=4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.shape == (4, 2, 32, 32) and float(batch.min()) < -0.1
    (loader,) = data.val_dataloader()
    torch.testing.assert_close(next(iter(loader)), next(iter(loader)), rtol=0, atol=0)
    varied = augmentation((32, 32), "axial", 0.0, True).transforms[-1]
    assert varied.rough == 0.5 and loader.dataset.transforms[0].transforms[-1].rough == 0  # figures stay comparable


def test_what_exceeds_the_memory_is_read_from_a_file(tmp_path: Path) -> None:
    slices = []
    for gib in (4.0, 0.0):
        data = SliceDataModule(folder_of_volumes(tmp_path), image_size=24, phantom_fraction=0.0, cache_gib=gib)
        data.setup("fit")
        assert data._train is not None
        slices.append(torch.stack(data._train[0]))
        assert (data._overflow is not None) == (gib == 0)
    torch.testing.assert_close(slices[0], slices[1], rtol=0, atol=0)


def test_phantoms_alone_need_no_files() -> None:
    for modality in ("ct", "mri", None):
        data = SliceDataModule(modality=modality, image_size=32, phantom_volumes=2, batch_size=4)  # type: ignore[arg-type]
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch.shape == (4, 1, 32, 32) and float(batch.std()) > 0.1
        assert "2 phantoms" in data.summary


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    folder_of_volumes(tmp_path)
    with pytest.raises(InputError, match="held_out"):
        SliceDataModule(tmp_path, held_out="nobody", phantom_volumes=1)
    with pytest.raises(InputError, match="no such file"):
        SliceDataModule(tmp_path / "gone", phantom_volumes=1)
    with pytest.raises(InputError, match="batch_size"):
        SliceDataModule(batch_size=0)
    with pytest.raises(InputError, match="phantom_fraction"):
        SliceDataModule(phantom_fraction=2.0)
    with pytest.raises(InputError, match=r"leaves_fraction 0\.9: more than all slices"):
        SliceDataModule(tmp_path, phantom_fraction=0.2, leaves_fraction=0.9)
    with pytest.raises(InputError, match="max_noise"):
        SliceDataModule(max_noise=0.0)
    with pytest.raises(InputError, match="all patients"):
        SliceDataModule(tmp_path, held_out=["a", "b", "c"])
    with pytest.raises(InputError, match="crop_size"):
        SliceDataModule(image_size=[64, 128], crop_size=96)
    for options in ({"whole_fraction": 1.0, "crop_size": 32}, {"whole_fraction": 0.5}):
        with pytest.raises(InputError, match="whole_fraction"):
            SliceDataModule(**options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="image_size"):
        SliceDataModule(image_size=[])
    with pytest.raises(InputError, match="only MRI"):
        SliceDataModule(modality="ct", complex=True)
    with pytest.raises(InputError, match="modality"):
        SliceDataModule(tmp_path, modality=None)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty"):
        SliceDataModule(empty)


@pytest.mark.parametrize(("value", "words"), [(0.0, "no slice with signal"), (float("nan"), "one_scan")])
def test_volumes_without_use_are_refused_before_training(tmp_path: Path, value: float, words: str) -> None:
    array = np.full((16, 16, 4), value, np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "one_scan.nii.gz")
    data = SliceDataModule(tmp_path, "mri", image_size=16, phantom_volumes=1, num_workers=int(value != 0))
    with pytest.raises(InputError, match=words):
        data.setup("fit")


def test_a_held_out_patient_without_signal_is_refused(tmp_path: Path) -> None:
    """Else there would be no validation, and no best checkpoint."""
    for name, value in (("a_one", 1.0), ("b_one", 0.0)):
        write_scan(tmp_path / f"{name}.nii.gz", torch.full((4, 16, 16), value))
    data = SliceDataModule(tmp_path, "mri", image_size=16, phantom_volumes=1)
    with pytest.raises(InputError, match=r"b, held out \(--data.held_out\), without a slice with signal"):
        data.setup("fit")
    with pytest.raises(InputError, match="phantoms: no slice with signal to train on"):
        SliceDataModule(image_size=16, phantom_volumes=1, min_signal=1.0).setup("fit")


def test_volumes_of_one_patient_alone_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("scan_001", "scan_002"):
        write_scan(tmp_path / f"{name}.nii.gz", torch.ones(4, 16, 16))
    data = SliceDataModule(tmp_path, "mri", image_size=16, phantom_volumes=1)
    data.setup("fit")
    (record,) = caplog.records
    for word in ("2 volumes", "one patient (scan,", "before the last underscore", "phantoms", "--data.held_out"):
        assert word in record.getMessage()
    assert "nobody held out" in data.summary
    caplog.clear()
    (tmp_path / "scan_002.nii.gz").unlink()
    SliceDataModule(tmp_path, "mri", image_size=16, phantom_volumes=1).setup("fit")
    assert not caplog.records  # of a single volume nobody expects more
