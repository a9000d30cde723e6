"""Several coils and other trajectories through ``reconstruct``, and the scale that is estimated from them."""

import importlib.util
from typing import Any

import pytest

from lightning_mbir.data.units import magnitude_percentile
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
from lightning_mbir.reconstruction.units import mri_scale
from tests.physics.test_coil_maps import smooth_maps
from tests.reconstruction.conftest import gaussian_prior, smooth_volume

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


@pytest.mark.parametrize("name", OPERATORS)
def test_the_scale_is_estimated_within_the_documented_range(name: str) -> None:
    truth, operator = smooth_volume(scale=300.0), OPERATORS[name]
    assert 0.7 < mri_scale(operator(truth), operator) / magnitude_percentile(truth) < 1.4


@pytest.mark.parametrize("name", [name for name, operator in OPERATORS.items() if operator.separable])
@pytest.mark.parametrize("method", ["dds", "admm_tv"])
def test_coils_are_unfolded(name: str, method: str) -> None:
    truth, operator = smooth_volume(scale=300.0), OPERATORS[name]
    options: dict[str, Any] = {"steps": 12, "lam": 3e-4, "rho": 0.01}
    prior = gaussian_prior("mri", complex=operator.domain_complex)
    result = reconstruct(operator(truth), operator, prior, method, **options)
    assert result.volume.shape == truth.shape
    assert result.residual < 0.05
    # The Gaussian prior of dds knows a mean and a deviation, nothing of images.
    assert float((result.volume - truth).norm() / truth.norm()) < (0.35 if method == "dds" else 0.15)
