"""A prior of three neighbouring slices: which go together, what comes of it, and what it needs to be told."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.methods.catalog import METHODS
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.prior import LightUNet, SliceDenoiser, Unit, load_prior, save_prior
from lightning_mbir.prior.neighbours import neighbours
from lightning_mbir.prior.networks.unet import adding_from_concat, joined, parted, three_from_one
from lightning_mbir.reconstruction import reconstruct
from tests.prior.conftest import OPTIONS, network

LEVELS = [0.01 * 1.3**k for k in range(60)]


def three(**options: Any) -> LightUNet:
    torch.manual_seed(0)
    net = LightUNet(**{**OPTIONS, "slices": 3, **options})
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)
    return net


@pytest.mark.parametrize("n", [3, 4, 5, 8, 9, 10, 17, 18, 32, 100])
def test_triples_cover_a_stack_once(n: int) -> None:
    found = set()
    for sigma in LEVELS:
        places, counts, step = neighbours(n, sigma)
        assert sorted(places[counts].tolist()) == list(range(n))
        assert bool((places.diff(dim=1) == step).all()) and step in (1, 3)
        assert bool(counts.any(1).all())  # no call of the network for nothing
        assert len(places) <= n / 3 + 6
        found.add((step, int(places[counts.all(1)][0, 0])) if bool(counts.all(1).any()) else (step, -1))
    steps = {step for step, _ in found}
    assert steps == ({1, 3} if n >= 9 else {1})
    if n >= 11:
        assert len({start for step, start in found if step == 1}) == 3  # they begin at each of three slices
    if n >= 32:
        calls = [len(neighbours(n, sigma)[0]) for sigma in LEVELS]
        assert sum(calls) / len(calls) < 0.4 * n


def test_triples_are_keyed_by_the_level_alone() -> None:
    for sigma in LEVELS:
        first, again = neighbours(20, sigma), neighbours(20, sigma)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    wide = [neighbours(20, sigma)[2] == 3 for sigma in LEVELS]
    assert 15 < sum(wide) < 45


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("sigma", LEVELS[::12])
def test_a_stack_is_denoised_by_its_triples(complex: bool, sigma: float) -> None:
    """Against the network by hand, whatever the slice batch, and each of two stacks by itself."""
    net = three(in_channels=2, align_phase=True) if complex else three()
    dtype = torch.complex64 if complex else torch.float32
    x = torch.randn(2, 11, 16, 20, dtype=dtype, generator=torch.Generator().manual_seed(0))
    results = []
    for slice_batch in (1, 3, 8):
        denoise = SliceDenoiser(net, Unit(), slice_batch=slice_batch)
        denoise.spacing = 2.5
        results.append(denoise(x, sigma))
        torch.testing.assert_close(denoise(x[1], sigma), results[-1][1], rtol=1e-5, atol=1e-5)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-5, atol=1e-5)
    places, counts, step = neighbours(11, sigma)
    level = sigma / 2**0.5 if complex else sigma
    with torch.no_grad():
        for triple, wanted in zip(places.tolist(), counts, strict=True):
            part = x[0, triple]
            part = torch.view_as_real(part).permute(0, 3, 1, 2).reshape(1, 6, 16, 20) if complex else part[None]
            clean = net(part, torch.tensor([level]), torch.tensor([2.5 * step]))[0]
            if complex:
                clean = torch.view_as_complex(clean.reshape(3, 2, 16, 20).permute(0, 2, 3, 1).contiguous())
            torch.testing.assert_close(results[0][0, triple][wanted], clean[wanted], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("slice_batch", [1, 2, 8])
def test_the_derivative_couples_the_slices_of_a_triple(sigma: float, slice_batch: int) -> None:
    """Against finite differences of the denoiser itself."""
    denoise = SliceDenoiser(three(), Unit(), slice_batch=slice_batch)
    denoise.spacing = 3.0
    generator = torch.Generator().manual_seed(1)
    x, u, v = (torch.randn(10, 16, 16, generator=generator) for _ in range(3))
    step = 1e-2
    change = (denoise(x + step * u, sigma) - denoise(x - step * u, sigma)) / (2 * step)
    back = denoise.vjp(x, sigma, v)
    scale = float(u.norm() * back.norm())
    assert float((v * change).sum()) == pytest.approx(float((back * u).sum()), abs=2e-3 * scale)
    one = torch.zeros_like(v)
    one[4, 8, 8] = 1.0
    assert int((denoise.vjp(x, sigma, one).abs().amax((1, 2)) > 0).sum()) == 3


def test_a_widened_network_does_to_the_middle_slice_what_it_did() -> None:
    for one in (network(), small_complex()):
        wide = three_from_one(one)
        channels = one.in_channels
        x, sigma = torch.randn(2, 3 * channels, 16, 16), torch.tensor([0.3, 2.0])
        with torch.no_grad():
            clean = wide(x, sigma, torch.tensor([1.0, 8.0]))
            middle = one(x[:, channels : 2 * channels].contiguous(), sigma)
        torch.testing.assert_close(clean[:, channels : 2 * channels], middle, rtol=1e-5, atol=1e-5)
        wide.load_state_dict(LightUNet(**{**OPTIONS, "slices": 3, **kind(one)}).state_dict())


@pytest.mark.parametrize("skips", ["concat", "add"])
def test_slices_meet_below_the_finest_resolution(skips: str) -> None:
    """Each is parted and joined as it lies in memory; of one level there is nowhere to meet."""
    x = torch.randn(2, 6, 4, 5).contiguous(memory_format=torch.channels_last)
    by_itself = parted(x, 3)
    assert torch.equal(by_itself, x.reshape(6, 2, 4, 5)) and torch.equal(joined(by_itself, 3), x)
    for part in (by_itself, joined(by_itself, 3)):
        assert part.is_contiguous(memory_format=torch.channels_last)
    net = three(skips=skips)
    moved = torch.zeros(1, 3, 16, 16)
    moved[0, 2, 8, 8] = 1.0
    with torch.no_grad():
        change = (net(moved, torch.ones(1), torch.ones(1)) - net(0 * moved, torch.ones(1), torch.ones(1))).abs()
    assert bool((change.amax((0, 2, 3)) > 0).all())
    with pytest.raises(InputError, match=r"slices 3: give channels of at least two levels"):
        LightUNet(channels=[8], attention=False, slices=3)


def small_complex() -> LightUNet:
    net = LightUNet(**OPTIONS, in_channels=2, align_phase=True)  # type: ignore[arg-type]
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)
    return net


def kind(net: LightUNet) -> dict[str, Any]:
    return {"in_channels": net.in_channels, "align_phase": net.align_phase}


def test_a_network_that_adds_takes_the_way_down_of_one_that_concatenates() -> None:
    given = network()
    net = adding_from_concat(given)
    theirs, ours = given.state_dict(), net.state_dict()
    for name, value in ours.items():
        if not name.startswith("up."):
            assert torch.equal(value, theirs[name]), name
    assert torch.equal(ours["up.1.conv.weight"], theirs["up.2.conv.weight"])
    assert torch.equal(ours["up.2.conv1.weight"], theirs["up.3.conv1.weight"][:, :8])
    assert net(torch.randn(1, 1, 16, 16), torch.ones(1)).isfinite().all()


def test_what_a_prior_of_neighbouring_slices_has_to_be_told(tmp_path: Path) -> None:
    denoise = SliceDenoiser(three(), Unit.of("ct"), "ct")
    with pytest.raises(InputError, match=r"has to know how far apart they are; give spacing=\(z, y, x\) in mm"):
        denoise(torch.zeros(5, 16, 16), 1.0)
    operator = ParallelBeam(16, torch.arange(0.0, 180.0, 30.0))
    y = operator(torch.rand(5, 16, 16) * 0.02)
    with pytest.raises(InputError, match="has to know how far apart"):
        reconstruct(y, operator, denoise, steps=2)
    with pytest.raises(InputError, match="of 3 neighbouring slices and the volume has 2; take one of single"):
        reconstruct(y[:2], operator, denoise, steps=2, spacing=(1.0, 1.0, 1.0))
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="distance of the slices in mm"):
            reconstruct(y, operator, denoise, steps=2, spacing=(wrong, 1.0, 1.0))
    config = {"network": "light", "network_options": {**OPTIONS, "slices": 3}, "modality": "ct"}
    save_prior(tmp_path / "three.safetensors", three(), config)
    assert load_prior(tmp_path / "three.safetensors").slices == 3
    with pytest.raises(InputError, match="slices 2: give 1, or 3"):
        LightUNet(slices=2)
    with pytest.raises(InputError, match=r"skips 'multiply': give concat or add"):
        LightUNet(skips="multiply")
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.needs_prior])
def test_every_sampler_takes_a_prior_of_neighbouring_slices(method: str) -> None:
    """As it takes one of single slices: the result does not depend on the slice batch, and the distance counts."""
    operator = ParallelBeam(16, torch.arange(0.0, 180.0, 30.0))
    y = operator(torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.02)
    needs = METHODS[method].needs

    def run(slice_batch: int, millimetres: float) -> Tensor:
        denoise = SliceDenoiser(three(), Unit.of("ct"), "ct", slice_batch)
        second = {"second_prior": SliceDenoiser(three(), Unit.of("ct"), "ct")} if "second_prior" in needs else {}
        spacing = (millimetres, 1.0, 1.0)
        return reconstruct(y, operator, denoise, method, steps=3, spacing=spacing, **second).volume

    one, other, far = run(1, 2.0), run(8, 2.0), run(8, 20.0)
    assert float((one - other).norm() / other.norm()) < 0.02  # a random network blows rounding up
    assert float((far - other).abs().max()) > 1e-7


def test_the_slice_batch_of_a_run_is_settled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_mbir.prior import denoiser as module

    asked: list[int] = []
    monkeypatch.setattr(module, "slices_at_once", lambda cost, device: asked.append(cost) or 2)  # type: ignore[func-returns-value]
    denoise = SliceDenoiser(three(), Unit.of("ct"), "ct")
    operator = ParallelBeam(16, torch.arange(0.0, 180.0, 30.0))
    y = operator(torch.rand(5, 16, 16) * 0.02)
    for _ in range(2):
        reconstruct(y, operator, denoise, steps=2, spacing=(1.0, 1.0, 1.0))
    assert len(asked) == 1 and list(denoise.chosen.values()) == [2]
