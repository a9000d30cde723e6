"""Every linear operator by a name: one that is added here gets the whole suite."""

import importlib.util
import math
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch

from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.physics import (
    CartesianFourier3D,
    ConeBeam,
    Difference,
    FanBeam,
    FourierSampling,
    InSlabs,
    LinearOperator,
    MatrixOperator,
    ModularBeam,
    MultiCoilFourier,
    NonCartesianFourier,
    OffResonance,
    ParallelBeam,
    RealDomain,
    SliceDifference,
    Weighted,
    helical_trajectory,
    make_mask,
    radial_trajectory,
    spiral_trajectory,
)

ANGLES = [0.0, 13.0, 45.0, 90.0, 101.5, 135.0, 170.0]
CPU = torch.device("cpu")
FULL = [i * 36.0 + 5.0 for i in range(10)]


def random_mask(rows: int, columns: int) -> torch.Tensor:
    return (torch.rand(rows, columns, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))


def random_matrix(rows: int, columns: int) -> scipy.sparse.csr_matrix:
    return scipy.sparse.random(rows, columns, 0.2, "csr", random_state=np.random.default_rng(5))


def random_weights(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 100


def random_field(*shape: int) -> torch.Tensor:
    """Hz."""
    return 200 * torch.rand(shape, generator=torch.Generator().manual_seed(4)) - 80


def readout(*shape: int) -> torch.Tensor:
    """Seconds: 12 ms over all samples, one after the other."""
    return torch.linspace(0.001, 0.013, math.prod(shape)).reshape(shape)


def wobbling(views: torch.Tensor, by: float) -> torch.Tensor:
    """Views whose source and detector stray by about so many mm, and whose axes turn with them."""
    table = views + by * torch.randn(views.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    u, v = table[:, 6:9], table[:, 9:]
    table[:, 9:] = v - u * (u * v).sum(1, keepdim=True) / u.square().sum(1, keepdim=True)
    return table


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "parallel_beam_even": lambda: ParallelBeam(16, ANGLES, pixel_size=1.5),
    "parallel_beam_odd": lambda: ParallelBeam(17, ANGLES, n_detectors=12, detector_spacing=2.1),
    "parallel_beam_offset": lambda: ParallelBeam(12, ANGLES, n_detectors=31, detector_spacing=0.6, center_offset=0.7),
    "parallel_beam_free": lambda: ParallelBeam(13, ANGLES, pixel_size=1.5, backend="matrix_free"),
    "fan_beam_flat": lambda: FanBeam(16, ANGLES, source_distance=40.0, detector_distance=25.0, pixel_size=1.5),
    "fan_beam_curved": lambda: FanBeam(
        15, ANGLES, source_distance=30.0, detector_distance=0.0, n_detectors=33, detector="curved", center_offset=0.4
    ),
    "fan_beam_offset": lambda: FanBeam(
        13, FULL, source_distance=25.0, detector_distance=20.0, detector_spacing=1.1, center_offset=-1.3
    ),
    "fan_beam_free": lambda: FanBeam(
        11, FULL, source_distance=25.0, detector_distance=20.0, detector="curved", backend="matrix_free"
    ),
    "cone_beam": lambda: ConeBeam((4, 7, 7), FULL[::3], source_distance=20.0, detector_distance=10.0),
    "cone_beam_offset": lambda: ConeBeam(
        (3, 6, 9),
        ANGLES,
        source_distance=30.0,
        detector_distance=0.0,
        detector_shape=(7, 17),
        pixel_size=1.1,
        slice_thickness=2.3,
        detector_spacing=(1.7, 1.2),
        offsets=(0.8, -0.5),
    ),
    "modular_beam_helix": lambda: ModularBeam(
        (6, 7, 8),
        helical_trajectory(
            [i * 50.0 for i in range(16)],
            source_distance=20.0,
            detector_distance=10.0,
            detector_spacing=(1.5, 1.5),
            pitch=3.0,
        ),
        detector_shape=(4, 13),
        slice_thickness=0.8,
    ),
    "modular_beam_wobbling": lambda: ModularBeam(
        (7, 6, 5),
        wobbling(
            helical_trajectory(FULL, source_distance=25.0, detector_distance=12.0, detector_spacing=(1.4, 1.6)), 0.2
        ),
        detector_shape=(9, 10),
        pixel_size=1.1,
    ),
    "modular_beam_steep": lambda: ModularBeam(  # rays follow z
        (9, 6, 7),
        [[3.0, 2.0 - i, -20.0, -1.0, i, 15.0, 1.3, 0.0, 0.0, 0.0, 1.2, 0.0] for i in range(4)],
        detector_shape=(12, 11),
        slice_thickness=0.5,
    ),
    "modular_beam_curved": lambda: ModularBeam(
        (5, 8, 8),
        helical_trajectory(
            [i * 40.0 for i in range(18)],
            source_distance=30.0,
            detector_distance=20.0,
            detector_spacing=(1.6, 1.7),
            pitch=2.5,
        ),
        detector_shape=(4, 12),
        detector="curved",
        curvature_radius=48.0,
    ),
    "matrix_views": lambda: MatrixOperator(random_matrix(7 * 9, 30), (5, 6), (7, 9)),
    "matrix_angles": lambda: MatrixOperator(random_matrix(6 * 8, 49), (7, 7), (6, 8), [0, 30, 60, 90, 120, 150]),
    "parallel_beam_torch_radon": lambda: ParallelBeam(
        12, ANGLES, n_detectors=27, pixel_size=1.5, center_offset=0.75, backend="torch_radon"
    ),
    "fan_beam_torch_radon": lambda: FanBeam(
        13, FULL, source_distance=25.0, detector_distance=20.0, center_offset=-1.8, backend="torch_radon"
    ),
    "cone_beam_torch_radon": lambda: ConeBeam(
        (4, 7, 7), FULL[::3], source_distance=20.0, detector_distance=10.0, slice_thickness=1.3, backend="torch_radon"
    ),
    "fourier_even": lambda: FourierSampling(make_mask("gaussian1d", (16, 32), 4)),
    "fourier_odd": lambda: FourierSampling(random_mask(15, 9)),
    "fourier_by_slice": lambda: FourierSampling(random_mask(9, 10).unflatten(0, (3, 3)).repeat(1, 2, 1)),
    "fourier_real_by_slice": lambda: RealDomain(FourierSampling(random_mask(10, 7).unflatten(0, (2, 5)))),
    "fourier_real": lambda: RealDomain(FourierSampling(random_mask(12, 15))),
    "multi_coil_even": lambda: MultiCoilFourier(random_mask(8, 10), random_maps(3, 8, 10)),
    "multi_coil_odd": lambda: MultiCoilFourier(random_mask(7, 9), random_maps(2, 7, 9)),
    "multi_coil_by_slice": lambda: MultiCoilFourier(random_mask(5, 6), random_maps(3, 2, 5, 6)),
    "multi_coil_masks_by_slice": lambda: MultiCoilFourier(
        random_mask(12, 5).unflatten(0, (3, 4)), random_maps(2, 4, 5)
    ),
    "multi_coil_both_by_slice": lambda: MultiCoilFourier(
        random_mask(15, 6).unflatten(0, (3, 5)), random_maps(3, 2, 5, 6)
    ),
    "multi_coil_real": lambda: RealDomain(MultiCoilFourier(random_mask(8, 7), random_maps(3, 8, 7))),
    "off_resonance_grid": lambda: OffResonance(FourierSampling(random_mask(7, 8)), random_field(7, 8), readout(7, 8)),
    "off_resonance_coils": lambda: OffResonance(
        MultiCoilFourier(random_mask(6, 7), random_maps(3, 6, 7)), random_field(4, 6, 7), readout(6, 7)
    ),
    "off_resonance_real": lambda: RealDomain(
        OffResonance(FourierSampling(random_mask(9, 8)), random_field(9, 8), readout(8))
    ),
    "off_resonance_by_slice": lambda: OffResonance(
        MultiCoilFourier(random_mask(6, 7), random_maps(4, 2, 6, 7)), random_field(4, 6, 7), readout(6, 7), segments=4
    ),
    "cartesian_3d_even": lambda: CartesianFourier3D(random_mask(4, 6), (4, 6, 8)),
    "cartesian_3d_odd": lambda: CartesianFourier3D(random_mask(5, 3), (5, 3, 7)),
    "cartesian_3d_coils": lambda: CartesianFourier3D(random_mask(4, 5), (4, 5, 3), random_maps(2, 5, 3)),
    "cartesian_3d_by_slice": lambda: CartesianFourier3D(random_mask(4, 5), (4, 5, 3), random_maps(4, 2, 5, 3)),
    "slice_difference": lambda: SliceDifference((5, 6, 7)),
    "difference_x": lambda: Difference((2, 3, 9), "x"),
    "scaled": lambda: ParallelBeam(10, ANGLES) * 0.3,
    "scaled_coils": lambda: MultiCoilFourier(make_mask("gaussian1d", (9, 16), 2), random_maps(2, 9, 16)) * 0.3,
    "weighted": lambda: Weighted(ParallelBeam(9, ANGLES), random_weights(7, 13)),
    "weighted_by_slice": lambda: Weighted(ParallelBeam(6, ANGLES), random_weights(3, 7, 9)),
    "weighted_complex": lambda: Weighted(FourierSampling(random_mask(6, 7)), random_weights(6, 7)),
    "weighted_volume": lambda: Weighted(CartesianFourier3D(random_mask(3, 4), (3, 4, 5)), random_weights(3, 4, 5)),
    "in_slabs": lambda: InSlabs(ParallelBeam(9, ANGLES), HostSlabs(CPU, 2)),
    "in_slabs_real": lambda: InSlabs(RealDomain(FourierSampling(random_mask(7, 8))), HostSlabs(CPU, 1)),
    "in_slabs_by_slice": lambda: InSlabs(
        MultiCoilFourier(random_mask(5, 6), random_maps(5, 2, 5, 6)), HostSlabs(CPU, 2)
    ),
    "weighted_in_slabs": lambda: Weighted(InSlabs(ParallelBeam(6, ANGLES), HostSlabs(CPU, 2)), random_weights(3, 7, 9)),
    "adjoint": lambda: ParallelBeam(10, ANGLES).H,
    "composition": lambda: FourierSampling(random_mask(8, 8)) @ FourierSampling(torch.ones(8, 8)),
}

INEXACT = {"parallel_beam_torch_radon": 2e-2, "fan_beam_torch_radon": 2e-2, "cone_beam_torch_radon": 2e-2}
"""The operators that are excepted from an exact adjoint, with the largest gap that each may have for noise of the size
that they have here; of smooth images it is far smaller. All compute in float32, whatever they are moved to."""


def tolerance(name: str) -> dict[str, float]:
    """For ``assert_close``, where float32 is no choice of ours; else that of the type."""
    return {"rtol": 1e-4, "atol": 1e-4} if name in INEXACT else {}


for backend, package in (("finufft", "pytorch_finufft"), ("kbnufft", "torchkbnufft")):
    if importlib.util.find_spec(package):
        OPERATORS |= {
            f"radial_{backend}": lambda backend=backend: NonCartesianFourier(
                radial_trajectory(5, 12), 10, backend=backend
            ),
            f"spiral_coils_{backend}": lambda backend=backend: NonCartesianFourier(
                spiral_trajectory(3, 40, 1.5), (9, 11), random_maps(2, 9, 11), backend
            ),
            f"off_resonance_{backend}": lambda backend=backend: OffResonance(
                NonCartesianFourier(spiral_trajectory(4, 30, 1.5), (8, 9), random_maps(2, 8, 9), backend),
                random_field(8, 9),
                readout(4, 30),
            ),
            f"radial_by_slice_{backend}": lambda backend=backend: NonCartesianFourier(
                radial_trajectory(4, 10).flatten(0, 1), (8, 7), random_maps(3, 2, 8, 7), backend
            ),
        }
