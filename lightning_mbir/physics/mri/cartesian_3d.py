"""3D MRI: Cartesian k-space undersampled along both phase-encoding directions."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float, Int, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.mri.coils import CoilOperator, centring, check_coil_maps
from lightning_mbir.physics.mri.lines import mask_parts, only
from lightning_mbir.physics.mri.masks import check_mask
from lightning_mbir.physics.operator import Parts


class CartesianFourier3D(CoilOperator):
    """``mask * FFT``: the centred, orthonormal 3D Fourier transform of a volume, or of each coil's volume.

    Phase is encoded along z and y, and x is read out: every sampled ``(kz, ky)`` gives a whole line. Slices are coupled
    through kz, so ``separable`` is false. Zero frequency is at ``(Z // 2, Y // 2, X // 2)``.

    Args:
        mask: ``(Z, Y)`` of zeros and ones.
        volume_shape: ``(Z, Y, X)``.
        coil_maps: ``(coils, Y, X)`` or ``(Z, coils, Y, X)`` complex; by default one coil of sensitivity 1.

    Raises:
        InputError: a mask that does not fit the volume, has other values, or samples nothing; maps that do not fit, are
            not finite, or all zero.
    """

    separable = False
    centred = True
    mask: Float[Tensor, "z y"]

    def __init__(self, mask: Tensor, volume_shape: tuple[int, int, int], coil_maps: Tensor | None = None) -> None:
        check_mask(mask, "CartesianFourier3D", "(Z, Y)")
        check_kinds(CartesianFourier3D.__init__, locals())
        super().__init__(mask.device)
        depth, rows, columns = volume_shape
        if tuple(mask.shape) != (depth, rows) or columns < 1:
            raise InputError(f"the mask is {tuple(mask.shape)}, the volume {tuple(volume_shape)}; give a mask (Z, Y)")
        check_fits(
            f"CartesianFourier3D: a volume of {tuple(volume_shape)}", 64 * mask.numel() * columns, "give a smaller one"
        )
        if coil_maps is not None:
            check_coil_maps(coil_maps, (rows, columns), depth)
        self.register_buffer("mask", mask.to(torch.get_default_dtype()))
        self.domain_shape = (depth, rows, columns)
        coils = () if coil_maps is None else (coil_maps.shape[-3],)
        self.range_shape = (depth, *coils, rows, columns)
        self.set_maps(coil_maps)

    @property
    def acceleration(self) -> float:
        """Points of the plane of phase encoding over sampled points."""
        return self.mask.numel() / float(self.mask.sum())

    @property
    def parts(self) -> Parts:
        """Lines or points of the plane of phase encoding, of all coils; see ``mask_parts``."""
        return mask_parts(self.mask)[0]

    def of_parts(self, chosen: Int[Tensor, " n"]) -> CartesianFourier3D:
        z, y, x = self.domain_shape
        one = CartesianFourier3D(only(self.mask, chosen), (z, y, x), self.coil_maps)
        return one.to(self.device, self.real_dtype)

    def parts_of(self, y: Num[Tensor, "*measured"], chosen: Int[Tensor, " n"]) -> Num[Tensor, "*measured"]:
        """The measurement with zeros for the other parts."""
        mask = only(self.mask, chosen)[..., None].to(y.device, self.real_dtype)
        return y * (mask if self.coil_maps is None else mask.unsqueeze(-3))

    def modulation(self) -> Complex[Tensor, "z 1 y x"]:
        return centring(self.domain_shape, self.device)[0].unsqueeze(1)

    def prepare(self) -> None:
        super().prepare()
        sampling = centring(self.domain_shape, self.device)[1].unsqueeze(1).to(self.dtype)
        self._sampling = self.mask[:, None, :, None] * sampling
        self._sampling_conj = self._sampling.conj().resolve_conj()  # products with a lazy conjugate are slow

    def forward(
        self, x: Num[Tensor, "*batch z y x"]
    ) -> Complex[Tensor, "*batch z y x"] | Complex[Tensor, "*batch z coils y x"]:
        """k-space: ``(..., Z, Y, X)`` to ``(..., Z, Y, X)``, with maps ``(..., Z, coils, Y, X)``; zero where the mask
        is."""
        self.check_domain(x)
        k = torch.fft.fftn(self.expand(x), dim=(-4, -2, -1), norm="ortho").mul_(self._sampling)
        return k.squeeze(-3) if self._maps is None else k

    def adjoint(self, y: Num[Tensor, "... y x"]) -> Complex[Tensor, "*batch z y x"]:
        """Zero-filled volume ``(..., Z, Y, X)``, of all coils."""
        self.check_range(y)
        k = (y.unsqueeze(-3) if self._maps is None else y) * self._sampling_conj
        return self.combine(torch.fft.ifftn(k, dim=(-4, -2, -1), norm="ortho"))

    def normal(self, x: Num[Tensor, "*batch z y x"]) -> Complex[Tensor, "*batch z y x"]:
        """``A^H A x``; the readout, being complete, needs no transform."""
        self.check_domain(x)
        k = torch.fft.fftn(self.expand(x), dim=(-4, -2), norm="ortho").mul_(self.mask[:, None, :, None])
        return self.combine(torch.fft.ifftn(k, dim=(-4, -2), norm="ortho"))
