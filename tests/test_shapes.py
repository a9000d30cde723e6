"""Shapes in signatures are checked in tests, and nowhere else."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError

from lightning_mbir.data.phantoms.phase import smoothed
from lightning_mbir.data.units import training_scale
from lightning_mbir.physics.ct.geometry import warn_edge_bins
from lightning_mbir.prior.denoiser import posterior_mean
from lightning_mbir.prior.networks.local_phase import local_phase
from lightning_mbir.report.calibration import calibrate
from lightning_mbir.report.metrics import volume_ssim
from lightning_mbir.samplers.steps import slice_norm
from lightning_mbir.solvers.scan import redundancy_weights

LINE, IMAGE, VOLUME = torch.ones(4), torch.ones(4, 4), torch.ones(4, 4, 4)
WRONG: dict[str, Callable[[], object]] = {
    "data.phantoms": lambda: smoothed(LINE, 1.0),
    "data.units": lambda: training_scale(IMAGE, "mri"),
    "physics": lambda: warn_edge_bins(LINE),
    "prior.denoiser": lambda: posterior_mean(lambda x, sigma: x, VOLUME[None], torch.ones(2)),
    "prior.networks": lambda: local_phase(VOLUME[None]),
    "report.calibration": lambda: calibrate(VOLUME, VOLUME, VOLUME[:2], 3),
    "report.metrics": lambda: volume_ssim(IMAGE, IMAGE, 1.0),
    "samplers": lambda: slice_norm(IMAGE),
    "solvers": lambda: redundancy_weights([0.0], IMAGE),
}


@pytest.mark.parametrize("module", WRONG)
def test_a_wrong_shape_is_told_in_tests(module: str) -> None:
    with pytest.raises(TypeCheckError, match=f"lightning_mbir.{module}"):
        WRONG[module]()


def test_nothing_is_checked_outside_of_tests() -> None:
    code = (
        "import sys, torch; from lightning_mbir.samplers.steps import slice_norm; "
        "assert slice_norm(torch.ones(4, 4)).shape == (1, 1); assert 'beartype' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
