"""The noise schedule of the VE-SDE."""

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.prior import VESDE


def test_ends_and_inverse() -> None:
    sde = VESDE(0.01, 378.0)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert float(sde.sigma(t)[0]) == pytest.approx(0.01) and float(sde.sigma(t)[-1]) == pytest.approx(378.0)
    torch.testing.assert_close(sde.t(sde.sigma(t)), t)


def test_diffusion_is_the_growth_of_variance() -> None:
    sde = VESDE(0.01, 50.0)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64, requires_grad=True)
    (growth,) = torch.autograd.grad(sde.sigma(t).square().sum(), t)
    torch.testing.assert_close(sde.diffusion(t).square(), growth)


def test_levels_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(InputError, match="sigma_max > sigma_min"):
        VESDE(1.0, 0.1)
