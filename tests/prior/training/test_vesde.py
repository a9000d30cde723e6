"""The noise schedule of the VE-SDE."""

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.prior import VESDE


def test_noise_levels_are_geometric_between_their_ends() -> None:
    sigma = VESDE(0.01, 100.0).sigma(torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(sigma, torch.tensor([0.01, 0.1, 1, 10, 100], dtype=torch.float64))


def test_levels_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(InputError, match="sigma_max > sigma_min"):
        VESDE(1.0, 0.1)
