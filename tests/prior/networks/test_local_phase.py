"""The phase that a complex prior takes off before it looks, and puts back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_mbir.data.phantoms import head_phantom
from lightning_mbir.data.phantoms.phase import smooth_phase
from lightning_mbir.errors import InputError
from lightning_mbir.prior import LightUNet
from lightning_mbir.prior.networks.local_phase import local_phase, rotated

SIGMAS = torch.tensor([0.05, 0.5, 5.0])


def head(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real and imaginary part ``(3, 2, Y, X)`` of slices of a head with a phase each, and the phase and the modulus."""
    modulus = head_phantom((3, size, size), seed=3)
    rng = np.random.RandomState(0)
    phase = torch.stack([smooth_phase((size, size), rng) for _ in modulus])
    return torch.stack((modulus * phase.cos(), modulus * phase.sin()), 1), phase, modulus


def test_a_smooth_phase_is_found_under_noise() -> None:
    x, phase, modulus = head(128)
    for sigma, least in ((0.05, 0.95), (1.0, 0.95), (5.0, 0.8)):
        noisy = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        u = local_phase(noisy)
        torch.testing.assert_close(u.square().sum(1), torch.ones(3, 128, 128))
        agreement = u[:, 0] * phase.cos() + u[:, 1] * phase.sin()
        assert float((agreement * modulus).sum() / modulus.sum()) > least


def test_the_smoothing_is_a_tenth_of_the_smaller_side() -> None:
    for shape, width in (((128, 160), 12.8), ((256, 64), 6.4)):
        point = torch.zeros(1, 2, *shape)
        point[0, 0, shape[0] // 2, shape[1] // 2] = 1
        level = math.exp(-0.5) / (2 * math.pi * width**2)  # of the smoothed point, one width away
        background = torch.zeros_like(point)
        background[0, 1] = level
        u = local_phase(point + background)[0, :, shape[0] // 2]
        along = torch.arange(shape[1]) - shape[1] // 2
        inside = (along.abs() < width - 1) & (along.abs() < shape[1] // 2 - 3 * width)
        outside = (along.abs() > width + 1) & (along.abs() < shape[1] // 2 - 3 * width)
        assert (u[0] > u[1])[inside].all() and (u[0] < u[1])[outside].all() and inside.any() and outside.any()


def test_rotation_goes_there_and_back_as_complex_numbers_do() -> None:
    x, u = torch.randn(2, 2, 8, 8), local_phase(torch.randn(2, 2, 8, 8))
    z, p = torch.complex(x[:, 0], x[:, 1]), torch.complex(u[:, 0], u[:, 1])
    torch.testing.assert_close(torch.complex(*rotated(x, u).unbind(1)), z * p)
    torch.testing.assert_close(rotated(rotated(x, u), u, back=True), x)


def test_the_network_commutes_with_a_global_phase() -> None:
    torch.manual_seed(0)
    for align in (True, False):
        net = LightUNet([8, 16], in_channels=2, align_phase=align)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.1)
        x, _, _ = head(32)
        turn = torch.tensor((math.cos(2.0), math.sin(2.0))).reshape(1, 2, 1, 1).expand(3, 2, 32, 32)
        with torch.no_grad():
            before, after = rotated(net(x, SIGMAS), turn), net(rotated(x, turn), SIGMAS)
        error = float((before - after).norm() / before.norm())
        assert error < 1e-5 if align else error > 1e-2


def test_autocast_leaves_the_phase_exact() -> None:
    x = torch.randn(3, 2, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        low = local_phase(x)
    torch.testing.assert_close(low, local_phase(x), rtol=0, atol=0)


def test_nothing_stays_nothing() -> None:
    x = torch.zeros(1, 2, 64, 64, requires_grad=True)
    out = LightUNet([8, 16], in_channels=2, align_phase=True)(x, torch.tensor([0.1]))
    out.sum().backward()
    assert (out == 0).all() and x.grad is not None and x.grad.isfinite().all()


def test_real_slices_have_no_phase() -> None:
    with pytest.raises(InputError, match="align_phase: needs two channels"):
        LightUNet([8, 16], align_phase=True)
