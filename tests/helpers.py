"""Small problems, and a prior that needs no training: Gaussian slices, whose posterior mean is known."""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import Modality
from lightning_mbir.methods.fbp_unet import CorrectionUNet, geometry_of, write_unet
from lightning_mbir.physics import FourierSampling, LinearOperator, MultiCoilFourier, RealDomain
from lightning_mbir.prior import SliceDenoiser, Unit
from lightning_mbir.reconstruction import METHODS
from tests.physics.mri.test_coil_maps import smooth_maps


class GaussianPrior(nn.Module):
    """Posterior mean of ``x0 ~ N(mean, deviation^2)`` from ``x0 + sigma n``: shrinkage towards the mean."""

    stride = 1

    def __init__(self, mean: float = 0.3, deviation: float = 0.5, in_channels: int = 1) -> None:
        super().__init__()
        self.mean, self.deviation, self.in_channels = mean, deviation, in_channels
        self.register_buffer("place", torch.empty(0))  # by which it is somewhere, as a network is by its weights

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        keep = self.deviation**2 / (self.deviation**2 + sigma[:, None, None, None] ** 2)
        return self.mean + keep * (x - self.mean)


class OfThree(GaussianPrior):
    """Denoises three neighbouring slices, each of which has something of the others."""

    slices = 3

    def forward(self, x: Tensor, sigma: Tensor, distance: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, sigma) + 0.1 * x.mean(1, keepdim=True) / distance[:, None, None, None]


def gaussian_prior(modality: Modality, slice_batch: int | None = 16, complex: bool = False) -> SliceDenoiser:
    network = GaussianPrior(0.0, 0.5, in_channels=2) if complex else GaussianPrior()
    return SliceDenoiser(network, Unit.of(modality), modality, slice_batch)


def smooth_volume(shape: tuple[int, int, int] = (12, 32, 32), scale: float = 1.0) -> Tensor:
    """A ball with a soft edge, from 0 to ``scale``."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = sum(a.square() for a in axes).sqrt()  # type: ignore[union-attr]
    return scale * torch.sigmoid((0.7 - radius) * 12)


def demo(modality: Modality, volumes: int = 1) -> VolumeDataModule:
    return VolumeDataModule(modality=modality, image_size=32, slices="4:20", demo_volumes=volumes)


def unet_file(folder: Path, operator: LinearOperator, **config: Any) -> Path:
    """A network for an operator that was not trained: it gives the direct inversion back."""
    options = {"channels": [8, 16], "attention": False, "in_channels": 2 if operator.domain_complex else 1}
    given = {"task": "sv_ct", "settings": {}, "seed": 0, "unit": "", "network_options": options, **config}
    path = folder / "unet.safetensors"
    write_unet(path, CorrectionUNet(**options), {"geometry": geometry_of(operator), **given})
    return path


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that torch has alive on the CPU at once while ``work`` runs, less those before.

    It is the largest partial sum of what its allocator gives and takes.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def needed(method: str, operator: LinearOperator, folder: Path) -> tuple[LinearOperator, dict[str, Any]]:
    """The operator, with coils where the method needs them, and what else it needs."""
    needs = METHODS[method].needs
    if "coil_maps" in needs:
        assert isinstance(operator, RealDomain) and isinstance(operator.operator, FourierSampling)
        mask = operator.operator.mask
        operator = RealDomain(MultiCoilFourier(mask, smooth_maps(len(mask))))
    given: dict[str, Any] = {"network": unet_file(folder, operator)} if "network" in needs else {}
    if "second_prior" in needs:
        given["second_prior"] = gaussian_prior("mri" if operator.range_complex else "ct")
    return operator, given
