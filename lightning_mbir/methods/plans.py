"""Which methods are run and how, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_mbir.errors import InputError
from lightning_mbir.methods.catalog import cards, check_method, get_method, source_sha256
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.tasks import Task


@dataclass(frozen=True)
class Plan:
    """A method and how it is run.

    Attributes:
        method: its name or class path.
        options: those of the task and the user, over which nothing comes but the method's defaults.
        steps: noise levels or iterations; none for the method's own.
        samples: of the posterior; 1 is a plain reconstruction.
    """

    method: str
    options: dict[str, Any]
    steps: int | None = None
    samples: int = 1

    @property
    def chosen(self) -> Method:
        """The method itself."""
        return get_method(self.method)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that is set, the method's defaults included."""
        chosen = self.chosen
        source = {} if chosen.ours else {"method_sha256": source_sha256(chosen.run)}
        return {
            "method": self.method,
            **source,
            "options": {**chosen.options, **self.options},
            "steps": (self.steps or chosen.steps) if chosen.steps else None,
            "samples": self.samples,
        }


def plan_method(
    task: Task, method: str, options: dict[str, Any], steps: int | None, samples: int, noisy: bool = False
) -> Plan:
    """One method with options of the user over those of the task, for measurements without noise or with some.

    Raises:
        InputError: see ``check_method``; samples of a method that has no randomness.
    """
    tuned = task.tuned(method, noisy)
    tuned_steps = tuned.pop("steps", None)  # a flag of its own rather than an option
    steps = tuned_steps if steps is None else steps
    merged = {**tuned, **options}
    chosen = check_method(method, task.modality, merged, steps)
    if samples < 1:
        raise InputError(f"--samples {samples}: give at least 1")
    if samples > 1 and not chosen.random:
        random = ", ".join(card.name for card in cards() if "prior" in card.needs)
        raise InputError(f"--samples {samples}: {method} has no randomness to sample; leave it out, or take {random}")
    return Plan(method, merged, steps, samples)


def plan_comparison(
    task: Task,
    methods: str | list[str],
    options: dict[str, Any],
    steps: int | None,
    samples: int,
    noisy: bool = False,
) -> list[Plan]:
    """Several methods; ``options`` are keyed by method and may hold ``steps``; samples are of those with randomness.

    Raises:
        InputError: see ``plan_method``; methods that are named twice or not at all, steps for all of them, options of a
            method that is not compared.
    """
    names = [name.strip() for name in methods.split(",")] if isinstance(methods, str) else list(methods)
    names = [name for name in names if name]
    if not names:
        raise InputError("--methods: names no method; give some, such as dds,admm_tv")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--methods: {', '.join(twice)} twice; name each method once")
    if steps is not None:
        raise InputError(
            f"--steps {steps}: not with --methods; give each method its own: "
            f"""--model.method_options '{{"{names[0]}": {{"steps": {steps}}}}}'"""
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
        random = get_method(name).random
        plans.append(plan_method(task, name, own, own_steps, samples if random else 1, noisy))
    if samples > 1 and all(plan.samples == 1 for plan in plans):
        raise InputError(f"--samples {samples}: none of {', '.join(names)} has randomness to sample; leave it out")
    if samples < 1:
        raise InputError(f"--samples {samples}: give at least 1")
    return plans
