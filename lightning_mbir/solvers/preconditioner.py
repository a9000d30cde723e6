"""Preconditioning of conjugate gradients by a circulant approximation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from lightning_mbir.slabs import total

FLOOR = 0.01
"""Of the spectrum, over its largest value: what is measured less than that is not lifted any more."""
AT_ONCE = 2**16
"""Pixels that pass a transform together: little beside a volume."""


@torch.no_grad()
def circulant(operator: LinearOperator, power: float) -> Callable[[Num[Tensor, "*z y x"]], Num[Tensor, "*z y x"]]:
    """``C^-power`` slice by slice, with ``C`` the circulant matrix that does to a point in the middle of a slice what
    ``A^H A`` does (Chan, SIAM J. Sci. Stat. Comput. 9, 1988; of tomography Fessler and Booth, IEEE TIP 8, 1999).

    A power of 1 approximates the inverse; one below keeps more of how conjugate gradients that are stopped early favour
    what was measured well.

    Args:
        operator: ``A``; of one that differs from slice to slice the mean over these.
        power: above 0.

    Raises:
        InputError: an operator that measures slices together.
    """
    if operator.of_slices(0, 1) is None:
        raise InputError(f"{type(operator).__name__} measures slices together, which a preconditioner of slices lacks")
    rows, columns = operator.domain_shape[-2:]
    points = torch.zeros(operator.domain_shape, dtype=operator.dtype, device=operator.device)
    points[..., rows // 2, columns // 2] = 1
    response = operator.normal(points).reshape(-1, rows, columns).sum(0)
    if not operator.separable:  # each process has some of the slices
        response = total(response)
    spectrum = torch.fft.fft2(torch.fft.ifftshift(response)).real.clamp_min(0)
    kernel = (spectrum / spectrum.max() + FLOOR) ** -power
    half = kernel[:, : columns // 2 + 1]

    def apply(r: Tensor) -> Tensor:
        out = torch.empty_like(r)
        size = max(1, AT_ONCE // (rows * columns))
        for part, done in zip(torch.split(r, size), torch.split(out, size), strict=True):
            if r.is_complex():
                done.copy_(torch.fft.ifft2(torch.fft.fft2(part) * kernel))
            else:
                done.copy_(torch.fft.irfft2(torch.fft.rfft2(part) * half, s=(rows, columns)))
        return out

    return apply
