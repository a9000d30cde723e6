"""Linear operators ``y = A x`` with exact adjoints, and sampling masks."""

from lightning_mbir.physics.cone_beam import ConeBeam
from lightning_mbir.physics.difference import Difference, SliceDifference
from lightning_mbir.physics.fan_beam import FanBeam
from lightning_mbir.physics.fourier import FourierSampling, RealDomain
from lightning_mbir.physics.masks import MASKS, make_mask
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.physics.parallel_beam import ParallelBeam

__all__ = [
    "MASKS",
    "ConeBeam",
    "Difference",
    "FanBeam",
    "FourierSampling",
    "LinearOperator",
    "ParallelBeam",
    "RealDomain",
    "SliceDifference",
    "make_mask",
]
