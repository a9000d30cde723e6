"""Compressed sensing: sparse wavelet coefficients, found with FISTA."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pywt
import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.physics.difference import AXES
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.slabs import whole_only


class Wavelets:
    """An orthonormal wavelet transform ``W`` along some axes, computed by PyWavelets on the CPU.

    Signals go on periodically, which keeps it orthonormal: ``W^H W = W W^H = 1``, on sizes that can be halved at each
    level. Others have to be padded to ``padded(shape)``. An axis is split no further where it gets shorter than the
    filter, since PyWavelets is not orthonormal there.

    Args:
        name: an orthogonal wavelet of PyWavelets (``haar``, ``db4``, ``sym8``, ...).
        levels: how often the low frequencies are split again, at most.
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

    def depth(self, size: int) -> int:
        """How often an axis of this size is split."""
        return sum(size >> level >= self.wavelet.dec_len for level in range(self.levels))

    def padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The next larger sizes that can be transformed."""
        sizes = list(shape)
        for dim in self.dims:
            block = 2 ** self.depth(sizes[dim])
            sizes[dim] = -(-sizes[dim] // block) * block
        return tuple(sizes)

    def forward(self, x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """``W x``: all coefficients in a tensor of ``x``'s shape, real or complex; the coarsest come first."""
        c = x.detach().resolve_conj().cpu().numpy().copy()
        for level in range(self.levels):
            dims = self._split(c.shape, level)
            if dims:
                parts = pywt.dwtn(c[self._part(c.shape, level)], self.wavelet, "periodization", dims)
                for name, part in parts.items():
                    c[self._part(c.shape, level + 1, name)] = part
        return torch.from_numpy(c).to(x)

    def adjoint(self, c: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """``W^H c``, which is also the inverse."""
        x = c.detach().resolve_conj().cpu().numpy().copy()
        for level in reversed(range(self.levels)):
            dims = self._split(x.shape, level)
            if dims:
                names = ("".join(letters) for letters in itertools.product("ad", repeat=len(dims)))
                parts = {name: x[self._part(x.shape, level + 1, name)] for name in names}
                x[self._part(x.shape, level)] = pywt.idwtn(parts, self.wavelet, "periodization", dims)
        return torch.from_numpy(x).to(c)

    def _split(self, shape: Sequence[int], level: int) -> tuple[int, ...]:
        """The dimensions that a level splits."""
        return tuple(dim for dim in self.dims if level < self.depth(shape[dim]))

    def _part(self, shape: Sequence[int], level: int, name: str = "") -> tuple[slice, ...]:
        """Where the result of ``level`` levels stands: all low frequencies, or by the letters of those that the last
        of them has split, low (``a``) or high (``d``) ones."""
        index = [slice(None)] * len(shape)
        for dim in self.dims:
            index[dim] = slice(shape[dim] >> min(level, self.depth(shape[dim])))
        for dim, letter in zip(self._split(shape, level - 1) if name else (), name, strict=True):
            size = shape[dim] >> level
            index[dim] = slice(size, 2 * size) if letter == "d" else slice(size)
        return tuple(index)


def soft_threshold(c: Num[Tensor, "*shape"], threshold: float) -> Num[Tensor, "*shape"]:
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
    step: float = 1.0,
    accelerate: bool = True,
    generator: torch.Generator | None = None,
    x0: Num[Tensor, "*shape"] | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "*shape"]:
    """Minimise ``1/2 ||A x - y||^2 + lam ||W x||_1``.

    SparseMRI: Lustig, Donoho and Pauly, MRM 58, 2007, equation 3. FISTA with a constant step: Beck and Teboulle,
    SIAM J. Imaging Sciences 2(1), 2009, section 4. Sizes that ``2^levels`` does not divide are padded: the volume is
    then a part of what is sought, so that the prox stays exact.

    With a ``generator`` the grid of wavelets is shifted at random in each iteration (cycle spinning: Coifman and Donoho
    1995; Figueiredo and Nowak, IEEE TIP 12, 2003), which takes their blocks away. There is no fixed objective then.

    Args:
        y: measurement ``(..., *range_shape)``.
        operator: ``A``, used as it is; bring it to unit norm for ``lam`` to mean the same in every geometry.
        lam: weight of the coefficients' magnitudes, all of them.
        iterations: FISTA steps.
        wavelet, levels, axes: of ``Wavelets``; axes of ``"z"``, ``"y"``, ``"x"``.
        step: at most ``1 / ||A||^2``.
        accelerate: with Nesterov's momentum; ISTA without.
        generator: of the shifts; None for none.
        x0: start ``(..., *domain_shape)``; ``A^H y`` by default.
        callback: called after each iteration with its number and the iterate.
        checkpoint: keeps the state between iterations, and gives it back.

    Returns:
        ``(..., *domain_shape)``.

    Raises:
        InputError: lam negative, a step that is not positive, unknown axes, a wavelet that is not orthogonal, a
            measurement of another shape.
    """
    if not lam >= 0:
        raise InputError(f"l1_wavelet: lam is {lam:g}; give at least 0")
    if not step > 0:
        raise InputError(f"l1_wavelet: step is {step:g}; give a positive number")
    if not axes or any(axis not in AXES for axis in axes):
        raise InputError(f"l1_wavelet: axes are {tuple(axes)}; give some of z, y, x")
    if "z" in axes:
        whole_only("l1_wavelet: wavelets along z are those of whole volumes")
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
    shifts = torch.zeros(iterations, len(dims), dtype=torch.int64)
    if generator is not None:
        shifts = torch.randint(2**levels, shifts.shape, generator=generator)
    done, x, z, t = checkpoint.resume(x, x, 1.0)
    for k in range(done, iterations):
        checkpoint.reached(k, x, z, t)
        moved = z.clone()
        moved[inside] -= step * operator.adjoint(operator(z[inside]) - y)
        c = soft_threshold(w.forward(moved.roll(shifts[k].tolist(), dims)), step * lam)
        new = w.adjoint(c).roll((-shifts[k]).tolist(), dims)
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2 if accelerate else 1.0
        z = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
        if callback is not None:
            callback(k + 1, x[inside])
    return x[inside].contiguous()
