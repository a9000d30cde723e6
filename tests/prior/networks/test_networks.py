"""The networks by name: one contract, the scaling with sigma, and compilation that may fail."""

from __future__ import annotations

import logging
import sysconfig
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior import LightUNet, NCSNpp, SliceDenoiser, Unit, load_prior, save_prior
from lightning_mbir.prior.denoiser import posterior_mean
from lightning_mbir.prior.networks.build import NETWORKS, build_network
from lightning_mbir.prior.networks.ncsnpp import fir_down, fir_up
from lightning_mbir.prior.networks.running import compiled
from lightning_mbir.prior.networks.unet import Upsample

SMALL: dict[str, dict[str, Any]] = {
    "light": {"channels": [8, 16]},
    "ncsnpp": {"nf": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1},
    "monai": {"channels": [8, 16], "norm_groups": 4, "attention_levels": [1], "head_channels": 8},
}


def network(name: str, **options: Any) -> nn.Module:
    """A small one with weights in all its layers; the last start at zero, which would test nothing."""
    if name == "monai":
        pytest.importorskip("einops")
    torch.manual_seed(0)
    net = build_network(name, {**SMALL[name], **options})
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net.eval()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_contract(name: str, channels: int) -> None:
    net = network(name, in_channels=channels)
    assert net.in_channels == channels
    stride = int(net.stride)  # type: ignore[arg-type]
    x = torch.rand(2, channels, 4 * stride, 6 * stride)
    sigma = torch.tensor([0.1, 3.0])
    out = posterior_mean(net, x, sigma)
    assert out.shape == x.shape
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)
    with torch.no_grad():
        torch.testing.assert_close(posterior_mean(net, x[1:], sigma[1:]), out[1:].detach(), rtol=1e-4, atol=1e-4)
        near = posterior_mean(net, x, sigma * (1 + 1e-6))
        torch.testing.assert_close(near, out.detach(), rtol=1e-2, atol=1e-2)  # continuous in sigma
        assert (posterior_mean(net, x, 2 * sigma) - out).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 6)])
def test_doubling_is_nearest_neighbour_and_a_convolution(size: tuple[int, int]) -> None:
    """With its derivatives, in double precision, and in the layout that convolutions are fastest in."""
    layer = Upsample(3, 5).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    plain = layer.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(layer(x), plain)
    assert (layer(x) + plain).is_contiguous(memory_format=torch.channels_last)
    v = torch.randn_like(plain)
    for ours, theirs in zip(
        *(torch.autograd.grad(y, (x, layer.conv.weight), v) for y in (layer(x), plain)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("nf", [4, 12, 36, 48, 80, 132])
def test_ncsnpp_of_any_multiple_of_four(nf: int) -> None:
    net = NCSNpp(nf=nf, channel_multipliers=(1, 2), num_res_blocks=1)
    assert net(torch.rand(1, 1, 8, 8), torch.ones(1)).shape == (1, 1, 8, 8)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.GroupNorm)]
    assert norms and all(norm.num_channels // norm.num_groups >= 4 for norm in norms)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": []}, "at least one level"),
        ({"channels": [8], "blocks": 0}, "at least one block"),
        ({"channels": [8, 10]}, "channels 10: the last is no multiple of 4, of attention"),
        ({"unheard_of": 1}, "does not take these options"),
    ],
)
def test_options_that_make_no_network_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_network("light", options)


@pytest.mark.parametrize("name", ["light", "monai"])
def test_edm_is_the_formula_of_the_trained_priors(name: str) -> None:
    net = network(name)
    x, sigma, mean, sigma_data = torch.rand(3, 1, 16, 16), torch.tensor([0.01, 0.5, 30.0]), 0.35, 0.35
    with torch.no_grad():
        s = sigma.reshape(-1, 1, 1, 1)
        total = (s**2 + sigma_data**2).sqrt()
        raw = net.network((x - mean) / total, sigma.log() / 4)  # type: ignore[operator]
        expected = mean + (sigma_data / total) ** 2 * (x - mean) + s * sigma_data / total * raw
        assert torch.equal(net(x, sigma), expected)


@pytest.mark.parametrize("name", ["light", "monai"])
def test_ve_is_a_score(name: str) -> None:
    net = network(name, preconditioning="ve", mean=0.2)
    x, sigma = torch.rand(2, 1, 16, 16), torch.tensor([0.1, 4.0])
    with torch.no_grad():
        score = net.network(x - 0.2, (sigma / 2).log()) / sigma[:, None, None, None]  # type: ignore[operator]
        torch.testing.assert_close(net(x, sigma), x + sigma[:, None, None, None] ** 2 * score)
    assert net.state_dict().keys() == network(name).state_dict().keys()


def test_two_channels_have_mean_zero() -> None:
    assert LightUNet([8]).mean == 0.35
    assert LightUNet([8], in_channels=2).mean == 0
    assert LightUNet([8], in_channels=2, mean=0.1).mean == 0.1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("unet", {}, "unknown; there are light, ncsnpp, monai"),
        ("light", {"wide": 1}, "does not take these options"),
        ("light", {"preconditioning": "vp"}, "'vp': give edm or ve"),
        ("monai", {"channels": [10, 20]}, "does not take these options"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_network(name, options)


@pytest.mark.parametrize("name", NETWORKS)
def test_prior_files(name: str, tmp_path: Path) -> None:
    net = network(name)
    save_prior(tmp_path / "p.safetensors", net, {"network": name, "network_options": SMALL[name], "modality": "mri"})
    x = torch.rand(2, 16, 16)
    expected = SliceDenoiser(net.half().float(), Unit())(x, 0.5)  # files are in half precision
    torch.testing.assert_close(load_prior(tmp_path / "p.safetensors")(x, 0.5), expected, rtol=1e-5, atol=1e-5)


def test_fir_up_is_zeros_between_the_pixels_and_the_low_pass() -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    spread = torch.zeros(2, 3, 10, 12, dtype=torch.float64)
    spread[..., ::2, ::2] = x.detach()
    kernel = torch.outer(taps, taps).expand(3, 1, 4, 4)
    torch.testing.assert_close(fir_up(x).detach(), F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, groups=3))
    assert torch.autograd.gradcheck(fir_up, x) and torch.autograd.gradcheck(
        fir_down, fir_up(x).detach().requires_grad_()
    )
    assert fir_up(x.detach().contiguous(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last
    )


def test_ncsnpp_in_bfloat16_keeps_its_last_layer_in_float32() -> None:
    net = network("ncsnpp")
    seen: list[torch.dtype] = []
    assert isinstance(net, NCSNpp)
    net.conv_out.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    x, sigma = torch.rand(1, 1, 16, 16), torch.ones(1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = net(x, sigma)
    with torch.no_grad():
        full = net(x, sigma)
    assert seen == [torch.float32] * 2
    assert (low - full).norm() / full.norm() < 0.05


def failing(at_call: bool, error: Exception) -> Callable[[nn.Module], Callable[..., Tensor]]:
    """A ``torch.compile`` that fails, at once or when the compiled network is called."""

    def call(*args: Tensor) -> Tensor:
        raise error

    def compile(module: nn.Module) -> Callable[..., Tensor]:
        if not at_call:
            raise error
        return call

    return compile


@pytest.mark.parametrize("at_call", [True, False])
def test_a_failed_compilation_falls_back(
    at_call: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", failing(at_call, RuntimeError("no C++ compiler\nat line 1")))
    net = network("ncsnpp")
    names = list(net.state_dict())
    run = compiled(net)
    x, sigma = torch.rand(1, 1, 16, 16), torch.ones(1)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        for _ in range(2):
            assert torch.equal(posterior_mean(run, x, sigma), posterior_mean(net, x, sigma))
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile failed (no C++ compiler); the network runs uncompiled"
    ]
    assert list(net.state_dict()) == names


def test_errors_that_are_not_of_the_compiler_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", failing(True, torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        compiled(network("light"))(torch.rand(1, 1, 16, 16), torch.ones(1))
    monkeypatch.setattr(torch, "compile", failing(True, RuntimeError("compiler")))
    with pytest.raises(RuntimeError, match="channels"):
        compiled(network("light"))(torch.rand(1, 5, 16, 16), torch.ones(1))


def test_a_compiled_denoiser_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compile(module: nn.Module) -> Callable[..., Tensor]:
        def call(*args: Tensor) -> Tensor:
            calls.append(len(args[0]))
            return module(*args)

        return call

    monkeypatch.setattr(torch, "compile", compile)
    net, x = network("light"), torch.rand(5, 16, 16)
    plain = SliceDenoiser(net, Unit(), slice_batch=2)(x, 0.5)
    assert torch.equal(SliceDenoiser(net, Unit(), slice_batch=2, compile=True)(x, 0.5), plain)
    assert calls == [2, 2, 2]
    net.coarse_size = 8  # type: ignore[assignment]
    plain = SliceDenoiser(net, Unit(), slice_batch=2)(x, 20.0)
    assert torch.equal(SliceDenoiser(net, Unit(), slice_batch=2, compile=True)(x, 20.0), plain)
    net.coarse_size = None  # type: ignore[assignment]
    assert not torch.equal(SliceDenoiser(net, Unit(), slice_batch=2)(x, 20.0), plain)


COMPILES = (which("g++") or which("clang++")) and Path(sysconfig.get_path("include"), "Python.h").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    not COMPILES,
    reason="torch.compile needs a C++ compiler and the headers of Python",
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_really_compiled_denoises_and_learns_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """No stand-in for the compiler, which takes its time; so a small network."""
    net = LightUNet(channels=[8], attention=False)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, sigma = torch.rand(2, 1, 16, 16), torch.tensor([0.1, 1.0])
    results = []
    for run in (net, compiled(net)):
        clean = run(x, sigma)
        results.append((clean, *torch.autograd.grad(clean.square().mean(), list(net.parameters()))))
    assert "uncompiled" not in caplog.text
    for eager, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, eager, rtol=1e-3, atol=1e-5)
