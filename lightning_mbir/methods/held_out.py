"""Part of a measurement held out, so that a reconstruction from the rest can be judged by what it predicts of it.

No truth is needed, and nothing is judged by data that it was fitted to (Millard and Chiew, IEEE TCI 2023; Yaman et al.,
"Zero-shot self-supervised learning for MRI reconstruction", ICLR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from lightning_mbir.physics.operator import Parts

SHARE = 0.15
"""Of the parts that may be left out, in each fold."""
MANY = 64
"""Parts up to which there are four folds, since each of them tells little."""
GROUPS = 16
"""Parts of a fold whose errors are told apart."""
LEAST = 3
"""Parts without which nothing is held out: two would be left."""


class TooLittle(InputError):
    """That too little was measured for any of it to be held out."""


@dataclass(frozen=True)
class Fold:
    """A measurement without some of its parts.

    Attributes:
        operator, y, weights: of what is left; no weights where there were none.
        left, held: numbers of the parts that are left, and of those that are held out.
        whole, measured, precision: the operator of everything, the measurement and its weights.
    """

    operator: LinearOperator
    y: Tensor
    weights: Tensor | None
    left: Int[Tensor, " m"]
    held: Int[Tensor, " n"]
    whole: LinearOperator
    measured: Tensor
    precision: Tensor | None

    @torch.no_grad()
    def errors(self, volume: Num[Tensor, "z y x"]) -> list[float]:
        """How far what a volume predicts is from what was held out, by part: ``||W^(1/2) (A x - y)||^2`` of each over
        ``||W^(1/2) y||^2`` of all. Where there are more than ``GROUPS`` parts, neighbours count as one."""
        missed = self.whole(volume) - self.measured
        groups = self.held.tensor_split(min(GROUPS, len(self.held)))
        return [self._energy(missed, group) / self.size for group in groups]

    @cached_property
    def size(self) -> float:
        """``||W^(1/2) y||^2`` of what is held out."""
        return self._energy(self.measured, self.held)

    def _energy(self, values: Tensor, parts: Int[Tensor, " n"]) -> float:
        power = self.whole.parts_of(values, parts).abs().square()
        if self.precision is not None:
            power = power * self.whole.parts_of(self.precision, parts)
        return float(power.sum())


def hold_out(operator: LinearOperator, y: Tensor, weights: Tensor | None = None) -> list[Fold]:
    """Two to four folds of a measurement, each without other parts.

    Args:
        operator: of all of it.
        y: the measurement, in the operator's type.
        weights: of it, where there are any.

    Raises:
        TooLittle: too few parts to hold any out, or nothing but zeros in them.
    """
    parts = operator.parts
    folds = []
    for held in held_numbers(parts):
        rest = torch.ones(len(parts.place), dtype=torch.bool)
        rest[held] = False
        left = torch.nonzero(rest).flatten()
        of_left = None if weights is None else operator.parts_of(weights, left)
        fold = Fold(operator.of_parts(left), operator.parts_of(y, left), of_left, left, held, operator, y, weights)
        if fold.size > 0:  # else rays through air alone
            folds.append(fold)
    if not folds:
        raise TooLittle("what could be held out of the measurement is zero; give --method, without --tune")
    return folds


def held_numbers(parts: Parts) -> list[Int[Tensor, " n"]]:
    """Which parts each fold is without: ``SHARE`` of those that are not needed, spread evenly over their places.

    Raises:
        TooLittle: too few parts.
    """
    total = len(parts.place)
    free = torch.nonzero(~parts.needed).flatten()
    if total < LEAST or len(free) < 2:
        raise TooLittle(
            f"{total} {parts.what}, of which {len(free)} could be held out, are too few to choose by; give --method, "
            "without --tune"
        )
    free = free[parts.place[free].argsort(stable=True)]
    count = max(1, round(SHARE * len(free)))
    folds = min(4 if total <= MANY else 2, len(free) // count)
    step = len(free) / count
    at = torch.arange(count, dtype=torch.float64)
    return [free[((at + (fold + 0.5) / folds) * step).floor().long()] for fold in range(folds)]
