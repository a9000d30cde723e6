"""A progress bar over the steps of a whole training, with the time that is left."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, Timer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lightning_mbir.messages import console, quiet

REPORTS = 20
"""Lines that a whole training prints where there is no terminal."""
WARM, MEASURED = 3, 20
"""Batches before its speed is measured, and over which it is."""
SLOW_DATA = 0.1
"""Share of the time that may be spent waiting for slices before a way out is told."""


class StepProgress(ProgressBar):
    """One bar for the whole training, where Lightning's own is for an epoch; elsewhere than on a terminal, a line now
    and then."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = not quiet()
        self._progress: Progress | None = None
        self._began = (0.0, 0)
        self._speed = Speed()

    def disable(self) -> None:
        self._shown = False

    def enable(self) -> None:
        self._shown = not quiet()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = (time.monotonic(), trainer.global_step)
        self._console = console()
        name, text = TextColumn("{task.description}"), TextColumn("{task.fields[text]}")
        shown = self._shown and self._console.is_terminal
        self._progress = Progress(
            name, BarColumn(), TimeElapsedColumn(), text, console=self._console, disable=not shown
        )
        self._task = self._progress.add_task("training", total=self._total(trainer), text="")
        self._progress.start()
        self._speed = Speed()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._speed.batch_comes()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        line = self._speed.batch_is_done(len(batch) * trainer.world_size)
        if line is not None and self._progress is not None and self._shown:
            self._console.print(f"training: {line}", highlight=False)
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
        self._speed.skip()
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
        limits = [timer.time_remaining() for timer in trainer.callbacks if isinstance(timer, Timer)]  # type: ignore[attr-defined]
        lefts = [limit for limit in limits if limit is not None]
        if total and step > first:
            lefts.append((time.monotonic() - clock) / (step - first) * (total - step))
        if lefts:
            left = max(0.0, min(lefts))
            parts.append(f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left")
        return ", ".join(parts)


class Speed:
    """Slices a second of the first batches, and what the time goes into."""

    def __init__(self) -> None:
        self._batches = self._slices = 0
        self._waited = self._worked = 0.0
        self._clock = time.monotonic()

    def batch_comes(self) -> None:
        """A batch is there: until now it was waited for."""
        self._waited += self._lap()

    def batch_is_done(self, slices: int) -> str | None:
        """A step was taken on so many slices; a line once enough of them were."""
        self._worked += self._lap()
        self._batches += 1
        if self._batches == WARM:
            self._waited = self._worked = 0.0
        elif self._batches > WARM:
            self._slices += slices
        if self._batches != WARM + MEASURED:
            return None
        seconds = self._waited + self._worked
        share = self._waited / seconds
        line = f"{self._slices / seconds:.3g} slices a second, {1 - share:.0%} of the time in the network"
        return line + (", the rest waiting for slices: more --data.num_workers may help" if share > SLOW_DATA else "")

    def skip(self) -> None:
        """Leave out what was done since the last batch."""
        self._lap()

    def _lap(self) -> float:
        before, self._clock = self._clock, time.monotonic()
        return self._clock - before
