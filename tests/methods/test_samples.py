"""Samples of the posterior: mean, spread, what is kept of them, and whether the spread tells the error."""

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import CT_SCALE
from lightning_mbir.data.volumes.volume import mu_to_hu
from lightning_mbir.errors import InputError
from lightning_mbir.methods.samples import Running
from lightning_mbir.physics import LinearOperator, ParallelBeam
from lightning_mbir.reconstruction import ReconstructionModule, calibrate, reconstruct, reconstruct_samples
from tests.helpers import demo, gaussian_prior, smooth_volume
from tests.methods.test_coils import OPERATORS
from tests.reconstruction.test_module import predict

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled")]

EXACT: dict[str, Any] = {"steps": 100, "eta": 1.0, "ddim": True, "lam": 0.0, "sigma_max": 50.0, "sigma_min": 0.005}
"""Settings with which dds samples the posterior of pixels that are measured exactly or not at all."""


class Inpainting(LinearOperator):
    """Half of the pixels, which leaves a posterior in closed form: the prior of the others."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.domain_shape = self.range_shape = (size, size)
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("kept", (torch.rand(size, size, generator=generator) < 0.5).float())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.kept


def test_mean_and_deviation_are_those_of_the_samples() -> None:
    operator = ParallelBeam(32, [i * 22.5 for i in range(8)])
    y, prior = operator(smooth_volume((4, 32, 32), scale=0.03)), gaussian_prior("ct")
    seen: list[Tensor] = []
    settings: dict[str, Any] = {"steps": 4, "seed": 5, "volume": "a"}
    result = reconstruct_samples(
        y, operator, prior, samples=3, each=lambda k, sample: seen.append(sample.volume), **settings
    )
    for k, volume in enumerate(seen):
        torch.testing.assert_close(volume, reconstruct(y, operator, prior, sample=k, **settings).volume)
    stack = torch.stack(seen).double()
    torch.testing.assert_close(result.volume.double(), stack.mean(0), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(result.std.double(), stack.std(0), rtol=1e-4, atol=1e-8)
    assert result.samples == 3 and result.nfe == 12 and result.std.min() >= 0
    residual = float((operator(result.volume) - y).norm() / y.norm())
    assert result.residual == pytest.approx(residual, rel=1e-5)


def test_of_complex_volumes_the_deviation_is_that_of_magnitudes(tmp_path: Path) -> None:
    operator = OPERATORS["lines"]
    y, prior = operator(smooth_volume((3, 32, 32), scale=300.0)), gaussian_prior("mri", complex=True)
    volumes: list[Tensor] = []
    running = Running()

    def each(k: int, sample: Any) -> None:
        volumes.append(sample.volume)
        running.save(tmp_path / "running.npz", "key")

    result = reconstruct_samples(y, operator, prior, samples=3, running=running, each=each, steps=3)
    stack = torch.stack(volumes)
    torch.testing.assert_close(result.volume, stack.mean(0), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(result.std, stack.abs().std(0), rtol=1e-3, atol=1e-3)
    back = Running.load(tmp_path / "running.npz", "key", 3, torch.device("cpu"))
    assert torch.equal(back.mean, running.mean) and torch.equal(back.centre, running.centre) and back.count == 3
    for key, most in (("other", 3), ("key", 2)):
        assert Running.load(tmp_path / "running.npz", key, most, torch.device("cpu")).count == 0


@pytest.mark.parametrize("samples", [2, 4, 16])
def test_the_spread_of_an_exact_posterior_is_calibrated(samples: int) -> None:
    torch.manual_seed(0)
    sigma = torch.rand(12, 32, 32) ** 2 + 0.02  # differs a hundredfold from voxel to voxel
    draws = torch.randn(samples + 1, 12, 32, 32) * sigma
    result = calibrate(draws[1:].mean(0), draws[1:].std(0), draws[0], samples)
    assert result.ratio == pytest.approx(1, abs=0.06)
    assert result.within == pytest.approx(result.expected, abs=0.02)
    assert result.expected[1] == pytest.approx(1 - 2 * scipy.stats.t.sf(2, samples - 1))
    twice = calibrate(draws[1:].mean(0), 2 * draws[1:].std(0), draws[0], samples)
    assert twice.ratio == pytest.approx(result.ratio / 2) and twice.within[0] > result.within[0]


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_few_slices_have_a_neighbourhood_too(slices: int) -> None:
    """Of a voxel all that there is within 3 x 3 x 3: here the whole volume, whose deviations are then all alike."""
    torch.manual_seed(0)
    std = torch.rand(slices, 2, 2)
    result = calibrate(torch.zeros(slices, 2, 2), std, torch.ones(slices, 2, 2), 2)
    assert result.error == pytest.approx([1.0] * len(result.error))
    if slices < 3:
        whole = float((1.5 * std.square().mean()).sqrt())
        assert len(result.predicted) == 4 * slices and result.predicted == pytest.approx([whole] * 4 * slices)


def test_the_reliability_diagram_follows_the_diagonal_where_deviations_are_right() -> None:
    torch.manual_seed(0)
    sigma = torch.linspace(0.1, 2, 32).expand(24, 32, 32)
    draws = torch.randn(5, 24, 32, 32) * sigma
    result = calibrate(draws[1:].mean(0), draws[1:].std(0), draws[0], 4)
    assert len(result.predicted) == 20 and sorted(result.predicted) == result.predicted
    np.testing.assert_allclose(result.error, result.predicted, rtol=0.25)


def test_samples_of_a_posterior_in_closed_form_are_calibrated() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = CT_SCALE * (0.3 + 0.5 * torch.randn(6, 32, 32, generator=generator))
    operator = Inpainting(32)
    y, samples = operator(truth), 4
    result = reconstruct_samples(y, operator, gaussian_prior("ct"), samples=samples, **EXACT)
    missing = (operator.kept == 0).expand(6, 32, 32)
    assert float(result.std[missing].square().mean().sqrt()) == pytest.approx(CT_SCALE * 0.5, rel=0.05)
    assert float(result.std[~missing].max()) < CT_SCALE * 0.01
    known = calibrate(result.volume, result.std, truth, samples)
    assert known.ratio == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("method", "samples", "words"), [("dds", 1, "no spread"), ("fbp", 3, "no randomness"), ("magic", 3, "unknown")]
)
def test_samples_that_cannot_be_taken(method: str, samples: int, words: str) -> None:
    operator = ParallelBeam(32, [0.0, 90.0])
    with pytest.raises(InputError, match=words):
        reconstruct_samples(torch.zeros(2, 2, 46), operator, method=method, samples=samples)


def run(folder: Path, samples: int, task: str = "cs_mri", **flags: Any) -> tuple[Path, dict[str, Any]]:
    module = ReconstructionModule(task=task, samples=samples, output_dir=folder, **{"steps": 3, **flags})
    predict(module, demo(module.task.modality), folder)
    out = next((folder / task).iterdir())
    return out, json.loads((out / "metrics.json").read_text())


def array(path: Path) -> np.ndarray:
    return nib.load(path).get_fdata().transpose(2, 1, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ["cs_mri", "sv_ct"])
def test_predict_writes_mean_deviation_and_samples(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "lightning_mbir.data.volumes.datamodule.chest_phantom", lambda shape, seed: smooth_volume(shape, scale=0.02)
    )
    folder, metrics = run(tmp_path, 3, task)
    assert "sample 3 of 3" in capsys.readouterr().err
    stack = np.stack([array(folder / f"samples/sample_{k:02d}.nii.gz") for k in range(3)])
    np.testing.assert_allclose(array(folder / "recon.nii.gz"), stack.mean(0), rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(array(folder / "std.nii.gz"), stack.std(0, ddof=1), rtol=1e-3, atol=2e-3)  # CT: in HU
    assert metrics["nfe"] == 9 and [score["nfe"] for score in metrics["samples"]] == [3, 3, 3]
    assert all(score["volume_psnr"] <= metrics["volume_psnr"] for score in metrics["samples"])
    truth = demo("ct" if task == "sv_ct" else "mri").scan(0).data
    known = stack.mean(0) - (mu_to_hu(truth).numpy() if task == "sv_ct" else truth.numpy())
    ratio = np.sqrt((known**2).mean() / ((1 + 1 / 3) * stack.var(0, ddof=1).mean()))
    assert metrics["calibration"]["ratio"] == pytest.approx(ratio, rel=1e-3)
    height, width, _ = matplotlib.image.imread(folder / "calibration.png").shape
    assert width > 1000 and height > 500
    run(tmp_path, 1, task)
    assert not (folder / "std.nii.gz").exists() and not (folder / "calibration.png").exists()


@pytest.mark.parametrize("slices", ["4:5", "4:6"])
def test_one_slice_and_two_have_samples(slices: str, tmp_path: Path) -> None:
    module = ReconstructionModule(task="cs_mri", samples=2, steps=2, output_dir=tmp_path)
    data = VolumeDataModule(modality="mri", image_size=32, slices=slices)
    predict(module, data, tmp_path)
    folder = next((tmp_path / "cs_mri").iterdir())
    assert array(folder / "std.nii.gz").shape == (int(slices[2]) - 4, 32, 32)
    stack = np.stack([array(folder / f"samples/sample_{k:02d}.nii.gz") for k in range(2)])
    np.testing.assert_allclose(array(folder / "std.nii.gz"), stack.std(0, ddof=1), rtol=1e-3, atol=2e-3)
    assert json.loads((folder / "metrics.json").read_text())["calibration"]["ratio"] > 0


def test_samples_that_are_written_are_not_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def counted(*args: Any, **rest: Any) -> Any:
        if len(taken) == limit:
            raise KeyboardInterrupt
        taken.append(rest["sample"])
        return reconstruct(*args, **rest)

    monkeypatch.setattr("lightning_mbir.methods.samples.run_method", counted)
    limit = 2
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "a", 4)
    limit = 100
    folder, metrics = run(tmp_path / "a", 4)
    assert taken == [0, 1, 2, 3]
    straight, expected = run(tmp_path / "b", 4)
    for name in ("recon.nii.gz", "std.nii.gz", "samples/sample_03.nii.gz"):
        assert np.array_equal(array(folder / name), array(straight / name))
    assert metrics["calibration"] == expected["calibration"] and len(metrics["samples"]) == 4
    taken.clear()
    run(tmp_path / "a", 4)
    assert taken == []
    run(tmp_path / "a", 5)
    assert taken == [4]
    taken.clear()
    run(tmp_path / "a", 2, seed=1)
    assert taken == [0, 1]
    assert sorted(path.name for path in (folder / "samples").glob("*.nii.gz")) == [
        "sample_00.nii.gz",
        "sample_01.nii.gz",
    ]


def test_methods_without_randomness_have_no_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--samples 3: admm_tv has no randomness to sample; leave it out, or take dds"):
        ReconstructionModule(task="cs_mri", method="admm_tv", samples=3, output_dir=tmp_path)
    with pytest.raises(InputError, match="--samples 0"):
        ReconstructionModule(task="cs_mri", samples=0, output_dir=tmp_path)
