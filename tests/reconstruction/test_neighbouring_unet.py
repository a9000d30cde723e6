"""The supervised baseline that looks at the neighbours of each slice: a U-Net of two and a half dimensions."""

from pathlib import Path

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.methods.fbp_unet import CorrectionUNet, FBPUNet, read_unet, with_neighbours
from lightning_mbir.reconstruction import TASKS, reconstruct
from tests.reconstruction.test_fbp_unet import TINY, N, data, fit, module, scans, smooth_volume, volume

THREE = {**TINY, "slices": 3}


def test_pairs_have_each_slice_between_its_neighbours() -> None:
    truth = smooth_volume(scale=0.02)
    one, three = (module(network_options=options).pairs(volume(truth)) for options in (TINY, THREE))
    assert one.shape == (12, 2, 1, N, N) and three.shape == (12, 2, 3, N, N)
    for shift in (-1, 0, 1):
        places = (torch.arange(12) + shift).clamp(0, 11)
        assert torch.equal(three[:, :, 1 + shift], one[places, :, 0])


def test_long_volumes_stay_side_by_side() -> None:
    truth = torch.linspace(0.01, 0.02, 100)[:, None, None] * torch.ones(100, N, N)
    for variant in range(4):
        pairs = module(network_options=THREE).pairs(volume(truth), variant)
        assert len(pairs) == 48
        rise = pairs[:, 1, :, N // 2, N // 2].float().diff(dim=1)[1:-1]
        assert float(rise.min()) > 0.5 * 0.01 / 99 / 0.0384 and float(rise.max()) < 0.01


def test_it_learns_from_neighbours_and_goes_by_their_distance(tmp_path: Path) -> None:
    pairs = data(scans(tmp_path / "scans"), held_out="p1")
    fit(tmp_path / "out", pairs, 60, learning_rate=3e-3, network_options=THREE)
    unet = read_unet(tmp_path / "out" / "unet.safetensors")
    assert unet.network.slices == 3 and {distance for _, distance in pairs._validation} == {4.0}
    direct, truth = (torch.stack([pair for pair, _ in pairs._validation]).float()[:, i, 1] for i in (0, 1))
    with pytest.raises(InputError, match=r"how far apart they are; give spacing=\(z, y, x\) in mm"):
        unet(direct)
    placed = FBPUNet(unet.network, unet.config, unet.path, spacing=4.0)
    before, after = ((x - truth).square().mean() for x in (direct, placed(direct)))
    assert float(after) < 0.5 * float(before)
    torch.testing.assert_close(placed(direct, slice_batch=1), placed(direct, slice_batch=5), rtol=1e-4, atol=1e-5)
    operator = TASKS["sv_ct"].build_operator(N, 2.5, views=6)
    y = operator(truth * 0.0384)
    near, far = (
        reconstruct(y, operator, method="fbp_unet", network=unet.path, spacing=(mm, 2.5, 2.5)).volume
        for mm in (4.0, 40.0)
    )
    torch.testing.assert_close(near / 0.0384, placed(direct), rtol=0, atol=2e-2)
    assert float((near - far).abs().max()) > 1e-6


def test_it_starts_at_the_direct_inversion_and_takes_a_single_slice() -> None:
    x = torch.randn(5, 1, N, N)
    network = CorrectionUNet(**THREE)
    for stack in (x, x[:1]):
        given = with_neighbours(stack, torch.arange(len(stack)), 3)
        torch.testing.assert_close(network(given, torch.full((len(stack),), 3.0)), stack)
