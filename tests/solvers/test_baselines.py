"""Least squares and sparse wavelets against dense solves and closed forms."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import (
    FourierSampling,
    LinearOperator,
    MultiCoilFourier,
    ParallelBeam,
    RealDomain,
    make_mask,
)
from lightning_mbir.samplers import keyed_generator
from lightning_mbir.solvers import Wavelets, cgls, l1_wavelet
from lightning_mbir.solvers.l1_wavelet import soft_threshold
from tests.physics.mri.test_coil_maps import smooth_maps


def dense(operator: LinearOperator) -> np.ndarray:
    """The matrix of an operator: its columns are the measurements of unit images."""
    n = int(np.prod(operator.domain_shape))
    units = torch.eye(n, dtype=operator.dtype).reshape(n, *operator.domain_shape)
    return operator(units).reshape(n, -1).T.numpy()


def random(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def operators() -> dict[str, LinearOperator]:
    mask = make_mask("gaussian2d", (6, 6), 2)
    return {
        "parallel beam": ParallelBeam(6, [i * 15.0 for i in range(12)], n_detectors=9).to(torch.float64),
        "few views": ParallelBeam(6, [0.0, 70.0], n_detectors=9).to(torch.float64),
        "fourier": FourierSampling(mask).to(torch.float64),
        "coils": MultiCoilFourier(mask, smooth_maps(6)).to(torch.float64),
    }


OPERATORS = operators()


@pytest.mark.parametrize("lam", [0.0, 0.03])
@pytest.mark.parametrize("name", OPERATORS)
def test_cgls_is_the_dense_least_squares_solution(name: str, lam: float) -> None:
    """Also where that is not unique: of least norm then. Tikhonov is least squares with ``sqrt(lam) x = 0`` added."""
    operator = OPERATORS[name] / OPERATORS[name].norm()
    y = random(operator.range_shape, operator.range_dtype)
    matrix, data = dense(operator), y.flatten().numpy()
    n = matrix.shape[1]
    augmented = np.vstack((matrix, lam**0.5 * np.eye(n))), np.concatenate((data, np.zeros(n)))
    exact = np.linalg.lstsq(*augmented, rcond=1e-10)[0]
    x = cgls(y[None], operator, iterations=400, lam=lam)
    np.testing.assert_allclose(x.flatten().numpy(), exact, rtol=0, atol=1e-6 * np.abs(exact).max())


def test_cgls_goes_down_and_stops_early() -> None:
    operator = OPERATORS["parallel beam"] / OPERATORS["parallel beam"].norm()
    y = random((3, *operator.range_shape))
    seen: list[Tensor] = []
    cgls(y, operator, iterations=12, callback=lambda k, x: seen.append(x.clone()))
    misfits = [float((operator(x) - y).norm()) for x in seen]
    sizes = [float(x.norm()) for x in seen]
    assert len(seen) == 12 and misfits == sorted(misfits, reverse=True) and sizes == sorted(sizes)
    torch.testing.assert_close(cgls(y, operator, iterations=5), seen[4])
    few: list[int] = []
    cgls(y, operator, iterations=12, tolerance=0.5, callback=lambda k, x: few.append(k))
    assert 0 < len(few) < 12
    with pytest.raises(InputError, match="lam is -1"):
        cgls(y, operator, lam=-1.0)


def test_sense_unfolds_what_a_single_coil_cannot() -> None:
    """Half of the lines, four coils: more equations than pixels, so the image comes back to rounding."""
    mask = make_mask("equispaced", (16, 16), 2)
    operator = MultiCoilFourier(mask, smooth_maps(16)).to(torch.float64)
    x = random((2, 16, 16), torch.complex128)
    found = cgls(operator(x), operator, iterations=300)
    assert float((found - x).norm() / x.norm()) < 1e-6
    single = FourierSampling(mask).to(torch.float64)
    assert float((cgls(single(x), single, iterations=300) - x).norm() / x.norm()) > 0.3


SHAPES = [((3, 32, 32), (-2, -1)), ((5, 21, 50), (-2, -1)), ((24, 30, 17), (-3, -2, -1)), ((2, 5, 40), (-2, -1))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", ["haar", "db4", "sym8", "coif1"])
@pytest.mark.parametrize(("shape", "dims"), SHAPES)
def test_wavelets_are_orthonormal(shape: tuple[int, ...], dims: tuple[int, ...], name: str, dtype: torch.dtype) -> None:
    """Norms and inner products stay, the adjoint is the inverse on both sides, padding is below one block."""
    w = Wavelets(name, 4, dims)
    whole = w.padded(shape)
    assert w.padded(whole) == whole
    assert all(0 <= p - n < 16 for p, n in zip(whole, shape, strict=True))
    x, c = random(whole, dtype), random(whole, dtype, 1)
    wx = w.forward(x)
    assert wx.shape == x.shape and wx.dtype == dtype
    assert float(wx.norm()) == pytest.approx(float(x.norm()), rel=1e-10)
    torch.testing.assert_close(w.adjoint(wx), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(w.forward(w.adjoint(c)), c, rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.vdot(wx.flatten(), c.flatten()), torch.vdot(x.flatten(), w.adjoint(c).flatten()))


def test_wavelets_gather_what_is_smooth() -> None:
    """A constant is in the coarsest coefficients alone: 32 pixels in 4 levels leave 2 x 2 of them with Haar."""
    c = Wavelets("haar", 4, (-2, -1)).forward(torch.ones(1, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(c[:, :2, :2], torch.full((1, 2, 2), 16.0, dtype=torch.float64))
    c[:, :2, :2] = 0
    assert float(c.abs().max()) < 1e-12
    for wrong in ("bior2.2", "magic"):
        with pytest.raises(InputError, match="not orthogonal"):
            Wavelets(wrong, 4, (-1,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_with_all_of_k_space_it_is_the_soft_threshold(dtype: torch.dtype) -> None:
    """``A^H A = 1``: the minimiser is ``W^H soft(W A^H y, lam)``, after one step."""
    sampling: LinearOperator = FourierSampling(torch.ones(32, 32)).to(torch.float64)
    operator = sampling if dtype.is_complex else RealDomain(sampling)
    y = operator(random((3, 32, 32), dtype))
    w, lam = Wavelets("db4", 2, (-2, -1)), 0.4
    c = w.forward(operator.adjoint(y))
    shrunk = torch.where(c.abs() > lam, c * (1 - lam / c.abs()), 0)
    exact = w.adjoint(shrunk)
    for iterations in (1, 7):
        x = l1_wavelet(y, operator, lam=lam, iterations=iterations, levels=2)
        torch.testing.assert_close(x, exact, rtol=0, atol=1e-10)
    torch.testing.assert_close(soft_threshold(c, 0.0), c)


@pytest.mark.parametrize("size", [16, 13])
def test_fista_reaches_the_minimiser_faster_than_ista(size: int) -> None:
    """The optimum by ISTA to the end; in 40 steps FISTA is nearer to it. Sizes that are padded, too."""
    operator = FourierSampling(make_mask("gaussian2d", (size, size), 2)).to(torch.float64)
    y = operator(random((1, size, size), torch.complex128).cumsum(-1).cumsum(-2))
    w, lam = Wavelets("haar", 3, (-2, -1)), 0.5

    def run(iterations: int, **options: Any) -> list[float]:
        """The objective after each step, of the padded volume, from the volume it belongs to."""
        values: list[float] = []

        def callback(k: int, x: Tensor) -> None:
            whole = x if x._base is None else x._base  # the callback gets a view of the padded volume
            penalty = lam * float(w.forward(whole).abs().sum())
            values.append(0.5 * float((operator(x) - y).abs().square().sum()) + penalty)

        l1_wavelet(y, operator, lam=lam, iterations=iterations, wavelet="haar", levels=3, callback=callback, **options)
        return values

    ista, fista = run(1500, accelerate=False), run(400)
    best = ista[-1]
    assert all(later <= earlier + 1e-10 * best for earlier, later in itertools.pairwise(ista))
    assert fista[-1] == pytest.approx(best, rel=1e-6)
    assert fista[0] > fista[5] > fista[20] > best * (1 - 1e-9)
    assert fista[39] - best < 0.3 * (ista[39] - best)


def test_the_minimiser_fulfils_the_optimality_conditions() -> None:
    """``W A^H (y - A x)`` is ``lam c / |c|`` where ``c = W x`` is not zero, and no longer than lam elsewhere."""
    operator = FourierSampling(make_mask("gaussian2d", (16, 16), 2)).to(torch.float64)
    y = operator(random((1, 16, 16), torch.complex128).cumsum(-1))
    w, lam = Wavelets("haar", 3, (-2, -1)), 0.5
    x = l1_wavelet(y, operator, lam=lam, iterations=1500, wavelet="haar", levels=3)
    c, gradient = w.forward(x), w.forward(operator.adjoint(y - operator(x)))
    there = c.abs() > 1e-6
    assert 0.05 < float(there.double().mean()) < 0.95
    torch.testing.assert_close(gradient[there], lam * c[there] / c[there].abs(), rtol=0, atol=1e-4)
    assert float(gradient.abs().max()) < lam * (1 + 1e-4)


def test_a_smaller_step_leads_to_the_same_volume() -> None:
    operator = FourierSampling(make_mask("gaussian2d", (16, 16), 2)).to(torch.float64)
    y = operator(random((1, 16, 16), torch.complex128).cumsum(-1))
    one = l1_wavelet(y, operator, lam=0.5, iterations=1000, wavelet="haar", levels=3)
    other = l1_wavelet(2 * y, operator * 2.0, lam=2.0, iterations=1000, wavelet="haar", levels=3, step=0.25)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_shifts_are_repeatable_and_leave_no_blocks() -> None:
    """A smooth image from half of its k-space with Haar: the grid shows, unless it is shifted."""
    axis = torch.linspace(0, 3, 32, dtype=torch.float64)
    truth = (axis.sin() * axis[:, None].cos())[None]
    operator = RealDomain(FourierSampling(make_mask("gaussian2d", (32, 32), 2)).to(torch.float64))
    y = operator(truth)
    options: dict[str, Any] = {"lam": 0.02, "wavelet": "haar", "levels": 3}
    one, two = (l1_wavelet(y, operator, generator=keyed_generator(7), **options) for _ in range(2))
    assert torch.equal(one, two)
    fixed = l1_wavelet(y, operator, **options)
    assert float((one - truth).norm()) < 0.7 * float((fixed - truth).norm())
    for wrong, words in (({"lam": -1.0}, "lam"), ({"axes": ("t",)}, "axes"), ({"step": 0.0}, "step")):
        with pytest.raises(InputError, match=words):
            l1_wavelet(y, operator, **{**options, **wrong})
    with pytest.raises(InputError, match="axes"):
        l1_wavelet(y[0], operator, **{**options, "axes": ("z", "y", "x")})
