"""Training of the 2D slice prior: denoising score matching on the variance-exploding SDE."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lightning_mbir.data.volume import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.prior.checkpoint import build_network, save_prior
from lightning_mbir.prior.denoiser import channels_last, posterior_mean
from lightning_mbir.prior.vesde import VESDE

Objective = Literal["dsm", "edm"]
VALIDATION_SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Noise levels of the held-out denoising PSNR (peak 1)."""


class ScorePriorModule(L.LightningModule):
    """Learns to denoise slices at every noise level of the VE-SDE.

    With ``objective="dsm"`` the loss is that of Song et al. 2021, equation 7: ``t`` uniform, hence sigma log-uniform
    between ``sigma_min`` and ``sigma_max``, and ``E || sigma score(x + sigma n, sigma) + n ||^2``, which is the
    squared error of the denoised image over sigma^2. With ``"edm"`` it is that of Karras et al. 2022, section 5:
    sigma log-normal and the error weighted by ``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2``; few-step samplers
    gain from it, since it spends the training where denoising is neither trivial nor hopeless.

    The averaged weights (EMA, decay ``min(ema_decay, (1 + k) / (10 + k))``) are part of the module's state: they are
    validated, sampled from, saved and resumed like any other weights.

    Args:
        network: ``light`` or ``ncsnpp``; ``network_options`` are its constructor's.
        modality: ``ct`` or ``mri``; goes into the prior's file, and sets its unit.
        objective: ``edm`` or ``dsm``.
        learning_rate: of Adam, after ``warmup_steps`` linear steps; ``cosine`` lets it fall to 0 at the end.
        sigma_data: standard deviation of clean slices, for the EDM weight.
    """

    def __init__(
        self,
        network: str = "light",
        network_options: dict[str, Any] | None = None,
        modality: Modality = "ct",
        objective: Objective = "edm",
        learning_rate: float = 5e-4,
        warmup_steps: int = 200,
        cosine: bool = True,
        ema_decay: float = 0.999,
        sigma_min: float = 0.01,
        sigma_max: float = 378.0,
        log_sigma_mean: float = -1.0,
        log_sigma_std: float = 1.6,
        sigma_data: float = 0.35,
    ) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise InputError(f"--model.learning_rate {learning_rate}: give a positive number")
        if objective not in ("dsm", "edm"):
            raise InputError(f"--model.objective {objective}: give dsm or edm")
        self.save_hyperparameters()  # plain types only, so that a checkpoint loads with weights_only=True
        self.network = channels_last(build_network(network, network_options))
        self.ema = AveragedModel(self.network, avg_fn=_EMA(ema_decay), use_buffers=True)
        self.ema.requires_grad_(False)
        self.sde = VESDE(sigma_min, sigma_max)
        self.learning_rate = learning_rate
        self._validation: list[tuple[Tensor, Tensor]] = []
        self._validation_psnr: dict[float, float] = {}
        self._started = time.monotonic()

    def draw_sigma(self, n: int) -> Tensor:
        """``(n,)`` noise levels from the distribution of the objective."""
        if self.hparams["objective"] == "dsm":
            return self.sde.sigma(torch.rand(n, device=self.device))
        log_sigma = self.hparams["log_sigma_mean"] + self.hparams["log_sigma_std"] * torch.randn(n, device=self.device)
        return log_sigma.exp().clamp(self.sde.sigma_min, self.sde.sigma_max)

    def weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared denoising error at each noise level."""
        if self.hparams["objective"] == "dsm":
            return sigma**-2
        sigma_data = self.hparams["sigma_data"]
        return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        sigma = self.draw_sigma(len(batch))
        noisy = batch + sigma[:, None, None, None] * torch.randn_like(batch)
        clean = posterior_mean(self.network, noisy.contiguous(memory_format=torch.channels_last), sigma)
        loss = (self.weight(sigma) * (clean - batch).square().mean((1, 2, 3))).mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.network)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Squared denoising error of the averaged weights at fixed noise levels with fixed noise."""
        generator = torch.Generator().manual_seed(batch_idx)
        errors = []
        for level in VALIDATION_SIGMAS:
            noise = torch.randn(batch.shape, generator=generator).to(batch)
            sigma = torch.full((len(batch),), level, device=batch.device)
            clean = posterior_mean(self.ema.module, batch + level * noise, sigma)
            errors.append((clean - batch).square().mean((1, 2, 3)))
            if batch_idx == 0 and level in (0.1, 0.5, 2.0):
                rows = torch.stack((batch[:4] + level * noise[:4], clean[:4], batch[:4]))
                self._add_images(f"denoised/sigma_{level:g}", rows)
        self._validation.append((torch.stack(errors), torch.tensor(VALIDATION_SIGMAS, device=batch.device)))

    def on_validation_epoch_end(self) -> None:
        if not self._validation:
            return
        mse = torch.cat([errors for errors, _ in self._validation], 1).mean(1)
        sigmas = self._validation[0][1]
        self._validation.clear()
        self.log("val/loss", (self.weight(sigmas) * mse).mean(), prog_bar=True, sync_dist=True)
        for level, error in zip(VALIDATION_SIGMAS, mse, strict=True):
            self._validation_psnr[level] = float(-10 * error.log10())
            self.log(f"val/psnr_sigma_{level:g}", self._validation_psnr[level], sync_dist=True)
        if not self.trainer.sanity_checking:
            size = int(getattr(self.trainer.datamodule, "image_size", 128))  # type: ignore[attr-defined]
            self._add_images("generated", self.generate(4, size)[None])

    @torch.no_grad()
    def generate(self, n: int, image_size: int, steps: int = 24, sigma_max: float = 10.0, seed: int = 0) -> Tensor:
        """``(n, 1, Y, X)`` unconditional samples of the averaged weights, by Euler steps of the probability flow."""
        generator = torch.Generator().manual_seed(seed)
        x = sigma_max * torch.randn((n, 1, image_size, image_size), generator=generator).to(self.device)
        inverse_rho = torch.linspace(1, 0, steps, dtype=torch.float64)
        sigmas = (0.02 ** (1 / 7) + inverse_rho * (sigma_max ** (1 / 7) - 0.02 ** (1 / 7))) ** 7
        for now, after in zip(sigmas.tolist(), [*sigmas.tolist()[1:], 0.0], strict=True):
            clean = posterior_mean(self.ema.module, x, torch.full((n,), now, device=x.device))
            x = clean + (after / now) * (x - clean)
        return x

    def configure_optimizers(self) -> Any:
        # no weight decay, as in the released training; not fused, since that excludes gradient clipping under AMP
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self.learning_rate)
        total = float(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _Schedule(self.hparams["warmup_steps"], total, self))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The learning rate of the command line holds on resume too, not the one in the checkpoint."""
        for state in checkpoint.get("optimizer_states", []):
            for group in state["param_groups"]:
                group["initial_lr"] = self.learning_rate
        for state in checkpoint.get("lr_schedulers", []):
            state["base_lrs"] = [self.learning_rate] * len(state["base_lrs"])

    def on_fit_start(self) -> None:
        self._started = time.monotonic()

    def on_fit_end(self) -> None:
        """Write the prior and its model card beside the logs."""
        if not self.trainer.is_global_zero or self.trainer.log_dir is None or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = Path(self.trainer.log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        config = {key: self.hparams[key] for key in ("network", "network_options", "modality")}
        digest = save_prior(folder / "prior.safetensors", self.ema.module, config)
        (folder / "prior.md").write_text(self._model_card(digest))

    def _model_card(self, digest: str) -> str:
        parameters = sum(p.numel() for p in self.network.parameters())
        data = getattr(self.trainer.datamodule, "summary", "")  # type: ignore[attr-defined]
        batch = getattr(self.trainer.datamodule, "batch_size", "?")  # type: ignore[attr-defined]
        lines = [
            f"# Slice prior: {self.hparams['modality']}",
            "",
            f"- network: `{self.hparams['network']}` {self.hparams['network_options'] or ''}, "
            f"{parameters / 1e6:.2f} M parameters, stored in half precision",
            f"- data: {data}",
            f"- trained: {self.trainer.global_step} steps of {batch} slices, "
            f"{(time.monotonic() - self._started) / 60:.0f} minutes on {self.trainer.strategy.root_device.type}, "
            f"objective `{self.hparams['objective']}`, precision {self.trainer.precision}",
            f"- SHA-256: `{digest}`",
            "",
            "Held-out denoising (PSNR, peak 1, averaged weights):",
            "",
            "| sigma | PSNR (dB) |",
            "|---|---|",
            *(f"| {sigma:g} | {psnr:.2f} |" for sigma, psnr in self._validation_psnr.items()),
            "",
        ]
        return "\n".join(lines)

    def _add_images(self, tag: str, rows: Tensor) -> None:
        """Rows of ``(rows, columns, 1, Y, X)`` images side by side, window 0 to 1."""
        if not isinstance(self.logger, TensorBoardLogger) or not self.trainer.is_global_zero:
            return
        sheet = rows[:, :, 0].permute(0, 2, 1, 3).flatten(2, 3).flatten(0, 1)
        self.logger.experiment.add_image(tag, sheet.clamp(0, 1).float().cpu(), self.global_step, dataformats="HW")


class _EMA:
    """Averaging rule of the released training; a class, since a checkpoint must not hold a lambda."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, average: Tensor, new: Tensor, n_averaged: Tensor | int) -> Tensor:
        k = float(n_averaged)
        decay = min(self.decay, (1 + k) / (10 + k))
        return average + (1 - decay) * (new - average) if average.is_floating_point() else new


class _Schedule:
    """Factor of the learning rate: linear warm-up, then constant or a cosine to zero."""

    def __init__(self, warmup: int, total: float, module: ScorePriorModule) -> None:
        self.warmup = max(1, warmup)
        self.total = total
        self.cosine = bool(module.hparams["cosine"]) and math.isfinite(total)

    def __call__(self, step: int) -> float:
        factor = min(1.0, (step + 1) / self.warmup)
        if self.cosine:
            progress = min(1.0, step / max(1.0, self.total))
            factor *= 0.5 * (1 + math.cos(math.pi * progress))
        return factor
