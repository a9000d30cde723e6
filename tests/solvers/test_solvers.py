"""Solvers against dense solves, and ADMM against an independent method for the same convex problem."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import FourierSampling, LinearOperator, ParallelBeam, RealDomain, make_mask
from lightning_mbir.physics.difference import AXES, difference, difference_adjoint
from lightning_mbir.solvers import admm_tv, conjugate_gradient, fbp, sirt, zero_filled
from lightning_mbir.solvers.admm_tv import SLAB, shrink
from lightning_mbir.solvers.conjugate_gradient import inner
from tests.helpers import peak_bytes
from tests.physics.test_transforms import supersampled_disc


def positive(n: int, dtype: torch.dtype, batch: int = 1) -> Tensor:
    g = torch.randn(batch, n, n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return g @ g.mH / n + 0.1 * torch.eye(n, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_cg_solves_many_systems(dtype: torch.dtype) -> None:
    matrix = positive(12, dtype, batch=5)
    b = torch.randn(5, 12, dtype=dtype, generator=torch.Generator().manual_seed(1))
    b[3] = 0
    seen: list[float] = []
    x = conjugate_gradient(
        lambda v: (matrix @ v[..., None])[..., 0],
        b,
        max_iterations=60,
        tolerance=1e-12,
        batch_dims=1,
        callback=lambda k, x, r: seen.append(r),
    )
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-9)
    assert seen[-1] < 1e-11 and len(seen) < 60


def test_cg_ends_in_as_many_steps_as_eigenvalues_and_spares_its_start() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1, 4, 4, 9, 9], dtype=torch.float64))
    b, start = torch.ones(6, dtype=torch.float64), torch.full((6,), 2.0, dtype=torch.float64)
    x = conjugate_gradient(lambda v: matrix @ v, b, start, max_iterations=3)
    torch.testing.assert_close(x, b / matrix.diagonal())
    assert bool((start == 2).all())
    assert torch.equal(conjugate_gradient(lambda v: matrix @ v, b, start, max_iterations=0), start)
    with pytest.raises(InputError, match="x0"):
        conjugate_gradient(lambda v: v, b, torch.ones(3))


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_admm_without_tv_is_least_squares(axis: str) -> None:
    """With lam = 0 the minimiser fulfils ``A^H A x = A^H y``."""
    op = (ParallelBeam(6, [0.0, 20, 40, 60, 80, 100, 120, 140, 160], n_detectors=9)).to(torch.float64)
    op = op / op.norm()
    truth = torch.rand(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = op(truth)
    x, _ = admm_tv(y, op, rho=1e-2, lam=0.0, iterations=60, cg_iterations=40, axes=(axis,))
    torch.testing.assert_close(op.normal(x), op.adjoint(y), rtol=1e-3, atol=1e-4)


def objective(x: Tensor, y: Tensor, op: LinearOperator, lam: float, axes: tuple[str, ...], isotropic: bool) -> float:
    d = torch.stack([difference(x, AXES[axis]) for axis in axes]).abs()
    tv = d.square().sum(0).sqrt().sum() if isotropic else d.sum()
    return float(0.5 * (op(x) - y).abs().square().sum() + lam * tv)


def primal_dual(
    y: Tensor, op: LinearOperator, lam: float, axes: tuple[str, ...], isotropic: bool, steps: int = 3000
) -> Tensor:
    """Condat-Vu: gradient steps on the data term, a projected dual for total variation. No linear system in it."""
    x = torch.zeros_like(op.adjoint(y))
    duals = [torch.zeros_like(x) for _ in axes]
    sigma = 0.25
    tau = 0.99 / (0.5 * op.norm() ** 2 + sigma * 4 * len(axes))
    for _ in range(steps):
        step = op.normal(x) - op.adjoint(y)
        for axis, dual in zip(axes, duals, strict=True):
            step = step + difference_adjoint(dual, AXES[axis])
        new = x - tau * step
        ahead = [dual + sigma * difference(2 * new - x, AXES[axis]) for axis, dual in zip(axes, duals, strict=True)]
        if isotropic:
            size = torch.stack([a.abs().square() for a in ahead]).sum(0).sqrt().clamp_min(lam)
            duals = [lam * a / size for a in ahead]
        else:
            duals = [lam * a / a.abs().clamp_min(lam) for a in ahead]
        x = new
    return x


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("axes", [("z",), ("z", "y", "x")])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_admm_finds_the_minimum_that_another_method_finds(kind: str, axes: tuple[str, ...], isotropic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    fourier = FourierSampling(make_mask("gaussian1d", (8, 8), 2)).to(torch.float64)
    op: LinearOperator = fourier if kind == "complex" else RealDomain(fourier)
    truth = torch.zeros(4, 8, 8, dtype=op.dtype)
    truth[:, 2:6, 2:6] = 1.0 if kind == "real" else 1.0 + 0.5j
    y = op(truth) + 0.05 * torch.randn(4, 8, 8, dtype=torch.complex128, generator=generator)
    lam = 0.05
    x, _ = admm_tv(y, op, rho=0.2, lam=lam, iterations=600, cg_iterations=10, axes=axes, isotropic=isotropic)
    other = primal_dual(y, op, lam, axes, isotropic)
    ours, theirs = (objective(v, y, op, lam, axes, isotropic) for v in (x, other))
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("lam", [0.0, 0.05])
def test_admm_with_a_pull_finds_the_one_minimum_however_many_cg_steps(lam: float) -> None:
    """Half of k-space: without a pull the other half would be whatever the steps left of the start."""
    generator = torch.Generator().manual_seed(0)
    op = RealDomain(FourierSampling(make_mask("gaussian1d", (8, 8), 2)).to(torch.float64))
    y = op(torch.rand(4, 8, 8, dtype=torch.float64, generator=generator))
    start = torch.rand(4, 8, 8, dtype=torch.float64, generator=generator)
    options: dict[str, Any] = {"rho": 0.2, "lam": lam, "pull": 0.1, "iterations": 400, "x0": start}
    few, many = (admm_tv(y, op, cg_iterations=steps, **options)[0] for steps in (2, 30))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-7)

    def above(x: Tensor) -> float:
        return objective(x, y, op, lam, ("z",), False) + 0.05 * float((x - start).square().sum())

    for _ in range(200):  # no neighbour is lower: convex, so that is the minimum
        assert above(few + 1e-3 * torch.randn(few.shape, dtype=few.dtype, generator=generator)) > above(few)
    if lam == 0:
        size = few[0].numel()
        columns = [op.normal(e.view(1, 8, 8)).flatten() for e in torch.eye(size, dtype=torch.float64)]
        matrix = torch.stack(columns, 1) + 0.1 * torch.eye(size, dtype=torch.float64)
        solved = torch.linalg.solve(matrix, (op.adjoint(y) + 0.1 * start).flatten(1).mT).mT.view_as(few)
        torch.testing.assert_close(few, solved, rtol=0, atol=1e-9)


def test_admm_goes_on_from_its_state() -> None:
    op = RealDomain(FourierSampling(make_mask("uniform1d", (8, 8), 2)))
    y = op(torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)))
    whole, _ = admm_tv(y, op, rho=0.3, lam=0.01, iterations=4, cg_iterations=2)
    half, state = admm_tv(y, op, rho=0.3, lam=0.01, iterations=2, cg_iterations=2)
    kept = [t.clone() for t in (*state.z, *state.w)]
    rest, _ = admm_tv(
        None, op, rho=0.3, lam=0.01, iterations=2, cg_iterations=2, x0=half, state=state, rhs=op.adjoint(y)
    )
    torch.testing.assert_close(rest, whole)
    for before, after in zip(kept, (*state.z, *state.w), strict=True):
        assert torch.equal(before, after)


def reference_admm_step(
    x: Tensor, z: list[Tensor], w: list[Tensor], rhs: Tensor, op: LinearOperator, options: dict[str, Any]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Boyd et al. 2011, section 3.1.1, equation by equation, on whole volumes and with a fresh tensor for each."""
    rho, lam, axes = options["rho"], options["lam"], [AXES[axis] for axis in options["axes"]]
    pull = options["pull"]

    def normal(v: Tensor) -> Tensor:
        return op.normal(v) + pull * v + rho * sum(difference_adjoint(difference(v, a), a) for a in axes)

    b = rhs + pull * x + rho * sum(difference_adjoint(z_d - w_d, a) for a, z_d, w_d in zip(axes, z, w, strict=True))
    r = p = b - normal(x)
    for _ in range(options["cg_iterations"]):
        q = normal(p)
        alpha = r.abs().square().sum() / (p.conj() * q).sum().real
        x, smaller = x + alpha * p, r - alpha * q
        p = smaller + smaller.abs().square().sum() / r.abs().square().sum() * p
        r = smaller
    v = [difference(x, a) + w_d for a, w_d in zip(axes, w, strict=True)]
    joint = torch.stack(v).abs().square().sum(0).sqrt()
    sizes = [joint if options["isotropic"] else v_d.abs() for v_d in v]
    z = [torch.where(s > lam / rho, v_d - lam / rho * v_d / s, 0) for v_d, s in zip(v, sizes, strict=True)]
    return x, z, [v_d - z_d for v_d, z_d in zip(v, z, strict=True)]


@pytest.mark.parametrize("slab", [1, 2 * 144, 3 * 144, 10**6])
@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("axes", [("z",), ("y", "x"), ("x", "z", "y")])
@pytest.mark.parametrize("kind", ["ct", "magnitude", "complex"])
def test_admm_step_is_that_of_the_equations_in_slabs_of_any_size(
    kind: str, axes: tuple[str, ...], isotropic: bool, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SLAB, "cpu", slab)
    fourier = FourierSampling(make_mask("gaussian1d", (12, 12), 2)).to(torch.float64)
    ct = ParallelBeam(12, [0.0, 30, 75, 120]).to(torch.float64)
    op: LinearOperator = {"ct": ct / ct.norm(), "magnitude": RealDomain(fourier), "complex": fourier}[kind]
    truth = torch.randn(7, 12, 12, dtype=op.dtype, generator=torch.Generator().manual_seed(0))
    rhs = op.normal(truth)
    for cg_iterations, pull in ((1, 0.0), (3, 0.0), (1, 0.3), (3, 0.3)):
        options: dict[str, Any] = {"rho": 0.2, "lam": 0.05, "axes": axes, "isotropic": isotropic}
        options |= {"cg_iterations": cg_iterations, "pull": pull}
        x, state = rhs, None
        other, z, w = rhs, [torch.zeros_like(rhs)] * len(axes), [torch.zeros_like(rhs)] * len(axes)
        for _ in range(4):
            x, state = admm_tv(None, op, x0=x, state=state, rhs=rhs, **options)
            other, z, w = reference_admm_step(other, z, w, rhs, op, options)
        torch.testing.assert_close(x, other, rtol=1e-10, atol=1e-12)
        for got, wanted in zip((*state.z, *state.w), (*z, *w), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("slices", [1, 2])
def test_admm_takes_few_slices(slices: int) -> None:
    op = RealDomain(FourierSampling(torch.ones(4, 4)))
    y = op(torch.rand(slices, 4, 4, generator=torch.Generator().manual_seed(0)))
    x, state = admm_tv(y, op, rho=0.3, lam=0.01, iterations=2)
    assert x.shape == (slices, 4, 4) and bool(x.isfinite().all())
    assert bool((state.v[0][-1] == 0).all())


def test_admm_writes_to_its_state_only_if_told() -> None:
    op = RealDomain(FourierSampling(make_mask("uniform1d", (8, 8), 2)))
    rhs = op.normal(torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)))
    start, state = admm_tv(None, op, rho=0.3, lam=0.01, rhs=rhs)
    given = [t.clone() for t in (rhs, start)]
    x, after = admm_tv(None, op, rho=0.3, lam=0.02, x0=start, state=state, rhs=rhs)
    assert after.v[0].data_ptr() != state.v[0].data_ptr()
    over, there = admm_tv(None, op, rho=0.3, lam=0.02, x0=start, state=state, rhs=rhs, overwrite_state=True)
    assert there.v[0].data_ptr() == state.v[0].data_ptr()
    assert torch.equal(over, x) and torch.equal(there.z[0], after.z[0]) and torch.equal(there.w[0], after.w[0])
    assert torch.equal(rhs, given[0]) and torch.equal(start, given[1])


def test_admm_step_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step along z: at most 4 volumes beyond what goes in, counting what the operator takes inside."""
    monkeypatch.setitem(SLAB, "cpu", 4 * 32 * 32)
    op = FourierSampling(make_mask("gaussian1d", (32, 32), 2))
    rhs = op.normal(torch.rand(16, 32, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)))
    x, state = admm_tv(None, op, rho=0.3, lam=0.01, rhs=rhs)
    peak = peak_bytes(lambda: admm_tv(None, op, rho=0.3, lam=0.01, x0=x, state=state, rhs=rhs))
    assert peak <= 4 * rhs.numel() * rhs.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_inner_product_of_many_numbers_is_accurate(dtype: torch.dtype) -> None:
    u, v = torch.rand(2, 3_000_000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = float((u.to(wide).conj() * v.to(wide)).sum().real)
    assert float(inner(u, v)) == pytest.approx(exact, rel=1e-6)
    assert float(inner(u[::2].conj(), v[::2].conj())) == pytest.approx(float(inner(u[::2], v[::2])), rel=1e-6)


def test_cg_takes_the_curvature_instead_of_its_last_product() -> None:
    matrix = positive(12, torch.complex128)[0]
    b = torch.randn(12, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    products: list[Tensor] = []

    def normal(v: Tensor) -> Tensor:
        products.append(v)
        return matrix @ v

    x = conjugate_gradient(normal, b, max_iterations=4, curvature=lambda p: inner(p, matrix @ p))
    assert len(products) == 3
    torch.testing.assert_close(x, conjugate_gradient(normal, b, max_iterations=4))


def test_shrink_is_the_proximal_map() -> None:
    v = [torch.tensor([3.0, -0.5, 0.0]), torch.tensor([4.0, 0.2, 0.0])]
    torch.testing.assert_close(shrink(v, 1.0)[0], torch.tensor([2.0, 0.0, 0.0]))
    torch.testing.assert_close(shrink(v, 1.0, isotropic=True)[1], torch.tensor([3.2, 0.0, 0.0]))
    torch.testing.assert_close(shrink([torch.tensor([3.0 + 4j])], 1.0)[0], torch.tensor([2.4 + 3.2j]))


def test_admm_refuses_nonsense() -> None:
    op = RealDomain(FourierSampling(torch.ones(4, 4)))
    right = {"rho": 1.0, "lam": 1.0}
    for wrong in ({"rho": 0.0}, {"lam": -1.0}, {"pull": -0.1}, {"axes": ("t",)}):
        options = {**right, **wrong}
        with pytest.raises(InputError, match="admm_tv"):
            admm_tv(torch.zeros(2, 4, 4), op, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("filter", ["ramp", "shepp-logan", "cosine", "hamming", "hann"])
def test_fbp_of_a_disc_is_its_attenuation(filter: str) -> None:
    n, pixel, mu = 96, 2.0, 0.02
    op = ParallelBeam(n, [i * 1.0 for i in range(180)], pixel_size=pixel)
    theta = torch.deg2rad(torch.tensor(op.angles))[:, None]
    s = (torch.arange(op.n_detectors) - (op.n_detectors - 1) / 2) * pixel - 10 * theta.cos() + 6 * theta.sin()
    sinogram = (2 * mu * (60.0**2 - s**2).clamp_min(0).sqrt()).float()
    image = fbp(sinogram, op, filter)
    inside = supersampled_disc(n, pixel, (10.0, -6.0), 50.0) == 1
    outside = (supersampled_disc(n, pixel, (10.0, -6.0), 70.0) == 0) & (supersampled_disc(n, pixel, (0, 0), 95.0) == 1)
    assert float(image[inside].mean()) == pytest.approx(mu, rel=0.02)
    assert abs(float(image[outside].mean())) < 0.02 * mu


def test_fbp_takes_the_angle_of_each_view_into_account() -> None:
    """Views in any order and at uneven steps give the same mean; a quarter turn gives half of it."""
    n = 48
    disc = 0.02 * supersampled_disc(n, 1.0, (0.0, 0.0), 15.0)
    even = ParallelBeam(n, [3.0 * i for i in range(60)])
    uneven = ParallelBeam(n, [3.0 * i for i in range(59, -1, -1)] + [1.5 + 3.0 * i for i in range(20)])
    centre = (slice(20, 28), slice(20, 28))
    assert float(fbp(uneven(disc), uneven)[centre].mean()) == pytest.approx(
        float(fbp(even(disc), even)[centre].mean()), rel=0.01
    )
    quarter = ParallelBeam(n, [1.0 * i for i in range(90)])
    assert float(fbp(quarter(disc), quarter)[centre].mean()) == pytest.approx(0.01, rel=0.05)
    with pytest.raises(InputError, match="filter"):
        fbp(even(disc), even, "box")


def test_sirt_converges_to_the_data() -> None:
    op = ParallelBeam(16, [i * 12.0 for i in range(15)], n_detectors=23)
    truth = supersampled_disc(16, 1.0, (1.0, 2.0), 5.0)[None]
    y = op(truth)
    errors = [float((op(sirt(y, op, iterations=k)) - y).norm() / y.norm()) for k in (1, 10, 300)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02
    with pytest.raises(InputError, match="relaxation"):
        sirt(y, op, relaxation=2.5)
    with pytest.raises(InputError, match="line integrals"):
        sirt(torch.zeros(1, 4, 4), FourierSampling(torch.ones(4, 4)))


def test_zero_filled_keeps_what_was_measured() -> None:
    op = FourierSampling(make_mask("gaussian2d", (16, 16), 3))
    y = op(torch.rand(2, 16, 16))
    torch.testing.assert_close(op(zero_filled(y, op)), y)
    assert math.isclose(op.acceleration, 256 / 85)


@pytest.mark.parametrize("start", [False, True])
def test_conjugate_gradients_stay_where_a_projection_is_solved(start: bool) -> None:
    """One step solves it; the rounding that is left has a part in the null space, where N cannot hold it."""
    operator = FourierSampling(make_mask("gaussian1d", (64, 64), 4))
    truth = torch.randn(3, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    b = operator.normal(truth)
    x0 = 0.3 * b if start else None
    for steps in (1, 2, 5, 30):
        x = conjugate_gradient(operator.normal, b, x0, max_iterations=steps)
        assert float((x - b).norm() / b.norm()) < 1e-5


def test_conjugate_gradients_leave_a_slice_alone_that_fits_already() -> None:
    """Air, and a start that is large where nothing was measured: its rounding must not be blown up, slice by slice."""
    operator = RealDomain(FourierSampling(make_mask("uniform1d", (32, 32), 4)))
    start = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0)) * 100
    b = operator.normal(start)
    b[0] *= 1e-7
    x = conjugate_gradient(operator.normal, b, start, max_iterations=15, batch_dims=1)
    torch.testing.assert_close(x[1:], start[1:], rtol=0, atol=0.01)
    assert float((operator.normal(x) - b).abs().max()) < 0.01 and float(x.abs().max()) < 300


@pytest.mark.parametrize(("size", "solved"), [(4.0, True), (0.5, False)])
def test_what_lies_below_the_rounding_of_its_parts_alone_is_left_alone(size: float, solved: bool) -> None:
    """A right-hand side of a few roundings still tells something: ADMM-TV of limited angles gains 0.6 dB from it."""
    weights = torch.linspace(0.5, 1.0, 64)
    made_of = torch.rand(64)
    b = torch.randn(64)
    b *= size * torch.finfo(torch.float32).eps * made_of.norm() / b.norm()
    x = conjugate_gradient(lambda p: weights * p, b, max_iterations=30, made_of=made_of)
    if solved:
        assert float((weights * x - b).norm() / b.norm()) < 0.3
    else:
        assert not bool(x.any())


def test_what_is_solved_is_left_alone_by_many_cg_steps() -> None:
    """Of a solved system only rounding remains, part of it in the null space, which steps would blow up without end."""
    generator = torch.Generator().manual_seed(0)
    operator = RealDomain(FourierSampling(make_mask("gaussian1d", (32, 32), 8)))
    x = 3.0 + torch.rand(6, 32, 32, generator=generator)
    y = operator(x)
    options = {"rho": 0.09, "lam": 6e-5, "iterations": 40}
    few, _ = admm_tv(y, operator, cg_iterations=5, x0=x, **options)  # type: ignore[arg-type]
    many, _ = admm_tv(y, operator, cg_iterations=60, x0=x, **options)  # type: ignore[arg-type]
    assert float((operator(many) - y).norm() / y.norm()) < 1e-3
    assert float((many - few).norm() / x.norm()) < 0.1
