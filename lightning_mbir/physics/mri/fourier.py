"""MRI with a single coil: centred Fourier samples on a Cartesian grid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Complex, Float, Int, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.mri.coils import some_slices
from lightning_mbir.physics.mri.lines import AXES, mask_parts, only, transformed_axes
from lightning_mbir.physics.mri.masks import check_mask
from lightning_mbir.physics.operator import Around, LinearOperator, Parts


class FourierSampling(LinearOperator):
    """``mask * FFT``: the centred, orthonormal 2D Fourier transform, kept where the mask is one.

    Zero frequency is at index ``(Y // 2, X // 2)`` of k-space, the origin of the image at the same index.

    One mask for all slices makes it act slice by slice on ``(..., Y, X)``. Masks by slice make it an operator on
    volumes: ``separable`` is false, domain and range are ``(Z, Y, X)``.

    Args:
        mask: ``(Y, X)`` of zeros and ones for all slices, or ``(Z, Y, X)``, one a slice.

    Raises:
        InputError: a mask of another shape or values, or one that samples nothing.
    """

    domain_complex = True
    range_complex = True
    normal_is_cheaper = True
    centred = True
    working = 0.0  # which is done in pieces

    def __init__(self, mask: Tensor) -> None:
        check_mask(mask, "FourierSampling", "(Y, X) or (Z, Y, X)", by_slice=True)
        super().__init__(mask.device)
        self.register_buffer("mask", mask.to(torch.get_default_dtype()))
        # In the FFT's own order, so that the k-space of `normal` is not shifted twice.
        self.register_buffer("_mask_fft_order", torch.fft.ifftshift(self.mask, AXES), persistent=False)
        self._axes = transformed_axes(self.mask)
        self.separable = mask.ndim == 2
        self.domain_shape = self.range_shape = tuple(mask.shape)

    mask: Float[Tensor, "*slices y x"]
    _mask_fft_order: Tensor

    @property
    def acceleration(self) -> float:
        """Points of k-space over sampled points."""
        return self.mask.numel() / float(self.mask.sum())

    def of_slice(self, k: int) -> FourierSampling | None:
        return None if self.separable else FourierSampling(self.mask[k]).to(self.device, self.real_dtype)

    def of_slices(self, start: int, stop: int) -> FourierSampling:
        return self if self.separable else FourierSampling(self.mask[start:stop]).to(self.device, self.real_dtype)

    @property
    def parts(self) -> Parts:
        """Lines or points of k-space; see ``mask_parts``."""
        return mask_parts(self.mask)[0]

    def of_parts(self, chosen: Int[Tensor, " n"]) -> FourierSampling:
        return FourierSampling(only(self.mask, chosen)).to(self.device, self.real_dtype)

    def parts_of(self, y: Num[Tensor, "*batch y x"], chosen: Int[Tensor, " n"]) -> Num[Tensor, "*batch y x"]:
        """The measurement ``(..., Y, X)`` with zeros for the other parts."""
        return y * only(self.mask, chosen).to(y.device, self.real_dtype)

    def forward(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
        """k-space: ``(..., Y, X)`` real or complex to ``(..., Y, X)`` complex, zero where the mask is."""
        self.check_domain(x)

        def transformed(part: Tensor, mask: Tensor) -> Tensor:
            return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(part, AXES), norm="ortho").mul_(mask), AXES)

        return self._in_pieces(transformed, x)

    def adjoint(self, y: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
        """Zero-filled image: ``(..., Y, X)`` complex to ``(..., Y, X)`` complex."""
        self.check_range(y)

        def transformed(part: Tensor, mask: Tensor) -> Tensor:
            return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(part, AXES).mul_(mask), norm="ortho"), AXES)

        return self._in_pieces(transformed, y)

    def normal(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
        """``A^H A x``: a circular convolution, about which shifts cancel, along rows alone where whole columns are
        sampled."""
        self.check_domain(x)

        def convolved(part: Tensor, mask: Tensor) -> Tensor:
            return torch.fft.ifftn(torch.fft.fftn(part, dim=self._axes).mul_(mask), dim=self._axes)

        return self._in_pieces(convolved, x)

    def _in_pieces(
        self, run: Callable[[Tensor, Tensor], Tensor], x: Num[Tensor, "*batch y x"]
    ) -> Complex[Tensor, "*batch y x"]:
        """What ``run`` makes of some slices and the mask in the FFT's order, of all of them, a few at a time."""
        stack = x.reshape(-1, x.shape[-3] if x.ndim > 2 else 1, *x.shape[-2:])
        result = stack.new_empty(stack.shape, dtype=self.range_dtype)
        for z in some_slices(x, stack.shape[1], stack[:, 0].numel()):
            mask = self._mask_fft_order if self.separable else self._mask_fft_order[z]
            result[:, z] = run(stack[:, z], mask)
        return result.reshape(x.shape)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._mask_fft_order = torch.fft.ifftshift(self.mask, AXES)
        self._axes = transformed_axes(self.mask)
        self._norm = None


class RealDomain(Around):
    """An operator on real volumes, such as magnitudes; its adjoint is the real part of the other one's.

    On real vectors with the inner product ``Re <., .>`` that is the exact adjoint. Complex volumes are refused: of them
    the imaginary part would be measured, and never come back.
    """

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator)
        self.domain_complex, self.normal_is_cheaper = False, operator.normal_is_cheaper
        self.working = operator.working + 0.5  # a complex volume

    def around(self, operator: LinearOperator) -> RealDomain:
        return RealDomain(operator)

    def check_domain(self, x: Tensor) -> None:
        super().check_domain(x)
        if x.is_complex():
            raise InputError("RealDomain takes real volumes, not complex ones; give .real or .abs(), or leave it out")

    def forward(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*measured"]:
        self.check_domain(x)
        out: Tensor = self.operator(x)
        return out

    def adjoint(self, y: Num[Tensor, "*measured"]) -> Float[Tensor, "*batch y x"]:
        return self.operator.adjoint(y).real.contiguous()

    def normal(self, x: Num[Tensor, "*batch y x"]) -> Float[Tensor, "*batch y x"]:
        self.check_domain(x)
        return self.operator.normal(x).real.contiguous()
