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

    Priors are trained on volumes whose 99.5th percentile is 1. Here it is that of the zero-filled magnitude,
    which is within a tenth of the true one, since the centre of k-space is sampled fully (measured in
    docs/method.md); priors see intensities varied by a fifth, so they do not mind.

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
