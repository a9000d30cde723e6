"""What MRI operators with receive coils share: the maps, and a centred Fourier transform without shifts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from jaxtyping import Complex, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.operator import LinearOperator, check_tensor

CHUNK = {"cpu": 2**17}
"""Complex values of coil images at once on a device. On a CPU 1 MB in single precision, which stays in
the cache from a transform to its inverse; pieces of 32 MB and more the system takes back and gives anew each time."""


class CoilOperator(LinearOperator):
    """``x -> F (S_1 x, ..., S_C x)`` with sensitivities ``S_c``: the SENSE model (Pruessmann et al., MRM 42, 1999).

    A subclass sets the shapes, calls ``set_maps``, and transforms what ``expand`` gives. The images that ``expand``
    gives carry ``modulation``, a factor of modulus 1 a pixel, which makes a plain FFT come out centred; ``combine``
    takes it off again.
    """

    domain_complex = True
    range_complex = True
    _maps: Tensor | None
    _expand: Tensor
    _combine: Tensor

    def set_maps(self, coil_maps: Num[Tensor, "*slices coils y x"] | None) -> None:
        """Keep ``(coils, Y, X)`` or ``(Z, coils, Y, X)``, as real and imaginary part: casts of modules spoil others."""
        maps = None
        if coil_maps is not None:
            maps = torch.view_as_real(coil_maps.to(torch.get_default_dtype().to_complex()).resolve_conj().clone())
        self.register_buffer("_maps", maps)
        self.prepare()

    @property
    def coil_maps(self) -> Complex[Tensor, "*slices coils y x"] | None:
        """``(coils, Y, X)`` or ``(Z, coils, Y, X)`` complex; none for a single coil of sensitivity 1."""
        return None if self._maps is None else torch.view_as_complex(self._maps)

    def modulation(self) -> Complex[Tensor, "... y x"] | None:
        """Factor ``(Y, X)`` or ``(Z, 1, Y, X)`` of the image before the transform, complex128; none by default."""
        return None

    def prepare(self) -> None:
        """Work out what follows from the buffers; called after every move, cast and load."""
        maps, modulation = self.coil_maps, self.modulation()
        if maps is None:
            maps = torch.ones(1, 1, 1, dtype=self.dtype, device=self.device)
        if modulation is not None:
            maps = maps * modulation.to(maps)
        self._expand, self._combine = maps, maps.conj().resolve_conj()

    def expand(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch coils y x"]:
        """Coil images ``(..., coils, Y, X)`` of ``(..., Y, X)``, one coil where there are no maps."""
        return self._expand * x.unsqueeze(-3)

    def combine(self, images: Complex[Tensor, "*batch coils y x"]) -> Complex[Tensor, "*batch y x"]:
        """The adjoint of :meth:`expand`."""
        return (self._combine * images).sum(-3)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.prepare()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._norm = None
        self.prepare()


def some_slices(x: Tensor, depth: int, size: int) -> Iterator[slice]:
    """Slices of a stack that pass together, so that what lies between two transforms stays in the cache. All of them
    where a gradient comes back, which would have to be as large for each piece as for the whole.

    Args:
        x: what is transformed.
        depth: slices.
        size: numbers a slice.
    """
    whole = torch.is_grad_enabled() and x.requires_grad
    step = depth if whole else max(1, CHUNK.get(x.device.type, 2**22) // size)
    return (slice(start, start + step) for start in range(0, depth, step))


def check_coil_maps(coil_maps: Tensor, shape: Sequence[int], depth: int | None = None) -> None:
    """Raise where maps do not fit images of ``shape`` ``(Y, X)`` (and ``depth`` slices), or cannot be used."""
    check_tensor("coil_maps", coil_maps)
    given = tuple(coil_maps.shape)
    if coil_maps.ndim not in (3, 4):
        raise InputError(f"coil maps are {given}; give (coils, Y, X), or (Z, coils, Y, X) for maps of each slice")
    if given[-2:] != tuple(shape):
        raise InputError(f"coil maps are {given}, images {tuple(shape)}; the last two sizes of the maps must be these")
    if depth is not None and coil_maps.ndim == 4 and given[0] != depth:
        raise InputError(f"coil maps are {given}, of {given[0]} slices; the volume has {depth}")
    if 0 in given:
        raise InputError(f"coil maps are {given}; there must be a coil and a slice")
    values = torch.view_as_real(coil_maps) if coil_maps.is_complex() else coil_maps
    if not bool(torch.isfinite(values).all()):
        raise InputError("coil maps have NaN or infinite values; set them to 0 where there is no signal")
    if not bool(values.any()):
        raise InputError("coil maps are all zero; nothing would be measured")


def centring(shape: Sequence[int], device: torch.device) -> tuple[Complex[Tensor, "*shape"], Complex[Tensor, "*shape"]]:
    """Factors before and after a plain FFT that make it the centred one, both ``shape`` and complex128.

    With ``m = N // 2``, ``sum_n x[n] exp(-2 pi i (j - m)(n - m) / N)`` is the plain FFT of ``x[n] exp(2 pi i m n / N)``
    times ``exp(2 pi i m (j - m) / N)``. A product costs less than a shift, and the one before goes into the coil maps,
    the other into the mask.
    """
    before = after = torch.ones((), dtype=torch.complex128, device=device)
    for n in shape:
        m = n // 2
        index = torch.arange(n, device=device)
        turns = torch.stack((m * index % n, m * (index - m) % n)).to(torch.float64) / n
        factor = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
        factor[turns == 0.5] = -1  # exactly: even sizes then have factors of 1 and -1 alone
        before, after = before[..., None] * factor[0], after[..., None] * factor[1]
    return before, after
