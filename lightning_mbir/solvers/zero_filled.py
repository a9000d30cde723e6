"""The image of undersampled k-space with zeros where nothing was measured."""

from __future__ import annotations

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.physics.operator import LinearOperator


@torch.no_grad()
def zero_filled(y: Tensor, operator: LinearOperator) -> Num[Tensor, "... y x"]:
    """``A^H y``: the image ``(..., Y, X)`` of least norm for ``y`` of a Fourier sampling ``operator``.

    Raises:
        InputError: a measurement of another shape.
    """
    operator.check_range(y)
    return operator.adjoint(y)
