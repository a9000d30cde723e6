"""The noise of what was measured, estimated from itself."""

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.physics import FourierSampling, ParallelBeam, make_mask
from lightning_mbir.physics.noise import kspace_covariance, kspace_noise, projection_noise
from tests.helpers import smooth_volume


def noise(shape: tuple[int, ...], complex: bool = False, seed: int = 0) -> torch.Tensor:
    dtype = torch.complex64 if complex else torch.float32
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * (2**0.5 if complex else 1)


@pytest.mark.parametrize("std", [1e-6, 0.01, 30.0])
def test_k_space_has_its_noise_in_the_corners(std: float) -> None:
    clean = FourierSampling(torch.ones(64, 96))(1e3 * std * smooth_volume((4, 64, 96)) + 0j)
    assert kspace_noise(clean + std * noise(clean.shape, complex=True)) == pytest.approx(std, rel=0.05)


def test_only_what_was_sampled_counts() -> None:
    mask = make_mask("gaussian1d", (128, 128), 4)
    y = (FourierSampling(torch.ones(128, 128))(smooth_volume((4, 128, 128)) + 0j)) + 0.01 * noise((4, 128, 128), True)
    assert kspace_noise(y * mask) == pytest.approx(0.01, rel=0.15)
    padded = torch.zeros_like(y)
    padded[..., 40:88, 40:88] = y[..., 40:88, 40:88]
    assert kspace_noise(padded) == 0  # nothing was sampled that far out


def shared_noise(coils: int, slices: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise that coils share, ``(Z, coils, 96, 96)``, and its covariance."""
    mix = noise((coils, coils), complex=True, seed=1) + 2 * torch.eye(coils)
    white = noise((slices, coils, 96, 96), complex=True, seed=2)
    return torch.einsum("dc,zcyx->zdyx", mix, white), 2 * mix @ mix.mH


def error(found: torch.Tensor, covariance: torch.Tensor) -> float:
    return float((found - covariance).abs().max() / covariance.abs().max())


def test_coils_have_the_covariance_of_their_noise_in_the_corners() -> None:
    n, covariance = shared_noise(8)
    clean = FourierSampling(torch.ones(96, 96))(smooth_volume((6, 96, 96)) + 0j)
    coils = torch.linspace(1, 2, 8)[:, None, None]  # 100 times the noise in the middle
    y = n + 1e3 * coils * clean[:, None]
    assert error(kspace_covariance(y), covariance) < 0.05
    y[..., ::32] += 30 * noise((1, 8, 1, 1), complex=True, seed=3)  # signal in some of the lines
    assert error(kspace_covariance(y), covariance) < 0.08
    corner = y[..., :8, :8].movedim(-3, 0).flatten(1)
    assert error(corner @ corner.mH / corner.shape[1], covariance) > 1  # which a mean of squares believes


def test_a_covariance_takes_samples_of_all_coils() -> None:
    n, covariance = shared_noise(4)
    mask = torch.zeros(96, 96)
    mask[:, ::3] = 1
    assert error(kspace_covariance(n * mask), covariance) < 0.08
    mask[:28] = mask[-28:] = 0
    with pytest.raises(InputError, match=r"the corners of k-space have 0 samples for 4 coils; .* 20 for each"):
        kspace_covariance(n * mask)
    n[:, 1] = 2 * n[:, 0]
    with pytest.raises(InputError, match="the noise of the 4 coils has no covariance"):
        kspace_covariance(n)


def test_projections_have_theirs_between_neighbouring_bins() -> None:
    operator = ParallelBeam(96, [i * 6.0 for i in range(30)])
    clean = operator(0.02 * smooth_volume((4, 96, 96)))
    for std in (0.01, 0.1):
        estimate = projection_noise(clean + std * noise(clean.shape))
        assert estimate == pytest.approx(std, rel=0.1)
    assert projection_noise(clean[:1, :1, :20]) == 0  # too few to tell


def test_a_bead_of_a_few_bins_has_no_noise_of_its_own() -> None:
    """Whose chords curve within every bin; of a body there are others."""
    u = torch.arange(40) - 19.3 + torch.linspace(-9, 9, 200)[:, None]
    bead = 2 * (3.2**2 - u**2).clamp_min(0).sqrt()[None]
    assert projection_noise(bead) == 0
    body = 2 * (14.0**2 - u**2).clamp_min(0).sqrt()[None]
    for std in (0.3, 1.0):
        assert projection_noise(body + std * noise(body.shape)) == pytest.approx(std, rel=0.15)
