"""Several coils and other trajectories through ``reconstruct``, and the scale that is estimated from them."""

import importlib.util
from functools import partial
from typing import Any

import pytest
import torch

from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.errors import InputError
from lightning_mbir.methods.candidates import Budget
from lightning_mbir.methods.units import mri_scale
from lightning_mbir.physics import (
    CartesianFourier3D,
    LinearOperator,
    MultiCoilFourier,
    NonCartesianFourier,
    RealDomain,
    make_mask,
    radial_trajectory,
)
from lightning_mbir.reconstruction import reconstruct
from tests.helpers import gaussian_prior, smooth_volume
from tests.physics.mri.test_coil_maps import smooth_maps

N = 32
MAPS = smooth_maps(N)


def operators() -> dict[str, LinearOperator]:
    some: dict[str, LinearOperator] = {
        "lines": MultiCoilFourier(make_mask("equispaced", (N, N), 3), MAPS),
        "points": MultiCoilFourier(make_mask("poisson2d", (N, N), 4), MAPS),
        "magnitudes": RealDomain(MultiCoilFourier(make_mask("gaussian1d", (N, N), 3), MAPS)),
        "by slice": MultiCoilFourier(make_mask("gaussian1d", (N, N), 3), MAPS.expand(12, *MAPS.shape)),
        "volume": CartesianFourier3D(make_mask("gaussian2d", (12, N), 3), (12, N, N)),
    }
    if importlib.util.find_spec("pytorch_finufft"):
        some["radial"] = NonCartesianFourier(radial_trajectory(16, 48), N, MAPS, "finufft")
    return some


OPERATORS = operators()


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "volume"])
def test_sense_unfolds_real_and_complex_volumes(name: str) -> None:
    """CG-SENSE without Tikhonov's term: what the coils determine comes back; a single coil is refused."""
    truth, operator = smooth_volume(scale=300.0), OPERATORS[name]
    y = operator(truth)
    result = reconstruct(y, operator, method="sense", lam=0.0, tolerance=0.0, steps=80)
    assert result.residual < 3e-3 and result.nfe == 0
    assert float((result.volume - truth).norm() / truth.norm()) < 0.1
    small = reconstruct(y, operator, method="sense", lam=1.0).volume
    assert float(small.abs().sum()) < 0.8 * float(result.volume.abs().sum())
    with pytest.raises(InputError, match="--method sense needs k-space of several coils"):
        single = OPERATORS["volume"]
        reconstruct(single(truth), single, method="sense")


def test_weighted_k_space_does_not_diverge() -> None:
    """Weights leave parts of the operator with more than the unit norm, which FISTA's step allows for."""
    truth, operator = smooth_volume(scale=300.0), OPERATORS["lines"]
    weights = torch.linspace(0.01, 10, N).expand(operator.range_shape).clone()
    result = reconstruct(operator(truth), operator, method="l1_wavelet", weights=weights, lam=1e-4, steps=200)
    assert float((result.volume - truth).norm() / truth.norm()) < 0.1


@pytest.mark.parametrize("name", OPERATORS)
def test_the_scale_is_estimated_within_the_documented_range(name: str) -> None:
    truth, operator = smooth_volume(scale=300.0), OPERATORS[name]
    assert 0.7 < mri_scale(operator(truth), operator) / magnitude_percentile(truth) < 1.4


def test_a_factor_of_the_operator_changes_nothing() -> None:
    truth, operator = smooth_volume(scale=300.0), OPERATORS["magnitudes"]
    y, scaled = operator(truth), operator / 40.0
    assert mri_scale(y / 40, scaled) == pytest.approx(mri_scale(y, operator), rel=1e-4)
    for method, tune in (("sense", False), ("admm_tv", Budget(evaluations=3, slices=2))):
        run = partial(reconstruct, method=method, steps=5, tune=tune)
        first, second = run(y, operator), run(y / 40, scaled)
        assert float((first.volume - second.volume).norm() / first.volume.norm()) < 1e-3


@pytest.mark.parametrize("name", [name for name, operator in OPERATORS.items() if operator.separable])
@pytest.mark.parametrize("method", ["dds", "admm_tv", "l1_wavelet"])
def test_coils_are_unfolded(name: str, method: str) -> None:
    truth, operator = smooth_volume(scale=300.0), OPERATORS[name]
    options: dict[str, Any] = {"lam": 1e-4} if method == "l1_wavelet" else {"steps": 12, "lam": 3e-4, "rho": 0.01}
    prior = gaussian_prior("mri", complex=operator.domain_complex)
    result = reconstruct(operator(truth), operator, prior, method, **options)
    assert result.volume.shape == truth.shape
    assert result.residual < 0.05
    # The Gaussian prior of dds knows a mean and a deviation, nothing of images.
    assert float((result.volume - truth).norm() / truth.norm()) < (0.35 if method == "dds" else 0.15)
