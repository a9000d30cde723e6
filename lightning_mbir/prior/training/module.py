"""Training of the 2D slice prior: denoising score matching on the variance-exploding SDE."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, cast

import lightning as L
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.prior.denoiser import posterior_mean
from lightning_mbir.prior.networks.build import build_network, new_options
from lightning_mbir.prior.networks.running import channels_last, compiled
from lightning_mbir.prior.training import watch
from lightning_mbir.prior.training.compiling import compiles
from lightning_mbir.prior.training.ema import EMA
from lightning_mbir.prior.training.evaluate import SIGMAS, denoising_mse, smoothing_mse
from lightning_mbir.prior.training.shared import (
    diverged,
    log_settings,
    set_rates,
    start_from,
    told,
    validate_last_step,
    warmup_cosine,
)
from lightning_mbir.prior.training.vesde import VESDE

log = logging.getLogger(__name__)

Objective = Literal["dsm", "edm"]


class ScorePriorModule(L.LightningModule):
    """Learns to denoise slices at every noise level of the VE-SDE.

    With ``objective="dsm"`` the loss is that of Song et al. 2021, equation 7: ``t`` uniform, hence sigma log-uniform
    between ``sigma_min`` and ``sigma_max``, and ``E || sigma score(x + sigma n, sigma) + n ||^2``, which is the
    squared error of the denoised image over sigma^2. With ``"edm"`` it is that of Karras et al. 2022, section 5:
    sigma log-normal and the error weighted by ``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2``; few-step samplers
    gain from it, since it spends the training where denoising is neither trivial nor hopeless.

    The averaged weights (EMA, decay ``min(ema_decay, (1 + k) / (10 + k))`` in the ``k``-th update) are part of the
    module's state: they are validated, sampled from, saved and resumed like any other weights. Noise and noise levels
    are keyed by the seed, the rank and the number of batches seen, so a resumed training takes the very steps of an
    unbroken one.

    Args:
        network: ``light``, ``ncsnpp`` or ``monai``; ``network_options`` are its constructor's.
        modality: ``ct`` or ``mri``; goes into the prior's file, and sets its unit. None: of whatever task uses it.
        coarse_size: an image size of the training at which larger ones are denoised at high noise, see ``denoised``;
            None: that of ``init``, if any.
        complex: two channels, real and imaginary part, for complex MRI.
        slices: 3 for a prior of neighbouring slices (Song et al. 2024, "DiffusionBlend", arXiv 2406.10211).
        init: a prior to start from (a name or a file, see ``load_prior``), of the same network, or of one that it can
            be widened from (``start_from``).
        objective: ``edm`` or ``dsm``.
        learning_rate: of Adam, after ``warmup_steps`` linear steps; ``cosine`` lets it fall to 0 at the end.
        log_sigma_mean, log_sigma_std: of the natural logarithm of EDM's noise levels. Wider than those of Karras et
            al., since averaging over more pixels makes larger images readable at higher noise; see docs/training.md.
        whole_sigma_min: lowest noise level of the whole slices among crops (``whole_fraction`` of the data).
        sigma_data: standard deviation of clean slices, for the EDM weight.
        uncertainty: EDM: divide the loss of each noise level by its expected value, which is learned beside the
            network (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", equation
            21); otherwise the highest levels, whose loss cannot get small, take most of the gradient.
        compile: run the network through ``torch.compile``, where that works.
        ema_decay: at most; 0 to below 1.
        sigma_min, sigma_max: of the VE-SDE, in the unit of the prior.
        seed: of the noise, the order and the variation of the slices; by default that of ``--seed``.

    Raises:
        InputError: a value out of range, a network or options of it that are unknown, an ``init`` that is not there or
            of another network.
    """

    def __init__(
        self,
        network: str = "light",
        network_options: dict[str, Any] | None = None,
        modality: Modality | None = "ct",
        complex: bool = False,
        slices: int = 1,
        coarse_size: int | None = None,
        init: str | None = None,
        objective: Objective = "edm",
        learning_rate: float = 5e-4,
        warmup_steps: int = 200,
        cosine: bool = True,
        ema_decay: float = 0.999,
        sigma_min: float = 0.01,
        sigma_max: float = 378.0,
        log_sigma_mean: float = -1.2,
        log_sigma_std: float = 1.8,
        whole_sigma_min: float = 1.0,
        sigma_data: float = 0.35,
        uncertainty: bool = True,
        compile: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_kinds(ScorePriorModule.__init__, locals())
        if learning_rate <= 0:
            raise InputError(f"--model.learning_rate {learning_rate}: give a positive number")
        if not 0 <= ema_decay < 1:
            raise InputError(f"--model.ema_decay {ema_decay}: give a share from 0 to below 1")
        if objective not in ("dsm", "edm"):
            raise InputError(f"--model.objective {objective}: give dsm or edm")
        if not 0 <= whole_sigma_min < sigma_max:
            raise InputError(
                f"--model.whole_sigma_min {whole_sigma_min}: give 0 to below --model.sigma_max {sigma_max:g}"
            )
        if not log_sigma_std > 0:
            raise InputError(f"--model.log_sigma_std {log_sigma_std}: give a positive number")
        network_options = new_options(network, network_options, complex, slices)
        self.save_hyperparameters(
            ignore=["compile", "init", "seed"], logger=False
        )  # plain types, for weights_only=True
        self.hparams["network_options"] = network_options  # on the command line those given are saved instead
        self.network = channels_last(build_network(network, network_options, coarse_size, trusted=network))
        if init is not None:
            start_from(self.network, init, network)
            self.hparams["coarse_size"] = self.network.coarse_size
        self.ema = AveragedModel(self.network, avg_fn=EMA(ema_decay), use_buffers=True)
        self.ema.requires_grad_(False)
        self.ema.n_averaged.fill_(1)  # the first update does not copy, but has the decay of k = 1
        self.sde = VESDE(sigma_min, sigma_max)
        knots = math.ceil(math.log2(sigma_max / sigma_min)) + 1
        self.log_loss = torch.nn.Parameter(torch.zeros(knots)) if uncertainty and objective == "edm" else None
        """Logarithm of the expected loss at ``sigma_min`` and its doubles."""
        self.learning_rate = learning_rate
        self.seed = torch.initial_seed() % 2**62 if seed is None else seed
        self.init = init
        self.batches_seen = 0
        """Batches of this rank since the training began; key of the noise and of the slices that are drawn."""
        self.slices_seen = 0
        """Slices of all ranks since the training began; until its end, as if all ranks had batches like this one's."""
        self.seconds = 0.0
        """Time spent in training and validation, over all resumes."""
        self._compiled = compiled(self.network) if compile else None
        self._clock = time.monotonic()
        self._by_level: dict[int, list[Tensor]] = defaultdict(list)
        self._validation: dict[int, list[tuple[Tensor, Tensor | None]]] = defaultdict(list)
        self._reference: dict[int, Tensor] = {}
        self.validation_psnr: dict[int, list[float]] = {}
        """Held-out denoising PSNR of the averaged weights at ``SIGMAS``, by image size; empty where they are newer than
        the last validation."""
        self.largest = (0, 0)
        """Shape of the largest held-out slices, which samples have too."""
        self._rate = watch.Rate()

    def setup(self, stage: str) -> None:
        """Raise where the data do not fit the network, before anything is trained."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        channels, stride = int(getattr(self.network, "in_channels", 1)), int(getattr(self.network, "stride", 1))
        if bool(getattr(data, "complex", channels == 2)) != (channels == 2):
            wanted = "complex" if channels == 2 else "real"
            raise InputError(f"the network takes {wanted} slices; give --data.complex and --model.complex the same")
        together = int(getattr(self.network, "slices", 1))
        if int(getattr(data, "slices", together)) != together:
            raise InputError(
                f"the network takes {together} slices at once; give --data.slices and --model.slices the same"
            )
        sizes = {size for size in (getattr(data, "crop_size", None), *getattr(data, "sizes", ())) if size}
        for size in sizes:
            if size % stride:
                raise InputError(f"--data.image_size {size}: the network takes multiples of {stride} pixels")
        coarse = self.hparams["coarse_size"]
        if stage == "fit" and sizes and coarse not in (None, *sizes):
            log.warning("--model.coarse_size %d: no image size of this training, which may not make it one", coarse)

    def draw_sigma(self, n: int, generator: torch.Generator | None = None, least: float = 0.0) -> Tensor:
        """``(n,)`` noise levels from the distribution of the objective, from what of it lies above ``least``."""
        if self.hparams["objective"] == "dsm":
            share = torch.rand(n, device=self.device, generator=generator)
            below = math.log(max(1.0, least / self.sde.sigma_min)) / math.log(self.sde.sigma_max / self.sde.sigma_min)
            return self.sde.sigma(below + (1 - below) * share)
        mean, std = self.hparams["log_sigma_mean"], self.hparams["log_sigma_std"]
        if least > 0:
            below = NormalDist(mean, std).cdf(math.log(least))
            z = torch.special.ndtri(below + (1 - below) * torch.rand(n, device=self.device, generator=generator))
        else:
            z = torch.randn(n, device=self.device, generator=generator)
        return (mean + std * z).exp().clamp(self.sde.sigma_min, self.sde.sigma_max)

    def weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared denoising error at each noise level."""
        if self.hparams["objective"] == "dsm":
            return sigma**-2
        sigma_data = self.hparams["sigma_data"]
        return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2

    def expected_log_loss(self, sigma: Tensor) -> Tensor:
        """What ``log_loss`` says of each noise level, by linear interpolation in the logarithm of sigma."""
        assert self.log_loss is not None
        position = torch.log2(sigma / self.sde.sigma_min).clamp(0, len(self.log_loss) - 1)
        below = position.floor().long().clamp(max=len(self.log_loss) - 2)
        share = position - below
        return self.log_loss[below] * (1 - share) + self.log_loss[below + 1] * share

    def training_step(self, given: Tensor | list[Tensor], batch_idx: int) -> Tensor:
        batch, distance = told(given)
        self.slices_seen += len(batch) * self.trainer.world_size
        generator = torch.Generator(self.device).manual_seed(watch.key(self.seed, self.global_rank, self.batches_seen))
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        whole = getattr(data, "whole_fraction", 0.0) > 0 and max(batch.shape[-2:]) > data.crop_size
        sigma = self.draw_sigma(len(batch), generator, self.hparams["whole_sigma_min"] if whole else 0.0)
        noise = torch.randn(batch.shape, device=self.device, generator=generator)
        noisy = (batch + sigma[:, None, None, None] * noise).contiguous(memory_format=torch.channels_last)
        clean = posterior_mean(self._compiled or self.network, noisy, sigma, distance)
        losses = self.weight(sigma) * (clean.float() - batch).square().mean((1, 2, 3))
        loss = losses.mean()
        self.log("train/loss", loss.detach(), prog_bar=True)
        if self.log_loss is not None:
            expected = self.expected_log_loss(sigma)
            loss = (losses * (-expected).exp() + expected).mean()
        for level, value in zip(watch.level_of(sigma), losses.detach(), strict=True):
            self._by_level[level].append(value)
        return loss

    def on_after_backward(self) -> None:
        self.batches_seen += 1

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._logs_at(self.global_step + 1):  # the step that is about to be taken
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if bool(torch.isfinite(norm)):
                self.log("train/grad_norm", norm)
            elif getattr(self.trainer.precision_plugin, "scaler", None) is None:  # a scaler leaves such steps out
                raise diverged(self.global_step, "the gradient", self.learning_rate)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.network)
        self.validation_psnr = {}  # that was of the weights before

    def on_train_batch_end(self, outputs: Any, batch: Tensor | list[Tensor], batch_idx: int) -> None:
        validate_last_step(self.trainer)
        self._rate.add(len(told(batch)[0]) * self.trainer.world_size)
        if not self._logs_at(self.global_step) or (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        self.log("train/learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        self.log("train/slices_per_second", self._rate.take())
        self.log("train/ema_decay", self.ema.avg_fn.at(int(self.ema.n_averaged) - 1))  # type: ignore[union-attr]
        for level, losses in self._by_level.items():
            self.log(f"train_loss_by_level/{watch.level_name(level)}", torch.stack(losses).mean())
        self._by_level.clear()

    def on_validation_epoch_start(self) -> None:
        self._validation.clear()

    def validation_step(self, given: Tensor | list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Squared denoising error of the averaged weights at fixed noise levels with fixed noise."""
        batch, distance = told(given)
        size = batch.shape[-1]
        self.largest = max(self.largest, (batch.shape[-2], size), key=math.prod)
        seed = watch.key(batch_idx, self.global_rank)
        network = self.ema.module
        reference = smoothing_mse(batch.float(), seed=seed) if size not in self._reference else None
        self._validation[size].append((denoising_mse(network, batch, seed=seed, distance=distance), reference))
        if batch_idx == 0 and self.global_rank == 0:
            watch.show_denoised(self, network, batch[:4], None if distance is None else distance[:4], seed)

    def on_validation_epoch_end(self) -> None:
        sigmas = torch.tensor(SIGMAS, device=self.device)
        losses = []
        for size in sorted(self._validation):
            errors, references = zip(*self._validation[size], strict=True)
            mse = self._mean_over_ranks(torch.cat(errors, 1))
            if references[0] is not None and not self.trainer.sanity_checking:  # which looks at some slices only
                self._reference[size] = self._mean_over_ranks(torch.cat(references, 1))
            losses.append((self.weight(sigmas) * mse).mean())
            self.validation_psnr[size] = (-10 * mse.log10()).tolist()
            for sigma, value in zip(SIGMAS, self.validation_psnr[size], strict=True):
                self.log(f"val_{size}/psnr_sigma_{sigma:g}", value, rank_zero_only=True)
        if losses:
            loss = torch.stack(losses).mean()
            if not bool(torch.isfinite(loss)):  # before a checkpoint is replaced by these weights
                raise diverged(self.global_step, "the held-out loss", self.learning_rate)
            self.log("val/loss", loss, prog_bar=True)
        if losses and not self.trainer.sanity_checking and self.global_rank == 0:
            watch.show_generated(self, self.ema.module, self.largest)
            watch.show_curves(self, self.validation_psnr, self._reference)
        self._rate.pause()

    def configure_optimizers(self) -> Any:
        # no weight decay, as in the released training; not fused, since that excludes gradient clipping under AMP
        parameters = [list(self.network.parameters()), *([] if self.log_loss is None else [[self.log_loss]])]
        groups = [{"params": p, "lr": lr} for p, lr in zip(parameters, self._learning_rates, strict=True)]
        optimizer = torch.optim.Adam(groups)
        total = float(self.trainer.estimated_stepping_batches) if self.hparams["cosine"] else math.inf
        factor = warmup_cosine(self.hparams["warmup_steps"], total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def _learning_rates(self) -> list[float]:
        """Of the network, and of ``log_loss``: some numbers that have to get from 0 to -3 in some hundred steps."""
        return [self.learning_rate, *([] if self.log_loss is None else [20 * self.learning_rate])]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._count_time()
        kept = ("seed", "batches_seen", "slices_seen", "seconds", "validation_psnr")
        checkpoint["training"] = {name: getattr(self, name) for name in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint.get("training", {})
        if kept.get("seed", self.seed) != self.seed:
            log.info("seed %d of the checkpoint goes on, in the place of %d", kept["seed"], self.seed)
        for name, value in kept.items():
            setattr(self, name, value)

    def on_fit_start(self) -> None:
        self._clock = time.monotonic()
        sizes = getattr(self.trainer.datamodule, "sizes", ())  # type: ignore[attr-defined]
        scores = [f"val_{size}/psnr_sigma_{sigma:g}" for size in sizes for sigma in SIGMAS]
        log_settings(self, ["val/loss", *scores], watch.SETTINGS)

    def on_train_start(self) -> None:
        set_rates(self, self._learning_rates)
        if self._compiled is not None and not compiles(self, self._compiled):
            self._compiled = None
        self._rate.pause()

    def on_train_end(self) -> None:
        seen = torch.tensor(float(self.slices_seen), device=self.device)
        self.slices_seen = round(float(self.trainer.strategy.reduce(seen, reduce_op="mean")))  # batches may differ

    def on_fit_end(self) -> None:
        """Write the prior, its model card and its pictures beside the logs."""
        self._count_time()
        folder = self.trainer.log_dir  # asked on every rank: it is broadcast
        try:
            if folder is not None and self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                Path(folder).mkdir(parents=True, exist_ok=True)
                watch.write_prior(self._finished, Path(folder), self._reference)
        finally:
            self.trainer.strategy.barrier()  # no rank leaves before the prior is written

    @property
    def _finished(self) -> watch.Finished:
        trainer = self.trainer
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        start = f"started from `{Path(self.init).name}`, " if self.init else ""
        course = (
            f"{start}{trainer.global_step} steps, {self.slices_seen} slices, {self.seconds / 60:.1f} minutes on "
            f"{trainer.world_size} {trainer.strategy.root_device.type}, objective `{self.hparams['objective']}`, "
            f"precision {trainer.precision}, seed {self.seed}"
        )
        return watch.Finished(
            network=self.ema.module,
            parameters=sum(p.numel() for p in self.network.parameters()),
            hparams=self.hparams,
            best=Path(best) if best and Path(best).is_file() else None,
            step=trainer.global_step,
            psnr=self.validation_psnr,
            shape=self.largest,
            device=self.device,
            data=str(getattr(trainer.datamodule, "summary", "")),  # type: ignore[attr-defined]
            course=course,
            mirrors=getattr(trainer.datamodule, "axis", None) != "sagittal",  # type: ignore[attr-defined]
        )

    def _logs_at(self, step: int) -> bool:
        """Whether Lightning writes what is logged in this step, counted from 1: the last one too."""
        every = max(1, self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        return step % every == 0 or step == self.trainer.max_steps

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _mean_over_ranks(self, errors: Tensor) -> Tensor:
        """Mean over the images of all ranks, each of which may have another number of them: ``(n, B)`` to ``(n,)``."""
        total = torch.cat((errors.sum(1), errors.new_tensor([float(errors.shape[1])])))
        total = cast(Tensor, self.trainer.strategy.reduce(total, reduce_op="sum"))
        return total[:-1] / total[-1]
