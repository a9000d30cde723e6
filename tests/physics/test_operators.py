"""What holds for every linear operator."""

import copy
import pickle
from math import prod

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from tests.physics.registry import INEXACT, OPERATORS, tolerance

pytestmark = pytest.mark.parametrize("name", OPERATORS)


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def pair(op: LinearOperator, lead: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    return random((*lead, *op.domain_shape), op.dtype, 1), random((*lead, *op.range_shape), op.range_dtype, 2)


def inner(u: Tensor, v: Tensor) -> Tensor:
    return (u.conj() * v).sum()


def dense(op: LinearOperator) -> Tensor:
    """The matrix, column by column; a complex range of a real domain as real and imaginary rows."""
    basis = torch.eye(prod(op.domain_shape), dtype=op.dtype).reshape(-1, *op.domain_shape)
    columns = torch.stack([op(b).flatten() for b in basis], 1)
    if columns.is_complex() and not op.domain_complex:
        columns = torch.cat((columns.real, columns.imag))
    return columns


@pytest.mark.parametrize(("dtype", "gap"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_adjoint(name: str, dtype: torch.dtype, gap: float) -> None:
    op = OPERATORS[name]().to(dtype)
    x, y = pair(op, (3,))
    ax, aty = op(x), op.adjoint(y)
    assert ax.shape == (3, *op.range_shape) and ax.dtype == op.range_dtype
    assert aty.shape == (3, *op.domain_shape) and aty.dtype == op.dtype
    left, right = inner(ax, y), inner(x, aty)
    if not op.domain_complex:  # real vectors: the inner product of the range is its real part
        left = left.real
    assert float((left - right).abs() / (ax.norm() * y.norm())) < INEXACT.get(name, gap)


def test_adjoint_gap_is_told_where_there_is_one(name: str) -> None:
    op = OPERATORS[name]()
    if name in INEXACT:
        assert 0 < op.adjoint_gap < INEXACT[name]
    else:
        assert op.adjoint_gap == 0


def test_what_is_no_tensor_of_single_or_double_precision_is_refused(name: str) -> None:
    op = OPERATORS[name]()
    x, y = pair(op)
    for run, given in ((op, x), (op.normal, x), (op.adjoint, y)):
        with pytest.raises(InputError, match=r"single or double precision, not torch\.float16"):
            run(given.real.half())
    for check, given in ((op.check_domain, x), (op.check_range, y)):
        with pytest.raises(InputError, match=r"not torch\.int32; give \.float\(\)"):
            check(given.real.to(torch.int32))
        with pytest.raises(InputError, match="tensors, not a ndarray"):
            check(given.numpy())  # type: ignore[arg-type]


def test_an_empty_stack_is_refused(name: str) -> None:
    op = OPERATORS[name]()
    for run, like in ((op, pair(op)[0]), (op.adjoint, pair(op)[1]), (op.normal, pair(op)[0])):
        with pytest.raises(InputError, match=r"one slice or more, not \(0, "):
            run(like.new_zeros(0, *like.shape))


def test_complex_values_are_two_real_ones(name: str) -> None:
    op = OPERATORS[name]().to(torch.float64)
    if op.domain_complex or op.range_complex:
        pytest.skip("complex anyway")
    u, y = pair(op, (2,))
    v, z = u.flip(0), y.flip(0)
    x = torch.complex(u, v).requires_grad_()
    torch.testing.assert_close(op(x), torch.complex(op(u), op(v)), **tolerance(name))
    torch.testing.assert_close(op.adjoint(torch.complex(y, z)), torch.complex(op.adjoint(y), op.adjoint(z)))
    (gradient,) = torch.autograd.grad(inner(op(x), torch.complex(y, z)).real, x)
    torch.testing.assert_close(gradient, op.adjoint(torch.complex(y, z)))


def test_linear(name: str) -> None:
    op = OPERATORS[name]().to(torch.float64)
    u, v = (random(op.domain_shape, op.dtype, seed) for seed in (3, 4))
    torch.testing.assert_close(op(2.5 * u - v), 2.5 * op(u) - op(v), **tolerance(name))


def test_normal_is_adjoint_after_forward(name: str) -> None:
    op = OPERATORS[name]().to(torch.float64)
    x, _ = pair(op)
    torch.testing.assert_close(op.normal(x), op.adjoint(op(x)))
    op = op.to(torch.float32)
    once, twice = op.normal(x.to(op.dtype)), op.adjoint(op(x.to(op.dtype)))
    assert float((once - twice).norm() / twice.norm()) < 1e-6


def test_gradient_is_the_adjoint(name: str) -> None:
    op = OPERATORS[name]().to(torch.float64)
    x, y = pair(op)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(inner(op(x), y).real, x)
    torch.testing.assert_close(gradient, op.adjoint(y))
    y.requires_grad_()
    (back,) = torch.autograd.grad(inner(op.adjoint(y), x.detach()).real, y)
    torch.testing.assert_close(back, op(x.detach()))


def test_norm(name: str) -> None:
    op = OPERATORS[name]().to(torch.float64)
    exact = float(torch.linalg.matrix_norm(dense(op), 2))
    stop = 1e-6 if name in INEXACT else 1e-9
    assert op.norm(tolerance=stop, max_iterations=5000) == pytest.approx(exact, rel=1e-2)
    assert op.norm() <= exact * (1 + 1e-9 + op.adjoint_gap)


def test_leading_dimensions(name: str) -> None:
    op = OPERATORS[name]()
    x, y = pair(op, (2, 3))
    torch.testing.assert_close(op(x)[1, 2], op(x[1, 2]))
    torch.testing.assert_close(op.adjoint(y)[1, 0], op.adjoint(y[1, 0]))


def test_moves_and_copies(name: str) -> None:
    op = OPERATORS[name]()
    x, _ = pair(op)
    expected = op(x)
    double = op.to(torch.float64)
    assert double.dtype in (torch.float64, torch.complex128)
    torch.testing.assert_close(double(x.to(double.dtype)).to(expected.dtype), expected)
    op = op.to(torch.float32).to("cpu")
    torch.testing.assert_close(copy.deepcopy(op)(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(op))(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(op(x), expected)


def test_state_comes_back(name: str) -> None:
    op, other = OPERATORS[name](), OPERATORS[name]()
    other.load_state_dict(op.state_dict())
    x, _ = pair(op)
    torch.testing.assert_close(other(x), op(x))


def test_wrong_shapes_are_told(name: str) -> None:
    op = OPERATORS[name]()
    if name in ("scaled", "adjoint", "composition", "fourier_real", "multi_coil_real"):
        op = getattr(op, "operator", getattr(op, "inner", None))
    with pytest.raises(InputError, match="takes"):
        op(torch.zeros(*op.domain_shape[:-1], op.domain_shape[-1] + 1))
    with pytest.raises(InputError, match="measures"):
        op.adjoint(torch.zeros(*op.range_shape[:-1], op.range_shape[-1] + 1))


def test_adjoint_operator_twice_is_itself(name: str) -> None:
    op = OPERATORS[name]()
    x, _ = pair(op)
    torch.testing.assert_close(op.H.H(x), op(x))
    assert op.H.domain_shape == op.range_shape
