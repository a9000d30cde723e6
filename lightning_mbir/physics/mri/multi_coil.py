"""MRI with several receive coils on a Cartesian grid, slice by slice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Complex, Float, Int, Num
from torch import Tensor

from lightning_mbir.physics.mri.coils import CHUNK, CoilOperator, centring, check_coil_maps, some_slices
from lightning_mbir.physics.mri.lines import AXES, mask_parts, only, transformed_axes
from lightning_mbir.physics.mri.masks import check_mask
from lightning_mbir.physics.operator import Parts


class MultiCoilFourier(CoilOperator):
    """``mask * FFT * maps``: the centred, orthonormal 2D Fourier transform of each coil's image.

    The SENSE model (Pruessmann et al., "SENSE: sensitivity encoding for fast MRI", MRM 42, 1999). Zero frequency is at
    ``(Y // 2, X // 2)`` of k-space, the origin of the image at the same index. With maps whose sum of squares is 1 and
    a full mask the operator is an isometry.

    A mask and maps for all slices make it act slice by slice on ``(..., Y, X)``. Either by slice makes it an operator
    on volumes: ``separable`` is false, the domain ``(Z, Y, X)``, the range ``(Z, coils, Y, X)``, and ``norm()`` is that
    of the slice with the largest.

    Args:
        mask: ``(Y, X)`` of zeros and ones for all slices, or ``(Z, Y, X)``, one a slice.
        coil_maps: ``(coils, Y, X)`` complex for all slices, or ``(Z, coils, Y, X)``, one set a slice.

    Raises:
        InputError: a mask of another shape or values, or one that samples nothing; maps that do not fit the mask, are
            not finite, or all zero.
    """

    normal_is_cheaper = True
    centred = True
    working = 0.0  # which is done in pieces
    mask: Float[Tensor, "*slices y x"]

    def __init__(self, mask: Tensor, coil_maps: Tensor) -> None:
        check_mask(mask, "MultiCoilFourier", "(Y, X) or (Z, Y, X)", by_slice=True)
        super().__init__(mask.device)
        check_coil_maps(coil_maps, mask.shape[-2:], mask.shape[0] if mask.ndim == 3 else None)
        depths = mask.shape[:-2] or coil_maps.shape[:-3]
        self.register_buffer("mask", mask.to(torch.get_default_dtype()))
        self.separable = not depths
        self.domain_shape = (*depths, *mask.shape[-2:])
        self.range_shape = (*depths, coil_maps.shape[-3], *mask.shape[-2:])
        self.set_maps(coil_maps)

    @property
    def acceleration(self) -> float:
        """Points of k-space over sampled points."""
        return self.mask.numel() / float(self.mask.sum())

    def of_slice(self, k: int) -> MultiCoilFourier | None:
        if self.separable or self.coil_maps is None:
            return None
        mask = self.mask if self.mask.ndim == 2 else self.mask[k]
        maps = self.coil_maps if self.coil_maps.ndim == 3 else self.coil_maps[k]
        return MultiCoilFourier(mask, maps).to(self.device, self.real_dtype)

    def of_slices(self, start: int, stop: int) -> MultiCoilFourier:
        if self.separable or self.coil_maps is None:
            return self
        mask = self.mask if self.mask.ndim == 2 else self.mask[start:stop]
        maps = self.coil_maps if self.coil_maps.ndim == 3 else self.coil_maps[start:stop]
        return MultiCoilFourier(mask, maps).to(self.device, self.real_dtype)

    @property
    def parts(self) -> Parts:
        """Lines or points of k-space, of all coils; see ``mask_parts``."""
        return mask_parts(self.mask)[0]

    def of_parts(self, chosen: Int[Tensor, " n"]) -> MultiCoilFourier:
        assert self.coil_maps is not None
        return MultiCoilFourier(only(self.mask, chosen), self.coil_maps).to(self.device, self.real_dtype)

    def parts_of(
        self, y: Num[Tensor, "*batch coils y x"], chosen: Int[Tensor, " n"]
    ) -> Num[Tensor, "*batch coils y x"]:
        """The measurement ``(..., coils, Y, X)`` with zeros for the other parts."""
        return y * only(self.mask, chosen).unsqueeze(-3).to(y.device, self.real_dtype)

    def modulation(self) -> Complex[Tensor, "y x"]:
        return centring(self.mask.shape[-2:], self.device)[0]

    def prepare(self) -> None:
        super().prepare()
        # (Y, X), or (Z, 1, Y, X) beside coils.
        self._mask = self.mask if self.mask.ndim == 2 else self.mask[:, None]
        self._axes = transformed_axes(self.mask)
        size = math.prod(self.mask.shape[axis] for axis in self._axes)
        self._scaled_mask = self._mask / size  # in place of factors in the transforms of ``normal``
        self._sampling = self._mask * centring(self.mask.shape[-2:], self.device)[1].to(self.dtype)
        self._sampling_conj = self._sampling.conj().resolve_conj()  # products with a lazy conjugate are slow

    def forward(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch coils y x"]:
        """k-space: ``(..., Y, X)`` real or complex to ``(..., coils, Y, X)`` complex, zero where the mask is."""
        self.check_domain(x)
        stack = x.reshape(-1, x.shape[-3] if x.ndim > 2 else 1, *x.shape[-2:])
        batch, depth, *image = stack.shape
        result = stack.new_empty(batch, depth, *self.range_shape[-3:-2], *image, dtype=self.range_dtype)
        for z in some_slices(x, depth, result[:, 0].numel()):
            there, sampling = self._factors(z, self._expand, self._sampling)
            result[:, z] = torch.fft.fft2(there * stack[:, z, None], norm="ortho").mul_(sampling)
        return result.reshape(*x.shape[:-2], *result.shape[-3:])

    def adjoint(self, y: Num[Tensor, "*batch coils y x"]) -> Complex[Tensor, "*batch y x"]:
        """Zero-filled image of all coils: ``(..., coils, Y, X)`` to ``(..., Y, X)``, a few slices at a time."""
        self.check_range(y)
        stack = y.reshape(-1, y.shape[-4] if y.ndim > 3 else 1, *y.shape[-3:])
        result = stack.new_empty(*stack.shape[:2], *stack.shape[-2:], dtype=self.range_dtype)
        for z in some_slices(y, stack.shape[1], stack[:, 0].numel()):
            sampling, back = self._factors(z, self._sampling_conj, self._combine)
            result[:, z] = torch.fft.ifft2(stack[:, z] * sampling, norm="ortho").mul_(back).sum(-3)
        return result.reshape(*y.shape[:-3], *y.shape[-2:])

    @staticmethod
    def _factors(z: slice, *factors: Tensor) -> list[Tensor]:
        """Of those that are by slice, the ones of some."""
        return [factor[z] if factor.ndim == 4 else factor for factor in factors]

    def normal(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
        """``A^H A x``, a piece of the image at a time: the k-space of all coils and slices is never in memory at once.
        Where whole columns are sampled no column is transformed."""
        self.check_domain(x)
        stack = x.reshape(-1, x.shape[-3] if x.ndim > 2 else 1, *x.shape[-2:])
        result = stack.new_empty(stack.shape, dtype=self.range_dtype)
        for z, y in self._pieces(stack):
            there, back, mask = (
                factor[..., y, :] for factor in self._factors(z, self._expand, self._combine, self._scaled_mask)
            )
            k = torch.fft.fftn(there * stack[:, z, None, y], dim=self._axes).mul_(mask)
            result[:, z, y] = torch.fft.ifftn(k, dim=self._axes, norm="forward").mul_(back).sum(-3)
        return result.reshape(x.shape)

    def _pieces(self, stack: Num[Tensor, "batch z y x"]) -> Iterator[tuple[slice, slice]]:
        """Some slices or, where columns are not transformed, some rows of one."""
        batch, depth, rows, columns = stack.shape
        most = CHUNK.get(stack.device.type, 2**22)
        lines = max(1, most // (batch * self._expand.shape[-3] * columns))
        slices = max(1, lines // rows)
        step = rows if slices > 1 or self._axes == AXES else lines
        for z, y in itertools.product(range(0, depth, slices), range(0, rows, step)):
            yield slice(z, z + slices), slice(y, y + step)
