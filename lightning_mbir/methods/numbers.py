"""What a measurement may consist of, and its numbers in the type that they are worked with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mbir import slabs
from lightning_mbir.data.measurements.centre import LOOKED_AT, uncentred
from lightning_mbir.errors import InputError
from lightning_mbir.methods.limits import check_size
from lightning_mbir.physics import LinearOperator

log = logging.getLogger(__name__)

PART = 2**22
"""Values of a measurement that are looked at together."""


def check_given(y: object, operator: object, weights: object = None) -> None:
    """Raise ``InputError`` where what Python was given is no measurement, no operator or no weights at all."""
    if not isinstance(operator, LinearOperator):
        raise InputError(
            f"operator {operator!r:.80}: give a LinearOperator, such as ParallelBeam(...), or one of your own "
            "(docs/extending.md)"
        )
    for what, values in (("measurement is", y), *((("weights are", weights),) if weights is not None else ())):
        if not isinstance(values, Tensor):
            raise InputError(f"the {what} a {type(values).__name__}; give a tensor, as torch.as_tensor(...) makes it")


def tell_uncentred(y: Tensor, operator: LinearOperator) -> None:
    """Warn where k-space is not centred and its operator takes it so. Files are refused; here the user may know better,
    as of a mask that leaves the middle out."""
    if operator.centred and y.is_complex() and y.ndim > 1 and len(y):
        some = y.detach()[:: -(-len(y) // LOOKED_AT)] if y.ndim > 2 else y.detach()
        if wrong := uncentred(some):
            log.warning("the measurement: %s, unless the mask leaves the middle out", wrong)


def usable(values: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """The values as a tensor of ``dtype`` by itself: no view that is conjugated or negated when it is read, no graph.

    Args:
        values: of any type: bool, whole numbers, and floating point of half to double precision.
        dtype: complex where the values are.
        what: they are, for messages.

    Raises:
        InputError: no values at all, or zeros alone; NaN or infinite ones; values whose squares single precision cannot
            hold.
    """
    if values.numel() == 0:
        raise InputError(f"the {what} is empty, {tuple(values.shape)}; give at least one slice")
    plain = values.detach().resolve_conj().resolve_neg()
    peaks = []
    for part in parts(plain):
        if not bool(torch.isfinite(torch.view_as_real(part) if part.is_complex() else part).all()):
            raise InputError(f"the {what} has NaN or infinite values; correct them first")
        peaks.append((part if part.is_complex() else part.to(torch.float64)).abs().amax())
    largest = float(slabs.largest(torch.stack(peaks).amax()))
    if largest == 0:
        raise InputError(f"the {what} is zero; there is nothing to reconstruct")
    check_size(largest, f"the largest value of the {what}")
    return plain.to(dtype)


def missed(operator: LinearOperator, x: Tensor, y: Tensor) -> float:
    """``||A x - y||``, some slices at a time where they are not coupled, so that ``A x`` is nowhere as a whole."""
    if operator.of_slices(0, 1) is None:
        return slabs.length(operator(x) - y)
    squares, start = torch.zeros((), dtype=torch.float64, device=y.device), 0
    for part in parts(y, operator.at_once):
        some = operator.of_slices(start, start + len(part))
        assert some is not None
        missing = some(x[start : start + len(part)]) - part
        squares += slabs.own_inner(missing, missing)
        start += len(part)
    return float(slabs.total(squares).sqrt())


def parts(values: Tensor, at_least: int = 1) -> Sequence[Tensor]:
    """A tensor in parts of its first dimension, so that what is made of each is small beside large ones.

    Args:
        values: of one dimension or more, not empty.
        at_least: how much of that dimension, but for the last part.
    """
    return torch.split(values, max(at_least, PART // max(1, values[0].numel()), 1)) if values.ndim else (values,)


def as_measured(y: Tensor, operator: LinearOperator, volume: object = None) -> Tensor:
    """A measurement in the type of its operator, see ``usable``.

    Args:
        y: as it was given.
        operator: that measured it.
        volume: its name, for messages.

    Raises:
        InputError: complex values of an operator that measures real ones, another device, and as ``usable`` does.
    """
    if y.is_complex() and not operator.range_complex:
        raise InputError(f"the measurement is complex; {type(operator).__name__} measures real values")
    if y.device != operator.device:
        raise InputError(f"the measurement is on {y.device}, the operator on {operator.device}; bring them together")
    return usable(y, operator.range_dtype, f"measurement of {volume}" if isinstance(volume, str) else "measurement")
