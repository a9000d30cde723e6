"""What needs no learning: conjugate gradients, ADMM-TV, l1 wavelets, FBP, FDK, SIRT, zero filling."""

from lightning_mbir.solvers.admm_tv import ADMMState, admm_tv
from lightning_mbir.solvers.cgls import cgls
from lightning_mbir.solvers.conjugate_gradient import conjugate_gradient
from lightning_mbir.solvers.fbp import fbp
from lightning_mbir.solvers.fdk import fdk
from lightning_mbir.solvers.l1_wavelet import Wavelets, l1_wavelet
from lightning_mbir.solvers.preconditioner import circulant
from lightning_mbir.solvers.sirt import sirt
from lightning_mbir.solvers.zero_filled import zero_filled

__all__ = [
    "ADMMState",
    "Wavelets",
    "admm_tv",
    "cgls",
    "circulant",
    "conjugate_gradient",
    "fbp",
    "fdk",
    "l1_wavelet",
    "sirt",
    "zero_filled",
]
