"""Progress bars over noise levels, and over settings that are tried, with the time that is left."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lightning_mbir.messages import console, quiet
from lightning_mbir.methods.candidates import Choice
from lightning_mbir.methods.trials import Trial
from lightning_mbir.reconstruction.forecast import Forecast, duration
from lightning_mbir.samplers import Callback, SamplerState

WIDE = 80
"""Characters of a terminal from which on the bar itself is drawn."""


class _Bar:
    """A bar with the time that is left, which is shown on a terminal while its block lasts.

    Attributes:
        beside: characters that are shown beside the name, without the bar.

    Args:
        title: what stands before the bar, and before lines where there is no terminal.
        enabled: whether anything is shown (only the first rank shows, and with --quiet none).
        name: what stands in the bar.
        total: steps, where they are known.
        left: word before the time that is left.
    """

    beside = 44

    def __init__(self, title: str, enabled: bool, name: str, total: int | None = None, left: str = "left") -> None:
        self.title, self.enabled = title, enabled and not quiet()
        self.console = console()
        bar = [BarColumn()] if self.console.width >= WIDE else []
        self.progress = Progress(
            TextColumn("{task.description}"),
            *bar,
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn(left),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.enabled or not self.console.is_terminal,
        )
        room = max(self.console.width - self.beside - 6 * len(bar), 8)  # of names, which are cut short, not numbers
        self.task = self.progress.add_task(name if len(name) <= room else f"{name[: room - 1]}…", total=total, note="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class LevelProgress(_Bar):
    """One bar for one volume; on a terminal it is redrawn, elsewhere a line tells each tenth.

    Args:
        title: what stands before the bar.
        enabled: whether anything is shown.
        forecast: what tells the time in all, as soon as a level was measured.
    """

    def __init__(self, title: str, enabled: bool = True, forecast: Forecast | None = None) -> None:
        super().__init__(title, enabled, title)
        self.forecast = forecast
        self._before = -1  # steps that were done when a run went on
        self._first = 0.0

    def __call__(self, state: SamplerState) -> None:
        """The callback of samplers."""
        sigma = f"sigma {state.sigma:.3g}" if state.sigma else ""
        self.progress.update(self.task, completed=state.step, total=state.n_steps, note=sigma)
        if self._before < 0:
            self._before = state.step - 1
        self._foretell(state)
        if not self.enabled or self.console.is_terminal:
            return
        tenth = max(1, state.n_steps // 10)
        if state.step % tenth == 0 or state.step == state.n_steps:
            task = self.progress.tasks[0]
            elapsed = task.elapsed or 0.0
            left = elapsed / (state.step - self._before) * (state.n_steps - state.step)
            told, then = sigma and f" {sigma}", f", {duration(left)} left" if left else ""
            line = f"{self.title}: {state.step}/{state.n_steps}{told} ({duration(elapsed)}{then})"
            self.console.print(line, highlight=False)

    def _foretell(self, state: SamplerState) -> None:
        """The time in all, from the second level: preparations count into the first."""
        seen = state.step - self._before
        if not self.enabled or self.forecast is None or seen > 2:
            return
        elapsed = self.progress.tasks[0].elapsed or 0.0
        if seen == 2:
            told = self.forecast.told(elapsed - self._first, state.n_steps - self._before)
            if told is not None:
                self.console.print(f"{self.title}: {told}", highlight=False)
        self._first = elapsed


class ChoiceProgress(_Bar):
    """A bar over the settings that are scored before a reconstruction, with the best so far.

    Args:
        title: what stands before the bar.
        enabled: whether anything is shown.
        choice: what is chosen among.
    """

    beside = 70

    def __init__(self, title: str, enabled: bool, choice: Choice) -> None:
        self.count = choice.budget.evaluations if choice.search else len(choice.candidates)
        super().__init__(title, enabled, f"{title}: choosing", self.count, "left at most")
        self.choice, self.seconds, self.trials = choice, 0.0, 0
        self.best: Trial | None = None

    def __call__(self, trial: Trial) -> None:
        """Told of each new trial."""
        self.trials, self.seconds = self.trials + 1, self.seconds + trial.seconds
        if trial.whole and (self.best is None or trial.error < self.best.error):
            self.best = trial
        assert self.best is not None  # the first is whole
        best = f"best {self.choice.candidates[self.best.candidate].name} {self.best.error:.4f}"
        self.progress.update(self.task, completed=self.trials, note=best)
        if not self.enabled or self.console.is_terminal:
            return
        if self.trials == 1 or self.trials % max(1, self.count // 6) == 0:
            more = max(self.count - self.trials, 0)
            left = f" (at most {duration(self.seconds / self.trials * more)} left)" if more else ""
            line = f"{self.title}: {self.trials}/{self.count} settings tried, {best}{left}"
            self.console.print(line, highlight=False)


class SampleProgress:
    """A bar for each sample of a volume.

    Args:
        title: what stands before the bar.
        enabled: whether anything is shown.
        samples: how many there will be.
        first: number of the first that is missing.
        forecast: told in the first of them.
    """

    def __init__(
        self, title: str, enabled: bool, samples: int, first: int = 0, forecast: Forecast | None = None
    ) -> None:
        self.title, self.enabled, self.samples, self.number = title, enabled, samples, first
        self.forecast = forecast

    def __enter__(self) -> SampleProgress:
        self.bar = LevelProgress(
            f"{self.title} sample {min(self.number + 1, self.samples)} of {self.samples}", self.enabled, self.forecast
        )
        self.forecast = None
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)

    def __call__(self, state: SamplerState) -> None:
        """The callback of samplers."""
        self.bar(state)
        if state.step == state.n_steps and self.number + 1 < self.samples:
            self.__exit__(None, None, None)
            self.number += 1
            self.__enter__()


def both(bar: Callback, course: Callback | None) -> Callback:
    """A progress bar, and what follows the volume where something does."""
    if course is None:
        return bar

    def told(state: SamplerState) -> None:
        bar(state)
        course(state)

    return told
