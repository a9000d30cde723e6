"""Total variation with ADMM: the classical baseline, and the step that couples slices in the samplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.physics.difference import AXES, difference, difference_adjoint
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.slabs import Index, Widened, own_inner, total, widened
from lightning_mbir.solvers.conjugate_gradient import conjugate_gradient, inner

SLAB = {"cpu": 2**20}
"""Voxels worked on at a time on a device: on a CPU a slab and what is made of it stay in the cache."""

_ALL = slice(None)


@dataclass
class ADMMState:
    """What "variable sharing" keeps: one volume ``v = D x + w`` an axis, before the split and dual updates.

    These are ``z = shrink(v, threshold)`` and ``w = v - z``, so both follow from ``v``; ``isotropic`` tells whether
    that is the shrinkage of vectors. Without any ``v`` there was no step yet.
    """

    v: tuple[Num[Tensor, "*shape"], ...] = ()
    threshold: float = 0.0
    isotropic: bool = False

    @property
    def w(self) -> tuple[Num[Tensor, "*shape"], ...]:
        """Scaled dual variable."""
        return project(self.v, self.threshold, self.isotropic)

    @property
    def z(self) -> tuple[Num[Tensor, "*shape"], ...]:
        """Split variable."""
        return shrink(self.v, self.threshold, self.isotropic)


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
    x0: Num[Tensor, "*shape"] | None = None,
    pull: float = 0.0,
    start: Num[Tensor, "*shape"] | None = None,
    precondition: Callable[[Tensor], Tensor] | None = None,
    state: ADMMState | None = None,
    rhs: Num[Tensor, "*shape"] | None = None,
    overwrite_state: bool = False,
    callback: Callable[[int, Tensor], None] | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> tuple[Num[Tensor, "*shape"], ADMMState]:
    """Minimise ``1/2 ||A x - y||^2 + pull/2 ||x - x0||^2 + lam ||D x||_1`` over volumes.

    Boyd et al. 2011, section 3.1.1 (scaled form); one iteration with ``cg_iterations=1``, ``axes=("z",)`` and a kept
    ``state`` is the step of DiffusionMBIR (Chung et al. 2023, algorithm 1). Differences have a Neumann boundary.

    Args:
        y: measurement; not needed where ``rhs`` is given.
        operator: ``A``, used as it is; bring it to unit norm for rho and lam to mean the same in every geometry.
        rho: weight of the augmented term, relative to ``||A^H A||``.
        lam: weight of total variation; the soft threshold is ``lam / rho``. At 0 there is no total variation and no
            splitting: what remains are ``cg_iterations`` steps on ``(A^H A + pull) x = A^H y + pull x0`` an iteration.
        iterations: outer iterations.
        cg_iterations: conjugate gradient steps in each, started from the last iterate.
        axes: which differences, of ``"z"``, ``"y"``, ``"x"``.
        isotropic: shrink the vector of differences at each voxel, instead of each difference on its own.
        x0: start ``(Z, Y, X)``; ``A^H y`` by default.
        pull: weight of staying at ``x0``, relative to ``||A^H A||``. At 0 only the number of conjugate gradient
            steps decides what of it is left where the measurement tells nothing.
        start: the first iterate, where that is not ``x0``.
        precondition: of conjugate gradients, see there.
        state: split and dual variables of an earlier call; zero by default. Not written to.
        rhs: ``A^H y`` where it is known already.
        overwrite_state: put the new state where the old one is, which saves a volume an axis.
        callback: called after each iteration with its number and the iterate.
        checkpoint: keeps the state between iterations, and gives it back.

    Returns:
        The volume ``(Z, Y, X)`` and the state to go on with.

    Raises:
        InputError: rho not positive, lam or pull negative, unknown axes, a measurement of another shape.
    """
    if not rho > 0 or not lam >= 0 or not pull >= 0:
        raise InputError(
            f"admm_tv: rho is {rho:g}, lam {lam:g} and pull {pull:g}; rho must be positive, the others at least 0"
        )
    if not axes or any(axis not in AXES for axis in axes):
        raise InputError(f"admm_tv: axes are {tuple(axes)}; give some of z, y, x")
    if rhs is None:
        if y is None:
            raise InputError("admm_tv: give the measurement y, or rhs = A^H y")
        operator.check_range(y)
        rhs = operator.adjoint(y)
    x = rhs if x0 is None else x0
    center = x  # of the pull
    x = x if start is None else start
    shared = ADMMState() if state is None else state
    if lam == 0:
        target = torch.add(rhs, center, alpha=pull) if pull else rhs
        done, x = checkpoint.resume(x)
        for k in range(done, iterations):
            checkpoint.reached(k, x)
            normal = partial(pulled_normal, operator, pull)
            x = conjugate_gradient(normal, target, x, max_iterations=cg_iterations, precondition=precondition)
            if callback is not None:
                callback(k + 1, x)
        return x, shared
    step = _Step(operator, rho, pull, [AXES[axis] for axis in axes])
    if not shared.v:
        shared, overwrite_state = ADMMState(tuple(torch.zeros_like(x) for _ in axes), lam / rho, isotropic), True
    done, x, shared = checkpoint.resume(x, shared)
    for k in range(done, iterations):
        checkpoint.reached(k, x, shared)
        # x: conjugate gradients on N x = A^H y + pull x0 + rho D^H (z - w), from the last x, that is on N dx = r from
        # zero.
        r = step.residual(x, rhs, center, shared)
        if cg_iterations == 1 and precondition is None:  # conjugate_gradient(...) + x without its copies of r
            rr, curvature = inner(r, r), step.curvature(r)
            alpha = float(rr / curvature) if curvature > 0 else 0.0
            x = torch.add(x, r, alpha=alpha, out=r)
        else:
            # Without a buffer there is room for what preconditioning makes.
            normal = partial(step.normal, out=torch.empty_like(r) if precondition is None else None)
            solve = partial(conjugate_gradient, curvature=step.curvature, made_of=x, precondition=precondition)
            x = solve(normal, r, max_iterations=cg_iterations, overwrite=True).add_(x)
        # v = D x + w, from which z and w follow.
        v = shared.v if overwrite_state else tuple(torch.empty_like(v_d) for v_d in shared.v)
        step.splitting(x, shared, out=v)
        shared, overwrite_state = ADMMState(v, lam / rho, isotropic), True
        if callback is not None:
            callback(k + 1, x)
    return x, shared


class _Step:
    """The sums over data and differences in one ADMM step, slab by slab along z.

    ``N = A^H A + pull + rho D^H D``. Differences at the edges of a slab take one slice more on either side, which at
    the ends of what this process has are those of its neighbours.
    """

    def __init__(self, operator: LinearOperator, rho: float, pull: float, dims: list[int]) -> None:
        self.operator, self.rho, self.pull, self.dims = operator, rho, pull, dims

    def residual(self, x: Tensor, rhs: Tensor, center: Tensor, state: ADMMState) -> Tensor:
        """``A^H y + pull x0 + rho D^H (z - w) - N x``."""
        r = torch.empty_like(rhs)
        around, v_around = self._around(x), [self._around(v_d, above=False) for v_d in state.v]
        for own, wide, crop in self._slabs(around):
            target = torch.add(rhs[own], center[own], alpha=self.pull) if self.pull else rhs[own]
            torch.sub(target, pulled_normal(self.operator, self.pull, x[own]), out=r[own])
            v = [v_d[wide] for v_d in v_around]
            w = project(v, state.threshold, state.isotropic)
            for dim, v_d, w_d in zip(self.dims, v, w, strict=True):
                # z - w - D x, where z = v - w.
                u = torch.sub(v_d, w_d, alpha=2, out=w_d).sub_(difference(around[wide], dim))
                r[own].add_(difference_adjoint(u, dim)[crop], alpha=self.rho)
        return r

    def normal(self, p: Tensor, out: Tensor | None = None) -> Tensor:
        """``N p``, into ``out``."""
        out = torch.empty_like(p) if out is None else out
        around = self._around(p)
        for own, wide, crop in self._slabs(around):
            out[own] = pulled_normal(self.operator, self.pull, p[own])
            for dim in self.dims:
                out[own].add_(difference_adjoint(difference(around[wide], dim), dim)[crop], alpha=self.rho)
        return out

    def curvature(self, p: Tensor) -> Tensor:
        """``<p, N p> = ||A p||^2 + pull ||p||^2 + rho ||D p||^2``, which takes no adjoint, or for the first less than
        that."""
        found = torch.zeros((), dtype=torch.float64, device=p.device)
        around = self._around(p, below=False)
        for own, wide, crop in self._slabs(around):
            if self.operator.normal_is_cheaper:
                found += own_inner(p[own], self.operator.normal(p[own]))
            else:
                q = self.operator(p[own])
                found += own_inner(q, q)
            if self.pull:
                found += self.pull * own_inner(p[own], p[own])
            for dim in self.dims:
                d = difference(around[wide], dim)[crop]
                found += self.rho * own_inner(d, d)
        return total(found).to(p.real.dtype)

    def splitting(self, x: Tensor, state: ADMMState, out: tuple[Tensor, ...]) -> None:
        """``v = D x + w`` into ``out``, which may be the volumes of the state."""
        around = self._around(x, below=False)
        for own, wide, crop in self._slabs(around):
            w = project([v_d[own] for v_d in state.v], state.threshold, state.isotropic)
            for dim, w_d, out_d in zip(self.dims, w, out, strict=True):
                torch.add(w_d, difference(around[wide], dim)[crop], out=out_d[own])

    def _around(self, x: Tensor, below: bool = True, above: bool = True) -> Widened:
        """``x`` with the slices of neighbouring processes, where z is among the axes."""
        return widened(x, below, above) if AXES["z"] in self.dims else Widened(x)

    def _slabs(self, x: Widened) -> Iterator[tuple[Index, Index, Index]]:
        """Slices of a slab, those with their neighbours, and the former among the latter."""
        if x.x.ndim < 3:
            yield (...,), (...,), (...,)
            return
        n = x.x.shape[-3]
        size = n
        if self.operator.separable:
            size = max(SLAB.get(x.x.device.type, 2**24) * n // x.x.numel(), self.operator.at_once)
        for start in range(0, n, size):
            stop = min(start + size, n)
            first, last = max(start - 1, x.lowest), min(stop + 1, x.highest)
            own, wide, crop = slice(start, stop), slice(first, last), slice(start - first, stop - first)
            yield (..., own, _ALL, _ALL), (..., wide, _ALL, _ALL), (..., crop, _ALL, _ALL)


def pulled_normal(operator: LinearOperator, pull: float, x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """``(A^H A + pull) x``."""
    return operator.normal(x).add(x, alpha=pull) if pull else operator.normal(x)


def project(
    v: Sequence[Num[Tensor, "*shape"]], radius: float, isotropic: bool = False
) -> tuple[Num[Tensor, "*shape"], ...]:
    """Onto the ball of a radius: differences, real or complex, each by its magnitude, or all by their joint one."""
    if not isotropic and not v[0].is_complex():
        return tuple(d.clamp(-radius, radius) for d in v)
    radius = max(radius, torch.finfo(v[0].dtype).tiny)
    squares = [_square(d) for d in v]
    if isotropic:
        squares = [sum(squares[1:], squares[0])] * len(v)
    return tuple(d * (radius / square.sqrt().clamp_min_(radius)) for d, square in zip(v, squares, strict=True))


def shrink(
    v: Sequence[Num[Tensor, "*shape"]], threshold: float, isotropic: bool = False
) -> tuple[Num[Tensor, "*shape"], ...]:
    """Soft threshold of differences: what the projection takes away."""
    return tuple(d - w for d, w in zip(v, project(v, threshold, isotropic), strict=True))


def _square(d: Tensor) -> Tensor:
    """``|d|^2``; for complex numbers without the slow, overflow-proof ``abs``."""
    return (d.real * d.real).addcmul_(d.imag, d.imag) if d.is_complex() else d.square()
