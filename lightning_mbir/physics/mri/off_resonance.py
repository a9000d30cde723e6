"""MRI in a field that is not the same everywhere: phase that grows with the time of each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from jaxtyping import Complex, Float, Int, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.mri.non_cartesian import NonCartesianFourier
from lightning_mbir.physics.operator import Around, LinearOperator, check_tensor

LEVELS = 256
"""Bins of the histogram of the field."""
INSTANTS = 128
"""Times at which the error of a number of segments is looked at."""
ACCURATE = 1e-4
"""Error of the factors that the number of segments is chosen for."""
MOST_SEGMENTS = 64


class OffResonance(Around):
    """``y[j] = sum_n A[j, n] x[n] exp(-2 pi i f[n] t[j])``: samples at times ``t`` in a field that is off by ``f``.

    Samples of an operator ``A`` of MRI that are taken over milliseconds see spins turn away where the main field (B0)
    is off. The factors are ``sum_l b_l(t) exp(-2 pi i f tau_l)`` with ``tau_l`` evenly over the times, which makes of
    it a sum of ``A`` between weights, ``sum_l diag(b_l) A diag(exp(-2 pi i f tau_l))``: time segmentation, where ``b``
    are least squares over the histogram of the field (Sutton, Noll and Fessler, "Fast, iterative image reconstruction
    for MRI in the presence of field inhomogeneities", IEEE TMI 22(2), 2003). The adjoint is that of the sum, exactly.

    Args:
        operator: ``A``, on the grid or off it, with coils or without, on complex images.
        field_map: ``(Y, X)`` Hz for all slices, or ``(Z, Y, X)``.
        times: seconds from where the phase of the image counts, of each sample: the last dimensions of what ``A``
            measures, such as ``(spokes, samples)``, ``(samples,)`` for all spokes alike, or ``(Y, X)`` on the grid.
        segments: how many terms; by default as few as keep each factor to within 1e-4.

    Raises:
        InputError: a map or times of another shape, not finite or not real; more phase than ``MOST_SEGMENTS`` hold.
    """

    field_map: Float[Tensor, "*slices y x"]
    times: Float[Tensor, "*samples"]

    def __init__(self, operator: LinearOperator, field_map: Tensor, times: Tensor, segments: int | None = None) -> None:
        super().__init__(operator)
        check_kinds(OffResonance.__init__, locals())
        if not (operator.domain_complex and operator.range_complex):
            raise InputError("OffResonance: the operator acts on real images; put RealDomain around OffResonance")
        _check_values("field_map", field_map, "Hz")
        _check_values("times", times, "seconds")
        image, given = operator.domain_shape[-2:], tuple(field_map.shape)
        depth = None if operator.separable else operator.domain_shape[0]
        if given[-2:] != image or field_map.ndim not in (2, 3) or (depth and field_map.ndim == 3 and given[0] != depth):
            raise InputError(
                f"OffResonance: the field map is {given}, images {image}; give (Y, X), or (Z, Y, X) for one a slice"
            )
        if times.ndim == 0 or tuple(times.shape) != operator.range_shape[-times.ndim :]:
            raise InputError(
                f"OffResonance: the times are {tuple(times.shape)}, samples {operator.range_shape}; give one a sample, "
                "the last dimensions of these"
            )
        by_slice = operator.separable and field_map.ndim == 3
        lead = given[:1] if by_slice else ()
        self.domain_shape, self.range_shape = (*lead, *operator.domain_shape), (*lead, *operator.range_shape)
        self.separable = operator.separable and not by_slice
        kept = operator.device, operator.real_dtype
        self.register_buffer("field_map", field_map.to(*kept))
        self.register_buffer("times", times.to(*kept))
        self.segments = _needed(field_map, times) if segments is None else segments
        if not 1 <= self.segments <= MOST_SEGMENTS:
            raise InputError(f"OffResonance: segments is {self.segments}; give from 1 to {MOST_SEGMENTS}")
        self._segment()

    def of_slice(self, k: int) -> LinearOperator | None:
        if self.separable:
            return None
        inner = self.operator if self.operator.separable else self.operator.of_slice(k)
        return None if inner is None else self._part(inner, self.field_map[k] if self.field_map.ndim == 3 else None)

    def of_slices(self, start: int, stop: int) -> LinearOperator | None:
        inner = self.operator.of_slices(start, stop)
        some = self.field_map[start:stop] if self.field_map.ndim == 3 else None
        return None if inner is None else self._part(inner, some)

    def _part(self, inner: LinearOperator, field: Tensor | None = None, chosen: Tensor | None = None) -> OffResonance:
        """Another operator with the segments of this one: of some slices, or of chosen times along the first axis."""
        field = self.field_map if field is None else field
        times = self.times if chosen is None else self.times.index_select(0, chosen.to(self.device))
        one = OffResonance(inner, field, times, self.segments)
        weights = self._exact[1]
        one._exact = self._exact[0], weights if chosen is None else weights.index_select(1, chosen.cpu())
        one._prepare()
        return one

    def of_parts(self, chosen: Int[Tensor, " n"]) -> OffResonance:
        inner = self.operator.of_parts(chosen)
        spokes = isinstance(self.operator, NonCartesianFourier) and self.times.ndim == self.operator.trajectory.ndim - 1
        return self._part(inner, chosen=chosen if spokes else None)

    def forward(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*measured"]:
        """k-space ``(..., *range_shape)`` of ``(..., *domain_shape)``."""
        self.check_domain(x)
        terms = (b * self.operator(e * x) for b, e in zip(self._weights, self._phases, strict=True))
        return sum(terms, start=torch.zeros((), dtype=self.dtype, device=self.device))

    def adjoint(self, y: Num[Tensor, "*measured"]) -> Complex[Tensor, "*batch y x"]:
        """``(..., *range_shape)`` to ``(..., *domain_shape)``."""
        self.check_range(y)
        pairs = zip(self._weights.conj(), self._phases.conj(), strict=True)
        terms = (e * self.operator.adjoint(b * y) for b, e in pairs)
        return sum(terms, start=torch.zeros((), dtype=self.dtype, device=self.device))

    def _segment(self) -> None:
        """Where segments are and what they weigh, in double precision on the host."""
        field, times = self.field_map.double().cpu(), self.times.double().cpu()
        instants = _instants(times, self.segments)
        different, place = torch.unique(times.flatten(), return_inverse=True)
        parts = [_least_squares(field, some, instants) for some in different.split(INSTANTS * 64)]
        self._exact = instants, torch.cat(parts, 1)[:, place].reshape(-1, *times.shape)
        self._prepare()

    def _prepare(self) -> None:
        """Phases ``(segments, [Z,] Y, X)`` and weights ``(segments, *times)``."""
        field, (instants, weights) = self.field_map.double().cpu(), self._exact
        self._weights = weights.to(self.device, self.dtype)
        self._phases = _phasor(instants.reshape(-1, *(1,) * field.ndim) * field).to(self.device, self.dtype)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._norm = None
        self._segment()


def _instants(times: Tensor, segments: int) -> Tensor:
    """Where the segments are; one of them in the middle."""
    first, last = float(times.min()), float(times.max())
    if segments == 1:
        return torch.tensor([(first + last) / 2], dtype=torch.float64)
    return torch.linspace(first, last, segments, dtype=torch.float64)


def _least_squares(field: Tensor, times: Tensor, instants: Tensor) -> Tensor:
    """``(segments, times)``: of each time, the weights that fit its phases best over the histogram of the field."""
    low, high = float(field.min()), float(field.max())
    count = torch.histc(field, LEVELS, low, max(high, low + 1e-6))
    step = (high - low) / LEVELS
    middle = low + step * (torch.arange(LEVELS, dtype=torch.float64) + 0.5)
    # A share for what lies between, so that no level is of no account.
    root = (count / count.sum() + 1e-3 / LEVELS).sqrt()[:, None]
    basis = root * _phasor(middle[:, None] * instants)
    return torch.linalg.pinv(basis, rtol=1e-10) @ (root * _phasor(middle[:, None] * times))


def _needed(field_map: Tensor, times: Tensor) -> int:
    """As few segments as keep the error of each factor below ``ACCURATE``."""
    field, all_times = field_map.double().cpu(), times.double().cpu()
    low, high = float(field.min()), float(field.max())
    levels = torch.linspace(low, high, LEVELS, dtype=torch.float64)
    some = torch.linspace(float(all_times.min()), float(all_times.max()), INSTANTS, dtype=torch.float64)
    turns = (high - low) * float(some[-1] - some[0])
    for segments in range(1, MOST_SEGMENTS + 1):
        if segments < turns:  # fewer than two a turn cannot do
            continue
        instants = _instants(some, segments)
        made = _phasor(levels[:, None] * instants) @ _least_squares(field, some, instants)
        if float((made - _phasor(levels[:, None] * some)).abs().max()) < ACCURATE:
            return segments
    raise InputError(
        f"OffResonance: a field over {high - low:.4g} Hz turns {turns:.3g} times during the readout, which takes more "
        f"than {MOST_SEGMENTS} segments; are the times in seconds and the field in Hz?"
    )


def _phasor(turns: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


def _check_values(name: str, values: Tensor, unit: str) -> None:
    check_tensor(f"OffResonance: {name}", values)
    if values.is_complex() or values.numel() == 0 or not bool(torch.isfinite(values).all()):
        kind: Sequence[int] = tuple(values.shape)
        raise InputError(f"OffResonance: {name} is {kind}, with complex, NaN or infinite values or none; give {unit}")
