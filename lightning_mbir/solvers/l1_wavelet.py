"""Compressed sensing: sparse wavelet coefficients, found with FISTA."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pywt
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.difference import AXES
from lightning_mbir.physics.operator import LinearOperator


class Wavelets:
    """An orthonormal wavelet transform ``W`` along some axes, computed by PyWavelets on the CPU.

    Signals go on periodically, which keeps it orthonormal: ``W^H W = W W^H = 1`` on sizes that ``2^levels`` divides.
    Others have to be padded to ``padded(shape)``.

    Args:
        name: an orthogonal wavelet of PyWavelets (``haar``, ``db4``, ``sym8``, ...).
        levels: how often the low frequencies are split again.
        dims: negative dimensions that are transformed.

    Raises:
        InputError: an unknown wavelet, or one that is not orthogonal; fewer than 1 level.
    """

    def __init__(self, name: str, levels: int, dims: Sequence[int]) -> None:
        known = pywt.wavelist(kind="discrete")
        if name not in known or not pywt.Wavelet(name).orthogonal:
            orthogonal = ", ".join(w for w in known if pywt.Wavelet(w).orthogonal and len(w) < 4)
            raise InputError(f"wavelet {name!r}: unknown or not orthogonal; give one such as {orthogonal}")
        if levels < 1:
            raise InputError(f"l1_wavelet: levels is {levels}; give at least 1")
        self.wavelet, self.levels, self.dims = pywt.Wavelet(name), levels, tuple(dims)

    def padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The next larger sizes that can be transformed."""
        block = 2**self.levels
        sizes = list(shape)
        for dim in self.dims:
            sizes[dim] = -(-sizes[dim] // block) * block
        return tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """``W x``: all coefficients in a tensor of ``x``'s shape, real or complex; the coarsest come first."""
        c = x.detach().resolve_conj().cpu().numpy().copy()
        for level in range(self.levels):
            parts = pywt.dwtn(c[self._corner(c.shape, level)], self.wavelet, "periodization", self.dims)
            for name, part in parts.items():
                c[self._corner(c.shape, level + 1, name)] = part
        return torch.from_numpy(c).to(x)

    def adjoint(self, c: Tensor) -> Tensor:
        """``W^H c``, which is also the inverse."""
        x = c.detach().resolve_conj().cpu().numpy().copy()
        for level in reversed(range(self.levels)):
            names = ("".join(letters) for letters in itertools.product("ad", repeat=len(self.dims)))
            parts = {name: x[self._corner(x.shape, level + 1, name)] for name in names}
            x[self._corner(x.shape, level)] = pywt.idwtn(parts, self.wavelet, "periodization", self.dims)
        return torch.from_numpy(x).to(c)

    def _corner(self, shape: Sequence[int], level: int, name: str = "") -> tuple[slice, ...]:
        """Where the low (``a``) and high (``d``) frequencies of a level stand."""
        index = [slice(None)] * len(shape)
        for dim, letter in zip(self.dims, name or "a" * len(self.dims), strict=True):
            size = shape[dim] >> level
            index[dim] = slice(size, 2 * size) if letter == "d" else slice(size)
        return tuple(index)


def soft_threshold(c: Tensor, threshold: float) -> Tensor:
    """The prox of ``threshold ||c||_1``: magnitudes shrink, phases and signs stay."""
    return c * (1 - threshold / c.abs().clamp_min(max(threshold, torch.finfo(c.dtype).tiny)))


@torch.no_grad()
def l1_wavelet(
    y: Tensor,
    operator: LinearOperator,
    *,
    lam: float,
    iterations: int = 100,
    wavelet: str = "db4",
    levels: int = 4,
    axes: Sequence[str] = ("y", "x"),
    accelerate: bool = True,
    generator: torch.Generator | None = None,
    x0: Tensor | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Minimise ``1/2 ||A x - y||^2 + lam ||W x||_1``, for ``||A|| <= 1``.

    SparseMRI: Lustig, Donoho and Pauly, MRM 58, 2007, equation 3. FISTA with a constant step of 1: Beck and Teboulle,
    SIAM J. Imaging Sciences 2(1), 2009, section 4. Sizes that ``2^levels`` does not divide are padded: the volume is
    then a part of what is sought, so that the prox stays exact.

    With a ``generator`` the grid of wavelets is shifted at random in each iteration (cycle spinning: Coifman and Donoho
    1995; Figueiredo and Nowak, IEEE TIP 12, 2003), which takes their blocks away. There is no fixed objective then.

    Args:
        y: measurement ``(..., *range_shape)``.
        operator: ``A``, of norm 1 or less.
        lam: weight of the coefficients' magnitudes, all of them.
        iterations: FISTA steps.
        wavelet, levels, axes: of ``Wavelets``; axes of ``"z"``, ``"y"``, ``"x"``.
        accelerate: with Nesterov's momentum; ISTA without.
        generator: of the shifts; None for none.
        x0: start ``(..., *domain_shape)``; ``A^H y`` by default.
        callback: called after each iteration with its number and the iterate.

    Returns:
        ``(..., *domain_shape)``.

    Raises:
        InputError: lam negative, unknown axes, a wavelet that is not orthogonal, a measurement of another shape.
    """
    if not lam >= 0:
        raise InputError(f"l1_wavelet: lam is {lam:g}; give at least 0")
    if not axes or any(axis not in AXES for axis in axes):
        raise InputError(f"l1_wavelet: axes are {tuple(axes)}; give some of z, y, x")
    operator.check_range(y)
    dims = [AXES[axis] for axis in axes]
    w = Wavelets(wavelet, levels, dims)
    start = operator.adjoint(y) if x0 is None else x0
    if start.ndim < -min(dims):
        raise InputError(f"l1_wavelet: axes are {tuple(axes)}, but the image is {tuple(start.shape)}")
    whole = w.padded(start.shape)
    inside = tuple(slice(size) for size in start.shape)
    x = start.new_zeros(whole)
    x[inside] = start
    z, t = x, 1.0
    for k in range(iterations):
        moved = z.clone()
        moved[inside] -= operator.adjoint(operator(z[inside]) - y)
        shifts = [0] * len(dims)
        if generator is not None:
            shifts = torch.randint(2**levels, (len(dims),), generator=generator).tolist()
        c = soft_threshold(w.forward(moved.roll(shifts, dims)), lam)
        new = w.adjoint(c).roll([-shift for shift in shifts], dims)
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2 if accelerate else 1.0
        z = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
        if callback is not None:
            callback(k + 1, x[inside])
    return x[inside].contiguous()
