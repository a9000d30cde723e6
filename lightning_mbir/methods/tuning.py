"""Options, methods and priors chosen by the measurement itself: by what they predict of parts that are held out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.methods.candidates import Candidate, Choice
from lightning_mbir.methods.held_out import Fold, TooLittle, hold_out
from lightning_mbir.methods.run import run_method
from lightning_mbir.methods.search import Settings, pattern_search, searched
from lightning_mbir.methods.units import measured_scale
from lightning_mbir.physics import LinearOperator
from lightning_mbir.slabs import WHOLE, current, everywhere, from_first, holding, of_all

BEHIND = 1.15
"""Times the error of the best settings so far on the same fold, from which on the other folds are not tried."""


@dataclass(frozen=True)
class Trial:
    """Settings and how they did.

    Attributes:
        candidate: number of the candidate.
        settings: as tried.
        missed: of each fold the errors of its parts, as ``Fold.errors`` gives them; infinite where the method could not
            do it. Of settings that fell behind, only of the first folds.
        seconds: that it took.
        whole: whether all folds were tried.
    """

    candidate: int
    settings: Settings
    missed: tuple[tuple[float, ...], ...]
    seconds: float
    whole: bool = True

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Trial:
        """What ``asdict`` gave, after it was JSON, in which infinity is null."""
        missed = tuple(tuple(math.inf if e is None else float(e) for e in fold) for fold in plain["missed"])
        return cls(plain["candidate"], plain["settings"], missed, plain["seconds"], plain["whole"])

    @property
    def errors(self) -> list[float]:
        """Of each fold, relative: ``||A x - y|| / ||y||`` of what was held out."""
        return [math.sqrt(sum(fold)) for fold in self.missed]

    @property
    def error(self) -> float:
        """Root mean square over the folds."""
        return math.sqrt(sum(map(sum, self.missed)) / len(self.missed))

    def beats(self, other: Trial) -> bool:
        """Whether it is better by more than chance: than the standard error of what it gains on each part."""
        if not self.whole or not self.error < other.error:
            return False
        if not math.isfinite(other.error):
            return True
        pairs = [pair for folds in zip(self.missed, other.missed, strict=True) for pair in zip(*folds, strict=True)]
        gains = [math.log(max(theirs, 1e-30) / max(ours, 1e-30)) for ours, theirs in pairs]
        spread = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
        return statistics.mean(gains) > spread


@dataclass(frozen=True)
class Tuning:
    """What was tried, and what was chosen.

    Attributes:
        candidates: in the order of preference: the first is what is taken where none is clearly better.
        trials: all of them, in order.
        chosen: the trial that is taken.
        what: that was held out, such as ``views``.
        held: how many in each fold.
        open: whether there is a wedge that was not measured, of which nothing held out can tell.
    """

    candidates: tuple[Candidate, ...]
    trials: tuple[Trial, ...]
    chosen: Trial
    what: str
    held: tuple[int, ...]
    open: bool

    @property
    def candidate(self) -> Candidate:
        """What is to be run: the chosen method, its settings and its prior."""
        return replace(self.candidates[self.chosen.candidate], settings=self.chosen.settings)

    def best(self, candidate: int) -> Trial | None:
        """The best trial of a candidate; none where none of it was made."""
        own = [trial for trial in self.trials if trial.candidate == candidate and trial.whole]
        return min(own, key=lambda trial: trial.error, default=None)

    def shipped(self, candidate: int) -> Trial | None:
        """The first trial of a candidate: its settings as they were given."""
        return next((trial for trial in self.trials if trial.candidate == candidate), None)

    @property
    def lines(self) -> list[str]:
        """What was chosen and why, in two lines."""
        chosen, changed = self.candidate, self.changes
        told = ", ".join(f"{key} {value:g}" for key, value in changed.items()) or "options as they were"
        if self.open:
            told += " (views leave a wedge out, of which no view that was held out can tell)"
        held = f"{self.held[0]} of the {self.what} held out, {len(self.held)} times"
        others = []
        for k, candidate in enumerate(self.candidates):
            best = self.best(k)
            if best is not None and k != self.chosen.candidate:
                others.append(f"{candidate.name} {best.error:.4f}")
        if changed and (before := self.shipped(self.chosen.candidate)) is not None:
            others.append(f"as shipped {before.error:.4f}")
        tried = "1 setting tried" if len(self.trials) == 1 else f"{len(self.trials)} settings tried"
        rest = f" against {', '.join(others)}" if others else ""
        return [
            f"chosen: {chosen.name}, {told}",
            f"because its error on {held}, is {self.chosen.error:.4f}{rest} ({tried})",
        ]

    def warning(self, prior: str) -> str | None:
        """That the prior does not know this object, where a method without one predicts it better.

        Where views leave a wedge out, that nothing held out tells whether a prior is right, whatever is chosen: a
        method that invents what lies there may predict the views that there are better, and one that is right worse.

        Args:
            prior: name of the prior of the run.
        """
        with_prior = [candidate.chosen.needs_prior for candidate in self.candidates]
        if self.open and len(set(with_prior)) == 2:
            return (
                f"{self.what} leave a wedge out, and those held out do not tell whether a prior is right about what "
                "lies there: compare --method dds with --method admm_tv, and take which you know to fit the object"
            )
        if not self.candidate.chosen.needs_prior:
            return None
        for k, candidate in enumerate(self.candidates):
            best = self.best(k)
            if best is None or candidate.chosen.needs_prior or not best.beats(self.chosen):
                continue
            better = f"{candidate.method} predicts {self.what} that were held out better"
            return (
                f"this object is not what prior {self.candidate.prior or prior} knows: {better} ({best.error:.4f} "
                f"against {self.chosen.error:.4f}); --method auto takes what is best"
            )
        return None

    @property
    def changes(self) -> Settings:
        """What differs from the candidate as it was given."""
        full = self.candidates[self.chosen.candidate].full
        return {key: value for key, value in self.chosen.settings.items() if full.get(key) != value}

    @property
    def data(self) -> dict[str, Any]:
        """All of it in plain data, for ``tuning.json``."""
        return {
            "chosen": {**asdict(self.candidate), "error": self.chosen.error},
            "held_out": {"what": self.what, "in_each_fold": list(self.held), "cannot_tell": self.blind},
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "trials": [{**asdict(trial), "error": trial.error} for trial in self.trials],
        }

    @property
    def blind(self) -> str:
        """What none of this can tell."""
        wedge = (
            "what lies in the directions that were not measured, and so how much to regularise; " if self.open else ""
        )
        return f"{wedge}what all candidates get wrong alike, and what is wrong in the model of the measurement itself"


def tune(
    y: Tensor,
    operator: LinearOperator,
    choice: Choice,
    prior: Callable[[str | None], Any],
    *,
    known: Sequence[Trial] = (),
    report: Callable[[Trial], None] | None = None,
    weights: Tensor | None = None,
    **arguments: Any,
) -> Tuning:
    """Choose among candidates, and among their options, by what they predict of what was measured.

    Some of the measurement is held out (``hold_out``), a few neighbouring slices are reconstructed from the rest, and
    the error is that of what they predict. The noise of a method is the same in all trials. The settings of a candidate
    stay unless others are better by more than chance; of the candidates the best one is taken. Where views leave a
    wedge out, settings are searched only if the choice insists: views between others favour what fits them best, which
    is the worst that can be done for the wedge (benchmarks/trust.py, the disc from 20 views).

    Args:
        y, operator: the measurement, as for ``run_method``.
        choice: what could reconstruct it, and how much choosing may cost.
        prior: gives a prior by its name, or that of the run for None.
        known: trials that were made before, of the same measurement and candidates, which are not made again.
        report: told of each new trial.
        weights: see ``run_method``.
        **arguments: further ones of ``run_method``.

    Raises:
        InputError: too little measured to hold any of it out; no candidate that can reconstruct it.
    """
    folds = _folds(y, operator, weights, choice.budget.slices)
    modality, calibrated = arguments["modality"], arguments.get("calibrated", True)
    scales = [
        measured_scale(operator.parts_of(y, fold.left), operator.of_parts(fold.left), modality, calibrated)
        for fold in folds
    ]  # of all slices
    scaled = list(zip(folds, scales, strict=True))
    with holding(WHOLE):  # a few slices, which each process has
        tuning = _tuned(operator, choice, scaled, prior, known, report, arguments)
    return from_first(tuning)


def _tuned(
    operator: LinearOperator,
    choice: Choice,
    folds: list[tuple[Fold, float]],
    prior: Callable[[str | None], Any],
    known: Sequence[Trial],
    report: Callable[[Trial], None] | None,
    arguments: dict[str, Any],
) -> Tuning:
    scorer = _Scorer(choice, folds, prior, arguments, report)
    scorer.made = {_key(trial.candidate, trial.settings): trial for trial in known}
    shipped = [scorer.score(k, candidate.full) for k, candidate in enumerate(choice.candidates)]
    best = list(shipped)
    if choice.search and (choice.insists or not operator.parts.open):
        _search(scorer, best)
    finals = [b if b.beats(s) else s for b, s in zip(best, shipped, strict=True)]
    own = [final for final in finals if not choice.candidates[final.candidate].reference]
    chosen = min(own, key=lambda final: final.error)
    if not math.isfinite(chosen.error):
        names = ", ".join(candidate.name for candidate in choice.candidates)
        raise InputError(f"none of {names} can reconstruct part of this measurement")
    held = tuple(len(fold.held) for fold, _ in folds)
    return Tuning(choice.candidates, tuple(scorer.trials), chosen, operator.parts.what, held, operator.parts.open)


def _folds(y: Tensor, operator: LinearOperator, weights: Tensor | None, slices: int) -> list[Fold]:
    """The folds of some neighbouring slices, where slices are not coupled; else of all."""
    slab = current()
    if slab.split:
        if not operator.separable:
            raise TooLittle(
                "masks, coil maps or weights are by slice, and settings are tried on slices of several processes; give "
                "--method, without --tune, or --split volumes"
            )
        start, stop = _middle(y, operator, slices)
        by_slice = weights is not None and weights.ndim == y.ndim
        weights = _in_all(weights, start, stop) if weights is not None and by_slice else weights
        return hold_out(operator, _in_all(y, start, stop), weights)
    start, stop = _middle(y, operator, slices)
    part = operator.of_slices(start, stop)
    if part is None:
        return hold_out(operator, y, weights)
    by_slice = weights is not None and weights.ndim == y.ndim
    return hold_out(part, y[start:stop], weights[start:stop] if weights is not None and by_slice else weights)


@dataclass
class _Scorer:
    """Scores settings, each once.

    Attributes:
        choice: candidates and budget.
        folds: with what is 1 in the prior's unit.
        prior, arguments, report: see ``tune``.
        made: trials by candidate and settings, those of an earlier run among them.
        trials: of this run, in order.
    """

    choice: Choice
    folds: list[tuple[Fold, float]]
    prior: Callable[[str | None], Any]
    arguments: dict[str, Any]
    report: Callable[[Trial], None] | None
    made: dict[tuple[int, str], Trial] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    @property
    def spent(self) -> bool:
        """Whether the budget is."""
        budget = self.choice.budget
        seconds = sum(trial.seconds for trial in self.trials)
        return len(self.trials) >= budget.evaluations or seconds > 60 * budget.minutes

    def score(self, number: int, settings: Settings, best: Trial | None = None) -> Trial:
        """Settings of a candidate; no more folds are tried where they are far behind the best so far."""
        trial = self.made.get(_key(number, settings))
        if trial is None:
            before = time.perf_counter()
            missed: list[tuple[float, ...]] = []
            for fold, scale in self.folds:
                missed.append(self._missed(fold, scale, self.choice.candidates[number], settings))
                if best is not None and sum(missed[-1]) > BEHIND**2 * sum(best.missed[len(missed) - 1]):
                    break
            seconds = time.perf_counter() - before
            trial = Trial(number, settings, tuple(missed), seconds, len(missed) == len(self.folds))
            self.made[_key(number, settings)] = trial
            if self.report is not None:
                self.report(trial)
        if trial not in self.trials:
            self.trials.append(trial)
        return trial

    def _missed(self, fold: Fold, scale: float, candidate: Candidate, settings: Settings) -> tuple[float, ...]:
        method, options = candidate.chosen, dict(settings)
        steps = options.pop("steps", None)
        try:
            method.check(options, steps)
        except InputError:  # options that do not go together, such as a lowest noise level above the highest
            return (math.inf,)
        if method.needs_prior and steps is not None:
            steps = min(steps, self.choice.budget.levels)
        prior = self.prior(candidate.prior) if method.needs_prior else None
        weights = fold.weights if method.weighted else None
        given = {**self.arguments, **options, "weights": weights, "steps": steps, "scale": scale}
        try:
            result = run_method(fold.y, fold.operator, prior, candidate.method, **given)
        except InputError as error:
            if "diverged" not in str(error):
                raise
            return (math.inf,)
        return tuple(fold.errors(result.volume))


def _search(scorer: _Scorer, best: list[Trial]) -> None:
    """Search the options of all candidates by turns, so that none is behind when the budget is spent; ``best`` has the
    best trial of each, to begin with as it is."""
    searches = {}
    for k, candidate in enumerate(scorer.choice.candidates):
        options = searched(candidate.chosen, dict.fromkeys(candidate.fixed))
        if options and math.isfinite(best[k].error):
            searches[k] = pattern_search(best[k].settings, options)
            next(searches[k])
    errors = {k: best[k].error for k in searches}
    while searches:
        for k in list(searches):
            if scorer.spent:
                return
            try:
                trial = scorer.score(k, searches[k].send(errors[k]), best[k])
            except StopIteration:
                del searches[k]
                continue
            errors[k] = trial.error if trial.whole else math.inf
            if trial.whole and trial.error < best[k].error:
                best[k] = trial


def _key(candidate: int, settings: Settings) -> tuple[int, str]:
    return candidate, repr(sorted(settings.items()))


def _in_all(y: Tensor, start: int, stop: int) -> Tensor:
    """Slices ``start`` to ``stop`` of a measurement, or of weights, in all processes that share it."""
    first = current().start
    own = y[max(start - first, 0) : max(stop - first, 0)].cpu()
    return torch.cat(of_all(own)).to(y.device)


def _middle(y: Tensor, operator: LinearOperator, slices: int) -> tuple[int, int]:
    """The first and the last of so many neighbouring slices, about where half of the energy of a measurement lies."""
    slab = current()
    depth = slab.depth if slab.split else len(y) if operator.separable else operator.domain_shape[0]
    if depth <= slices or operator.of_slices(0, 1) is None:
        return 0, depth
    energy = everywhere(y.abs().square().flatten(1).sum(1).double()).cumsum(0)
    middle = int((energy < energy[-1] / 2).sum())
    start = min(max(middle - slices // 2, 0), depth - slices)
    return start, start + slices
