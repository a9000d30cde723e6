"""Options, methods and priors chosen by the measurement itself: by what they predict of parts that are held out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.methods.candidates import Candidate, Choice
from lightning_mbir.methods.evidence import log_evidence
from lightning_mbir.methods.held_out import Fold, TooLittle, hold_out
from lightning_mbir.methods.priors import placed
from lightning_mbir.methods.run import run_method
from lightning_mbir.methods.search import Settings, pattern_search, searched
from lightning_mbir.methods.trials import Trial, Tuning
from lightning_mbir.methods.units import measured_scale, measured_unit
from lightning_mbir.physics import LinearOperator
from lightning_mbir.samplers import KeyedNoise
from lightning_mbir.slabs import WHOLE, current, everywhere, from_first, holding, of_all

BEHIND = 1.15
"""Times the error of the best settings so far on the same fold, from which on the other folds are not tried."""

FAR = 2.0
"""Times the error of a rival of the prior, from which on its predictions alone speak for it."""


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
    stay unless others are better by more than chance; of the candidates the best one is taken.

    Where views leave a wedge out, settings are searched only if the choice insists: views between others favour what
    fits them best, which is the worst that can be done for the wedge (benchmarks/trust.py, the disc from 20 views).
    Nor do they tell which method is right about the wedge.

    Where the choice has a rival of the prior, it is taken only if it finds the object more probable (``log_evidence``)
    and predicts better too, or far better. Over an arc the prior of the run is taken where it is the more probable
    one, else none at all.

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
    parts, candidates = operator.parts, choice.candidates
    evidence = _evidence(scorer, parts.open)
    likely = _likely(choice, evidence, parts.open)
    shipped = _without_rival(choice, {k: scorer.score(k, candidates[k].full) for k in likely}, evidence)
    best = dict(shipped)
    if choice.search and (choice.insists or not parts.open):
        _search(scorer, best)
    finals = [best[k] if best[k].beats(shipped[k]) else shipped[k] for k in shipped]
    own = [final for final in finals if not candidates[final.candidate].reference]
    chosen = min(own, key=lambda final: final.error)
    if not math.isfinite(chosen.error):
        names = ", ".join(candidates[k].name for k in shipped)
        raise InputError(f"none of {names} can reconstruct part of this measurement")
    held = tuple(len(fold.held) for fold, _ in folds)
    rival = None if evidence is None else choice.rival
    return Tuning(candidates, tuple(scorer.trials), chosen, parts.what, held, parts.open, evidence, rival)


def _evidence(scorer: _Scorer, open: bool) -> float | None:
    """By how many nats a pixel the prior of the run finds the object more probable than its rival does.

    The object is what is made of the first fold: over an arc by a method that needs no prior, since either prior would
    be asked of what it has put into the wedge; else by a method with either, of which the mean counts, since total
    variation makes flat patches of few data, to which dead leaves come nearer whatever the object is (docs/trust.md).
    None where there is no rival, no such method, or it diverges.
    """
    choice, (fold, scale) = scorer.choice, scorer.folds[0]
    own = [one for one in choice.candidates if one.chosen.needs_prior and one.prior is None]
    plain = [one for one in choice.candidates if not one.chosen.needs_prior]
    if choice.rival is None or not own or (open and not plain):
        return None
    volumes = []
    for candidate in plain[:1] if open else (own[0], replace(own[0], prior=choice.rival)):
        volume = scorer.reconstruct(fold, scale, candidate, candidate.full)
        if volume is None:
            return None
        scorer.ready.append((candidate, volume))  # it is scored too
        volumes.append(volume)
    given, priors = scorer.arguments, [scorer.prior(name) for name in (None, choice.rival)]
    unit, other = (measured_unit(one.unit, scale, given["modality"], given.get("calibrated", True)) for one in priors)
    of_run, rival = (placed(one, given.get("spacing"), len(volumes[0])) for one in priors)
    factor, shift = unit.scale / other.scale, (unit.offset - other.offset) / other.scale

    def in_own_unit(x: Tensor, sigma: float) -> Tensor:
        return (rival(x * factor + shift, sigma * factor) - shift) / factor

    noise = KeyedNoise(given.get("seed", 0), given.get("volume", 0))
    return statistics.mean(log_evidence((x - unit.offset) / unit.scale, of_run, in_own_unit, noise) for x in volumes)


def _likely(choice: Choice, evidence: float | None, open: bool) -> list[int]:
    """Numbers of the candidates that are tried: over an arc those with the prior of the run where it is the more
    probable one, else those without any; all around all of them. What is all there is stays."""
    kept = range(len(choice.candidates))
    if evidence is None or not open:
        return list(kept)
    without = {k for k in kept if not choice.candidates[k].chosen.needs_prior}
    own = {k for k in kept if choice.candidates[k].prior is None} - without
    free = {k for k in without if not choice.candidates[k].reference}
    if evidence >= 0:
        return sorted(own if free else own | without)
    return sorted(without if free else own | without)


def _without_rival(choice: Choice, shipped: dict[int, Trial], evidence: float | None) -> dict[int, Trial]:
    """The candidates to go on with: of a method with two priors that of the run, unless the rival finds the object more
    probable and predicts better by more than chance, or predicts far better: a prior that puts the same into everything
    knows what it has put there."""
    dropped = set()
    for k, one in enumerate(choice.candidates):
        rival = replace(one, prior=choice.rival)
        other = choice.candidates.index(rival) if rival in choice.candidates else k
        if other != k and k in shipped and other in shipped:
            better = shipped[other].beats(shipped[k]) and (evidence is None or evidence < 0)
            far = shipped[other].whole and FAR * shipped[other].error < shipped[k].error
            dropped.add(k if better or far else other)
    return {k: trial for k, trial in shipped.items() if k not in dropped}


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
        ready: what candidates have made of the first fold with their settings as they are.
    """

    choice: Choice
    folds: list[tuple[Fold, float]]
    prior: Callable[[str | None], Any]
    arguments: dict[str, Any]
    report: Callable[[Trial], None] | None
    made: dict[tuple[int, str], Trial] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    ready: list[tuple[Candidate, Tensor]] = field(default_factory=list)

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
        volume = self.reconstruct(fold, scale, candidate, settings)
        return (math.inf,) if volume is None else tuple(fold.errors(volume))

    def reconstruct(self, fold: Fold, scale: float, candidate: Candidate, settings: Settings) -> Tensor | None:
        """What a candidate makes of what is left of a fold; None where it diverges."""
        if fold is self.folds[0][0] and settings == candidate.full:
            for known, volume in self.ready:
                if known == candidate:
                    return volume
        method = candidate.chosen
        if method.needs_prior and settings.get("steps") is not None:
            settings = {**settings, "steps": min(settings["steps"], self.choice.budget.levels)}
        prior = self.prior(candidate.prior) if method.needs_prior else None
        given = {**self.arguments, **settings, "weights": fold.weights if method.weighted else None, "scale": scale}
        try:
            return run_method(fold.y, fold.operator, prior, candidate.method, **given).volume
        except InputError as error:
            if "diverged" not in str(error):
                raise
            return None


def _search(scorer: _Scorer, best: dict[int, Trial]) -> None:
    """Search the options of all candidates by turns, so that none is behind when the budget is spent; ``best`` has the
    best trial of each, to begin with as it is."""
    searches = {}
    for k in best:
        candidate = scorer.choice.candidates[k]
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
