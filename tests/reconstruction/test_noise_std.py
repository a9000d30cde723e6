"""A known noise of k-space, from where it is told to what dds makes of it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_mbir.data.measurement import read_measurement
from lightning_mbir.data.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.physics import FourierSampling, RealDomain, make_mask
from lightning_mbir.reconstruction import METHODS, TASKS, reconstruct
from lightning_mbir.reconstruction.case import measured, simulate
from lightning_mbir.reconstruction.units import mri_scale
from tests.reconstruction.conftest import gaussian_prior, smooth_volume


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


def test_dds_trusts_k_space_by_its_noise() -> None:
    """A share of the noise on top of sigma_y, in quadrature, in the prior's unit and for an operator of unit norm."""
    operator = 3.0 * RealDomain(FourierSampling(make_mask("gaussian1d", (32, 32), 4.0, seed=0)))
    y = operator(100 * smooth_volume())
    prior, options = gaussian_prior("mri"), {"steps": 6, "rho": 1.0, "lam": 0.01}
    noise_std, sigma_y = 40.0, 0.02

    def run(**given: float) -> torch.Tensor:
        return reconstruct(y, operator, prior, "dds", **options, **given).volume  # type: ignore[arg-type]

    share = 0.5 * noise_std / (operator.norm() * mri_scale(y, operator) * prior.unit.scale)
    assert mri_scale(y, operator) == pytest.approx(mri_scale(y / 3, operator / 3.0), rel=1e-3)
    assert share > sigma_y  # or the comparison would tell nothing
    found = run(noise_std=noise_std, sigma_y=sigma_y)
    torch.testing.assert_close(found, run(sigma_y=math.hypot(sigma_y, share)), rtol=1e-5, atol=1e-4)
    assert not torch.allclose(found, run(sigma_y=sigma_y), rtol=1e-2)
    assert torch.equal(run(noise_std=noise_std, sigma_y=sigma_y, noise_share=0.0), run(sigma_y=sigma_y))
    assert torch.equal(run(noise_std=noise_std, sigma_y=0.0), run(sigma_y=0.0))  # the published step has no such weight
    assert METHODS["dds"].options["noise_share"] == 0.5


@pytest.mark.parametrize("noise_std", [-1.0, math.nan, math.inf])
def test_a_noise_that_is_none_is_refused(noise_std: float) -> None:
    operator = RealDomain(FourierSampling(torch.ones(16, 16)))
    with pytest.raises(InputError, match="noise_std"):
        reconstruct(operator(torch.ones(2, 16, 16)), operator, method="zero_filled", noise_std=noise_std)
