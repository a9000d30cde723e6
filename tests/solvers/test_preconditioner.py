"""Circulant preconditioning against dense algebra."""

from __future__ import annotations

import pytest
import torch

from lightning_mbir import ConeBeam, FanBeam, ParallelBeam
from lightning_mbir.errors import InputError
from lightning_mbir.physics import FourierSampling, LinearOperator, RealDomain, Weighted
from lightning_mbir.solvers import circulant, conjugate_gradient


def beam(views: int = 12, n: int = 16, turn: float = 90.0) -> LinearOperator:
    return ParallelBeam(image_size=n, angles=[turn * k / views for k in range(views)], pixel_size=1.0).double()


def dense(apply: object, n: int = 16) -> torch.Tensor:
    eye = torch.eye(n * n, dtype=torch.float64).reshape(n * n, n, n)
    return apply(eye).reshape(n * n, n * n).T  # type: ignore[operator]


def test_it_is_the_power_of_a_matrix_that_is_its_own_adjoint_and_positive() -> None:
    operator = beam()
    half, whole = dense(circulant(operator, 0.5)), dense(circulant(operator, 1.0))
    torch.testing.assert_close(half, half.T)
    torch.testing.assert_close(half @ half, whole)
    assert float(torch.linalg.eigvalsh(whole).min()) > 0


def test_of_what_is_a_circulant_matrix_it_is_the_inverse() -> None:
    mask = torch.ones(16, 16, dtype=torch.bool)
    operator = RealDomain(FourierSampling(mask)).double()
    x = torch.randn(2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(circulant(operator, 1.0)(operator.normal(x)) * 1.01, x)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_conjugate_gradients_get_to_the_dense_solution_in_fewer_steps(power: float) -> None:
    operator = beam(24, turn=180.0)
    x = torch.randn(1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def normal(p: torch.Tensor) -> torch.Tensor:
        return operator.normal(p) + 0.01 * operator.norm() ** 2 * p

    b, apply = normal(x), circulant(operator, power)
    matrix = dense(normal)
    torch.testing.assert_close(torch.linalg.solve(matrix, b.flatten()).reshape(x.shape), x)
    plain, better = (
        float((conjugate_gradient(normal, b, max_iterations=8, precondition=p) - x).norm()) for p in (None, apply)
    )
    assert better < 0.7 * plain
    torch.testing.assert_close(conjugate_gradient(normal, b, max_iterations=200, precondition=apply), x)


def test_the_identity_changes_nothing() -> None:
    operator = beam()
    b = operator.normal(torch.rand(3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    plain = conjugate_gradient(operator.normal, b, max_iterations=6)
    assert torch.equal(conjugate_gradient(operator.normal, b, max_iterations=6, precondition=torch.clone), plain)


def test_each_slice_is_taken_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = circulant(beam(), 0.75)
    r = torch.rand(5, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = apply(r)
    monkeypatch.setattr("lightning_mbir.solvers.preconditioner.AT_ONCE", 1)
    torch.testing.assert_close(apply(r), whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(apply(r[2:3]), whole[2:3], rtol=1e-12, atol=0)


def test_complex_slices_are_as_their_parts() -> None:
    operator = FourierSampling(torch.ones(16, 16, dtype=torch.bool)).double()
    r = torch.randn(2, 16, 16, dtype=torch.complex128, generator=torch.Generator().manual_seed(4))
    apply = circulant(operator, 0.5)
    parts = torch.complex(*(torch.real(apply(part.to(r.dtype))) for part in (r.real, r.imag)))
    torch.testing.assert_close(apply(r), parts)


def test_weights_by_slice_and_a_fan_are_taken_and_a_cone_is_refused() -> None:
    fan = FanBeam(
        image_size=16, angles=[float(k) for k in range(0, 360, 30)], pixel_size=1.0, source_distance=50.0,
        detector_distance=50.0,
    )  # fmt: skip
    r = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(5))
    weighted = Weighted(fan, torch.ones(3, *fan.range_shape) * torch.tensor([0.0, 1.0, 2.0])[:, None, None])
    torch.testing.assert_close(circulant(weighted, 0.5)(r), circulant(fan, 0.5)(r))
    cone = ConeBeam((4, 16, 16), [0.0, 90.0], pixel_size=1.0, source_distance=50.0, detector_distance=50.0)
    with pytest.raises(InputError, match="ConeBeam measures slices together"):
        circulant(cone, 0.5)
