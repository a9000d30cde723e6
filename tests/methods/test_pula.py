"""Samples of `pula` as a method: the posterior in closed form, whatever the unit, real or complex, noise or not."""

import math
from typing import Any

import pytest
import torch

from lightning_mbir.data.units import CT_SCALE
from lightning_mbir.errors import InputError
from lightning_mbir.methods.units import mri_scale
from lightning_mbir.physics import FourierSampling, LinearOperator, RealDomain
from lightning_mbir.reconstruction import reconstruct, reconstruct_samples
from tests.helpers import gaussian_prior
from tests.methods.test_samples import Inpainting

LEVELS: dict[str, Any] = {"steps": 150, "sigma_max": 10.0, "sigma_min": 0.01}
WIDTH = 0.5
"""Deviation of the prior, in its unit; of complex pixels in each part."""


@pytest.mark.parametrize("sigma_y", [0.005, 0.2])
def test_the_deviation_of_ct_is_that_of_the_posterior(sigma_y: float) -> None:
    """Pixels that are measured with a deviation of ``sigma_y``, and pixels that are not."""
    operator, samples = Inpainting(32), 12
    generator = torch.Generator().manual_seed(0)
    truth = 0.3 + WIDTH * torch.randn(6, 32, 32, generator=generator)
    noise = sigma_y * operator.kept * torch.randn(truth.shape, generator=generator)
    y = CT_SCALE * (operator(truth) + noise)
    result = reconstruct_samples(
        y, operator, gaussian_prior("ct"), "pula", samples=samples, modality="ct", sigma_y=sigma_y, **LEVELS
    )
    measured = operator.kept.expand_as(truth) > 0
    exact = {True: (WIDTH**-2 + sigma_y**-2) ** -0.5, False: WIDTH}
    for of, wanted in ((measured, exact[True]), (~measured, exact[False])):
        found = float(result.std[of].square().mean().sqrt()) / CT_SCALE
        assert found == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("complex", [False, True])
def test_a_noise_that_is_known_goes_into_the_deviation_of_k_space(complex: bool) -> None:
    """Everything measured: each part of a pixel has the deviation of prior and noise together, in any unit."""
    fourier = FourierSampling(torch.ones(32, 32))
    operator: LinearOperator = 3.0 * (fourier if complex else RealDomain(fourier))
    prior = gaussian_prior("mri", complex=complex)
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, 6, 32, 32, generator=generator)
    truth = torch.complex(*parts) if complex else parts[0]
    y, noise_std = operator(1000 * truth), 4500.0  # of k-space, so 1500 of an image, in each part
    unit = mri_scale(y, operator) * prior.unit.scale
    given: dict[str, Any] = {"noise_std": noise_std, "sigma_y": 1e-4, **LEVELS}
    volumes = [reconstruct(y, operator, prior, "pula", sample=k, **given).volume for k in range(12)]
    found = torch.view_as_real(torch.stack(volumes)) if complex else torch.stack(volumes)
    exact = ((WIDTH * unit) ** -2 + (noise_std / 3) ** -2) ** -0.5
    assert 0.3 < WIDTH * unit / (noise_std / 3) < 3  # or one of them would not count
    assert float(found.var(0).mean().sqrt()) == pytest.approx(exact, rel=0.05)
    none = reconstruct(y, operator, prior, "pula", noise_share=0.0, **given).volume
    assert float((none - 1000 * truth).abs().square().mean().sqrt()) < 0.1 * noise_std / 3 * math.sqrt(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sigma_y": 0.0}, "pula: sigma_y is 0.0; give a positive number"),
        ({"gamma": 0.0}, "pula: gamma is 0.0; give a positive number"),
        ({"gamma": 1.5}, "pula: gamma is 1.5; give above 0 to 1"),
        ({"noise_share": 2.0}, "pula: noise_share is 2.0; give 0 to 1"),
        ({"cg_iterations": 0}, "pula: cg_iterations is 0; give at least 1"),
    ],
)
def test_options_that_make_no_step_are_refused(options: dict[str, float], words: str) -> None:
    operator = Inpainting(32)
    with pytest.raises(InputError, match=words):
        reconstruct(torch.ones(1, 32, 32), operator, gaussian_prior("ct"), "pula", modality="ct", **options)
