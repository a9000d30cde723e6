"""What a training starts from: another prior, or one that it is more than; complex slices and triples."""

from pathlib import Path

import pytest
import torch

from lightning_mbir.data import SliceDataModule
from lightning_mbir.errors import InputError
from lightning_mbir.prior import LightUNet, ScorePriorModule, load_prior, save_prior
from lightning_mbir.prior.networks.local_phase import local_phase, rotated
from tests.prior.conftest import LITTLE_VALIDATION, TINY, tiny, trainer


def test_training_goes_on_from_a_prior(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = tiny()
    with torch.no_grad():
        for parameter in source.network.parameters():
            parameter.add_(0.01)
    config = {"network": "light", "network_options": source.hparams["network_options"], "modality": "ct"}
    save_prior(tmp_path / "start.safetensors", source.network, config)
    module = tiny(init=str(tmp_path / "start.safetensors"))
    for name, value in source.network.state_dict().items():
        torch.testing.assert_close(module.network.state_dict()[name], value, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(module.ema.module.state_dict()[name], module.network.state_dict()[name])
    with pytest.raises(InputError, match="another network"):
        ScorePriorModule(network_options={**TINY, "channels": [8, 24]}, init=str(tmp_path / "start.safetensors"))
    for option in ({"preconditioning": "ve"}, {"mean": 0.0}, {"sigma_data": 0.5}):  # the same weights, another function
        with pytest.raises(InputError, match="another network"):
            ScorePriorModule(network_options={**TINY, **option}, init=str(tmp_path / "start.safetensors"))


def test_a_training_starts_from_what_it_can_be_widened_from(tmp_path: Path) -> None:
    """Skips that were concatenated, single slices, both at once; what a new training takes is kept in its file."""
    for skips in ("concat", "add"):
        config = {"network": "light", "network_options": {**TINY, "skips": skips}, "modality": "ct", "coarse_size": 16}
        save_prior(tmp_path / f"{skips}.safetensors", LightUNet(**{**TINY, "skips": skips}), config)  # type: ignore[arg-type]
        for slices in (1, 3):
            module = tiny(init=str(tmp_path / f"{skips}.safetensors"), slices=slices)
            assert module.hparams["network_options"]["skips"] == "add" and module.network.coarse_size == 16
            start = load_prior(tmp_path / f"{skips}.safetensors").network.state_dict()
            for name, value in module.network.state_dict().items():
                if name.startswith("down.0."):  # the finest resolution, where slices are by themselves
                    torch.testing.assert_close(value, start[name])
    with pytest.raises(InputError, match="another network"):
        ScorePriorModule(network_options={**TINY, "skips": "concat"}, init=str(tmp_path / "add.safetensors"))
    with pytest.raises(InputError, match=r"--data.slices 3: of the light network alone, not ncsnpp"):
        ScorePriorModule(network="ncsnpp", slices=3)


@pytest.mark.parametrize("complex", [False, True])
def test_a_prior_of_three_slices_trains_on_triples(complex: bool, tmp_path: Path) -> None:
    """Their distance is told to the network, and what comes of it is a prior that volumes are denoised with."""
    options = {"modality": "mri", "complex": complex, "slices": 3}
    data = SliceDataModule(image_size=32, phantom_volumes=1, slices_per_epoch=16, **options)  # type: ignore[arg-type]
    given = {**TINY, "align_phase": True} if complex else TINY
    module = ScorePriorModule(network_options=given, warmup_steps=1, learning_rate=1e-3, **options)  # type: ignore[arg-type]
    trainer(tmp_path, 4, **LITTLE_VALIDATION).fit(module, data)
    assert all(bool(p.abs().sum() > 0) for name, p in module.network.named_parameters() if "distance" in name)
    batch, distance = next(iter(data.train_dataloader()))
    assert batch.shape[1:] == (6 if complex else 3, 32, 32)
    assert set(distance.tolist()) <= {400 / 32, 3 * 400 / 32} and len(distance) == len(batch)
    assert "triples of axial slices" in (tmp_path / "run" / "prior.md").read_text()
    prior = load_prior(tmp_path / "run" / "prior.safetensors").but(spacing=3.0)
    x = torch.randn(5, 32, 32, dtype=torch.complex64 if complex else torch.float32)
    assert prior.slices == 3 and prior(x, 0.5).shape == x.shape
    with pytest.raises(InputError, match=r"takes 1 slices at once; give --data.slices and --model.slices the same"):
        trainer(tmp_path / "other", 2).fit(tiny(modality="mri", complex=complex), data)


def test_complex_priors_train_on_two_channels(tmp_path: Path) -> None:
    data = SliceDataModule(modality="mri", complex=True, image_size=32, phantom_volumes=1, slices_per_epoch=16)
    module = ScorePriorModule(network_options=TINY, modality="mri", complex=True)
    trainer(tmp_path, 2, **LITTLE_VALIDATION).fit(module, data)
    prior = load_prior(tmp_path / "run" / "prior.safetensors")
    z = torch.randn(2, 32, 32, dtype=torch.complex64)
    assert prior(z, 0.5).dtype == torch.complex64
    with pytest.raises(InputError, match="complex"):
        trainer(tmp_path / "other", 2).fit(tiny(modality="mri"), data)


def test_a_complex_prior_starts_from_one_of_magnitudes(tmp_path: Path) -> None:
    source = tiny(modality="mri")
    config = {"network": "light", "network_options": source.hparams["network_options"], "modality": "mri"}
    for parameter in source.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_prior(tmp_path / "real.safetensors", source.network, config, half=False)
    options = {**TINY, "align_phase": True}
    module = ScorePriorModule(network_options=options, complex=True, init=str(tmp_path / "real.safetensors"))
    z = torch.randn(3, 2, 32, 32)
    sigma = torch.tensor([0.1, 1.0, 10.0])
    phasor = local_phase(z)
    ours = rotated(module.network(z, sigma), phasor, back=True)[:, :1]
    theirs = source.network(rotated(z, phasor, back=True)[:, :1], sigma)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="another network"):
        ScorePriorModule(network_options=TINY, complex=True, init=str(tmp_path / "real.safetensors"))
