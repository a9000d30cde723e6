"""Total variation with ADMM: the classical baseline, and the step that couples slices in the samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.difference import AXES, difference, difference_adjoint
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.solvers.conjugate_gradient import conjugate_gradient


@dataclass
class ADMMState:
    """Split variable and scaled dual variable, one volume each an axis; what "variable sharing" keeps."""

    z: tuple[Tensor, ...]
    w: tuple[Tensor, ...]


@torch.no_grad()
def admm_tv(
    y: Tensor | None,
    operator: LinearOperator,
    *,
    rho: float,
    lam: float,
    iterations: int = 1,
    cg_iterations: int = 1,
    axes: Sequence[str] = ("z",),
    isotropic: bool = False,
    x0: Tensor | None = None,
    state: ADMMState | None = None,
    rhs: Tensor | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, ADMMState]:
    """Minimise ``1/2 ||A x - y||^2 + lam ||D x||_1`` over volumes.

    Boyd et al. 2011, section 3.1.1 (scaled form); one iteration with ``cg_iterations=1``, ``axes=("z",)`` and a kept
    ``state`` is the step of DiffusionMBIR (Chung et al. 2023, algorithm 1). Differences have a Neumann boundary.

    Args:
        y: measurement; not needed where ``rhs`` is given.
        operator: ``A``, used as it is; bring it to unit norm for rho and lam to mean the same in every geometry.
        rho: weight of the augmented term, relative to ``||A^H A||``.
        lam: weight of total variation; the soft threshold is ``lam / rho``. At 0 there is no total variation and no
            splitting: what remains are ``iterations * cg_iterations`` steps on ``A^H A x = A^H y``.
        iterations: outer iterations.
        cg_iterations: conjugate gradient steps in each, started from the last iterate.
        axes: which differences, of ``"z"``, ``"y"``, ``"x"``.
        isotropic: shrink the vector of differences at each voxel, instead of each difference on its own.
        x0: start ``(Z, Y, X)``; ``A^H y`` by default.
        state: split and dual variables of an earlier call; zero by default. Not written to.
        rhs: ``A^H y`` where it is known already.
        callback: called after each iteration with its number and the iterate.

    Returns:
        The volume ``(Z, Y, X)`` and the state to go on with.

    Raises:
        InputError: rho not positive, lam negative, unknown axes, a measurement of another shape.
    """
    if not rho > 0 or not lam >= 0:
        raise InputError(f"admm_tv: rho is {rho:g} and lam {lam:g}; rho must be positive, lam at least 0")
    if not axes or any(axis not in AXES for axis in axes):
        raise InputError(f"admm_tv: axes are {tuple(axes)}; give some of z, y, x")
    if rhs is None:
        if y is None:
            raise InputError("admm_tv: give the measurement y, or rhs = A^H y")
        operator.check_range(y)
        rhs = operator.adjoint(y)
    x = rhs if x0 is None else x0
    if lam == 0:
        for k in range(iterations):
            x = conjugate_gradient(operator.normal, rhs, x, max_iterations=cg_iterations)
            if callback is not None:
                callback(k + 1, x)
        return x, state if state is not None else ADMMState((), ())
    dims = [AXES[axis] for axis in axes]
    z = state.z if state is not None else tuple(torch.zeros_like(x) for _ in dims)
    w = state.w if state is not None else tuple(torch.zeros_like(x) for _ in dims)

    def normal(v: Tensor) -> Tensor:
        out = operator.normal(v)
        for dim in dims:
            out = out.add_(difference_adjoint(difference(v, dim), dim), alpha=rho)
        return out

    for k in range(iterations):
        b = rhs.clone()
        for dim, z_d, w_d in zip(dims, z, w, strict=True):
            b.add_(difference_adjoint(z_d - w_d, dim), alpha=rho)
        x = conjugate_gradient(normal, b, x, max_iterations=cg_iterations)
        v = [difference(x, dim).add_(w_d) for dim, w_d in zip(dims, w, strict=True)]
        z = shrink(v, lam / rho, isotropic)
        w = tuple(v_d.sub_(z_d) for v_d, z_d in zip(v, z, strict=True))
        if callback is not None:
            callback(k + 1, x)
    return x, ADMMState(z, w)


def shrink(v: Sequence[Tensor], threshold: float, isotropic: bool = False) -> tuple[Tensor, ...]:
    """Soft threshold of differences, real or complex: each by its magnitude, or all by their joint one."""
    if isotropic:
        magnitude = torch.stack([d.abs().square() for d in v]).sum(0).sqrt_()
        factor = (1 - threshold / magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny)).clamp_min_(0)
        return tuple(d * factor for d in v)
    if v[0].is_complex():
        return tuple(d * (1 - threshold / d.abs().clamp_min(torch.finfo(d.real.dtype).tiny)).clamp_min(0) for d in v)
    return tuple(torch.nn.functional.softshrink(d, threshold) for d in v)
