"""Noise that is keyed, not drawn: the same for any slice batch, any number of devices, and after a resume."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Num
from torch import Tensor

COMMON = -1  # the slice whose noise all slices share


@dataclass(frozen=True)
class KeyedNoise:
    """Standard normal noise whose value in slice ``k`` depends on (seed, volume, sample, k, step, stream) alone.

    Args:
        seed: the user's.
        volume: which volume, by number or name.
        sample: which posterior sample.
        correlation: of any two slices, from 0 (independent) to 1 (the same noise in all of them).
        first: number of the first slice, where a process has a slab of the volume.
    """

    seed: int = 0
    volume: int | str = 0
    sample: int = 0
    correlation: float = 0.0
    first: int = 0

    def __call__(
        self,
        step: int,
        shape: Sequence[int],
        *,
        stream: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        slices: Sequence[int] | None = None,
    ) -> Num[Tensor, "*shape"]:
        """Noise of ``shape``, ``(Z, Y, X)`` or of a measurement, variance 1 (complex: 1/2 in each part).

        Args:
            step: noise level; ``stream`` tells apart several draws at one level.
            slices: global indices of the slices, by default the first one and those that follow.
        """
        indices = range(self.first, self.first + shape[0]) if slices is None else slices
        # Drawn on the CPU in single precision: a GPU's generator, and double precision, would give other numbers.
        single = torch.complex64 if dtype.is_complex else torch.float32
        drawn = torch.empty((len(indices), *shape[1:]), dtype=single)
        for k, out in zip(indices, drawn, strict=True):
            torch.randn(out.shape, generator=self._generator(k, step, stream), dtype=single, out=out)
        if self.correlation:
            common = torch.empty(shape[1:], dtype=single)
            torch.randn(common.shape, generator=self._generator(COMMON, step, stream), dtype=single, out=common)
            drawn.mul_((1 - self.correlation) ** 0.5).add_(common, alpha=self.correlation**0.5)
        return drawn.to(device=device, dtype=dtype)

    def _generator(self, k: int, step: int, stream: int) -> torch.Generator:
        return keyed_generator(self.seed, str(self.volume), self.sample, int(k), step, stream)


def keyed_generator(*key: int | str) -> torch.Generator:
    """A generator on the CPU whose numbers depend on the key alone; whole numbers of NumPy are those of Python."""
    key = tuple(part if isinstance(part, str) else operator.index(part) for part in key)
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little") >> 1
    return torch.Generator().manual_seed(seed)
