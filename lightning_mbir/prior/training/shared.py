"""What the trainings of priors and of U-Nets share."""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lightning_mbir.board import write_settings, writer_of
from lightning_mbir.errors import InputError
from lightning_mbir.files import whole_file, writing
from lightning_mbir.prior.checkpoints.checkpoint import read_prior
from lightning_mbir.prior.checkpoints.weights import check_finite, read_torch
from lightning_mbir.prior.networks.build import build_network
from lightning_mbir.prior.networks.unet import LightUNet, adding_from_concat, complex_from_real, three_from_one

log = logging.getLogger(__name__)

OLDEST = 2
"""Lightning's major version from which on its trainings are gone on with."""


def warmup_cosine(warmup: int, total: float) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then a cosine to zero at ``total``, constant where that is infinite.

    A function, since a scheduler saves the attributes of any other callable: a resumed training would get the old
    ``total`` back, and stand still beyond it.
    """

    def factor(step: int) -> float:
        progress = min(1.0, step / max(1.0, total))
        return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def told(batch: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Slices of a batch and, of triples, the distances that come with them."""
    return (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1])


def set_rates(module: L.LightningModule, rates: Sequence[float]) -> None:
    """Give the optimiser the rates of today's flags at the step that it is at, whatever a checkpoint brought.

    Args:
        module: with one optimiser and a ``LambdaLR``, at the start of its training.
        rates: of each group of parameters, before the factor of the schedule.
    """
    schedule = cast(LambdaLR, module.lr_schedulers())
    schedule.base_lrs = list(rates)
    groups = schedule.optimizer.param_groups
    for group, rate, factor in zip(groups, rates, schedule.lr_lambdas, strict=True):
        group["lr"] = rate * factor(schedule.last_epoch)


def log_settings(module: L.LightningModule, scores: Sequence[str], first: Sequence[str]) -> None:
    """Tell the loggers of a training the hyper-parameters of the module and of its data.

    TensorBoard shows them beside scores of the run; Lightning would put an ``hp_metric`` of -1 in their place, so both
    save theirs with ``logger=False``.

    Args:
        module: of the training, which has begun.
        scores: tags of the scalars.
        first: what of the settings is looked at first.
    """
    settings = {**module.hparams, **getattr(module.trainer.datamodule, "hparams", {})}  # type: ignore[attr-defined]
    for logger in module.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.hparams = settings  # for its hparams.yaml
        else:
            logger.log_hyperparams(settings)
    if (writer := writer_of(module.loggers)) is not None and module.trainer.is_global_zero:
        nested = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
        flat = {f"{name}/{inner}": value for name, values in nested.items() for inner, value in values.items()}
        flat |= {name: value for name, value in settings.items() if name not in nested}
        write_settings(writer, flat, scores, first)


def validate_last_step(trainer: L.Trainer) -> None:
    """Have Lightning validate the last step, wherever in an epoch that is; called after each batch.

    It validates where it is told to stop, but not where the steps run out.
    """
    if 0 < trainer.max_steps <= trainer.global_step:
        trainer.should_stop = True


def diverged(step: int, what: str, learning_rate: float) -> InputError:
    """The error of a training that only gets worse."""
    return InputError(
        f"training diverged at step {step}: {what} is not finite; lower --model.learning_rate ({learning_rate:g}) and "
        "go on from an earlier checkpoint (--ckpt_path)"
    )


class BestCheckpoint(ModelCheckpoint):
    """Goes on from the best of the training that is resumed, though that lies in another run's folder.

    Lightning's own then keeps nothing but its path, and the first loss after a resume is the best whatever it is. The
    old file stays where it is: a callback deletes in its own folder alone.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["callbacks"].get(self.state_key)
        if state is not None:  # Lightning keeps the best where the folder is its own
            there = self.file_exists(state["best_model_path"], trainer)
            state["dirpath"] = self.dirpath if there else None
            if state["best_model_path"] and not there:
                log.warning(
                    "%s, the best checkpoint of before, is gone: the best from here on becomes the prior",
                    state["best_model_path"],
                )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep to epochs that were validated: one that a checkpoint has ended is ended once more, without a loss."""
        if self.monitor in trainer.callback_metrics or not trainer.enable_validation:
            super().on_train_epoch_end(trainer, pl_module)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, beside where they will lie.

    Lightning's own does so in the folder for temporary files: on another disk what follows is a copy, which may be cut
    short, and after a kill the file stays there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):  # no disk
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with writing(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # torch's errors of a file do not say what was wrong with it
        torch.save(checkpoint, buffer)
        with whole_file(Path(path)) as temporary, temporary.open("wb") as stream:
            stream.write(buffer.getbuffer())


def resumable(runs: Path) -> Path | None:
    """The last checkpoint in a folder of trainings; None where that training has come to its end."""
    last = max(runs.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    ends = ("prior.safetensors", "unet.safetensors")
    return None if last is None or any((last.parents[1] / name).is_file() for name in ends) else last


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> str | None:
    """The first weight that only one of two networks has, or that differs in shape; None where they are alike."""
    names = sorted(own.keys() ^ given.keys())
    names += [name for name in own if name in given and own[name].shape != getattr(given[name], "shape", None)]
    return names[0] if names else None


def other_setting(own: nn.Module, given: nn.Module) -> str | None:
    """A setting in which two networks of the same weights differ, which makes other functions of them; or None."""
    ours, theirs = (
        {
            (path, name): value
            for path, module in network.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, bool | int | float | str | list | tuple | None)
            and name[0] != "_"
            and name != "training"
        }
        for network in (own, given)
    )
    return next((name for path, name in sorted(ours) if ours[path, name] != theirs.get((path, name))), None)


def start_from(network: nn.Module, init: str, trusted: str | None = None) -> None:
    """Give a network the weights of a prior and, if it has none, its ``coarse_size``.

    A light network may be more than the prior: with ``align_phase`` it takes one of magnitudes, of three slices one of
    single ones, and does at first what that does. With skips that add it also takes one that concatenates them, from
    which it has to learn again what to make of them.

    Args:
        network: of the training.
        init: whatever ``load_prior`` takes.
        trusted: class path of the network, where it is another package's.

    Raises:
        InputError: no such prior, or of another network.
    """
    try:
        prior: Any = read_prior(init, network=trusted)[0]
    except InputError as error:
        raise InputError(str(error).replace("--prior", "--model.init")) from error
    if isinstance(prior, LightUNet) and isinstance(network, LightUNet):
        prior = _widened(prior, network)
    own: Any = network
    coarse = getattr(prior, "coarse_size", None)
    own.coarse_size = prior.coarse_size = coarse if own.coarse_size is None else own.coarse_size
    weights = prior.state_dict()
    if differs := misfit(network.state_dict(), weights) or other_setting(network, prior):
        raise InputError(
            f"--model.init {init}: another network than --model.network with its options ({differs} does not fit)"
        )
    network.load_state_dict(weights)


def _widened(prior: LightUNet, network: LightUNet) -> LightUNet:
    """The prior as the start of a network that is more than it, as far as there is a way."""
    if network.align_phase and prior.in_channels == 1:
        prior = complex_from_real(prior)
    if network.adds and not prior.adds and network.widths == prior.widths:
        prior = adding_from_concat(prior)
    if network.slices == 3 and prior.slices == 1:
        prior = three_from_one(prior)
    return prior


def check_checkpoint(path: Path, module: L.LightningModule, goes_on: bool) -> int:
    """Look at a checkpoint before data are read for it; returns the step that it is at.

    Args:
        path: the checkpoint.
        module: what shall take its weights.
        goes_on: the training goes on from it, which takes more than weights.

    Raises:
        InputError: a file that is cut short, of something else or of a Lightning too old, weights of another network or
            modality or that are not finite.
    """
    try:
        content = read_torch(path)
    except InputError as error:
        raise InputError(f"--ckpt_path {error}, or give another checkpoint") from error
    needed = {"state_dict", "pytorch-lightning_version"}
    if goes_on:
        needed |= {"training", "loops", "optimizer_states", "lr_schedulers"}
    if not isinstance(content, dict) or not needed <= content.keys() or not isinstance(content["state_dict"], dict):
        raise InputError(
            f"--ckpt_path {path}: no checkpoint of a training; give its last.ckpt or best-step=N.ckpt "
            "(`fit` starts from other weights with --model.init)"
        )
    version = str(content["pytorch-lightning_version"])
    if goes_on and int(re.match(r"\d*", version)[0] or 0) < OLDEST:  # type: ignore[index]
        raise InputError(
            f"--ckpt_path {path}: of Lightning {version}, whose trainings cannot be gone on with; give a checkpoint of "
            f"Lightning {OLDEST} or later, or start from its weights with --model.init"
        )
    state = content["state_dict"]
    name = misfit(module.state_dict(), state)
    saved = content.get("hyper_parameters", {})
    if name is None and {"network", "network_options"} <= saved.keys() and isinstance(module.network, nn.Module):
        with torch.device("meta"):
            trusted = str(getattr(module, "hparams", {}).get("network"))
            own = build_network(saved["network"], saved["network_options"], saved.get("coarse_size"), trusted)
            name = other_setting(module.network, own)
    if name == "coarse_size":  # which a training may have from --model.init
        size = saved.get("coarse_size") or "null"
        raise InputError(f"--ckpt_path {path}: trained with coarse_size {size}; give --model.coarse_size {size}")
    if name is not None:
        raise InputError(
            f"--ckpt_path {path}: of another network or other options ({name} does not fit); give the --model settings "
            "that it was trained with, see the config.yaml in the folder above it"
        )
    before, now = saved.get("modality"), getattr(module, "hparams", {}).get("modality")
    if goes_on and "modality" in saved and before != now:  # its best, and its prior, would be called by the other name
        raise InputError(
            f"--ckpt_path {path}: trained on {before}, and --data.modality is {now}; give --data.modality {before}, or "
            "start from its weights with --model.init"
        )
    check_finite(state, path)
    return int(content.get("global_step", 0))
