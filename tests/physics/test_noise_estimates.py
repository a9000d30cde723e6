"""The noise of what was measured, estimated from itself."""

import pytest
import torch

from lightning_mbir.physics import FourierSampling, ParallelBeam, make_mask
from lightning_mbir.physics.noise import kspace_noise, projection_noise
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


def test_projections_have_theirs_between_neighbouring_bins() -> None:
    operator = ParallelBeam(96, [i * 6.0 for i in range(30)])
    clean = operator(0.02 * smooth_volume((4, 96, 96)))
    for std in (0.01, 0.1):
        estimate = projection_noise(clean + std * noise(clean.shape))
        assert estimate == pytest.approx(std, rel=0.1)
    assert projection_noise(clean[:1, :1, :20]) == 0  # too few to tell
