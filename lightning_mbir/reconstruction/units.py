"""The one place where the unit of a measurement is set in relation to the prior's."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator


@torch.no_grad()
def mri_scale(y: Tensor, operator: LinearOperator) -> float:
    """Factor of an MRI volume over the same volume in the prior's unit, estimated from the measurement alone.

    Priors are trained on volumes whose 99.5th percentile is 1, with intensities varied by a fifth. Here it is
    that of the zero-filled magnitude, which comes out too low, since the blur takes the peaks off thin bright
    structures. Measured on brain volumes of 128 x 128 at acceleration 8 with 1D masks: 0.9 of the true one for
    FLAIR, 0.8 to 0.9 for skull-stripped T1, 0.7 for T2, 0.6 for T1 with bright scalp fat (which is beyond what
    the priors were varied by); 0.75 to 0.98 with Poisson-disc masks.

    Args:
        y: ``(Z, Y, X)`` k-space.
        operator: the Fourier sampling.

    Raises:
        InputError: k-space that is zero.
    """
    scale = magnitude_percentile(operator.adjoint(y))
    if scale <= 0:
        raise InputError("the measurement is zero; there is nothing to reconstruct")
    return scale
