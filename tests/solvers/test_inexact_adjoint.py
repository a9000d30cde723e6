"""What solvers do with a back-projection that is no exact adjoint, as that of the backend ``torch_radon``."""

from math import prod

import pytest
import torch
from torch import Tensor

from lightning_mbir.physics import LinearOperator, ParallelBeam
from lightning_mbir.solvers import admm_tv
from lightning_mbir.solvers.cgls import cgls
from tests.physics.ct.test_ct import ellipse_image

GAP = 1e-3
SIZE = 16


class Dense(LinearOperator):
    """``A`` and some ``B`` in place of its adjoint, both as matrices."""

    def __init__(self, like: LinearOperator, forward: Tensor, back: Tensor) -> None:
        super().__init__()
        self.domain_shape, self.range_shape = like.domain_shape, like.range_shape
        self.a, self.b = forward, back
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(-2) @ self.a.t()).unflatten(-1, self.range_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(-2) @ self.b.t()).unflatten(-1, self.domain_shape)


def columns(apply: object, shape: tuple[int, ...]) -> Tensor:
    basis = torch.eye(prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return apply(basis).flatten(1).t().contiguous()  # type: ignore[operator]


def operators() -> tuple[Dense, Dense]:
    """A parallel beam of unit norm, and the same with 1e-3 of the norm added to the adjoint, on its own entries."""
    beam = ParallelBeam(SIZE, [i * 15.0 for i in range(12)]).double()
    a = columns(beam, beam.domain_shape)
    a = a / torch.linalg.matrix_norm(a, 2)
    change = a.t() * torch.randn(a.t().shape, dtype=a.dtype, generator=torch.Generator().manual_seed(0))
    change = change * (GAP / torch.linalg.matrix_norm(change, 2))
    return Dense(beam, a, a.t().contiguous()), Dense(beam, a, a.t() + change)


EXACT, INEXACT = operators()
TRUTH = ellipse_image(SIZE, 4.0, ((5.0, -3.0), (20.0, 14.0), 25.0)).double()[None]
CLEAN = EXACT(TRUTH)
NOISY = CLEAN + 0.02 * CLEAN.max() * torch.randn(
    CLEAN.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def solved(operator: Dense, y: Tensor, lam: float) -> Tensor:
    """``(B A + lam) x = B y``."""
    system = operator.b @ operator.a + lam * torch.eye(SIZE**2, dtype=torch.float64)
    return torch.linalg.solve(system, operator.b @ y.flatten()).view_as(TRUTH)


@pytest.mark.parametrize("y", [CLEAN, NOISY], ids=["clean", "noisy"])
def test_conjugate_gradients_find_another_solution_close_by(y: Tensor) -> None:
    """They end where ``(B A + lam) x = B y``, though the system is not symmetric, after half as many steps more."""
    lam, steps = 1e-2, []
    found = []
    for operator in (EXACT, INEXACT):
        count: list[int] = []
        x = cgls(
            y, operator, lam=lam, iterations=500, tolerance=1e-10, callback=lambda k, _, seen=count: seen.append(k)
        )
        assert relative(x, solved(operator, y, lam)) < 1e-7
        steps.append(len(count))
        found.append(x)
    assert steps[0] < steps[1] < 1.7 * steps[0]
    assert 1e-5 < relative(found[1], found[0]) < GAP


def test_without_regularisation_the_end_is_not_to_be_trusted() -> None:
    """``B A`` has eigenvalues below zero, so what the exact end would be is far off; a few steps are the same."""
    assert float(torch.linalg.eigvals(INEXACT.b @ INEXACT.a).real.min()) < 0
    few, many = ([cgls(NOISY, operator, iterations=n) for operator in (EXACT, INEXACT)] for n in (8, 200))
    assert relative(few[1], few[0]) < 20 * GAP
    assert relative(many[1], many[0]) > 10 * relative(few[1], few[0])
    errors = [relative(x, TRUTH) for x in few]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


@pytest.mark.parametrize("y", [CLEAN, NOISY], ids=["clean", "noisy"])
def test_admm_settles_as_close_to_the_minimum(y: Tensor) -> None:
    found, changes = [], []
    for operator in (EXACT, INEXACT):
        iterates: list[Tensor] = []
        options = {"rho": 0.1, "lam": 2e-3, "axes": ("y", "x"), "iterations": 200}
        x, _ = admm_tv(y, operator, callback=lambda _, x, seen=iterates: seen.append(x.clone()), **options)
        found.append(x)
        changes.append(relative(iterates[-2], iterates[-1]))
    assert relative(found[1], found[0]) < GAP
    assert changes[1] == pytest.approx(changes[0], rel=0.1) and changes[1] < 1e-4
    errors = [relative(x, TRUTH) for x in found]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)
