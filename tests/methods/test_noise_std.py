"""A known noise of k-space, from where it is told to what dds makes of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.units import mri_scale
from lightning_mbir.physics import FourierSampling, RealDomain, make_mask
from lightning_mbir.reconstruction import METHODS, TASKS, reconstruct
from lightning_mbir.reconstruction.case import measured, simulate
from lightning_mbir.reconstruction.measured import part_of
from lightning_mbir.reconstruction.provenance import digest
from lightning_mbir.reconstruction.record import summary
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.samplers import KeyedNoise
from tests.helpers import gaussian_prior, smooth_volume


def test_a_simulated_measurement_knows_its_noise() -> None:
    task = TASKS["cs_mri"]
    scan = Volume(smooth_volume((8, 64, 64)), np.eye(4), "ball", "mri")
    clean = simulate(scan, task, task.settings(acc=4.0), 0, has_phase=False)
    noisy = simulate(scan, task, task.settings(acc=4.0, snr=20.0), 0, has_phase=False)
    noise = (noisy.y - clean.y)[clean.y != 0]
    assert clean.noise_std == 0
    # The standard error of a standard deviation from n values is 1 / sqrt(2 n) of it.
    for part in (noise.real, noise.imag):
        assert float(part.std()) == pytest.approx(noisy.noise_std, rel=5 / math.sqrt(2 * part.numel()))


@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_counts_know_theirs_where_their_weights_are_what_they_are_on_average(photons: float) -> None:
    task = TASKS["sv_ct"]
    scan = Volume(0.02 * smooth_volume((8, 64, 64)), np.diag([3.0, 3.0, 3.0, 1.0]), "ball", "ct")
    clean = simulate(scan, task, task.settings(views=20), 0, has_phase=False)
    noisy = simulate(scan, task, task.settings(views=20, photons=photons), 0, has_phase=False)
    assert noisy.weights is not None
    power = clean.y.square()
    mean = float((noisy.weights * power).sum() / power.sum())
    white = noisy.weights.sqrt() * (noisy.y - clean.y)
    assert clean.noise_std == 0
    assert noisy.noise_std * mean**0.5 == pytest.approx(float(white.square().mean().sqrt()), rel=0.02)


def test_a_file_may_tell_its_noise(tmp_path: Path) -> None:
    kspace = np.ones((2, 20, 24), complex)
    for name, content in (
        ("own", {"measurement": kspace, "mask": np.ones(24)}),
        ("raw", {"kspace": kspace[:, None]}),
    ):
        np.savez(tmp_path / f"{name}.npz", **content, noise_std=0.25)
        assert measured(read_measurement(tmp_path / f"{name}.npz", "mri")).noise_std == 0.25
        np.savez(tmp_path / f"{name}.npz", **content)
        assert read_measurement(tmp_path / f"{name}.npz", "mri").noise_std == 0


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_dds_weighs_k_space_and_prior_by_their_variances(complex: bool, weighted: bool) -> None:
    """One level, everything measured: each part is the mean of both, whatever the operator's scale and the unit."""
    fourier, sigma, noise_std, share = FourierSampling(torch.ones(16, 16)), 0.4, 120.0, 0.5
    operator = 3.0 * (fourier if complex else RealDomain(fourier))
    prior, truth = gaussian_prior("mri", complex=complex), 100 * smooth_volume((4, 16, 16))
    y = operator(truth.to(operator.dtype))
    options: dict[str, Any] = {"steps": 1, "sigma_max": sigma, "sigma_y": 1e-6, "lam": 0.0, "cg_iterations": 20}
    weights = torch.full(y.shape, 300.0) if weighted else None
    found = reconstruct(
        y, operator, prior, "dds", noise_std=noise_std, noise_share=share, weights=weights, **options
    ).volume

    unit = mri_scale(y, operator) * prior.unit.scale
    noisy = sigma * KeyedNoise(0, 0, 0)(0, truth.shape, dtype=operator.dtype, device=y.device)
    of_noise, of_level = (share * noise_std / 3) ** 2, (sigma * unit) ** 2 / (2 if complex else 1)
    mean = (truth / of_noise + unit * prior(noisy, sigma) / of_level) / (1 / of_noise + 1 / of_level)
    assert 0.1 < of_noise / of_level < 10  # or one of them would not count
    torch.testing.assert_close(found, mean, rtol=1e-3, atol=0.02)


def test_the_share_of_the_noise_is_taken_on_top_of_sigma_y() -> None:
    operator = RealDomain(FourierSampling(make_mask("gaussian1d", (32, 32), 4.0, seed=0)))
    y = operator(smooth_volume())
    options: dict[str, Any] = {"steps": 6, "rho": 1.0, "lam": 0.01}

    def run(sigma_y: float, noise_share: float = 0.5, noise_std: float = 0.1) -> torch.Tensor:
        given = {**options, "sigma_y": sigma_y, "noise_share": noise_share, "noise_std": noise_std}
        return reconstruct(y, operator, gaussian_prior("mri"), "dds", **given).volume

    assert METHODS["dds"].options["noise_share"] == 0.5
    assert not torch.allclose(run(0.02), run(0.02, noise_std=0.0), rtol=1e-2)
    assert torch.equal(run(0.02, noise_share=0.0), run(0.02, noise_std=0.0))
    assert torch.equal(run(0.0), run(0.0, noise_std=0.0))  # the published step has no such weight
    with pytest.raises(InputError, match="noise_share is 2"):
        run(0.02, noise_share=2.0)


def test_the_noise_of_a_file_is_part_of_what_a_result_depends_on(tmp_path: Path) -> None:
    runner = Runner(TASKS["cs_mri"], {}, {}, 0, has_phase=False)
    told = []
    for noise_std in (0.1, 0.2):
        np.savez(tmp_path / "y.npz", measurement=np.ones((2, 32, 32), complex), mask=np.ones(32), noise_std=noise_std)
        scan = part_of(read_measurement(tmp_path / "y.npz", "mri"), acc=2.0)
        assert scan.noise_std == noise_std
        told.append(runner.identity(scan, Plan("admm_tv", {})))
    assert digest(told[0]) != digest(told[1])


@pytest.mark.parametrize("noise_std", [-1.0, math.nan, math.inf])
def test_a_noise_that_is_none_is_refused(noise_std: float) -> None:
    operator = RealDomain(FourierSampling(torch.ones(16, 16)))
    with pytest.raises(InputError, match="noise_std"):
        reconstruct(operator(torch.ones(2, 16, 16)), operator, method="zero_filled", noise_std=noise_std)


def test_the_misfit_is_1_where_the_noise_alone_is_left() -> None:
    task = TASKS["cs_mri"]
    scan = Volume(smooth_volume((8, 64, 64)), np.eye(4), "ball", "mri")
    case = simulate(scan, task, task.settings(acc=4.0, snr=20.0), 0, has_phase=False)
    assert case.truth is not None
    left = case.operator(False)(case.truth) - case.y
    residual = float(left.norm() / case.y.norm())
    assert case.misfit(residual) == pytest.approx(1, rel=0.03)
    clean = simulate(scan, task, task.settings(acc=4.0), 0, has_phase=False)
    assert clean.misfit(residual) is None


@pytest.mark.parametrize("photons", [1e4, 1e6])
def test_the_misfit_of_counts_is_1_where_the_noise_alone_is_left(photons: float) -> None:
    task = TASKS["sv_ct"]
    scan = Volume(0.05 * smooth_volume((8, 64, 64)), np.diag([1.0, 1, 1, 1]), "ball", "ct")
    case = simulate(scan, task, task.settings(views=12, photons=photons), 0, has_phase=False)
    assert case.truth is not None and float(case.y.max()) > 1  # rays of different counts
    left = case.operator(False)(case.truth) - case.y
    residual = float(left.norm() / case.y.norm())
    assert case.misfit(residual) == pytest.approx(1, rel=0.05)
    assert simulate(scan, task, task.settings(views=12), 0, has_phase=False).misfit(residual) is None


def test_a_residual_is_told_against_the_noise() -> None:
    metrics = {"volume": "v", "residual": 0.1, "seconds": 1.0}
    told = {value: summary({**metrics, "misfit": value}, Path("o")) for value in (0.2, 1.0, 3.0)}
    assert "(0.20 of the noise: noise is fitted)" in told[0.2]
    assert "(1.00 of the noise)" in told[1.0]
    assert "(3.00 of the noise: more than noise explains)" in told[3.0]
    assert "noise" not in summary(metrics, Path("o"))
