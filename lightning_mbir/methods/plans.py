"""Which methods are run and how, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_mbir.errors import InputError
from lightning_mbir.methods.candidates import GENERIC, Budget, Candidate, Choice, Tuned, auto_candidates, candidates_of
from lightning_mbir.methods.catalog import cards, check_method, get_method, method_name, source_sha256
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.search import searched
from lightning_mbir.methods.settings import AUTO
from lightning_mbir.methods.tasks import Task


@dataclass(frozen=True)
class Plan:
    """A method and how it is run.

    Attributes:
        method: its name or class path.
        options: those of the task and the user, over which nothing comes but the method's defaults.
        steps: noise levels or iterations; none for the method's own.
        samples: of the posterior; 1 is a plain reconstruction.
        prior: name of its prior, where that is not the one of the run.
        choice: what is chosen among by the measurement before anything of this is run; ``method`` and the rest are then
            those of the first candidate.
    """

    method: str
    options: dict[str, Any]
    steps: int | None = None
    samples: int = 1
    prior: str | None = None
    choice: Choice | None = None

    @property
    def chosen(self) -> Method:
        """The method itself."""
        return get_method(self.method)

    @property
    def name(self) -> str:
        """What it is called: ``auto`` where methods are chosen among."""
        several = self.choice is not None and sum(not c.reference for c in self.choice.candidates) > 1
        return AUTO if several else self.method

    def resolved(self, candidate: Candidate) -> Plan:
        """What is run after a choice."""
        options = dict(candidate.settings)
        steps = options.pop("steps", None)
        samples = self.samples if candidate.chosen.random else 1
        return Plan(candidate.method, options, steps, samples, candidate.prior)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that is set, the method's defaults included."""
        chosen = self.chosen
        source = {} if chosen.ours else {"method_sha256": source_sha256(chosen.run)}
        choice = {} if self.choice is None else {"choice": asdict(self.choice)}
        return {
            "method": self.name,
            **source,
            "options": {**chosen.options, **self.options},
            "steps": (self.steps or chosen.steps) if chosen.steps else None,
            "samples": self.samples,
            **choice,
        }


@dataclass(frozen=True)
class Setting:
    """Of what kind the measurement is, as far as it matters to what is run.

    Attributes:
        noisy: whether it has noise.
        measured: whether it was really made.
        generic: whether the prior ``generic`` is of such volumes: ``auto`` tries it, and it is the rival of a choice.
        views: how many there are, where that is known.
    """

    noisy: bool = False
    measured: bool = False
    generic: bool = False
    views: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What the user asks to be run.

    Attributes:
        task: whose options come before those of a method.
        method: name or class path, ``auto``, or none for what suits: ``dds`` where the measurement is simulated, else
            ``auto``.
        options: of the method; with ``auto`` and of several methods keyed by method, with ``steps`` in there.
        steps: noise levels or iterations.
        samples: of the posterior.
        methods: several to be compared instead, as a list or with commas.
        tune: whether options are searched by the measurement; None leaves it to ``auto``, and has what was measured
            tell whether the prior suits it.
        budget: of the search, where one is given.
    """

    task: Task
    method: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    samples: int = 1
    methods: str | list[str] | None = None
    tune: bool | None = None
    budget: Budget | None = None

    def plans(self, setting: Setting) -> list[Plan]:
        """What is to be run of a measurement.

        Raises:
            InputError: see ``check_method``; samples of a method that has no randomness; methods that are named twice
                or not at all, steps for all of them, options of a method that is not compared; a budget that is too
                small.
        """
        if self.methods is not None:
            return self._compared(setting)
        fitting = AUTO if setting.measured and not self.options and self.steps is None else "dds"
        method = fitting if self.method in (None, "") else method_name("--method", self.method)
        return [self._plan(method, self.options, self.steps, self.samples, setting)]

    def _plan(self, method: str, options: dict[str, Any], steps: int | None, samples: int, setting: Setting) -> Plan:
        """One method with options of the user over those of the task."""
        if samples < 1:
            raise InputError(f"--samples {samples}: give at least 1")
        tuned = partial(self.task.tuned, noisy=setting.noisy, views=setting.views)
        if method == AUTO:
            return self._auto(options, steps, samples, tuned, setting.generic)
        settings = tuned(method)
        tuned_steps = settings.pop("steps", None)  # a flag of its own rather than an option
        given = (*options, *(() if steps is None else ("steps",)))
        steps = tuned_steps if steps is None else steps
        merged = {**settings, **options}
        chosen = check_method(method, self.task.modality, merged, steps)
        if samples > 1 and not chosen.random:
            random = ", ".join(card.name for card in cards() if "prior" in card.needs)
            raise InputError(
                f"--samples {samples}: {method} has no randomness to sample; leave it out, or take {random}"
            )
        choice = None
        if self.tune and not searched(chosen, dict.fromkeys(given)):
            options_of = ", ".join(searched(chosen, {})) or "none"
            raise InputError(f"--tune true: {method} has no option to search; worth it are {options_of}, unless given")
        if self.tune or (self.tune is None and setting.measured and chosen.needs_prior):
            whole = {**merged, "steps": steps} if steps is not None else merged
            candidates = candidates_of(method, whole, given, tuned)
            tune = bool(self.tune)
            rival = GENERIC if setting.generic and chosen.needs_prior else None  # else nothing is chosen by it
            choice = Choice(candidates, self.budget or Budget(), search=tune, asked=tune, insists=tune, rival=rival)
        return Plan(method, merged, steps, samples, choice=choice)

    def _auto(self, options: dict[str, Any], steps: int | None, samples: int, tuned: Tuned, generic: bool) -> Plan:
        if steps is not None:
            raise InputError(f"--steps {steps}: not with --method auto; give each method its own in method_options")
        candidates = auto_candidates(self.task.modality, options, tuned, generic)
        for candidate in candidates:
            own = {key: value for key, value in candidate.settings.items() if key != "steps"}
            check_method(candidate.method, self.task.modality, own, candidate.settings.get("steps"))
        if samples > 1:  # a spread is asked for
            candidates = tuple(candidate for candidate in candidates if candidate.chosen.random)
        first = Plan("", {}, samples=samples).resolved(candidates[0])
        asked = self.method is not None or bool(self.tune)
        budget, rival = self.budget or Budget(), GENERIC if generic else None
        choice = Choice(candidates, budget, self.tune is not False, asked, insists=bool(self.tune), rival=rival)
        return replace(first, choice=choice)

    def _compared(self, setting: Setting) -> list[Plan]:
        """Several methods; samples are of those with randomness."""
        methods, options, samples, steps = self.methods, self.options, self.samples, self.steps
        given: Any = methods.split(",") if isinstance(methods, str) else methods
        given = given if isinstance(given, list | tuple) else [given]
        names = [name for one in given if (name := method_name("--methods", one).strip())]
        if not names:
            raise InputError("--methods: names no method; give some, such as dds,admm_tv")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"--methods: {', '.join(twice)} twice; name each method once")
        if steps is not None:
            one = next((name for name in names if name != AUTO and get_method(name).steps), names[0])
            raise InputError(
                f"--steps {steps}: not with --methods; give each method its own: "
                f"""--model.method_options '{{"{one}": {{"steps": {steps}}}}}'"""
            )
        for key, value in options.items():
            if key not in names:
                raise InputError(f"method_options: {key} is none of --methods {','.join(names)}; key them by method")
            if not isinstance(value, dict):
                raise InputError(f"method_options: {key} is {value!r}; give a mapping of its options")
        plans = []
        for name in names:
            own = dict(options.get(name, {}))
            own_steps = own.pop("steps", None)
            if own_steps is not None and (isinstance(own_steps, bool) or not isinstance(own_steps, int)):
                raise InputError(f"{name}: steps is {own_steps!r}; give a whole number")
            random = name == AUTO or get_method(name).random
            plans.append(self._plan(name, own, own_steps, samples if random else 1, setting))
        if samples > 1 and all(plan.samples == 1 for plan in plans):
            raise InputError(f"--samples {samples}: none of {', '.join(names)} has randomness to sample; leave it out")
        if samples < 1:
            raise InputError(f"--samples {samples}: give at least 1")
        return plans


def check_files(plans: Sequence[Plan], second_prior: object, network: Path | None) -> None:
    """Raise where a method lacks a file that it needs, or one is given that none needs.

    Args:
        plans: what is run.
        second_prior, network: what is given of these; None for nothing.

    Raises:
        InputError: see above; a network that is not there.
    """
    for plan in plans:
        plan.chosen.check_needs(second_prior=second_prior is not None, network=network is not None)
    for need, given in (("network", network), ("second_prior", second_prior)):
        if given is not None and not any(need in plan.chosen.needs for plan in plans):
            names = ", ".join(card.name for card in cards() if need in card.needs)
            raise InputError(f"--{need} {given}: of use to {names} alone; leave it out")
    if network is not None and not network.is_file():
        raise InputError(f"--network {network}: no such file")
