"""What runs on a CPU runs on a GPU, with the same result: operators, noise, priors, methods, trainings, command lines.

Each test runs on the CPU, and under the marker ``cuda`` on a GPU (``pytest -m cuda``); what it is held against is
double precision on the CPU, or the CPU itself where numbers are drawn.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import pytest
import torch
from torch import Tensor

from lightning_mbir.host_slabs import Arriving, HostSlabs, sent
from lightning_mbir.methods.run import run_method
from lightning_mbir.physics import FourierSampling, LinearOperator, MultiCoilFourier, ParallelBeam, RealDomain
from lightning_mbir.physics.mri.masks import make_mask
from lightning_mbir.prior import Unit, load_prior, slice_batches
from lightning_mbir.prior.denoiser import SliceDenoiser
from lightning_mbir.reconstruction import METHODS
from lightning_mbir.reconstruction.memory import PeakMemory
from lightning_mbir.samplers import KeyedNoise
from tests.helpers import gaussian_prior, smooth_volume, unet_file
from tests.physics.mri.test_coil_maps import smooth_maps
from tests.physics.registry import INEXACT, OPERATORS

SIZE, DEPTH = 24, 6


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = (x.cpu().to(torch.complex128) for x in (found, expected))
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in INEXACT])
def test_operators(name: str, device: torch.device) -> None:
    double = OPERATORS[name]().to(torch.float64)
    x, y = random(double.domain_shape, double.dtype, 1), random(double.range_shape, double.range_dtype, 2)
    single = OPERATORS[name]().to(device)
    x1, y1 = x.to(device, single.dtype), y.to(device, single.range_dtype)
    for found, expected in (
        (single(x1), double(x)),
        (single.adjoint(y1), double.adjoint(y)),
        (single.normal(x1), double.normal(x)),
    ):
        assert found.device.type == device.type
        assert relative(found, expected) < 1e-4
    x1.requires_grad_()
    (gradient,) = torch.autograd.grad((single(x1).conj() * y1).sum().real, x1)
    assert relative(gradient, double.adjoint(y)) < 1e-4
    with torch.autocast(device.type, torch.bfloat16):
        assert relative(single(x1.detach()), double(x)) < 1e-4
    assert single.norm() == pytest.approx(OPERATORS[name]().norm(), rel=1e-3)


def test_noise_is_that_of_the_cpu_to_the_bit(device: torch.device) -> None:
    found = KeyedNoise(3, correlation=0.3)(5, (4, 8, 8), device=device)
    assert found.device.type == device.type
    assert torch.equal(found.cpu(), KeyedNoise(3, correlation=0.3)(5, (4, 8, 8)))


def problem(kind: str) -> tuple[LinearOperator, Tensor]:
    x = smooth_volume((DEPTH, SIZE, SIZE), 0.02 if kind == "ct" else 1.0)
    x = x + 0.1 * x.max() * torch.rand(x.shape, generator=torch.Generator().manual_seed(3))
    if kind == "ct":
        operator: LinearOperator = ParallelBeam(SIZE, [i * 20.0 for i in range(9)], pixel_size=2.0)
    elif kind == "magnitudes":
        operator = RealDomain(FourierSampling(make_mask("gaussian1d", (SIZE, SIZE), 3)))
    else:
        operator = MultiCoilFourier(make_mask("gaussian1d", (SIZE, SIZE), 3), smooth_maps(SIZE))
        x = torch.polar(x, x)
    return operator, operator(x)


def cases() -> list[tuple[str, str]]:
    kinds = {"ct": ("ct",), "mri": ("magnitudes", "coils")}
    return [
        (name, kind)
        for name, method in METHODS.items()
        for modality in method.modalities
        for kind in kinds[modality]
        if not (kind == "magnitudes" and "coil_maps" in method.needs) and not (name == "fbp_unet" and kind == "coils")
    ]


@pytest.mark.parametrize(("method", "kind"), cases())
def test_methods(method: str, kind: str, device: torch.device, tmp_path: Path) -> None:
    operator, y = problem(kind)
    modality: Any = "ct" if kind == "ct" else "mri"
    prior = gaussian_prior(modality, complex=operator.domain_complex)
    given: dict[str, Any] = {}
    if "network" in METHODS[method].needs:
        given["network"] = unet_file(tmp_path, operator)
    if "second_prior" in METHODS[method].needs:
        given["second_prior"] = gaussian_prior(modality, complex=operator.domain_complex).to(device)
    steps = 5 if METHODS[method].steps else None
    expected = run_method(y, operator, prior, method, modality=modality, steps=steps, **given)
    moved = operator.to(device), prior.to(device)
    found = run_method(y.to(device), *moved, method, modality=modality, steps=steps, **given)
    assert found.volume.device.type == device.type
    assert relative(found.volume, expected.volume) < 2e-3
    assert found.residual == pytest.approx(expected.residual, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize(("method", "kind"), [("dds", "ct"), ("admm_tv", "ct"), ("dds", "coils"), ("dps", "coils")])
def test_volumes_in_host_memory_pass_through(method: str, kind: str, device: torch.device) -> None:
    operator, y = problem(kind)
    modality: Any = "ct" if kind == "ct" else "mri"
    prior = gaussian_prior(modality, 4, operator.domain_complex)
    given: dict[str, Any] = {"method": method, "modality": modality, "steps": 3}
    whole = run_method(y, operator, prior, **given)
    passed = run_method(y, operator, prior.to(device), host_slabs=HostSlabs(device, 2), **given)
    assert passed.volume.device.type == "cpu"
    assert relative(passed.volume, whole.volume) < 2e-3


def test_what_passes_comes_back_whole_and_in_order(device: torch.device) -> None:
    given = random((24, 512, 512), torch.float32, 1)
    out = torch.zeros_like(given)
    arriving = Arriving(out)
    for start in range(0, 24, 5):
        part = slice(start, start + 5)
        arriving.put(part, sent(given[part], device) * 2)
    arriving.put(slice(3, 4), torch.ones(1, 512, 512, device=device))
    arriving.settle()
    given[3] = 0.5
    assert torch.equal(out, 2 * given)


@pytest.mark.parametrize("name", ["phantom", "mri_complex"])
@pytest.mark.parametrize(("precision", "gap"), [("float32", 1e-3), ("bfloat16", 3e-2)])
def test_bundled_priors(name: str, precision: str, gap: float, device: torch.device) -> None:
    prior = load_prior(name, precision="float32")
    x = smooth_volume((5, 32, 32)) + 0.2 * random((5, 32, 32), torch.float32, 1)
    x = torch.polar(x, x) if prior.complex else x
    expected = prior(x, 0.2)
    moved = load_prior(name, precision=precision, slice_batch=2).to(device)
    found = moved(x.to(device), 0.2)
    assert found.device.type == device.type and found.dtype == x.dtype
    assert relative(found, expected) < gap
    cotangent = random(tuple(x.shape), x.dtype, 2)
    assert relative(moved.vjp(x.to(device), 0.2, cotangent.to(device)), prior.vjp(x, 0.2, cotangent)) < 5 * gap


class Hungry(torch.nn.Module):
    """Has memory for two slices at once and no more."""

    stride = in_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.batches.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return 0.5 * x


def test_a_lack_of_memory_halves_the_slice_batch(device: torch.device) -> None:
    network = Hungry()
    prior = SliceDenoiser(network, Unit.of("ct"), "ct", slice_batch=8).to(device)
    x = torch.rand(7, 8, 8, device=device)
    torch.testing.assert_close(prior(x, 1.0), 0.5 * x)
    assert max(network.batches) == 7 and network.batches[-1] <= 2
    assert slice_batches.slices_at_once(1, device) == slice_batches.MOST_SLICES.get(device.type, 64)


def test_the_peak_of_memory(device: torch.device) -> None:
    mib = 64
    with PeakMemory(device) as memory:
        del (kept := [torch.ones(mib << 18, device=device)])[:]
        assert not kept
    assert memory.bytes is not None
    assert 0.9 * mib < memory.bytes / 2**20 < 1.5 * mib


def command(*words: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "lightning_mbir", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def on(device: torch.device, devices: int = 1) -> list[str]:
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    return ["--trainer.accelerator", accelerator, "--trainer.devices", str(devices)]


@pytest.mark.slow
def test_a_training_and_a_reconstruction_from_the_command_line(device: torch.device, tmp_path: Path) -> None:
    data = ["--data.image_size", "32", "--data.batch_size", "2", "--data.phantom_volumes", "1"]
    model = ["--model.network_options={channels: [8, 16], blocks: 1}", "--model.ema_decay", "0.5"]
    command("fit", *data, *model, "--steps", "2", "--output_dir", "prior", *on(device), folder=tmp_path)
    (prior,) = (tmp_path / "prior").rglob("prior.safetensors")
    job = ["--data.image_size", "32", "--data.slices", "20:24", "--steps", "2", "--prior", str(prior)]
    command("predict", "--task", "sv_ct", *job, *on(device), folder=tmp_path)
    assert list(tmp_path.rglob("montage.png"))


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two CUDA devices are not here")
def test_two_gpus_share_the_slices_of_a_volume(tmp_path: Path) -> None:
    gpu = torch.device("cuda")
    job = ["predict", "--task", "sv_ct", "--data.image_size", "64", "--data.slices", "20:28", "--steps", "4"]
    for devices in (1, 2):
        out = ["--output_dir", str(devices), "--slice_batch", "1", "--split", "slices"]
        command(*job, *out, *on(gpu, devices), folder=tmp_path)
    one, two = (
        torch.from_numpy(nibabel.load(next((tmp_path / str(devices)).rglob("recon.nii.gz"))).get_fdata())
        for devices in (1, 2)
    )
    assert relative(two, one) < 1e-3
