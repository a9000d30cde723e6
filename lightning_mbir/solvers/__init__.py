"""What needs no learning: conjugate gradients, ADMM-TV, FBP, FDK, SIRT, zero filling."""

from lightning_mbir.solvers.admm_tv import ADMMState, admm_tv
from lightning_mbir.solvers.conjugate_gradient import conjugate_gradient
from lightning_mbir.solvers.fbp import fbp
from lightning_mbir.solvers.fdk import fdk
from lightning_mbir.solvers.sirt import sirt
from lightning_mbir.solvers.zero_filled import zero_filled

__all__ = ["ADMMState", "admm_tv", "conjugate_gradient", "fbp", "fdk", "sirt", "zero_filled"]
