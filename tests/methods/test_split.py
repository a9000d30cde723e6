"""One volume over several processes: every method gives what one process gives, to rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_mbir.methods.fbp_unet import CorrectionUNet, FBPUNet
from lightning_mbir.methods.run import Reconstruction, run_method
from lightning_mbir.physics import (
    FourierSampling,
    LinearOperator,
    MultiCoilFourier,
    ParallelBeam,
    RealDomain,
    make_mask,
)
from lightning_mbir.prior import LightUNet, SliceDenoiser, Unit
from lightning_mbir.prior.neighbours import neighbours
from lightning_mbir.reconstruction import METHODS
from lightning_mbir.slabs import Slab, gathered, holding
from tests.helpers import OfThree, gaussian_prior, smooth_volume, unet_file
from tests.physics.mri.test_coil_maps import smooth_maps
from tests.ranks import on_ranks

DEPTH, SIZE = 7, 24

STEPS = {"fbp": None, "zero_filled": None, "fbp_unet": None}
OPTIONS: dict[str, dict[str, Any]] = {"dds": {"lam": 0.01, "start": "admm_tv", "correlation": 0.3}}
OPTIONS |= {"admm_tv": {"isotropic": True}, "diffusion_mbir": {"axes": "zyx"}, "diffpir": {"tv": 0.01}}


def problem(kind: str) -> tuple[LinearOperator, Tensor, Tensor | None]:
    """Operator, measurement and weights; each kind has something that only the whole volume can tell."""
    x = smooth_volume((DEPTH, SIZE, SIZE)).double() + 0.2 * torch.rand(
        DEPTH, SIZE, SIZE, generator=torch.Generator().manual_seed(3)
    )
    if kind == "ct":  # weights by slice, those of the first ones zero
        operator: LinearOperator = ParallelBeam(SIZE, [i * 20.0 for i in range(9)], pixel_size=2.0).double()
        y = operator(x)
        weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(4))
        weights[:2] = 0
        return operator, y, weights
    masks = torch.stack([make_mask("gaussian1d", (SIZE, SIZE), 3, seed=k) for k in range(DEPTH)])
    if kind == "masks":  # magnitudes, masks by slice
        operator = RealDomain(FourierSampling(masks)).double()
    else:
        operator = MultiCoilFourier(
            masks[0], torch.stack([(1 - 0.05 * k) * smooth_maps(SIZE, 3 + k % 2).roll(k, -1)[:3] for k in range(DEPTH)])
        ).double()
        x = torch.polar(x, x)
    return operator, operator(x), None


def run(method: str, kind: str, folder: Path, part: slice | None = None, **more: Any) -> Reconstruction:
    operator, y, weights = problem(kind)
    if part is not None:
        some = operator.of_slices(part.start, part.stop)
        assert some is not None
        operator, y, weights = some, y[part], None if weights is None else weights[part]
    modality: Any = "ct" if kind == "ct" else "mri"
    given: dict[str, Any] = {}
    if "network" in METHODS[method].needs:
        given["network"] = unet_file(folder, operator)
    if "second_prior" in METHODS[method].needs:
        given["second_prior"] = gaussian_prior(modality, complex=operator.domain_complex)
    prior = gaussian_prior(modality, complex=operator.domain_complex)
    if more.pop("of_three", False):
        prior = SliceDenoiser(OfThree(), prior.unit, modality)
        more["spacing"] = (2.0, 1.0, 1.0)
    weights = weights if METHODS[method].weighted else None
    steps = STEPS.get(method, 6)
    more = {**given, **OPTIONS.get(method, {}), **more}
    return run_method(y, operator, prior, method, modality=modality, weights=weights, steps=steps, **more)


def every_method(folder: Path, cases: list[tuple[str, str]]) -> list[tuple[Tensor, float, int]]:
    """Of each case what this process gets: the whole volume on the first one, and the residual."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    slab = Slab(DEPTH, rank, tuple(range(ranks)))
    found = []
    for method, kind in cases:
        with holding(slab):
            result = run(method, kind, folder / str(rank), slice(slab.start, slab.stop))
            found.append((gathered(result.volume), result.residual, len(result.volume)))
    return found


CASES = [(name, "ct") for name in METHODS if "ct" in METHODS[name].modalities]
CASES += [(name, "masks") for name in METHODS if METHODS[name].modalities == ("ct", "mri") and name != "fbp_unet"]
CASES += [(name, "coils") for name in METHODS if "mri" in METHODS[name].modalities and name != "fbp_unet"]
CASES = [case for case in CASES if case != ("sense", "masks")]


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_method_gives_what_one_process_gives(ranks: int, tmp_path: Path) -> None:
    each = on_ranks(every_method, tmp_path, ranks, CASES)
    for k, (method, kind) in enumerate(CASES):
        alone = run(method, kind, tmp_path)
        volume, residual, _ = each[0][k]
        error = float(torch.linalg.vector_norm(volume - alone.volume) / torch.linalg.vector_norm(alone.volume))
        assert error < 1e-6, (method, kind, error)  # of double precision, but for the prior
        assert residual == pytest.approx(alone.residual, rel=1e-4)
        assert {rank[k][1] for rank in each} == {residual}  # the same bits
        assert sum(rank[k][2] for rank in each) == DEPTH


OF_THREE = [(name, "ct") for name in METHODS if METHODS[name].needs_prior]


def with_three_slices(folder: Path, depth: int, sigmas: list[float]) -> dict[str, Any]:
    """What this process gets of a prior of three neighbouring slices, its derivative, methods with it, and a U-Net."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    slab, (x, v), network = Slab(depth, rank, tuple(range(ranks))), stacks(depth), unet(folder / str(rank))
    own = slice(slab.start, slab.stop)
    denoise = denoiser_of_three()
    with holding(slab):
        found: dict[str, Any] = {
            "prior": [(gathered(denoise(x[own], s)), gathered(denoise.vjp(x[own], s, v[own]))) for s in sigmas],
            "unet": gathered(network(x[own].real)),
        }
    if depth == DEPTH:
        with holding(slab):
            found["methods"] = [
                gathered(run(method, kind, folder / str(rank), own, of_three=True).volume) for method, kind in OF_THREE
            ]
    return found


def stacks(depth: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(depth)
    x, v = (torch.randn(depth, 16, 16, generator=generator, dtype=torch.complex64) for _ in range(2))
    return x, v


def denoiser_of_three() -> SliceDenoiser:
    torch.manual_seed(0)
    network = LightUNet((8, 16), attention=False, in_channels=2, slices=3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    denoise = SliceDenoiser(network, Unit.of("mri"), "mri", 4)
    denoise.spacing = 3.0
    return denoise


def unet(folder: Path) -> FBPUNet:
    torch.manual_seed(0)
    options = {"channels": [8, 16], "attention": False, "slices": 3}
    network = CorrectionUNet(**options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return FBPUNet(network, {}, folder, spacing=2.0)


@pytest.mark.parametrize(("ranks", "depth"), [(2, 20), (4, DEPTH), (4, 5), (3, 9)])
def test_priors_of_three_slices_get_those_of_other_processes(ranks: int, depth: int, tmp_path: Path) -> None:
    """Slabs of one slice, triples over three processes, every third slice: as one process has it."""
    sigmas = [0.02 * 1.7**k for k in range(10)]
    assert depth < 9 or {neighbours(depth, sigma)[2] for sigma in sigmas} == {1, 3}
    found = on_ranks(with_three_slices, tmp_path, ranks, depth, sigmas)[0]
    (x, v), denoise = stacks(depth), denoiser_of_three()
    for sigma, (clean, back) in zip(sigmas, found["prior"], strict=True):
        torch.testing.assert_close(clean, denoise(x, sigma), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(back, denoise.vjp(x, sigma, v), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["unet"], unet(tmp_path)(x.real), rtol=1e-4, atol=1e-5)
    for (method, kind), volume in zip(OF_THREE, found.get("methods", []), strict=depth == DEPTH):
        alone = run(method, kind, tmp_path, of_three=True).volume
        error = float(torch.linalg.vector_norm(volume - alone) / torch.linalg.vector_norm(alone))
        assert error < 1e-6, (method, error)
