"""From measurement to volume: units, metrics, files, and the errors on the way."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import CT_SCALE, magnitude_percentile
from lightning_mbir.data.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.physics import FourierSampling, ParallelBeam, RealDomain, make_mask
from lightning_mbir.prior import SliceDenoiser, Unit
from lightning_mbir.reconstruction import METHODS, TASKS, ReconstructionModule, image_metrics, reconstruct
from lightning_mbir.reconstruction.units import mri_scale
from tests.reconstruction.conftest import needed


class Smooth(nn.Module):
    """A denoiser without training: the more noise, the wider the mean."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        blurred = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        share = (sigma / (sigma + 0.2))[:, None, None, None]
        return x + share * (blurred.clamp(0, 1.2) - x)


def blocks(scale: float = 1.0) -> Tensor:
    x = torch.zeros(6, 32, 32)
    x[:, 8:24, 10:22] = 0.5
    x[2:5, 12:18, 14:18] = 1.0
    return scale * x


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_runs_in_physical_units(method: str, tmp_path: Path) -> None:
    """The result scales with the measurement, and fits it better than nothing does."""
    prior = SliceDenoiser(Smooth(), Unit(CT_SCALE), "ct")
    steps = {"dds": 8, "diffusion_mbir": 60, "admm_tv": 20, "sirt": 30, "dps": 60}
    chosen = steps.get(method, 20 if METHODS[method].needs_prior else None)
    if "ct" not in METHODS[method].modalities:
        truth = blocks()
        op, given = needed(method, RealDomain(FourierSampling(make_mask("uniform1d", (32, 32), 2))), tmp_path)
        result = reconstruct(op(truth), op, method=method, **given)
        assert result.residual == pytest.approx(0.0, abs=0.5)
    else:
        truth = blocks(CT_SCALE)
        geometry = ParallelBeam(32, [i * 9.0 for i in range(20)], pixel_size=2.0)
        options = needed(method, geometry, tmp_path)[1] | ({"sigma_max": 20.0} if method == "diffusion_mbir" else {})
        result = reconstruct(geometry(truth), geometry, prior, method, steps=chosen, **options)
        assert float((result.volume - truth).norm() / truth.norm()) < 0.5
    assert result.volume.shape == truth.shape and result.seconds > 0
    nfe = {"dds": 8, "diffusion_mbir": 119, "score_slices": 39, "mcg": 40, "dps": 120, "diffpir": 20, "tpdm": 20}
    assert result.nfe == {**nfe, "fbp_unet": 1}.get(method, 0)


def test_residual_is_that_of_the_volume() -> None:
    op = ParallelBeam(16, [0.0, 50.0])
    y = op(torch.rand(2, 16, 16))
    result = reconstruct(y, op, method="sirt", steps=3)
    assert result.residual == pytest.approx(float((op(result.volume) - y).norm() / y.norm()), rel=1e-4)


@pytest.mark.parametrize("factor", [1.0, 250.0])
def test_mri_units_follow_the_measurement(factor: float) -> None:
    """Whatever the scanner's unit, the prior sees the same volume."""
    truth = blocks()
    op = RealDomain(FourierSampling(make_mask("gaussian1d", (32, 32), 2)))
    seen: list[float] = []

    class Spy(Smooth):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            seen.append(float(x.abs().mean()))
            return super().forward(x, sigma)

    result = reconstruct(factor * op(truth), op, SliceDenoiser(Spy(), Unit(), "mri"), steps=4)
    plain = reconstruct(op(truth), op, SliceDenoiser(Smooth(), Unit(), "mri"), steps=4)
    torch.testing.assert_close(result.volume / factor, plain.volume, rtol=1e-3, atol=1e-3)
    scale = mri_scale(factor * op(truth), op)
    assert 0.7 < scale / (factor * magnitude_percentile(truth)) < 1.3


def test_wrong_input_is_refused_before_the_work() -> None:
    op = ParallelBeam(16, [0.0, 50.0])
    y = op(torch.rand(2, 16, 16))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "magic"}, "unknown"),
        ({"method": "zero_filled"}, "not for ct"),
        ({"method": "sirt", "colour": 1}, "no option colour"),
        ({"method": "fbp", "steps": 3}, "no steps"),
        ({"method": "dds", "prior": "nothing.ckpt"}, "no such file"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            reconstruct(y, op, **options)
    with pytest.raises(InputError, match="measures"):
        reconstruct(y[..., 1:], op, method="sirt")
    with pytest.raises(InputError, match="NaN"):
        reconstruct(y * float("nan"), op, method="sirt")
    fourier = FourierSampling(torch.ones(16, 16))
    with pytest.raises(InputError, match="RealDomain"):
        reconstruct(torch.ones(2, 16, 16, dtype=torch.complex64), fourier, SliceDenoiser(Smooth(), Unit()), "dds")


def test_metrics_are_the_textbook_ones() -> None:
    truth = torch.rand(12, 16, 20, generator=torch.Generator().manual_seed(0)) + 0.5
    worse = truth + 0.1
    scores = image_metrics(worse, truth, data_range=2.0)
    expected = 10 * math.log10(2.0**2 / 0.01)
    for plane in ("axial", "coronal", "sagittal"):
        assert scores[plane]["psnr"] == pytest.approx(expected, abs=1e-3)
        assert 0.9 < scores[plane]["ssim"] < 1
    assert scores["volume_psnr"] == pytest.approx(expected, abs=1e-3)
    assert scores["nrmse"] == pytest.approx(0.1 / float(truth.square().mean()) ** 0.5, rel=1e-4)
    assert "ssim" not in image_metrics(worse[:5], truth[:5], 2.0)["coronal"]
    # Air is left out: here an error that is only in the slice without tissue.
    truth[3] = 0
    wrong = truth.clone()
    wrong[3] = 1.0
    assert image_metrics(wrong, truth, 2.0)["axial"]["psnr"] == 100


def test_tasks_build_what_their_flags_say() -> None:
    op = TASKS["sv_ct"].build_operator(32, 2.0, views=4)
    assert isinstance(op, ParallelBeam) and op.angles == (0.0, 45.0, 90.0, 135.0) and op.pixel_size == 2.0
    limited = TASKS["la_ct"].build_operator(32)
    assert isinstance(limited, ParallelBeam) and len(limited.angles) == 90 and limited.angles[-1] == 89.0
    mri = TASKS["cs_mri"].build_operator(64, acc=4, mask="uniform1d")
    assert isinstance(mri, RealDomain) and mri.operator.acceleration == pytest.approx(4)  # type: ignore[union-attr, operator]


def predict(module: ReconstructionModule, data: VolumeDataModule, folder: Path) -> None:
    logger = TensorBoardLogger(folder / "tensorboard", name="", version="")
    trainer = L.Trainer(
        accelerator="cpu",
        logger=logger,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.predict(module, data, return_predictions=False)


def test_predict_writes_what_the_design_lists(tmp_path: Path) -> None:
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = (-10, 20, 5)
    hu = np.full((64, 64, 8), -1000, np.int16)
    hu[16:48, 20:44] = 40
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "scan.nii.gz")
    data = VolumeDataModule(tmp_path / "scan.nii.gz", modality="ct", image_size=32, slices="2:7")
    module = ReconstructionModule("sv_ct", "fbp", views=60, output_dir=tmp_path / "out")
    predict(module, data, tmp_path / "out")
    folder = tmp_path / "out" / "sv_ct" / "scan"
    image = nib.load(folder / "recon.nii.gz")
    assert image.shape == (32, 32, 5)
    # Pixel (0, 0) covers two old ones each way; slice 0 is the old slice 2.
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], affine @ [0.5, 0.5, 2, 1], atol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms(), (6, 6, 5))
    inside = image.get_fdata()[12:20, 13:19]
    assert abs(float(inside.mean()) - 40) < 30  # in Hounsfield units again
    metrics = json.loads((folder / "metrics.json").read_text())
    for key in ("task", "method", "volume", "seed", "seconds", "nfe", "data_range", "volume_psnr", "nrmse", "residual"):
        assert key in metrics
    assert metrics["data_range"] == pytest.approx(0.0576) and metrics["axial"]["psnr"] > 20
    assert (folder / "montage.png").read_bytes()[:4] == b"\x89PNG"
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    assert "sv_ct/axial/psnr" in events.Tags()["scalars"] and "sv_ct/scan" in events.Tags()["images"]
    assert not list(tmp_path.rglob(".partial*"))


def test_a_given_measurement_is_taken_as_it_is(tmp_path: Path) -> None:
    truth = blocks(CT_SCALE)
    angles = np.arange(0, 180, 4.0)
    op = ParallelBeam(32, angles.tolist(), n_detectors=50, pixel_size=2.0)
    np.savez(
        tmp_path / "scan.npz",
        measurement=op(truth).numpy(),
        angles=angles,
        image_size=32,
        pixel_size=2.0,
        spacing=np.array([4.0, 2.0, 2.0]),
    )
    data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct")
    predict(ReconstructionModule("sv_ct", "sirt", output_dir=tmp_path / "out"), data, tmp_path / "out")
    folder = tmp_path / "out" / "sv_ct" / "scan"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["residual"] < 0.05
    assert not {"axial", "volume_psnr", "nrmse", "data_range"} & metrics.keys()
    assert nib.load(folder / "recon.nii.gz").header.get_zooms() == (2.0, 2.0, 4.0)
    for content, words in (
        ({"measurement": np.zeros((2, 3, 4))}, "lacks angles"),
        (
            {"measurement": np.zeros((2, 3, 4)), "angles": [0.0], "image_size": 8, "pixel_size": 1.0},
            "angles but 3 views",
        ),
        ({"measurement": np.full((2, 1, 4), np.nan), "angles": [0.0], "image_size": 8, "pixel_size": 1.0}, "NaN"),
    ):
        np.savez(tmp_path / "bad.npz", **content)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=words):
            VolumeDataModule(measurement=tmp_path / "bad.npz", modality="ct")


def test_demo_volumes_need_no_files() -> None:
    for modality in ("ct", "mri"):
        volume = VolumeDataModule(modality=modality, image_size=32).scan(0)  # type: ignore[arg-type]
        assert isinstance(volume, Volume) and volume.data.shape == (32, 32, 32)
        centre = volume.affine @ [15.5, 15.5, 15.5, 1]
        np.testing.assert_allclose(centre[:3], 0, atol=1e-6)


def test_real_scan_is_reconstructed_better_by_diffusion_than_by_total_variation(shared: Path) -> None:
    """A few slices of the chest that neither prior nor tuning has seen, 8 views; the README has the whole table."""
    path = shared / "data/ct/test/lungfcp0001_chest.nii.gz"
    volume = VolumeDataModule(path, modality="ct", image_size=128, slices="30:36").scan(0)
    assert isinstance(volume, Volume)
    op = TASKS["sv_ct"].build_operator(128, volume.spacing[1])
    y = op(volume.data)
    scores = {}
    for method, steps in (("dds", 12), ("admm_tv", None)):
        options = TASKS["sv_ct"].options.get(method, {})
        result = reconstruct(y, op, method=method, steps=steps, **options)
        scores[method] = image_metrics(result.volume, volume.data, 0.0576)["axial"]["psnr"]
    assert scores["dds"] > scores["admm_tv"] + 0.5
