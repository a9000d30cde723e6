"""The direct inversion of MRI."""

from __future__ import annotations

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.methods.method import method
from lightning_mbir.methods.problem import Problem


@method(modalities=("mri",), weighted=False)
def zero_filled(p: Problem) -> Tensor:
    """The inverse Fourier transform of k-space with zeros where nothing was measured: ``A^H y``."""
    return solvers.zero_filled(p.y, p.operator)
