"""What the measurement chooses among, and how much choosing may cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.methods.catalog import get_method
from lightning_mbir.methods.method import Method

CHOICES: dict[Modality, tuple[str, ...]] = {
    "ct": ("dds", "admm_tv"),
    "mri": ("dds", "admm_tv", "l1_wavelet"),
}
"""Methods that ``auto`` chooses among, the one that is preferred first."""
GENERIC = "generic"
"""The prior that ``auto`` tries beside that of the run: of no anatomy at all, for objects that no other knows."""
REFERENCE = "admm_tv"
"""What a prior has to be better than."""
Tuned = Callable[[str], dict[str, Any]]
"""Gives the settings of a task, by the name of a method."""


@dataclass(frozen=True)
class Budget:
    """How much a choice may cost.

    Attributes:
        evaluations: settings that are scored, of all candidates together; each candidate as it is comes first.
        minutes: after which no more are begun.
        slices: neighbouring ones that are reconstructed, where slices are not coupled by the measurement.
        levels: noise levels at most, of methods with a prior.

    Raises:
        InputError: a budget of nothing.
    """

    evaluations: int = 30
    minutes: float = math.inf
    slices: int = 5
    levels: int = 25

    @classmethod
    def of(cls, evaluations: int | None, minutes: float | None) -> Budget | None:
        """The budget of a user's flags; none where neither is given."""
        given = {"evaluations": evaluations, "minutes": minutes}
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return cls(**chosen) if chosen else None

    def __post_init__(self) -> None:
        check_kinds(Budget, vars(self))
        if self.evaluations < 1:
            raise InputError(f"--tune_evaluations {self.evaluations}: give at least 1, or leave --tune out")
        if not self.minutes > 0:
            raise InputError(f"--tune_minutes {self.minutes:g}: give more than 0, or leave --tune out")


@dataclass(frozen=True)
class Candidate:
    """What could reconstruct the measurement.

    Attributes:
        method: its name.
        settings: its options, with ``steps`` where they are not the method's own.
        prior: name of the prior; none for that of the run.
        fixed: names of settings that a user has set, which are not searched.
        reference: whether it is there to be compared with alone, and never taken.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    prior: str | None = None
    fixed: tuple[str, ...] = ()
    reference: bool = False

    @property
    def chosen(self) -> Method:
        """The method itself."""
        return get_method(self.method)

    @property
    def name(self) -> str:
        """The method, with the prior where one is named."""
        method = self.chosen.name
        return method if self.prior is None else f"{method} with prior {self.prior}"

    @property
    def full(self) -> dict[str, Any]:
        """Its settings over the defaults of its method, ``steps`` where there are any."""
        return {**{key: option.default for key, option in self.chosen.signature.items()}, **self.settings}


@dataclass(frozen=True)
class Choice:
    """What is chosen among, and how.

    Attributes:
        candidates: the one that is preferred first.
        budget: what it may cost.
        search: whether options are searched; else the candidates are compared as they are.
        asked: whether the user wants it; else the first candidate is taken where too little was measured to choose.
        insists: whether options are searched where what is held out cannot tell of what is missing: over an arc.
        rival: name of the prior that has to find the object less probable than that of the run does, for the latter to
            be tried.
    """

    candidates: tuple[Candidate, ...]
    budget: Budget
    search: bool = True
    asked: bool = True
    insists: bool = False
    rival: str | None = None

    @property
    def priors(self) -> set[str]:
        """Names of all priors that it takes beside that of the run."""
        return {name for name in (*(candidate.prior for candidate in self.candidates), self.rival) if name is not None}

    def __post_init__(self) -> None:
        if self.budget.evaluations < len(self.candidates):
            names = ", ".join(candidate.name for candidate in self.candidates)
            least = len(self.candidates)
            raise InputError(
                f"--tune_evaluations {self.budget.evaluations}: {names} take one each; give {least} or more"
            )


def candidates_of(method: str, settings: dict[str, Any], given: tuple[str, ...], tuned: Tuned) -> tuple[Candidate, ...]:
    """A method with its settings, beside what its prior has to be better than.

    Args:
        method: its name.
        settings: as they are to begin with.
        given: names of those that the user has set.
        tuned: gives the settings of a task, by the name of a method.
    """
    first = Candidate(method, settings, fixed=given)
    if not first.chosen.needs_prior:
        return (first,)
    return first, Candidate(REFERENCE, tuned(REFERENCE), reference=True)


def auto_candidates(
    modality: Modality, options: dict[str, dict[str, Any]], tuned: Tuned, generic: bool
) -> tuple[Candidate, ...]:
    """What ``auto`` chooses among.

    Args:
        modality: ``"ct"`` or ``"mri"``.
        options: that the user has set, by method.
        tuned: see ``candidates_of``.
        generic: whether methods with a prior are tried with ``GENERIC`` too: of real slices, where that of the run is
            another.

    Raises:
        InputError: options of a method that is none of them.
    """
    names = CHOICES[modality]
    for key, value in options.items():
        if key not in names or not isinstance(value, dict):
            raise InputError(f"method_options: {key}; with --method auto, key options by one of {', '.join(names)}")
    own = {name: options.get(name, {}) for name in names}
    first = tuple(Candidate(name, {**tuned(name), **own[name]}, fixed=tuple(own[name])) for name in names)
    return first + tuple(replace(one, prior=GENERIC) for one in first if generic and one.chosen.needs_prior)
