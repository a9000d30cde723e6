"""Training of the prior: the loss, the averaged weights, resume, and the files that it leaves."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from lightning_mbir.data import SliceDataModule
from lightning_mbir.errors import InputError
from lightning_mbir.prior import NCSNpp, ScorePriorModule, load_prior
from lightning_mbir.prior.denoiser import posterior_mean

TINY = {"channels": [8, 16], "blocks": 1, "attention": False}


def tiny(**options: object) -> ScorePriorModule:
    return ScorePriorModule(network_options=TINY, warmup_steps=1, **options)  # type: ignore[arg-type]


def tiny_data() -> SliceDataModule:
    return SliceDataModule(image_size=32, batch_size=4, phantom_volumes=1, slices_per_epoch=16)


def trainer(folder: Path, steps: int, **options: object) -> L.Trainer:
    return L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="", version="run"),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        gradient_clip_val=1.0,
        **options,  # type: ignore[arg-type]
    )


def test_dsm_draws_log_uniform_noise_levels() -> None:
    torch.manual_seed(0)
    module = tiny(objective="dsm", sigma_min=0.01, sigma_max=100.0)
    log_sigma = module.draw_sigma(20_000).log10()
    # Uniform on [-2, 2]: mean 0, variance 16 / 12.
    assert float(log_sigma.mean()) == pytest.approx(0, abs=0.04)
    assert float(log_sigma.var()) == pytest.approx(16 / 12, rel=0.03)
    assert float(log_sigma.min()) >= -2 and float(log_sigma.max()) <= 2


def test_dsm_loss_is_the_score_matching_loss() -> None:
    """Weighted denoising error equals ``mean (sigma score + n)^2`` with ``score = (D - x) / sigma^2``."""
    torch.manual_seed(0)
    module = tiny(objective="dsm")
    clean, noise = torch.rand(3, 1, 16, 16), torch.randn(3, 1, 16, 16)
    sigma = torch.tensor([0.1, 1.0, 10.0])
    s = sigma[:, None, None, None]
    noisy = clean + s * noise
    denoised = posterior_mean(module.network, noisy, sigma)
    score = (denoised - noisy) / s**2
    expected = (s * score + noise).square().mean((1, 2, 3))
    weighted = module.weight(sigma) * (denoised - clean).square().mean((1, 2, 3))
    torch.testing.assert_close(weighted, expected, rtol=1e-3, atol=1e-4)


def test_edm_weight_makes_an_untrained_network_equally_wrong_at_all_levels() -> None:
    """The bare network starts at zero; for slices of standard deviation ``sigma_data`` its loss is then 1."""
    torch.manual_seed(0)
    module = tiny(sigma_data=0.35)
    clean = 0.35 + 0.35 * torch.randn(64, 1, 16, 16)
    for level in (0.02, 0.35, 20.0):
        sigma = torch.full((64,), level)
        denoised = posterior_mean(module.network, clean + level * torch.randn_like(clean), sigma)
        loss = module.weight(sigma) * (denoised - clean).square().mean((1, 2, 3))
        assert float(loss.mean()) == pytest.approx(1.0, rel=0.05)


def test_score_networks_become_denoisers_by_tweedie() -> None:
    network = NCSNpp(nf=8, channel_multipliers=(1, 2), num_res_blocks=1)
    x, sigma = torch.rand(2, 1, 16, 16), torch.tensor([0.5, 2.0])
    expected = x + sigma[:, None, None, None] ** 2 * network(x, sigma)
    torch.testing.assert_close(posterior_mean(network, x, sigma), expected)


def test_training_learns_logs_and_writes_the_prior(tmp_path: Path) -> None:
    L.seed_everything(0)
    module = tiny(learning_rate=5e-3, cosine=False)
    trainer(tmp_path, 24).fit(module, tiny_data())
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/learning_rate", "val/loss", "val/psnr_sigma_0.1"} <= set(tags["scalars"])
    assert {"generated", "denoised/sigma_0.5"} <= set(tags["images"])
    losses = [event.value for event in events.Scalars("train/loss")]
    assert sum(losses[-6:]) < sum(losses[:6])

    prior = load_prior(tmp_path / "run" / "prior.safetensors")
    assert prior.modality == "ct"
    card = (tmp_path / "run" / "prior.md").read_text()
    assert "24 steps of 4 slices" in card and "| 0.1 |" in card
    x = torch.rand(2, 32, 32)
    expected = posterior_mean(module.ema.module, x[:, None], torch.full((2,), 0.3))[:, 0]
    torch.testing.assert_close(prior(x, 0.3), expected, rtol=0, atol=5e-3)  # half precision in the file


def test_averaged_weights_follow_the_released_rule() -> None:
    module = tiny(ema_decay=0.999)
    name, start = next((n, p.clone()) for n, p in module.network.named_parameters())
    average = start
    for k in range(1, 4):
        with torch.no_grad():
            dict(module.network.named_parameters())[name].add_(1.0)
        module.ema.update_parameters(module.network)
        new = start + k
        # The first update copies; then decay is min(0.999, (1 + k) / (10 + k)) with k updates behind it.
        decay = 0.0 if k == 1 else (1 + (k - 1)) / (10 + (k - 1))
        average = decay * average + (1 - decay) * new
        torch.testing.assert_close(dict(module.ema.module.named_parameters())[name], average)


def test_resume_keeps_the_average_and_obeys_the_flags(tmp_path: Path) -> None:
    L.seed_everything(0)
    keep = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    first = tiny(learning_rate=1e-3, cosine=False)
    trainer(tmp_path, 4, callbacks=[keep]).fit(first, tiny_data())
    saved = {k: v.clone() for k, v in first.state_dict().items() if k.startswith("ema.")}
    checkpoint = tmp_path / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)  # plain types only
    assert int(content["state_dict"]["ema.n_averaged"]) == 4

    class Spy(L.Callback):
        state: dict[str, Tensor]
        rate: float

        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.state = {k: v.clone() for k, v in pl_module.state_dict().items() if k.startswith("ema.")}

        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    spy = Spy()
    second = tiny(learning_rate=2e-4, cosine=False)
    trainer(tmp_path / "more", 6, callbacks=[spy]).fit(second, tiny_data(), ckpt_path=str(checkpoint))
    for name, value in saved.items():
        torch.testing.assert_close(spy.state[name], value, rtol=0, atol=0)
    assert spy.rate == pytest.approx(2e-4)
    assert int(second.ema.n_averaged) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [({"network": "vgg"}, "unknown"), ({"learning_rate": 0.0}, "learning_rate"), ({"objective": "gan"}, "objective")],
)
def test_wrong_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ScorePriorModule(**options)  # type: ignore[arg-type]
