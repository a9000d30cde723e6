"""Linear operators ``y = A x`` with exact adjoints, sampling masks and trajectories, coil maps, and noise."""

from lightning_mbir.flags import MASKS
from lightning_mbir.physics.ct.cone_beam import ConeBeam
from lightning_mbir.physics.ct.fan_beam import FanBeam
from lightning_mbir.physics.ct.matrix_operator import MatrixOperator
from lightning_mbir.physics.ct.modular_beam import ModularBeam
from lightning_mbir.physics.ct.parallel_beam import ParallelBeam
from lightning_mbir.physics.ct.trajectory import helical_trajectory
from lightning_mbir.physics.difference import Difference, SliceDifference
from lightning_mbir.physics.in_slabs import InSlabs
from lightning_mbir.physics.mri.cartesian_3d import CartesianFourier3D
from lightning_mbir.physics.mri.coil_compression import coil_compression, compressed
from lightning_mbir.physics.mri.coil_maps import estimate_coil_maps, loop_coil_maps
from lightning_mbir.physics.mri.density_compensation import density_compensation
from lightning_mbir.physics.mri.fourier import FourierSampling, RealDomain
from lightning_mbir.physics.mri.masks import make_mask
from lightning_mbir.physics.mri.multi_coil import MultiCoilFourier
from lightning_mbir.physics.mri.non_cartesian import NonCartesianFourier, radial_trajectory, spiral_trajectory
from lightning_mbir.physics.mri.off_resonance import OffResonance
from lightning_mbir.physics.mri.partial_fourier import complete_partial_fourier
from lightning_mbir.physics.noise import NoisySinogram, complex_gaussian, noise_sigma, poisson_counts
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.physics.weighted import Weighted

__all__ = [
    "MASKS",
    "CartesianFourier3D",
    "ConeBeam",
    "Difference",
    "FanBeam",
    "FourierSampling",
    "InSlabs",
    "LinearOperator",
    "MatrixOperator",
    "ModularBeam",
    "MultiCoilFourier",
    "NoisySinogram",
    "NonCartesianFourier",
    "OffResonance",
    "ParallelBeam",
    "RealDomain",
    "SliceDifference",
    "Weighted",
    "coil_compression",
    "complete_partial_fourier",
    "complex_gaussian",
    "compressed",
    "density_compensation",
    "estimate_coil_maps",
    "helical_trajectory",
    "loop_coil_maps",
    "make_mask",
    "noise_sigma",
    "poisson_counts",
    "radial_trajectory",
    "spiral_trajectory",
]
