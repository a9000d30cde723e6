"""From Python: what ``predict`` and ``test`` give back, a folder in one call, and batches of MONAI's loaders."""

import json
import logging
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

import lightning_mbir
from lightning_mbir.data.volumes.batches import volume_of_batch
from lightning_mbir.data.volumes.volume import mu_to_hu
from lightning_mbir.data.volumes.writing import write_volume
from lightning_mbir.errors import InputError
from lightning_mbir.reconstruction import ReconstructionModule
from lightning_mbir.reconstruction.record import record_of
from tests.helpers import demo, smooth_volume
from tests.reconstruction.test_module import trainer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled")]

LYING = np.array([[0, -2.5, 0, 40], [2.5, 0, 0, -30], [0, 0, -4.0, 12], [0, 0, 0, 1]])
"""Rows from left to right, columns from front to back, slices from head to foot."""


def scan_file(folder: Path, name: str = "scan", scale: float = 1.0) -> Path:
    """A head-like ball on a grid that lies otherwise than RAS, 32 x 32 x 12."""
    array = smooth_volume((12, 32, 32), scale).permute(2, 1, 0).numpy()
    array[4:12, 3:9] *= 0.5  # so that each side is told
    nib.save(nib.Nifti1Image(array, LYING), folder / f"{name}.nii.gz")  # type: ignore[attr-defined]
    return folder / f"{name}.nii.gz"


def monai_loader(*paths: Path) -> DataLoader:
    keys = "image"
    return DataLoader(
        Dataset([{"image": str(path)} for path in paths], Compose([LoadImaged(keys), EnsureChannelFirstd(keys)]))
    )


def test_predict_gives_a_record_of_each_volume(tmp_path: Path) -> None:
    given: dict[str, Any] = {"task": "sv_ct", "steps": 3, "output_dir": tmp_path}
    data = demo("ct", 2)
    records: Any = trainer(tmp_path).predict(ReconstructionModule(**given), datamodule=data)
    assert [record.name for record in records] == ["demo_chest_0", "demo_chest_1"]
    record = records[1]
    assert (record.task, record.method, record.folder) == ("sv_ct", "dds", tmp_path / "sv_ct/demo_chest_1")
    assert sorted(record.files) == ["metrics.json", "montage.png", "recon.nii.gz", "report.html"]
    assert all(path.is_file() and path.parent == record.folder for path in record.files.values())
    assert record.metrics == json.loads(record.files["metrics.json"].read_text())
    assert record.seconds == record.metrics["seconds"] > 0 and record.volume is None
    with pytest.raises(FrozenInstanceError):
        record.name = "other"
    again: Any = trainer(tmp_path).predict(ReconstructionModule(**given), datamodule=data)  # finished before
    assert again == records


def test_volumes_are_kept_where_asked_for_whether_new_or_finished(tmp_path: Path) -> None:
    given: dict[str, Any] = {"task": "sv_ct", "steps": 3, "samples": 2, "output_dir": tmp_path, "keep_volumes": True}
    data = demo("ct")
    truth: Any = data.scan(0)
    for _ in range(2):
        (record,) = trainer(tmp_path).predict(ReconstructionModule(**given), datamodule=data)  # type: ignore[misc]
        volume, std = record.volume, record.std
        assert volume is not None and std is not None
        assert volume.modality == "ct" and volume.name == "demo_chest_0"
        np.testing.assert_allclose(volume.affine, truth.affine)
        psnr = lightning_mbir.image_metrics(volume.data, truth.data, 0.0576)["volume_psnr"]
        assert psnr == pytest.approx(record.metrics["volume_psnr"], abs=1e-4)  # in 1/mm, nothing below air is lost
        written = nib.load(record.files["std.nii.gz"]).get_fdata().transpose(2, 1, 0)  # type: ignore[attr-defined]
        torch.testing.assert_close(std.double(), torch.from_numpy(written) * 0.0192 / 1000, rtol=1e-5, atol=1e-9)
        assert record.to("meta").volume.data.device.type == "meta" and record.to("cpu").metrics == record.metrics


def test_what_has_no_hounsfield_units_is_kept_in_its_own(tmp_path: Path) -> None:
    volume = demo("ct").scan(0)
    folder = tmp_path / "sv_ct/scan"
    folder.mkdir(parents=True)
    write_volume(folder / "recon.nii.gz", replace(volume, calibrated=False))  # type: ignore[type-var]
    told = {"volume": "scan", "task": "sv_ct", "method": "cgls", "seconds": 1.0, "files": ["recon.nii.gz"]}
    (folder / "metrics.json").write_text(json.dumps({**told, "input": {"calibrated": False}}))
    record = record_of(folder, True, "ct", ("left and right are not known",))
    assert record.volume is not None and not record.volume.calibrated and not record.volume.sided
    torch.testing.assert_close(record.volume.data, volume.data, rtol=0, atol=0)  # type: ignore[union-attr]


def test_a_folder_in_one_call(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for k in range(2):
        scan_file(tmp_path / "scans", f"p{k}", 1.0 + k)
    records = lightning_mbir.reconstruct_folder(
        tmp_path / "scans", "cs_mri", "cgls", tmp_path / "out", acc=2.0, data={"slices": "2:10"}, keep_volumes=True
    )
    assert [(record.name, record.method) for record in records] == [("p0", "cgls"), ("p1", "cgls")]
    assert [record.metrics["settings"]["acc"] for record in records] == [2.0, 2.0]
    image: Any = nib.load(records[0].files["recon.nii.gz"])
    assert image.shape == (32, 32, 8)
    np.testing.assert_allclose(image.affine[:3, :3], LYING[:3, :3], atol=1e-6)
    assert records[0].volume is not None and records[0].volume.data.shape == (8, 32, 32)
    with pytest.raises(InputError, match="--task pet"):
        lightning_mbir.reconstruct_folder(tmp_path / "scans", "pet")
    with pytest.raises(InputError, match="no such file"):
        lightning_mbir.reconstruct_folder(tmp_path / "nowhere", "cs_mri", output_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("task", ["cs_mri", "sv_ct"])
def test_a_loader_of_monai_gives_what_our_own_gives(task: str, tmp_path: Path) -> None:
    """The same bits as of the file itself: values, place, name and noise."""
    path = scan_file(tmp_path)
    if task == "sv_ct":
        hu = mu_to_hu(0.02 * torch.from_numpy(nib.load(path).get_fdata()).float())  # type: ignore[attr-defined]
        nib.save(nib.Nifti1Image(hu.numpy(), LYING), path)  # type: ignore[attr-defined]
    given: dict[str, Any] = {"task": task, "steps": 3, "report": False}
    ours = lightning_mbir.VolumeDataModule(path, modality="ct" if task == "sv_ct" else "mri")
    (own,) = trainer(tmp_path).predict(ReconstructionModule(output_dir=tmp_path / "a", **given), datamodule=ours)  # type: ignore[misc]
    module = ReconstructionModule(output_dir=tmp_path / "b", **given)
    (other,) = trainer(tmp_path).predict(module, dataloaders=monai_loader(path))  # type: ignore[misc]
    images: list[Any] = [nib.load(record.files["recon.nii.gz"]) for record in (own, other)]
    np.testing.assert_array_equal(images[0].dataobj, images[1].dataobj)
    np.testing.assert_allclose(images[1].affine, LYING, atol=1e-6)
    assert images[1].header.get_zooms() == (2.5, 2.5, 4.0)
    assert other.name == "scan" and other.metrics["axial"] == own.metrics["axial"]
    assert other.metrics["key"] == own.metrics["key"]
    written = images[1].get_fdata()
    source = nib.load(path).get_fdata()  # type: ignore[attr-defined]
    if task == "cs_mri":  # the darker corner is where it was, not mirrored
        assert written[4:12, 3:9, 6].mean() < written[20:28, 3:9, 6].mean()
        turned = [(), (0,), (1,), (2,), (0, 1)]
        alike = [np.corrcoef(np.flip(written, axes).ravel(), source.ravel())[0, 1] for axes in turned]
        assert max(alike) - 1e-9 < alike[0] > 0.7  # its slices are alike from either end


def test_a_loader_of_monai_is_scored_and_compared(tmp_path: Path) -> None:
    loader = monai_loader(scan_file(tmp_path, "p0"), scan_file(tmp_path, "p1"))
    module = ReconstructionModule("cs_mri", "zero_filled", output_dir=tmp_path / "out")
    (scores,) = trainer(tmp_path).test(module, dataloaders=loader, verbose=False)
    rows = json.loads((tmp_path / "out/cs_mri/scores/zero_filled/results.json").read_text())
    assert [row["volume"]["name"] for row in rows] == ["p0", "p1"]
    assert rows[0]["volume"]["spacing_mm"] == [4.0, 2.5, 2.5]
    assert scores["cs_mri/nrmse"] == pytest.approx((rows[0]["nrmse"] + rows[1]["nrmse"]) / 2, rel=1e-5)
    module = ReconstructionModule("cs_mri", methods="zero_filled,cgls", output_dir=tmp_path / "out", report=False)
    (scores,) = trainer(tmp_path).test(module, dataloaders=loader, verbose=False)
    rows = json.loads((tmp_path / "out/cs_mri/comparison/results.json").read_text())
    assert [(row["volume"]["name"], row["method"]) for row in rows] == [
        ("p0", "zero_filled"), ("p0", "cgls"), ("p1", "zero_filled"), ("p1", "cgls"),
    ]  # fmt: skip
    assert scores["cs_mri/cgls/volume_psnr"] == pytest.approx((rows[1]["volume_psnr"] + rows[3]["volume_psnr"]) / 2)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    loader = monai_loader(scan_file(tmp_path / "a"), scan_file(tmp_path / "b"))
    module = ReconstructionModule("cs_mri", "zero_filled", output_dir=tmp_path / "out")
    with pytest.raises(InputError, match="scan: two volumes of the loader are called so"):
        trainer(tmp_path).predict(module, dataloaders=loader)


def image(shape: tuple[int, ...] = (1, 1, 8, 8, 6), affine: Any = LYING, **meta: Any) -> MetaTensor:
    given = {"filename_or_obj": "/data/p.nii.gz", **meta}
    return MetaTensor(torch.rand(shape), affine=torch.as_tensor(affine), meta=given)


def test_axes_before_the_last_three_may_be_missing_and_lps_is_turned() -> None:
    tensor = image()
    whole = volume_of_batch({"image": tensor, "label": 3}, "mri")
    for other in (tensor[0], tensor[0, 0]):
        torch.testing.assert_close(
            volume_of_batch(MetaTensor(other, meta=tensor.meta, affine=tensor.affine), "mri").data,
            whole.data,
            rtol=0,
            atol=0,
        )
    assert whole.spacing == (4.0, 2.5, 2.5) and whole.name == "p"
    lps = image(affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ LYING, space="LPS")
    turned = volume_of_batch({"image": MetaTensor(tensor.as_tensor(), meta=lps.meta, affine=lps.affine)}, "mri")
    np.testing.assert_allclose(turned.affine, whole.affine)
    torch.testing.assert_close(turned.data, whole.data, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"label": 1}, "a batch with label in it; give the volume as 'image'"),
        ({"image": "scan.nii"}, "a batch with a str; give a Volume"),
        ({"image": torch.rand(1, 1, 8, 8, 6)}, "a plain tensor, which does not tell where its voxels lie"),
        ({"image": image(filename_or_obj=None)}, "without the name that results are filed under"),
        ({"image": image((1, 2, 8, 8, 6))}, r"2 channels \(1 x 2 x 8 x 8 x 6\); give one channel"),
        ({"image": image((2, 1, 8, 8, 6))}, "2 volumes .*; give one volume at a time"),
        ({"image": image((2, 8, 8, 6))}, "2 volumes or channels"),
        ({"image": image((8, 8))}, r"an image of 2 axes \(8 x 8\); give batch, channel and three axes of space"),
        ({"image": image((1, 1, 1, 8, 8, 6))}, "an image of 6 axes"),
        ({"image": image((1, 1, 8, 8, 1))}, "a single slice"),
        ({"image": image(affine=np.eye(4))}, "no affine, and projections are of lengths in mm"),
        ({"image": image(space="scanner")}, "an affine to the space 'scanner'"),
        ({"image": image() * float("nan")}, "voxels are NaN"),
    ],
)  # fmt: skip
def test_what_a_batch_lacks_is_refused_in_one_line(batch: dict[str, Any], words: str, tmp_path: Path) -> None:
    module = ReconstructionModule("sv_ct", "fbp", output_dir=tmp_path / "out")
    with pytest.raises(InputError, match=words) as caught:
        trainer(tmp_path).predict(module, dataloaders=torch.utils.data.DataLoader([batch], collate_fn=lambda b: b[0]))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_without_a_voxel_size_only_what_needs_none_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader: Any = torch.utils.data.DataLoader(
        [{"image": image((1, 1, 16, 16, 4), np.eye(4))}], collate_fn=lambda b: b[0]
    )
    module = ReconstructionModule("cs_mri", output_dir=tmp_path / "out", steps=2)
    with caplog.at_level(logging.INFO):
        (record,) = trainer(tmp_path).predict(module, dataloaders=loader)  # type: ignore[misc]
    assert "no affine: the size of its voxels is not known" in caplog.text
    assert record.metrics["method"] == "dds"
    module = ReconstructionModule("cs_mri", output_dir=tmp_path / "none", steps=2)
    assert module.runner.prior is not None
    module.runner.prior.slices = 3
    with pytest.raises(InputError, match="p: a prior of neighbouring slices needs their distance; give an affine"):
        trainer(tmp_path).predict(module, dataloaders=loader)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("options", [{"write": "dicom"}, {"split": "slices"}], ids=str)
def test_what_needs_our_own_data_is_refused_with_other_loaders(options: dict[str, Any], tmp_path: Path) -> None:
    module = ReconstructionModule("cs_mri", "zero_filled", output_dir=tmp_path / "out", **options)
    with pytest.raises(InputError, match="of a VolumeDataModule"):
        trainer(tmp_path).predict(module, dataloaders=monai_loader(scan_file(tmp_path)))
    assert not (tmp_path / "out").exists()
