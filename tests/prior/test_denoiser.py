"""The denoiser contract and the files that priors come from."""

from pathlib import Path

import pytest
import torch

from lightning_mbir.data.units import CT_SCALE
from lightning_mbir.errors import InputError
from lightning_mbir.prior import LightUNet, SliceDenoiser, Unit, load_prior, save_prior

OPTIONS = {"channels": [8, 16], "blocks": 1}


def network() -> LightUNet:
    torch.manual_seed(0)
    net = LightUNet(**OPTIONS)  # type: ignore[arg-type]
    for parameter in net.parameters():  # the last layers start at zero: fill them, so that something is tested
        torch.nn.init.normal_(parameter, std=0.05)
    return net


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


def test_complex_slices_are_refused() -> None:
    with pytest.raises(InputError, match="real slices"):
        SliceDenoiser(network(), Unit())(torch.zeros(1, 16, 16, dtype=torch.complex64), 1.0)


@pytest.mark.parametrize("name", ["ct", "mri"])
def test_bundled_priors_are_small_and_denoise(name: str) -> None:
    from lightning_mbir.data import chest_phantom, head_phantom

    prior = load_prior(name)
    assert prior.modality == name
    assert prior.unit.scale == (CT_SCALE if name == "ct" else 1.0)
    phantom = (chest_phantom if name == "ct" else head_phantom)((4, 64, 64), seed=77) / prior.unit.scale
    noisy = phantom + 0.2 * torch.randn(phantom.shape, generator=torch.Generator().manual_seed(0))
    error = (prior(noisy, 0.2) - phantom).square().mean().sqrt()
    assert float(error) < 0.1  # half the noise is gone, at the least

    from lightning_mbir.prior import checkpoint

    file = Path(checkpoint.__file__).parents[1] / "assets" / f"{name}.safetensors"
    assert file.stat().st_size <= 8_000_000


def test_files_come_back_and_others_are_refused(tmp_path: Path) -> None:
    net = network()
    config = {"network": "light", "network_options": OPTIONS, "modality": "mri"}
    file = tmp_path / "p.safetensors"
    digest = save_prior(file, net, config)
    assert len(digest) == 64
    x = torch.rand(1, 16, 16)
    torch.testing.assert_close(load_prior(file)(x, 0.3), SliceDenoiser(net, Unit())(x, 0.3), rtol=0, atol=2e-3)

    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:1000])
    other = tmp_path / "other.safetensors"
    save_prior(other, net, {**config, "network_options": {"channels": [8, 32], "blocks": 1}})
    rubbish = tmp_path / "rubbish.ckpt"
    rubbish.write_bytes(b"no checkpoint")
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {}}, foreign)
    for source, words in (
        (tmp_path / "gone.ckpt", "no such file"),
        (cut, "not a whole safetensors"),
        (other, "do not fit"),
        (rubbish, "not a whole Lightning"),
        (foreign, "another module"),
        (tmp_path, "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            load_prior(source)
