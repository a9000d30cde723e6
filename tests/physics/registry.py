"""Every linear operator by a name: one that is added here gets the whole suite."""

from collections.abc import Callable

import torch

from lightning_mbir.physics import (
    Difference,
    FourierSampling,
    LinearOperator,
    ParallelBeam,
    RealDomain,
    SliceDifference,
    make_mask,
)

ANGLES = [0.0, 13.0, 45.0, 90.0, 101.5, 135.0, 170.0]


def random_mask(rows: int, columns: int) -> torch.Tensor:
    return (torch.rand(rows, columns, generator=torch.Generator().manual_seed(1)) < 0.4).float()


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "parallel_beam_even": lambda: ParallelBeam(16, ANGLES, pixel_size=1.5),
    "parallel_beam_odd": lambda: ParallelBeam(17, ANGLES, n_detectors=12, detector_spacing=2.1),
    "parallel_beam_offset": lambda: ParallelBeam(12, ANGLES, n_detectors=31, detector_spacing=0.6, center_offset=0.7),
    "fourier_even": lambda: FourierSampling(make_mask("gaussian1d", (16, 32), 4)),
    "fourier_odd": lambda: FourierSampling(random_mask(15, 9)),
    "fourier_real": lambda: RealDomain(FourierSampling(random_mask(12, 15))),
    "slice_difference": lambda: SliceDifference((5, 6, 7)),
    "difference_x": lambda: Difference((2, 3, 9), "x"),
    "scaled": lambda: ParallelBeam(10, ANGLES) * 0.3,
    "adjoint": lambda: ParallelBeam(10, ANGLES).H,
    "composition": lambda: FourierSampling(random_mask(8, 8)) @ FourierSampling(torch.ones(8, 8)),
}
