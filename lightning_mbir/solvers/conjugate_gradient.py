"""Conjugate gradients for Hermitian positive semidefinite systems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.slabs import own_inner, total


@torch.no_grad()
def conjugate_gradient(
    normal: Callable[[Tensor], Tensor],
    b: Num[Tensor, "*shape"],
    x0: Tensor | None = None,
    *,
    max_iterations: int = 10,
    tolerance: float = 0.0,
    batch_dims: int = 0,
    curvature: Callable[[Tensor], Tensor] | None = None,
    made_of: Num[Tensor, "*shape"] | None = None,
    precondition: Callable[[Tensor], Tensor] | None = None,
    overwrite: bool = False,
    callback: Callable[[int, Tensor, float], None] | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "*shape"]:
    """Solve ``N x = b`` (Hestenes and Stiefel 1952).

    Args:
        normal: ``N``, Hermitian and positive semidefinite, on tensors of ``b``'s shape. What it gives is not written
            to, and not used any more when it is called again.
        b: right-hand side, real or complex.
        x0: start; zero by default. Never written to.
        max_iterations: steps at most.
        tolerance: stop where ``||r|| <= tolerance ||b||``; a system of the batch that got there stays as it is. At the
            least ten times the rounding of ``b`` or ``N x0``, whichever is larger: what remains there is noise, which
            the null space of ``N`` would blow up.
        batch_dims: leading dimensions that number independent systems.
        curvature: ``<p, N p>``, which is all that the last step needs, where it takes less than ``N p``.
        made_of: what ``b`` is the difference of, or something as large: its rounding is what ``b`` is wrong by.
        precondition: ``M^-1``, Hermitian and positive definite, near to ``N^-1`` up to a factor (Saad, "Iterative
            methods for sparse linear systems", 2003, algorithm 9.1); the identity by default.
        overwrite: work in the memory of ``b``, which saves a volume.
        callback: called after each step with the step, the iterate, and the largest relative residual.
        checkpoint: keeps the state between steps, and gives it back.

    Returns:
        The iterate, of ``b``'s shape.

    Raises:
        InputError: fewer than 0 iterations, or a start of another shape.
    """
    if max_iterations < 0:
        raise InputError(f"conjugate_gradient: max_iterations is {max_iterations}; give 0 or more")
    if x0 is not None and x0.shape != b.shape:
        raise InputError(f"conjugate_gradient: x0 is {tuple(x0.shape)}, the right-hand side {tuple(b.shape)}")
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    floor, bb = 10 * torch.finfo(b.dtype).eps, inner(b, b, batch_dims)
    stop = max(tolerance, floor) ** 2 * bb
    if made_of is not None:
        stop = torch.maximum(stop, torch.finfo(b.dtype).eps ** 2 * inner(made_of, made_of, batch_dims))
    if x0 is None:
        r = b if overwrite else b.clone()
    else:
        q = normal(x)
        r = torch.sub(b, q, out=b if overwrite else None)
        stop = torch.maximum(stop, floor**2 * inner(q, q, batch_dims))
    rr = inner(r, r, batch_dims)
    p = r.clone() if precondition is None else precondition(r)
    rz = rr if precondition is None else inner(r, p, batch_dims)
    done, x, r, p, rr, rz = checkpoint.resume(x, r, p, rr, rz)
    for k in range(done, max_iterations):
        checkpoint.reached(k, x, r, p, rr, rz)
        active = rr > stop
        if not bool(active.any()):
            break
        last = k + 1 == max_iterations and callback is None
        if last and curvature is not None:
            pq = curvature(p)
        else:
            q = normal(p)
            pq = inner(p, q, batch_dims)
        # A system that is solved, or has nothing along p, takes a step of zero.
        alpha = torch.where(active & (pq > 0), rz / torch.where(pq > 0, pq, 1), 0)
        x.addcmul_(alpha.to(x.dtype), p)
        if last:
            break
        r.addcmul_(alpha.to(r.dtype), q, value=-1)
        del q  # before another volume is made
        rr_new = inner(r, r, batch_dims)
        z, rz_new = r, rr_new
        if precondition is not None:
            z = precondition(r)
            rz_new = inner(r, z, batch_dims)
        beta = torch.where(active & (rz > 0), rz_new / torch.where(rz > 0, rz, 1), 0)
        p.mul_(beta.to(p.dtype)).add_(z)
        del z
        rr, rz = torch.where(active, rr_new, rr), torch.where(active, rz_new, rz)
        if callback is not None:
            callback(k + 1, x, float((rr / torch.where(bb > 0, bb, 1)).max()) ** 0.5)
    return x


def inner(u: Num[Tensor, "*shape"], v: Num[Tensor, "*shape"], batch_dims: int = 0) -> Float[Tensor, "*systems"]:
    """Real part of ``<u, v>``, one number a system: what CG needs, its ``N`` being Hermitian.

    Without batch dimensions a number, of the whole volume where several processes have slabs of it, whose sum takes no
    temporary; else with dimensions of length one for the others.
    """
    if batch_dims > 0:
        product = torch.real(u.conj() * v) if u.is_complex() else u * v
        return product.sum(tuple(range(batch_dims, u.ndim)), keepdim=True)
    return total(own_inner(u, v)).to(u.real.dtype)
