"""Volumes through Lightning: what is written, what is logged, and what is refused before anything is made."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.volumes.volume import mu_to_hu
from lightning_mbir.errors import InputError
from lightning_mbir.prior.networks.running import Compiled
from lightning_mbir.reconstruction import TASKS, ReconstructionModule
from tests.helpers import demo, smooth_volume

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def quick_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ball for a chest, which takes seconds to draw."""
    monkeypatch.setattr(
        "lightning_mbir.data.volumes.datamodule.chest_phantom",
        lambda shape, seed: smooth_volume(shape, scale=0.02 + 1e-3 * (seed % 7)),
    )


def trainer(folder: Path, logger: bool = False) -> L.Trainer:
    board: Any = TensorBoardLogger(folder / "tensorboard", name="", version="") if logger else False
    return L.Trainer(
        accelerator="cpu", devices=1, logger=board, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip


def predict(module: ReconstructionModule, data: VolumeDataModule, folder: Path, logger: bool = False) -> None:
    trainer(folder, logger).predict(module, datamodule=data, return_predictions=False)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("task", list(TASKS))
def test_predict_writes_four_files(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = ReconstructionModule(task=task, steps=3, output_dir=tmp_path)
    module.config_yaml = "seed: 0\n"
    data = demo(TASKS[task].modality)
    predict(module, data, tmp_path, logger=True)
    scan = data.scan(0)
    folder = tmp_path / task / scan.name
    assert sorted(p.name for p in folder.iterdir()) == [
        "metrics.json", "montage.png", "predict_config.yaml", "recon.nii.gz", "report.html",
    ]  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"task", "method", "volume", "seed", "seconds", "nfe", "data_range", "residual"} <= metrics.keys()
    assert metrics["nfe"] == 3
    for plane in ("axial", "coronal", "sagittal"):
        assert metrics[plane].keys() == {"psnr", "ssim"}
    assert {"volume_psnr", "nrmse"} <= metrics.keys()
    image = nib.load(folder / "recon.nii.gz")
    np.testing.assert_allclose(image.affine, scan.affine)  # type: ignore[attr-defined]
    assert image.shape == (32, 32, 16)  # type: ignore[attr-defined]
    picture = matplotlib.image.imread(folder / "montage.png")
    assert picture.shape[1] > 800
    assert picture[..., :3].std() > 0.05
    assert (folder / "predict_config.yaml").read_text() == "seed: 0\n"
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Scalars(f"{task}/axial/psnr")[0].value == pytest.approx(metrics["axial"]["psnr"], rel=1e-5)
    assert board.Scalars(f"{task}/axial/psnr")[0].step == 0
    assert board.Tags()["images"] == []  # they are in the run of the volume, see test_board.py
    told = capsys.readouterr()
    assert "3/3" in told.err and "s left" in told.err
    assert str(folder) in told.out


def test_the_file_holds_what_was_scored(tmp_path: Path) -> None:
    data = demo("ct")
    predict(ReconstructionModule(task="sv_ct", method="fbp", views=40, output_dir=tmp_path), data, tmp_path)
    folder = tmp_path / "sv_ct" / data.scan(0).name  # type: ignore[union-attr]
    truth = mu_to_hu(data.scan(0).data).numpy()  # type: ignore[union-attr]
    recon = nib.load(folder / "recon.nii.gz").get_fdata().transpose(2, 1, 0)  # type: ignore[attr-defined]
    psnr = 10 * np.log10(3000**2 / np.mean((recon - truth) ** 2))  # -1000 .. 2000 HU
    assert json.loads((folder / "metrics.json").read_text())["volume_psnr"] == pytest.approx(psnr, abs=1e-3)


def test_a_file_is_resized_cut_and_written_with_its_geometry(tmp_path: Path) -> None:
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = (-10, 20, 5)
    hu = np.full((64, 64, 8), -1000, np.int16)
    hu[16:48, 20:44] = 40
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "scan.nii.gz")
    data = VolumeDataModule(tmp_path / "scan.nii.gz", modality="ct", image_size=32, slices="2:7")
    module = ReconstructionModule("sv_ct", "fbp", views=60, output_dir=tmp_path / "out")
    predict(module, data, tmp_path / "out", logger=True)
    folder = tmp_path / "out" / "sv_ct" / "scan"
    image: Any = nib.load(folder / "recon.nii.gz")
    assert image.shape == (64, 64, 5)  # reconstructed at 32 x 32, written where the file lies
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], affine @ [0, 0, 2, 1], atol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms(), (3, 3, 5))
    inside = image.get_fdata()[24:40, 26:38]
    assert abs(float(inside.mean()) - 40) < 30  # in Hounsfield units again
    metrics = json.loads((folder / "metrics.json").read_text())
    for key in ("task", "method", "volume", "seed", "seconds", "nfe", "data_range", "volume_psnr", "nrmse", "residual"):
        assert key in metrics
    assert metrics["data_range"] == pytest.approx(0.0576) and metrics["axial"]["psnr"] > 20
    assert (folder / "montage.png").read_bytes()[:4] == b"\x89PNG"
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    assert "sv_ct/axial/psnr" in events.Tags()["scalars"] and list((tmp_path / "out/tensorboard/sv_ct/scan").iterdir())
    assert not list(tmp_path.rglob(".partial*"))


def test_rerunning_overwrites(tmp_path: Path) -> None:
    for _ in range(2):
        module = ReconstructionModule(task="cs_mri", method="zero_filled", output_dir=tmp_path)
        predict(module, demo("mri"), tmp_path)
    assert len(list((tmp_path / "cs_mri").rglob("*.*"))) == 4


@pytest.mark.usefixtures("bundled")
def test_results_follow_the_name_of_a_volume_not_its_place(tmp_path: Path) -> None:
    data = demo("ct", 2)
    predict(ReconstructionModule(task="sv_ct", steps=2, output_dir=tmp_path / "both"), data, tmp_path)
    data.scans = data.scans[1:]
    predict(ReconstructionModule(task="sv_ct", steps=2, output_dir=tmp_path / "one"), data, tmp_path)
    name = data.scan(0).name
    both, one = (tmp_path / folder / "sv_ct" / name / "recon.nii.gz" for folder in ("both", "one"))
    np.testing.assert_array_equal(nib.load(both).dataobj, nib.load(one).dataobj)  # type: ignore[attr-defined]


def test_test_scores_and_writes_no_volume(tmp_path: Path) -> None:
    module = ReconstructionModule(task="cs_mri", method="zero_filled", output_dir=tmp_path / "out")
    (scores,) = trainer(tmp_path).test(module, datamodule=demo("mri", 2), verbose=False)
    assert {"cs_mri/axial/psnr", "cs_mri/sagittal/ssim", "cs_mri/residual", "cs_mri/nrmse"} <= scores.keys()
    folder = tmp_path / "out/cs_mri/scores/zero_filled"
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        folder / "results.csv", folder / "results.json", folder / "results.md",
    ]  # fmt: skip
    rows = json.loads((folder / "results.json").read_text())
    assert [row["volume"]["name"] for row in rows] == ["demo_head_0", "demo_head_1"]
    assert scores["cs_mri/axial/psnr"] == pytest.approx(np.mean([row["axial"]["psnr"] for row in rows]), rel=1e-5)
    with (folder / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["axial.psnr"]) for line in lines] == [row["axial"]["psnr"] for row in rows]
    assert f"{scores['cs_mri/volume_psnr']:.2f} /" in (folder / "results.md").read_text()


def test_volumes_that_test_repeats_to_even_out_ranks_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ReconstructionModule(task="cs_mri", method="zero_filled", output_dir=tmp_path)
    monkeypatch.setattr(module, "_index", lambda batch_idx: (2, 3, 0, 1)[batch_idx])  # as if of 2 ranks
    data = demo("mri", 4)
    monkeypatch.setattr(type(module), "_volumes", 3)
    trainer(tmp_path).test(module, datamodule=data, verbose=False)
    rows = json.loads((tmp_path / "cs_mri/scores/zero_filled/results.json").read_text())
    assert [row["volume"]["name"] for row in rows] == ["demo_head_2", "demo_head_3", "demo_head_0"]
    assert module.rows == []


def test_measurements_without_truth(tmp_path: Path) -> None:
    truth = smooth_volume(scale=0.02)
    operator = TASKS["sv_ct"].build_operator(32, 1.5, views=20)
    np.savez(
        tmp_path / "scan.npz", measurement=operator(truth).numpy(), angles=np.arange(20) * 9.0,
        image_size=32, pixel_size=1.5, spacing=np.array([3.0, 1.5, 1.5]),
    )  # fmt: skip
    data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct")
    module = ReconstructionModule(task="sv_ct", method="admm_tv", steps=20, output_dir=tmp_path / "out")
    predict(module, data, tmp_path)
    folder = tmp_path / "out/sv_ct/scan"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["residual"] < 0.05
    assert not {"axial", "volume_psnr", "nrmse", "data_range"} & metrics.keys()
    assert (folder / "montage.png").is_file()
    image = nib.load(folder / "recon.nii.gz")
    assert image.header.get_zooms() == (1.5, 1.5, 3.0)  # type: ignore[attr-defined]
    back = image.get_fdata().transpose(2, 1, 0)  # type: ignore[attr-defined]
    assert np.abs(back - mu_to_hu(truth).numpy()).mean() < 60


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "pet"}, "--task pet"),
        ({"task": "sv_ct", "acc": 4.0}, "--acc"),
        ({"task": "sv_ct", "method": "zero_filled"}, "not for ct"),
        ({"task": "sv_ct", "method": "admm_tv", "method_options": {"rho": "x"}}, "rho"),
        ({"steps": 2.0}, "--steps 2.0: give a whole number"),
        ({"seed": "1"}, "--seed '1': give a whole number"),
        ({"prior": object()}, "--prior: gives a object; give a name"),
        ({"precision": "float8"}, "precision"),
        ({"prior": "nowhere.ckpt"}, "--prior nowhere.ckpt"),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        ReconstructionModule(output_dir=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_written_and_found_again_as_those_of_python(tmp_path: Path) -> None:
    data = demo("ct")
    for views, seed, rho in ((8, 1, 0.5), (np.int64(8), np.int32(1), np.float32(0.5))):
        module = ReconstructionModule(
            "sv_ct", "admm_tv", views=views, seed=seed, steps=2, method_options={"rho": rho}, output_dir=tmp_path
        )
        (record,) = trainer(tmp_path).predict(module, datamodule=data) or ()
        key = tmp_path / "key"
        assert record.metrics["key"] == (key.read_text() if key.exists() else record.metrics["key"])
        key.write_text(record.metrics["key"])


def test_output_folders_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--output_dir"):
        ReconstructionModule(method="zero_filled", output_dir=tmp_path / "file" / "out")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="--output_dir"):
            ReconstructionModule(method="zero_filled", output_dir=tmp_path / "locked" / "out")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "locked") == ["file"]


def bad_volume(folder: Path) -> VolumeDataModule:
    array = np.full((20, 20, 4), np.nan, dtype=np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), folder / "bad.nii")  # type: ignore[attr-defined]
    return VolumeDataModule(path=folder / "bad.nii", modality="mri", image_size=32)


@pytest.mark.parametrize("case", ["modality", "mask", "volume"])
def test_what_is_wrong_with_the_data_is_told_before_any_folder_is_made(case: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    module = ReconstructionModule(
        task="cs_mri", method="zero_filled", acc=1000.0 if case == "mask" else None, output_dir=out
    )
    data = bad_volume(tmp_path) if case == "volume" else demo("ct" if case == "modality" else "mri")
    with pytest.raises(InputError):
        predict(module, data, out, logger=True)
    assert not out.exists()


def test_more_devices_than_volumes_are_refused_unless_slices_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ReconstructionModule(task="cs_mri", method="zero_filled", output_dir=tmp_path, split="volumes")
    run = trainer(tmp_path)
    monkeypatch.setattr(L.Trainer, "world_size", 4)
    with pytest.raises(InputError, match="2 volumes for 4 devices; give --trainer"):
        run.predict(module, datamodule=demo("mri", 2), return_predictions=False)


def test_checkpoints_hold_nothing_that_could_overrule_a_flag() -> None:
    module = ReconstructionModule(task="cs_mri", method="zero_filled")
    assert dict(module.hparams) == {}
    assert list(module.parameters()) == []
    assert module.state_dict() == {}


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("method", ["dds", "zero_filled"])
def test_a_phase_is_taken_up_by_complex_volumes(tmp_path: Path, method: str) -> None:
    """With everything measured the magnitude comes back, whatever the phase."""
    data = demo("mri")
    truth = data.scan(0).data
    for phase in (False, True):
        module = ReconstructionModule(
            task="cs_mri", method=method, acc=1.0, mask="uniform1d", phase=phase, output_dir=tmp_path / str(phase)
        )
        assert module.runner.takes_complex(module.plans[0]) == phase
        predict(module, data, tmp_path)
        folder = tmp_path / str(phase) / "cs_mri" / data.scan(0).name
        image = nib.load(folder / "recon.nii.gz").get_fdata().transpose(2, 1, 0)
        assert np.abs(image - truth.numpy()).max() < 0.05
    with pytest.raises(InputError, match="phase"):
        ReconstructionModule(task="sv_ct", phase=True)


def test_how_the_prior_runs_is_what_was_asked_for(tmp_path: Path) -> None:
    options: dict[str, Any] = {"slice_batch": 3, "precision": "bfloat16", "compile": True}
    module = ReconstructionModule(task="sv_ct", output_dir=tmp_path, **options)
    prior = module.runner.prior
    assert prior is not None and (prior.slice_batch, prior.precision) == (3, "bfloat16")
    assert isinstance(prior._run, Compiled)
    plain = ReconstructionModule(task="sv_ct", output_dir=tmp_path).runner.prior
    assert plain is not None and plain.precision == "auto" and plain._run is plain.network
