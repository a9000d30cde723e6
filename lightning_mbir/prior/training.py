"""What the trainings of priors and of U-Nets share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import LambdaLR

from lightning_mbir.errors import InputError


def warmup_cosine(warmup: int, total: float) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then a cosine to zero at ``total``, constant where that is infinite.

    A function, since a scheduler saves the attributes of any other callable: a resumed training would get the old
    ``total`` back, and stand still beyond it.
    """

    def factor(step: int) -> float:
        progress = min(1.0, step / max(1.0, total))
        return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


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
            state["dirpath"] = self.dirpath if self.file_exists(state["best_model_path"], trainer) else None
