"""A progress bar over the steps of a whole training, with the time that is left."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

REPORTS = 20
"""Lines that a whole training prints where there is no terminal."""


class StepProgress(ProgressBar):
    """One bar for the whole training, where Lightning's own is for an epoch; elsewhere than on a terminal, a line now
    and then."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = True
        self._progress: Progress | None = None
        self._began = (0.0, 0)

    def disable(self) -> None:
        self._shown = False

    def enable(self) -> None:
        self._shown = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = (time.monotonic(), trainer.global_step)
        self._console = Console(file=sys.stderr)
        name, text = TextColumn("{task.description}"), TextColumn("{task.fields[text]}")
        shown = self._shown and self._console.is_terminal
        self._progress = Progress(
            name, BarColumn(), TimeElapsedColumn(), text, console=self._console, disable=not shown
        )
        self._task = self._progress.add_task("training", total=self._total(trainer), text="")
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is None or not self._shown or (self._console.is_terminal and trainer.global_step % 5):
            return
        step, total = trainer.global_step, self._total(trainer)
        text = self._text(trainer, step, total)
        self._progress.update(self._task, completed=step, text=text)
        every = max(1, int(total or 1000 * REPORTS) // REPORTS)
        if not self._console.is_terminal and step % every == 0 and batch_idx % trainer.accumulate_grad_batches == 0:
            self._console.print(f"training: {text}", highlight=False)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description="validating")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description="training")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _total(self, trainer: L.Trainer) -> float | None:
        total = trainer.estimated_stepping_batches
        return None if total == float("inf") else float(total)

    def _text(self, trainer: L.Trainer, step: int, total: float | None) -> str:
        clock, first = self._began
        parts = [f"step {step}" + (f"/{total:.0f}" if total else "")]
        for name in ("train/loss", "val/loss"):
            if name in trainer.callback_metrics:
                parts.append(f"{name} {float(trainer.callback_metrics[name]):.3f}")
        if total and step > first:
            left = (time.monotonic() - clock) / (step - first) * (total - step)
            parts.append(f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left")
        return ", ".join(parts)
