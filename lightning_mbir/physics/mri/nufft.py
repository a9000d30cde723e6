"""The Fourier transform at points off the grid and its adjoint, through one of two libraries."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError

BACKENDS = {"finufft": "pytorch_finufft", "kbnufft": "torchkbnufft"}
"""The module that each needs; the better one first."""


class Nufft:
    """``(..., Y, X)`` to ``(..., points)``, centred, and divided by ``sqrt(Y X)``. Holds no module state.

    Both directions use the same kernel on the same grid, so they are adjoint to rounding, whatever the accuracy with
    which they approximate the transform.
    """

    def __init__(self, trajectory: Float[Tensor, "points 2"], image: tuple[int, int], backend: str) -> None:
        self.points = (2 * math.pi * trajectory.t()).contiguous()  # (2, points), radians per pixel
        self.image, self.backend = image, backend
        self._tables: tuple[Any, Any] | None = None

    def apply(self, x: Tensor, adjoint: bool = False) -> Tensor:
        """The transform, or its adjoint ``(..., points)`` to ``(..., Y, X)``; differentiable."""
        out: Tensor = _Transform.apply(x, self, adjoint)  # type: ignore[no-untyped-call]
        return out

    def transform(self, x: Tensor, adjoint: bool) -> Tensor:
        core = 1 if adjoint else 2
        flat = x.to(self.points.dtype.to_complex()).reshape(-1, *x.shape[x.ndim - core :]).resolve_conj().contiguous()
        out = self._finufft(flat, adjoint) if self.backend == "finufft" else self._kbnufft(flat, adjoint)
        return out.reshape(*x.shape[: x.ndim - core], *out.shape[1:]) / math.sqrt(math.prod(self.image))

    def _finufft(self, flat: Tensor, adjoint: bool) -> Tensor:
        from pytorch_finufft import functional

        # The grid is always oversampled twofold: else the two directions may choose different ones.
        options = {"eps": 1e-12 if flat.dtype == torch.complex128 else 1e-6, "upsampfac": 2.0, "modeord": 0}
        try:
            if adjoint:
                return functional.finufft_type1(self.points, flat, self.image, isign=1, **options)
            return functional.finufft_type2(self.points, flat, isign=-1, **options)
        except RuntimeError as error:
            if "cufinufft failed to import" in str(error):
                raise InputError("backend finufft needs the package cufinufft on a GPU; or take kbnufft") from error
            raise

    def _kbnufft(self, flat: Tensor, adjoint: bool) -> Tensor:
        import torchkbnufft

        if self._tables is None:
            settings = {"im_size": self.image, "dtype": flat.dtype, "device": flat.device}
            self._tables = (torchkbnufft.KbNufft(**settings), torchkbnufft.KbNufftAdjoint(**settings))
        # Slices go as coils of one batch: they share their points.
        return self._tables[int(adjoint)](flat[None], self.points)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": None}


class _Transform(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, nufft: Nufft, adjoint: bool) -> Tensor:
        ctx.nufft, ctx.adjoint, ctx.real = nufft, adjoint, not x.is_complex()
        with torch.autocast(x.device.type, enabled=False):
            return nufft.transform(x, adjoint)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        back = ctx.nufft.apply(grads[0], not ctx.adjoint)
        return back.real if ctx.real else back, None, None
