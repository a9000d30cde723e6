"""Fewer, virtual coils that hold nearly all of what many receive coils measured."""

from __future__ import annotations

import torch
from jaxtyping import Complex
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds


@torch.no_grad()
def coil_compression(
    kspace: Complex[Tensor, "*batch coils y x"], energy: float
) -> tuple[Complex[Tensor, "virtual coils"], float]:
    """The matrix that turns coils into the fewest virtual ones that hold a share of the energy.

    Buehrer et al., "Array compression for MRI with large coil arrays", MRM 57, 2007, and Huang et al., "A software
    channel compression technique for faster reconstruction with many channels", MRM 26, 2008: the first left singular
    vectors of all samples, one row a coil, conjugated. Its rows are orthonormal, so white noise stays white with the
    same standard deviation, and one matrix for all slices keeps the operator the same in each.

    Args:
        kspace: ``(..., coils, Y, X)``, zeros where nothing was measured.
        energy: share of the sum of squares that is kept at least, above 0 and up to 1.

    Returns:
        ``(virtual, coils)`` complex, and the share that is kept.

    Raises:
        InputError: a share that is none; k-space that is zero or not finite.
    """
    check_kinds(coil_compression, locals())
    if not 0 < energy <= 1:
        raise InputError(f"--data.coil_energy {energy:g}: give a share above 0 and up to 1, such as 0.99")
    samples = kspace.movedim(-3, 0).flatten(1).to(torch.complex128)
    gram = samples @ samples.mH
    if not bool(torch.isfinite(torch.view_as_real(gram)).all()) or not bool(gram.any()):
        raise InputError("k-space is zero, or not finite; there are no coils to compress")
    values, vectors = torch.linalg.eigh(gram)
    shares = values.clamp_min(0).flip(0).cumsum(0) / values.clamp_min(0).sum()
    count = min(len(shares), int((shares < energy - 1e-12).sum()) + 1)
    return vectors.flip(1)[:, :count].mH.to(kspace.dtype).contiguous(), float(shares[count - 1])


def compressed(
    matrix: Complex[Tensor, "virtual coils"], values: Complex[Tensor, "*batch coils y x"]
) -> Complex[Tensor, "*batch virtual y x"]:
    """K-space or maps of the virtual coils.

    Args:
        matrix: of ``coil_compression``.
        values: ``(..., coils, Y, X)``, k-space or coil maps.
    """
    return torch.einsum("vc,...cyx->...vyx", matrix.to(values), values)
