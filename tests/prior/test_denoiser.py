"""The denoiser contract."""

import logging
import math

import pytest
import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior import LightUNet, SliceDenoiser, Unit, slice_batches
from lightning_mbir.prior import denoiser as module
from lightning_mbir.prior.denoiser import posterior_mean
from lightning_mbir.samplers.noise import KeyedNoise
from tests.prior.conftest import OPTIONS, network


def test_result_does_not_depend_on_slice_batch() -> None:
    x = torch.rand(7, 16, 16)
    one, many = (SliceDenoiser(network(), Unit(), slice_batch=n)(x, 0.5) for n in (1, 7))
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


def test_any_size_and_leading_dimensions() -> None:
    denoise = SliceDenoiser(network(), Unit(), slice_batch=4)
    x = torch.rand(2, 3, 17, 22)
    out = denoise(x, 0.5)
    assert out.shape == x.shape
    torch.testing.assert_close(out[1, 2], denoise(x[1, 2], 0.5), rtol=1e-5, atol=1e-6)


def test_without_noise_the_image_stays() -> None:
    x = torch.rand(2, 16, 16)
    torch.testing.assert_close(SliceDenoiser(network(), Unit())(x, 1e-5), x, rtol=0, atol=1e-3)


class Gaussian(nn.Module):
    """Posterior mean of independent Gaussian pixels of variance 1 a channel; keeps what it was given."""

    def __init__(self, in_channels: int = 1, coarse_size: int | None = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.coarse_size = coarse_size
        self.stride = 4
        self.seen: list[tuple[Tensor, float]] = []

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.seen.append((x, float(sigma[0])))
        return x / (1 + sigma[:, None, None, None] ** 2)


def test_real_and_complex_are_not_mixed() -> None:
    with pytest.raises(InputError, match=r"real slices; give magnitude data, or a two-channel prior"):
        SliceDenoiser(network(), Unit())(torch.zeros(1, 16, 16, dtype=torch.complex64), 1.0)
    with pytest.raises(InputError, match=r"complex slices; give complex data, or a one-channel prior"):
        SliceDenoiser(Gaussian(2), Unit())(torch.zeros(1, 16, 16), 1.0)
    with pytest.raises(InputError, match="3 channels"):
        SliceDenoiser(Gaussian(3), Unit())


def test_a_complex_prior_is_given_the_deviation_in_each_channel() -> None:
    prior = Gaussian(2)
    clean = torch.randn(2, 8, 64, 66, 2)
    clean = torch.view_as_complex(clean)
    noise = KeyedNoise()(0, (16, 64, 66), dtype=torch.complex64).reshape(clean.shape)
    sigma = 1.5
    out = SliceDenoiser(prior, Unit(), slice_batch=16)(clean + sigma * noise, sigma)
    (channels, level), rest = prior.seen[0], prior.seen[1:]
    assert not rest and channels.shape == (16, 2, 64, 68) and channels.is_contiguous(memory_format=torch.channels_last)
    added = channels[..., :66] - torch.view_as_real(clean).reshape(16, 64, 66, 2).permute(0, 3, 1, 2)
    assert float(added[:, 0].std()) == pytest.approx(level, rel=0.02)
    assert float(added[:, 1].std()) == pytest.approx(level, rel=0.02)
    assert out.dtype == torch.complex64 and out.shape == clean.shape
    # the least error that a denoiser can have, per complex pixel: 2 s^2 / (1 + s^2) with s the deviation in a channel
    expected = sigma**2 / (1 + sigma**2 / 2)
    assert float((out - clean).abs().square().mean()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "sigma", "seen", "factor"),
    [
        ((64, 64), 6.0, (32, 32), 2),
        ((64, 96), 50.0, (32, 48), 2),
        ((67, 66), 6.0, (36, 36), 2),  # what it is brought to fits the network too
        ((128, 128), 7.0, (32, 32), 4),
        ((128, 128), 5.0, (64, 64), 2),  # half the noise is too little for another time
        ((64, 64), 2.9, (64, 64), 1),
        ((63, 99), 50.0, (64, 100), 1),
    ],
)
@pytest.mark.parametrize("complex", [False, True])
def test_large_images_are_denoised_coarsely_where_noise_is_high(
    shape: tuple[int, int], sigma: float, seen: tuple[int, int], factor: int, complex: bool
) -> None:
    """A constant image under noise, in complex slices ``sigma`` in each part: the mean is what an average leaves."""
    noise = torch.randn(3, *shape, 2, generator=torch.Generator().manual_seed(0))
    x = 1 + sigma * noise
    x = torch.view_as_complex(x) if complex else x[..., 0]
    prior = Gaussian(1 + complex, coarse_size=32)
    out = SliceDenoiser(prior, Unit(), slice_batch=3)(x, sigma * math.sqrt(2) if complex else sigma)
    (part, level), rest = prior.seen[0], prior.seen[1:]
    assert not rest and part.shape == (3, 1 + complex, *seen) and level == pytest.approx(sigma / factor)
    assert part.is_contiguous(memory_format=torch.channels_last)
    inside = part[..., : shape[0] // factor, : shape[1] // factor]
    assert float(inside.std()) == pytest.approx(level, rel=0.05)
    assert out.shape == x.shape and out.dtype == x.dtype
    if factor == 1:
        torch.testing.assert_close(out, x / (1 + sigma**2))
        return
    # a smooth image is where it was, but at its border: half a pixel elsewhere would make 1.5 gains of difference
    smooth = torch.arange(shape[1]).expand(3, *shape) + 2.0 * torch.arange(shape[0])[:, None]
    ramp = SliceDenoiser(prior, Unit())(smooth + 0j if complex else smooth, sigma * math.sqrt(1 + complex)).real
    gain, inner = 1 / (1 + (sigma / factor) ** 2), (slice(None), *[slice(4 * factor, -4 * factor)] * 2)
    torch.testing.assert_close(ramp[inner], gain * smooth[inner], rtol=0, atol=0.7 * gain)


def test_a_coarse_denoiser_is_differentiated_as_it_denoises() -> None:
    denoise = SliceDenoiser(Gaussian(coarse_size=32), Unit(), slice_batch=2)
    x, v = torch.randn(2, 3, 67, 66, generator=torch.Generator().manual_seed(1))
    for sigma in (1.0, 20.0):  # it is linear, and so its own derivative
        left, right = (denoise(x, sigma) * v).sum(), (x * denoise.vjp(torch.zeros_like(x), sigma, v)).sum()
        assert float(left) == pytest.approx(float(right), rel=1e-4)


@pytest.mark.parametrize("sigma", [7.0, 20.0])
def test_a_coarse_network_is_differentiated_as_it_denoises(sigma: float) -> None:
    """Complex slices, once and twice at half the resolution, against finite differences of a network with attention."""
    net = small(complex=True, align_phase=True)
    net.coarse_size = 8  # type: ignore[assignment]
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    denoise = SliceDenoiser(net, Unit(), slice_batch=2)
    generator = torch.Generator().manual_seed(2)
    x, u, v = (torch.randn(2, 33, 34, dtype=torch.complex64, generator=generator) for _ in range(3))
    step = 0.003
    change = (denoise(sigma * (x + step * u), sigma) - denoise(sigma * (x - step * u), sigma)) / (2 * step * sigma)
    assert {tuple(part.shape[-2:]) for part in seen} == {(20, 20) if sigma < 10 else (12, 12)}
    back = denoise.vjp(sigma * x, sigma, v)
    left, right = float((v.conj() * change).real.sum()), float((back.conj() * u).real.sum())
    assert left == pytest.approx(right, abs=0.01 * float(u.norm() * back.norm()) * 2**-0.5)


def test_the_slice_batch_is_settled_once_for_all_levels_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a slice at full resolution, which takes most: a level does not choose anew what the one before had."""
    costs: list[int] = []
    monkeypatch.setattr(module, "slices_at_once", lambda cost, device: costs.append(cost) or 4)  # type: ignore[func-returns-value]
    net = network()
    fine = SliceDenoiser(net, Unit())
    assert fine.slice_batch_for((32, 32), "cpu") == 4
    net.coarse_size = 16
    denoise = SliceDenoiser(net, Unit())
    for sigma in (20.0, 1.0, 20.0, 1.0):
        denoise(torch.rand(2, 32, 32), sigma)
    assert denoise.slice_batch_for((9, 32, 32), "cpu") == 4 and len(costs) == 2 and costs[0] == costs[1]
    denoise.to("cpu")(torch.rand(2, 32, 32), 1.0)  # another volume of the same run
    assert len(costs) == 2


def test_another_slice_batch_is_of_the_copy_alone() -> None:
    denoise = SliceDenoiser(network(), Unit(), slice_batch=3)
    assert denoise.slice_batch_for((16, 16), "cpu") == 3
    other = denoise.but(slice_batch=2, unit=Unit(2.0))
    assert (other.slice_batch_for((16, 16), "cpu"), other.unit.scale) == (2, 2.0)
    assert (denoise.slice_batch_for((16, 16), "cpu"), denoise.unit.scale, denoise.slice_batch) == (3, 1.0, 3)


@pytest.mark.parametrize(("n", "most", "sizes"), [(11, 8, [6, 6]), (8, 8, [8]), (3, 8, [3]), (9, 4, [3, 3, 3])])
def test_all_slices_pass_in_batches_of_one_size(n: int, most: int, sizes: list[int]) -> None:
    prior = Gaussian()
    x = torch.rand(n, 16, 16)
    torch.testing.assert_close(SliceDenoiser(prior, Unit(), slice_batch=most)(x, 0.5), x / 1.25)
    assert [len(part) for part, _ in prior.seen] == sizes
    assert SliceDenoiser(prior, Unit(), slice_batch=most)(x[:0], 0.5).shape == (0, 16, 16)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("complex", [False, True])
def test_a_slice_has_the_same_bits_wherever_it_is_in_a_stack(complex: bool, precision: str) -> None:
    """And whatever stands beside it, in the first call as in those after it, and in another object."""
    x = torch.rand(11, 24, 32, dtype=torch.complex64 if complex else torch.float32)
    net = small(complex)
    denoise = SliceDenoiser(net, Unit(), slice_batch=8, precision=precision)
    first = denoise(x, 0.5)
    order = torch.randperm(11)
    assert torch.equal(denoise(x, 0.5), first) and torch.equal(denoise(x[order], 0.5), first[order])
    turned = x.conj() if complex else torch.complex(x, -x).conj().imag  # lazily, as torch has it
    assert torch.equal(denoise(turned, 0.5), denoise(turned.resolve_conj().resolve_neg().clone(), 0.5))
    fresh = SliceDenoiser(net, Unit(), precision=precision)
    assert torch.equal(fresh(x, 0.5), fresh(x, 0.5)) and fresh.slice_batch_for(x.shape, "cpu") == 8
    assert torch.equal(fresh(x, 0.5), first)
    v = x.flip(0)
    assert torch.equal(denoise.vjp(x, 0.5, v)[order], denoise.vjp(x[order], 0.5, v[order]))


@pytest.mark.parametrize("slice_batch", [None, 16])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
)
def test_slice_batch_is_halved_when_memory_runs_out(
    slice_batch: int | None, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Small(Gaussian):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            if len(x) > 3:
                raise error
            return super().forward(x, sigma)

    monkeypatch.setattr(module, "slices_at_once", lambda *_: 16)
    prior = Small()
    denoise = SliceDenoiser(prior, Unit(), slice_batch=slice_batch)
    x = torch.rand(11, 16, 16)
    with caplog.at_level(logging.WARNING):
        out = denoise(x, 0.5)
    torch.testing.assert_close(out, x / 1.25)
    trial = [1] if slice_batch is None else []
    assert [len(part) for part, _ in prior.seen] == trial + [2] * 6
    assert caplog.messages == [
        f"out of memory with {n} slices at once; going on with {n // 2}, which changes rounding" for n in (11, 4)
    ]
    prior.seen.clear()
    denoise(x, 0.5)  # what was found out is remembered
    assert len(prior.seen[0][0]) == 2
    assert denoise.slice_batch_for((16, 16), "cpu") == 2


def test_no_memory_for_one_slice_is_an_error_that_helps() -> None:
    class Full(Gaussian):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for slice_batch in (None, 4):
        with pytest.raises(InputError, match=r"one slice of 16 x 24 on cpu; give a smaller --data.image_size, "):
            SliceDenoiser(Full(), Unit(), slice_batch=slice_batch)(torch.rand(5, 16, 24), 1.0)


@pytest.mark.parametrize("words", ["shapes", "could not create a primitive descriptor for a convolution"])
def test_other_errors_stay_what_they_are(words: str) -> None:
    class Broken(Gaussian):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            raise RuntimeError(words)

    with pytest.raises(RuntimeError, match=words):
        SliceDenoiser(Broken(), Unit())(torch.rand(5, 16, 16), 1.0)


def test_automatic_slice_batch_follows_cost_and_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert 1 << 20 < slice_batches.free_memory(cpu) <= slice_batches.total_memory(cpu)
    monkeypatch.setattr(slice_batches, "total_memory", lambda device: 4000)
    for free in (4000, 2000):  # what others take meanwhile, up to half, changes nothing
        monkeypatch.setattr(slice_batches, "free_memory", lambda device, free=free: free)
        assert [slice_batches.slices_at_once(cost, cpu) for cost in (0, 10, 200, 300, 5000)] == [8, 8, 4, 2, 1]
        assert [slice_batches.slices_at_once(cost, cuda) for cost in (0, 10, 50, 5000)] == [64, 64, 16, 1]
    assert not caplog.messages
    monkeypatch.setattr(slice_batches, "free_memory", lambda device: 900)
    assert slice_batches.slices_at_once(200, cpu) == 2
    assert caplog.messages == [
        "little memory is free: 2 slices at once instead of 4, which changes rounding; --slice_batch sets it"
    ]


def test_what_a_slice_costs_follows_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[int] = []
    monkeypatch.setattr(module, "slices_at_once", lambda cost, device: costs.append(cost) or 4)  # type: ignore[func-returns-value]
    net = network()
    denoise = SliceDenoiser(net, Unit())
    x = torch.rand(7, 32, 32)
    torch.testing.assert_close(denoise(x, 0.5), SliceDenoiser(net, Unit(), slice_batch=1)(x, 0.5), rtol=1e-5, atol=1e-6)
    denoise(x, 0.5)
    assert len(costs) == 1  # once a size
    denoise(torch.rand(2, 64, 64), 0.5)
    assert costs[1] == pytest.approx(4 * costs[0], rel=0.1)  # the layers put out four times as much
    denoise.vjp(x, 0.5, x)
    assert costs[2] == pytest.approx(4 * costs[0], rel=0.1)  # and all of it is kept for the way back
    assert not any(layer._forward_hooks for layer in net.modules())


def test_bfloat16_is_close() -> None:
    x = torch.rand(2, 16, 16)
    full, low = (SliceDenoiser(network(), Unit(), precision=p)(x, 0.5) for p in ("float32", "bfloat16"))
    assert 0 < float((full - low).abs().max()) < 0.02 and low.dtype == torch.float32
    with pytest.raises(InputError, match="precision half: give one of auto, float32, bfloat16"):
        SliceDenoiser(network(), Unit(), precision="half")


@pytest.mark.parametrize("has", [False, True])
def test_auto_is_what_the_device_does_well(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mbir.prior.networks.precision.has_bfloat16", lambda device: has)
    found, net, x = "bfloat16" if has else "float32", network(), torch.rand(2, 16, 16)
    denoise = SliceDenoiser(net, Unit(), precision="auto")
    assert denoise.precision_on(torch.device("cpu")) == found
    assert torch.equal(denoise(x, 0.5), SliceDenoiser(net, Unit(), precision=found)(x, 0.5))


def small(complex: bool, align_phase: bool = False) -> LightUNet:
    if not complex:
        return network()
    torch.manual_seed(0)
    net = LightUNet(**OPTIONS, in_channels=2, align_phase=align_phase)  # type: ignore[arg-type]
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)
    return net


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(("complex", "align_phase"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 2, 13, 18), (3, 2, 16)])
def test_vjp_is_the_adjoint_of_the_derivative(
    shape: tuple[int, ...], complex: bool, align_phase: bool, inference: bool
) -> None:
    """Against autograd and finite differences in float64, with padding; weights may come from inference mode."""
    generator = torch.Generator().manual_seed(1)
    dtype = torch.complex128 if complex else torch.float64
    x, u, v = (torch.randn(shape, dtype=dtype, generator=generator) for _ in range(3))
    exact = small(complex, align_phase).double()
    exact.embedding.register_forward_pre_hook(lambda _, features: (features[0].double(),))  # those of sigma are float32
    rows, columns = -shape[-2] % 4, -shape[-1] % 4

    def reference(x: Tensor) -> Tensor:
        slices = x.reshape(-1, *shape[-2:])
        part = torch.stack((slices.real, slices.imag), 1) if complex else slices[:, None]
        mode = "replicate" if rows >= shape[-2] else "reflect"
        part = nn.functional.pad(part, (0, columns, 0, rows), mode=mode)
        level = torch.full((len(part),), 0.5 / 2**0.5 if complex else 0.5, dtype=torch.float64)
        clean = posterior_mean(exact, part, level)[..., : shape[-2], : shape[-1]]
        return (torch.complex(clean[:, 0], clean[:, 1]) if complex else clean[:, 0]).reshape(shape)

    with torch.inference_mode(inference):
        denoise = SliceDenoiser(small(complex, align_phase), Unit(), slice_batch=3)
        low = (lambda t: t.to(torch.complex64)) if complex else (lambda t: t.float())
        clean, ours = denoise(low(x), 0.5), denoise.vjp(low(x), 0.5, low(v))
        assert ours.dtype == clean.dtype and not ours.requires_grad
        ours.mul_(1)  # as good as any other tensor
    torch.testing.assert_close(clean, low(reference(x)), rtol=1e-3, atol=1e-4)
    theirs = torch.autograd.functional.vjp(reference, x, v)[1]
    torch.testing.assert_close(ours, low(theirs), rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
    step = 1e-6
    with torch.no_grad():
        difference = (reference(x + step * u) - reference(x - step * u)) / (2 * step)
    inner = float((v.conj() * difference).real.sum())
    scale = float(u.norm() * theirs.norm())
    assert float((ours.to(dtype).conj() * u).real.sum()) == pytest.approx(inner, abs=1e-4 * scale)


def test_vjp_in_slice_batches_and_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Small(Gaussian):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            if len(x) > (3 if x.requires_grad else 8):  # the way back takes memory
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x, sigma)

    monkeypatch.setattr(module, "slices_at_once", lambda *_: 8)
    prior = Small()
    denoise = SliceDenoiser(prior, Unit())
    x, v = torch.rand(2, 11, 16, 16)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(denoise(x, 0.5), x / 1.25)
        torch.testing.assert_close(denoise.vjp(x, 0.5, v), v / 1.25)
    assert caplog.messages == ["out of memory with 6 slices at once; going on with 3, which changes rounding"]
    prior.seen.clear()
    denoise(x, 0.5)  # which still passes as many as it can
    assert [len(part) for part, _ in prior.seen] == [6, 6]
    with pytest.raises(InputError, match="cotangent"):
        denoise.vjp(x, 0.5, v[:3])
    with pytest.raises(InputError, match="real slices"):
        denoise.vjp(x + 0j, 0.5, v + 0j)


def test_vjp_is_float32_whatever_the_precision() -> None:
    x, v = torch.rand(2, 2, 16, 16)
    full, low = (SliceDenoiser(network(), Unit(), precision=p).vjp(x, 0.5, v) for p in ("float32", "bfloat16"))
    assert torch.equal(full, low)
