"""A field that is off: the sum over pixels, what segments cost, and an image that comes back where it belongs."""

import importlib.util
import math

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import (
    FourierSampling,
    MultiCoilFourier,
    NonCartesianFourier,
    OffResonance,
    spiral_trajectory,
)
from lightning_mbir.solvers.conjugate_gradient import conjugate_gradient
from tests.physics.registry import random_field, random_maps, random_mask, readout


def sum_over_pixels(x: Tensor, points: Tensor, field: Tensor, times: Tensor) -> Tensor:
    """``(Y X)^(-1/2) sum_n x[n] exp(-2 pi i (k . n + f[n] t))`` at ``(points, 2)``, pixel by pixel."""
    rows, columns = x.shape
    y, z = torch.meshgrid(torch.arange(rows) - rows // 2, torch.arange(columns) - columns // 2, indexing="ij")
    turns = points[:, :1] * y.flatten() + points[:, 1:] * z.flatten() + times[:, None] * field.flatten()
    kernel = torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
    return kernel @ x.flatten() / math.sqrt(x.numel())


def image(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.complex128, generator=torch.Generator().manual_seed(5))


@pytest.mark.skipif(not importlib.util.find_spec("pytorch_finufft"), reason="pytorch-finufft is not installed")
def test_along_a_trajectory_it_is_the_sum_over_pixels() -> None:
    trajectory = spiral_trajectory(4, 60, 1.5)
    field, times, x = random_field(12, 13).double(), readout(4, 60).double(), image(12, 13)
    operator = OffResonance(NonCartesianFourier(trajectory, (12, 13), backend="finufft").double(), field, times)
    expected = sum_over_pixels(x, trajectory.reshape(-1, 2), field, times.flatten())
    assert float((operator(x).flatten() - expected).norm() / expected.norm()) < 1e-4
    without = operator.operator(x).flatten()
    assert float((without - expected).norm() / expected.norm()) > 0.5  # the field matters


def test_on_the_grid_it_is_the_sum_over_pixels() -> None:
    """Times by the row that is read out, and one for each point."""
    field, x = random_field(8, 9).double(), image(8, 9)
    ky, kx = torch.meshgrid((torch.arange(8) - 4) / 8, (torch.arange(9) - 4) / 9, indexing="ij")
    points = torch.stack((ky.flatten(), kx.flatten()), -1).double()
    sampling = FourierSampling(torch.ones(8, 9)).double()
    for times in (readout(8, 9).double(), readout(9).double()):
        found = OffResonance(sampling, field, times)(x)
        expected = sum_over_pixels(x, points, field, times.expand(8, 9).flatten())
        assert float((found.flatten() - expected).norm() / expected.norm()) < 1e-4


def test_more_segments_are_nearer() -> None:
    field, times, x = random_field(8, 9).double(), readout(8, 9).double(), image(8, 9)
    sampling = FourierSampling(torch.ones(8, 9)).double()
    exact = OffResonance(sampling, field, times, segments=24)(x)
    gaps = [float((OffResonance(sampling, field, times, n)(x) - exact).norm() / exact.norm()) for n in (1, 3, 5, 7, 9)]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.5 and gaps[-1] < 1e-3
    assert 4 <= OffResonance(sampling, field, times).segments <= 12


def test_no_field_is_no_change() -> None:
    sampling = MultiCoilFourier(random_mask(6, 7), random_maps(3, 6, 7)).double()
    operator = OffResonance(sampling, torch.zeros(6, 7), readout(6, 7))
    x = image(6, 7)
    assert operator.segments == 1
    torch.testing.assert_close(operator(x), sampling(x))


def test_an_image_comes_back_where_the_field_is_known() -> None:
    """Echo-planar: lines one after the other over 30 ms, in a field that rises along the phase encoding."""
    rows = columns = 24
    field = 60 * torch.linspace(-1, 1, columns, dtype=torch.float64).expand(rows, columns).square()
    times = (torch.arange(columns) / columns * 0.03).double()
    x = torch.zeros(rows, columns, dtype=torch.complex128)
    x[6:18, 4:20] = 1
    x[9:12, 8:11] = 0.3
    sampling = FourierSampling(torch.ones(rows, columns)).double()
    operator = OffResonance(sampling, field, times)
    y = operator(x)
    plain = sampling.adjoint(y)
    found = conjugate_gradient(operator.normal, operator.adjoint(y), max_iterations=60, tolerance=1e-9)
    assert float((plain - x).norm() / x.norm()) > 0.4
    assert float((found - x).norm() / x.norm()) < 1e-2


@pytest.mark.parametrize(
    ("field", "times", "words"),
    [
        (torch.zeros(7, 6), torch.zeros(6, 7), r"the field map is \(7, 6\), images \(6, 7\)"),
        (torch.zeros(6, 7), torch.zeros(7, 6), r"the times are \(7, 6\), samples \(6, 7\)"),
        (torch.full((6, 7), math.nan), torch.zeros(7), "field_map is .*NaN"),
        (torch.zeros(6, 7), torch.zeros(7, dtype=torch.complex64), "times is .*complex"),
        (random_field(6, 7), torch.linspace(0, 13, 7), "are the times in seconds and the field in Hz"),
    ],
)
def test_what_does_not_fit_is_refused(field: Tensor, times: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        OffResonance(FourierSampling(torch.ones(6, 7)), field, times)
