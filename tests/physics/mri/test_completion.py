"""Partial Fourier, virtual coils, and the density of trajectories."""

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.physics import (
    MultiCoilFourier,
    NonCartesianFourier,
    coil_compression,
    complete_partial_fourier,
    compressed,
    density_compensation,
    loop_coil_maps,
    radial_trajectory,
)
from lightning_mbir.physics.mri.partial_fourier import _image, _kspace
from lightning_mbir.solvers import cgls
from tests.helpers import smooth_volume

SIZE = 32


def picture() -> torch.Tensor:
    axis = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    magnitude = ((y**2 + x**2) < 0.6).double() + 0.5 * (((y - 0.2) ** 2 + x**2) < 0.1)
    return torch.polar(magnitude, 0.6 * y + 0.4 * x)


@pytest.mark.parametrize("kind", ["pocs", "homodyne"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("late", [False, True, "mirrored"])
def test_a_side_of_k_space_is_completed(kind: str, axis: int, late: bool | str) -> None:
    truth = picture()
    mask = torch.zeros(SIZE, SIZE)
    mask.movedim(axis, 0)[slice(12, None) if late else slice(0, 21)] = 1
    if late == "mirrored":  # the first frequency is its own mirror image
        mask.movedim(axis, 0)[0] = 1
    y = _kspace(truth) * mask
    done = complete_partial_fourier(y, mask, kind)  # type: ignore[arg-type]
    errors = [float((_image(k).abs() - truth.abs()).norm() / truth.norm()) for k in (done, y)]
    assert errors[0] < 0.6 * errors[1]
    if kind == "pocs":
        torch.testing.assert_close(done * mask, y)


def test_what_lacks_no_side_alone_is_refused() -> None:
    y = _kspace(picture())
    mask = torch.ones(SIZE, SIZE)
    with pytest.raises(InputError, match="both sides of k-space were measured alike"):
        complete_partial_fourier(y, mask)
    mask[:, 24:] = mask[:, 1:20:2] = 0
    with pytest.raises(InputError, match="undersampled within"):
        complete_partial_fourier(y * mask, mask)


def test_virtual_coils_hold_the_energy_that_was_asked_for() -> None:
    maps = loop_coil_maps(8, SIZE)
    x = smooth_volume((2, SIZE, SIZE)).to(torch.complex64)
    full = MultiCoilFourier(torch.ones(SIZE, SIZE), maps)
    y = full(x)
    matrix, kept = coil_compression(y, 0.999)
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(len(matrix), dtype=matrix.dtype), atol=1e-5, rtol=0)
    virtual = compressed(matrix, y)
    assert len(matrix) < 8 and kept >= 0.999
    assert float(virtual.norm() ** 2 / y.norm() ** 2) == pytest.approx(kept, abs=1e-5)
    fewer, less = coil_compression(y, kept - 1e-3) if len(matrix) == 1 else coil_compression(y, 0.9)
    assert len(fewer) <= len(matrix) and less >= 0.9
    every, whole = coil_compression(y, 1.0)
    assert whole == pytest.approx(1) and float(compressed(every, y).norm()) == pytest.approx(float(y.norm()), rel=1e-5)
    operator = MultiCoilFourier(torch.ones(SIZE, SIZE), compressed(matrix, maps))
    torch.testing.assert_close(operator(x), virtual, atol=1e-5, rtol=1e-4)
    again = cgls(virtual, operator, iterations=20)
    assert float((again - x).norm() / x.norm()) < 0.02
    with pytest.raises(InputError, match="give a share above 0"):
        coil_compression(y, 1.5)


def test_weights_for_density_make_the_adjoint_an_image() -> None:
    pytest.importorskip("pytorch_finufft")
    n = 24
    axis = (torch.arange(n, dtype=torch.float64) - n // 2) / n
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    even = density_compensation(NonCartesianFourier(grid, n).to(dtype=torch.float64))
    torch.testing.assert_close(even, torch.ones_like(even), atol=1e-3, rtol=0)
    operator = NonCartesianFourier(radial_trajectory(48, 2 * n), n).to(dtype=torch.float64)
    w = density_compensation(operator)
    assert bool((w > 0).all())
    y, x = torch.meshgrid(torch.arange(n) - n // 2, torch.arange(n) - n // 2, indexing="ij")
    image = torch.exp(-(((y - 2) / 4.0) ** 2) - ((x + 1) / 5.0) ** 2).to(torch.complex128)
    measured = operator(image[None])[0]
    # The sum over pixels that the weighted adjoint stands for, without any NUFFT.
    k = operator.trajectory.reshape(-1, 2)
    phase = torch.exp(
        2j
        * torch.pi
        * (
            k[:, :1, None] * y.reshape(1, n, n)[:, :, :].reshape(1, -1)[:, None]
            + k[:, 1:, None] * x.reshape(1, -1)[:, None]
        ).squeeze(1)
    )
    summed = ((w * measured).reshape(-1, 1) * phase).sum(0).reshape(n, n) / n
    found = operator.adjoint((w * measured)[None])[0]
    torch.testing.assert_close(found, summed, rtol=1e-6, atol=1e-8)
    assert float((found - image).norm() / image.norm()) < 0.1
    blurred = operator.adjoint(measured[None])[0]
    assert float((blurred - image).norm() / image.norm()) > 0.5
