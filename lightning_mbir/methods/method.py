"""What a method is: a function of a problem, whose signature is the only place of its options and their defaults.

Nothing heavy is imported here, so that names and help are there at once.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, get_args, get_origin

from lightning_mbir.errors import InputError, whole_number
from lightning_mbir.methods.limits import check_size, plain

NEEDS = {
    "prior": "a prior: give --prior",
    "second_prior": "a prior of coronal slices: give --second_prior, such as one of `fit --data.axis coronal`",
    "network": "a network that was trained for this measurement: give --network FILE",
    "gradients": "a prior with gradients (a method `vjp`), which this one has not",
    "coil_maps": "k-space of several coils, which this measurement is not",
}
"""What a method may need beside a measurement, and what a user is told who lacks it."""

MODALITIES = ("ct", "mri")


@dataclass(frozen=True)
class Limits:
    """What a number may be, beside the type in the signature.

    Attributes:
        least, most: bounds, which are allowed themselves.
        positive: 0 is not allowed.
        below: nor is ``most``.
    """

    least: float = 0
    most: float = math.inf
    positive: bool = False
    below: bool = False

    @property
    def words(self) -> str:
        """What it may be: ``0 or more``, ``above 0``, ``0 to 1``, ``above 0 and below 2``."""
        least = f"above {self.least:g}" if self.positive else f"{self.least:g}"
        if self.most < math.inf:
            return f"{least} {'and below' if self.below else 'to'} {self.most:g}"
        return least if self.positive else f"{least} or more"

    def wrong(self, value: float) -> str | None:
        """What would be right, where ``value`` is not."""
        if self.positive and value == 0:
            return "give a positive number"
        if value < self.least:
            return f"give at least {self.least:g}"
        if value > self.most or (self.below and value == self.most):
            return f"give {self.words}"
        return None


@dataclass(frozen=True)
class Checked:
    """A type of option that is checked by a function.

    Attributes:
        wrong: says what would be right where a value is not.
        words: what it may be.
    """

    wrong: Callable[[Any], str | None]
    words: str


@dataclass(frozen=True)
class In:
    """The unit that an option is in."""

    unit: str


@dataclass(frozen=True)
class Searched:
    """That an option is worth searching where options are chosen by the measurement itself, and in which range.

    Attributes:
        least, most: between which it is searched, beside its default, and 0 where that is allowed.
        linear: whether steps are added, as of shares; else they are factors.
    """

    least: float = 0
    most: float = 1
    linear: bool = False


def _wrong_axes(value: Any) -> str | None:
    if not isinstance(value, str | list | tuple) or not value or any(axis not in ("z", "y", "x") for axis in value):
        return "give some of z, y, x"
    return None


Count = Annotated[int, Limits(1)]
"""A whole number of at least 1."""
Share = Annotated[float, Limits(0, 1), In("share")]
"""0 to 1."""
Positive = Annotated[float, Limits(0, positive=True)]
"""Above 0."""
Axes = Annotated[str, Checked(_wrong_axes, "some of z, y, x")]
"""Some of z, y and x, such as ``zy``."""
PRIOR = In("prior's unit")
"""As noise levels are, and whatever is a value of the volume."""
RATIO = In("ratio")
"""Of two values in the same unit, or of what an operator of unit norm makes of them: without dimension."""


@dataclass(frozen=True)
class Option:
    """An option of a method.

    Attributes:
        name, default: as they stand in its signature.
        kind: what its values may be: a type, maybe annotated.
    """

    name: str
    default: Any
    kind: Any

    @property
    def choices(self) -> tuple[str, ...]:
        """What it is one of, where it is a name of several."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def limits(self) -> Sequence[Any]:
        """What its type is annotated with."""
        return get_args(self.kind)[1:] if get_origin(self.kind) is Annotated else ()

    @property
    def plain(self) -> Any:
        """Its type alone."""
        return get_args(self.kind)[0] if get_origin(self.kind) is Annotated else self.kind

    @property
    def whole(self) -> bool:
        """Whether it is a whole number."""
        return self.plain is int

    @property
    def search(self) -> Searched | None:
        """How it is searched, where that is worth while."""
        return next((limit for limit in self.limits if isinstance(limit, Searched)), None)

    @property
    def range(self) -> str:
        """What its values may be, in words; empty of a type that nothing is known of."""
        if checked := next((limit for limit in self.limits if isinstance(limit, Checked)), None):
            return checked.words
        if self.plain is bool:
            return "true or false"
        if self.plain is int or self.plain is float:
            return self.bounds.words
        return " or ".join(self.choices)

    @property
    def bounds(self) -> Limits:
        """Of a number: 0 or more, where its type does not say otherwise."""
        return next((limit for limit in self.limits if isinstance(limit, Limits)), Limits())

    @property
    def unit(self) -> str:
        """The unit it is in; empty of what has none: counts, names, switches."""
        return next((limit.unit for limit in self.limits if isinstance(limit, In)), "")

    @property
    def text(self) -> str:
        """The default as it is written on the command line."""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def check(self, method: str, value: Any) -> None:
        """Raise ``InputError`` where a value is of another kind, or none that can work."""
        kind, checks = self.plain, self.limits
        if kind is bool or kind is int or kind is float:
            _check_number(method, self, kind, plain(value))
        elif get_origin(kind) is Literal:
            if not isinstance(value, str) or value not in self.choices:
                raise InputError(f"{method}: {self.name} is {value!r}; give {' or '.join(self.choices)}")
        elif kind is str and not checks and not isinstance(value, str):
            raise InputError(f"{method}: {self.name} is {value!r}; give a name")
        for check in checks:
            if isinstance(check, Checked) and (right := check.wrong(value)):
                verb = "are" if self.name == "axes" else "is"
                raise InputError(f"{method}: {self.name} {verb} {value!r}; {right}, such as {self.default}")


def _check_number(method: str, option: Option, kind: type, value: Any) -> None:
    name, default = option.name, option.default
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{method}: {name} is {value!r}; give true or false")
        return
    kinds = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        words = "a whole number" if kind is int else "a number"
        raise InputError(f"{method}: {name} is {value!r}; give {words}, such as {default}")
    check_size(value, f"{method}: {name}")
    if right := option.bounds.wrong(value):
        raise InputError(f"{method}: {name} is {value}; {right}")


@dataclass(frozen=True)
class Method:
    """A method: ``run(problem, **options) -> volume``, what it needs, and what it is for.

    Attributes:
        run: takes a ``Problem``, then keywords with defaults; gives the volume ``(Z, Y, X)`` in the prior's unit.
        modalities: that it works for.
        needs: what it cannot do without, of ``NEEDS``.
        weighted: whether it fits the measurement, so that statistical weights mean something to it.
        path: class path, of one that comes from outside.
        splits: whether it may be given a slab of the slices, the others being with other processes: what it does beyond
            single slices is done by what knows of that (``lightning_mbir.slabs``), such as ``admm_tv`` and ``inner``.
        memory: how many volumes and measurements it holds at its peak, and how many of both for those slices that it
            works on at a time, where it does so slab by slab; where that is known, what a run will take is told.
    """

    run: Callable[..., Any]
    modalities: tuple[str, ...] = MODALITIES
    needs: tuple[str, ...] = ()
    weighted: bool = True
    path: str = ""
    splits: bool = False
    memory: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        name = self.name
        if inspect.isclass(self.run) or not callable(self.run):
            given = self.path or repr(self.run)
            raise InputError(f"method {given:.80}: give a name, a class path or a function of a problem, and no class")
        if not (inspect.getdoc(self.run) or "").strip():
            raise InputError(f"method {name}: has no docstring; its first line is what help says of it")
        for key, known in (("modalities", MODALITIES), ("needs", tuple(NEEDS))):
            for value in getattr(self, key):
                if value not in known:
                    raise InputError(f"method {name}: {key} has {value!r}; there are {', '.join(known)}")
        problem, *options = inspect.signature(self.run).parameters.values() or (None,)
        if problem is None or problem.kind is inspect.Parameter.KEYWORD_ONLY:
            raise InputError(f"method {name}: takes no problem, which is what it is given first (docs/extending.md)")
        for parameter in options:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise InputError(f"method {name}: {parameter} is no option; options come after *, with names")
            if parameter.default is inspect.Parameter.empty:
                raise InputError(
                    f"method {name}: option {parameter.name} has no default; its signature is where that is"
                )

    def __call__(self, problem: Any, **options: Any) -> Any:
        return self.run(problem, **options)

    @property
    def name(self) -> str:
        """What it is called, and filed under."""
        return self.path or str(getattr(self.run, "__name__", type(self.run).__name__))

    @cached_property
    def signature(self) -> dict[str, Option]:
        """All options by name, ``steps`` among them."""
        own = list(inspect.signature(self.run, eval_str=True).parameters.values())[1:]
        return {
            p.name: Option(p.name, p.default, type(p.default) if p.annotation is p.empty else p.annotation) for p in own
        }

    @property
    def options(self) -> dict[str, Any]:
        """Default options, without ``steps``."""
        return {name: option.default for name, option in self.signature.items() if name != "steps"}

    @property
    def steps(self) -> int:
        """Default number of noise levels or iterations; 0 where there are none."""
        return int(self.signature["steps"].default) if "steps" in self.signature else 0

    @property
    def ours(self) -> bool:
        """Whether it belongs to this package."""
        return str(getattr(self.run, "__module__", "")).startswith("lightning_mbir.methods.")

    @property
    def needs_prior(self) -> bool:
        """Whether it runs a prior."""
        return "prior" in self.needs

    @property
    def random(self) -> bool:
        """Whether its result is a sample of the posterior, so that several tell a spread."""
        return self.needs_prior

    def check(self, options: dict[str, Any], steps: int | None) -> None:
        """Raise ``InputError`` where an option is not its own, or a value that cannot be."""
        unknown = sorted(options.keys() - self.options.keys())
        if unknown:
            raise InputError(
                f"{self.name} has no option {', '.join(unknown)}; it has {', '.join(self.options) or 'none'}"
            )
        for key, value in options.items():
            self.signature[key].check(self.name, value)
        levels = {**self.options, **options}
        if "sigma_max" in levels and not levels["sigma_max"] > levels["sigma_min"] > 0:
            high, low = levels["sigma_max"], levels["sigma_min"]
            raise InputError(f"{self.name}: noise levels from {high:g} to {low:g}; give sigma_max > sigma_min > 0")
        if steps is not None and whole_number("--steps", steps) < 1:
            raise InputError(f"--steps {steps}: give at least 1")
        if steps is not None and self.steps == 0:
            raise InputError(f"--steps {steps}: {self.name} has no steps; leave it out")

    def check_needs(self, **present: bool) -> None:
        """Raise ``InputError`` where something that it needs is known to be missing.

        Args:
            **present: keys of ``NEEDS`` and whether they are there; those left out are not known yet.
        """
        for need in self.needs:
            if not present.get(need, True):
                raise InputError(f"--method {self.name} needs {NEEDS[need]}")


def method(
    *,
    modalities: tuple[str, ...] = MODALITIES,
    needs: tuple[str, ...] = (),
    weighted: bool = True,
    splits: bool = False,
    memory: tuple[float, float, float] | None = None,
) -> Callable[[Callable[..., Any]], Method]:
    """Make a method of a function; docs/extending.md has a whole example.

    Args:
        modalities: that it works for, of ``"ct"`` and ``"mri"``.
        needs: what it cannot do without, of ``NEEDS``, such as ``"prior"``.
        weighted: whether statistical weights mean something to it.
        splits: whether it may be given a slab of the slices, see ``Method``; without, a volume stays on one device.
        memory: see ``Method``; without, nothing is told of what a run will take.

    Raises:
        InputError: a function without a docstring, an option without a default or without a name.
    """
    return lambda run: Method(run, modalities, needs, weighted, splits=splits, memory=memory)
