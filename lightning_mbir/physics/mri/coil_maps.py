"""Coil sensitivities: from the centre of k-space (ESPIRiT), and of simulated coils."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.operator import check_tensor

AXES = (-2, -1)
KERNEL = 6


@torch.no_grad()
def estimate_coil_maps(
    kspace: Num[Tensor, "*shape"],
    calibration: int | tuple[int, int] | None = None,
    kernel: int | None = None,
    threshold: float = 0.02,
    crop: float = 0.7,
) -> Complex[Tensor, "*shape"]:
    """Sensitivities of the coils, from the fully sampled centre of their k-space.

    Uecker et al., "ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI", MRM 71, 2014: all patches of the
    calibration region span a subspace; the projection on it is, in each pixel, a Hermitian ``coils x coils`` matrix
    whose eigenvector with eigenvalue 1 holds the sensitivities. They are worked out in double precision, with exact
    decompositions. The phase, which stays free in each pixel, is that of the first principal component of the
    calibration data being real: so maps are smooth, and images keep their own phase relative to it.

    Args:
        kspace: ``(coils, Y, X)`` or ``(Z, coils, Y, X)`` complex, centred; zeros where nothing was measured.
        calibration: rows and columns of the fully sampled centre; by default as many as there are, up to 24.
        kernel: side of the patches in points; by default 6, or half of the calibration region where that is less.
        threshold: singular values below this share of the largest are noise.
        crop: maps are zero where the eigenvalue is below this, which is where there is no signal. A small calibration
            region lowers eigenvalues inside of the object too.

    Returns:
        Maps of ``kspace``'s shape and type; their sum of squares is 1, or 0 where they were cropped.

    Raises:
        InputError: k-space of another shape, not finite, or zero; a calibration region that is larger than k-space,
            smaller than two kernels, or not fully sampled; a threshold or crop outside 0 to 1.
    """
    check_tensor("k-space", kspace)
    check_kinds(estimate_coil_maps, locals())
    if kspace.ndim not in (3, 4) or not kspace.is_complex() or kspace.numel() == 0:
        raise InputError(f"k-space is {tuple(kspace.shape)}; give (coils, Y, X) or (Z, coils, Y, X) complex values")
    if not bool(torch.isfinite(torch.view_as_real(kspace)).all()):
        raise InputError("k-space has NaN or infinite values; correct them first")
    if not bool(kspace.any()):
        raise InputError("k-space is zero; there is nothing to estimate coil maps from")
    size = sampled_centre(kspace) if calibration is None else calibration
    rows, columns = (size, size) if isinstance(size, int) else size
    if kernel is None:
        kernel = max(1, min(KERNEL, rows // 2, columns // 2))
    fits = min(rows, columns) >= 2 * kernel and rows <= kspace.shape[-2] and columns <= kspace.shape[-1]
    if kernel < 1 or not fits or kernel < 2 <= kspace.shape[-3]:
        raise InputError(
            f"calibration {rows} x {columns}, kernel {kernel}: the calibration region of a k-space of "
            f"{tuple(kspace.shape[-2:])} must hold two kernels of 2 points or more and be no larger than that; "
            "sample more of the centre, or give maps of another scan"
        )
    if not (0 < threshold < 1 and 0 <= crop < 1):
        raise InputError(f"threshold {threshold:g}, crop {crop:g}: give shares from 0 to 1")
    if kspace.ndim == 4:
        return torch.stack([estimate_coil_maps(k, (rows, columns), kernel, threshold, crop) for k in kspace])
    shape = (kspace.shape[1], kspace.shape[2])
    region = _centre(kspace, rows, columns).to(torch.complex128)
    sampled = (region != 0).any(0)
    if not bool(sampled.any()):
        raise InputError("the centre of k-space is zero; there is nothing to estimate coil maps from")
    if not bool(sampled.all()):
        raise InputError(
            f"the central {rows} x {columns} points of k-space are not fully sampled; "
            "give a smaller calibration, or maps of another scan"
        )
    values, vectors = torch.linalg.eigh(_pixel_matrices(_row_space(region, kernel, threshold), kernel, shape))
    maps = vectors[..., -1].movedim(-1, 0)
    # The free phase: that of the coils' combination that holds the most energy.
    principal = torch.linalg.svd(region.flatten(1), full_matrices=False).U[:, 0]
    reference = torch.einsum("c,cyx->yx", principal.conj(), maps)
    maps = maps * torch.where(reference == 0, 1, reference.conj() / reference.abs())
    return (maps * (values[..., -1] > crop)).to(kspace.dtype)


def sampled_centre(kspace: Num[Tensor, "*slices coils y x"], most: int = 24) -> tuple[int, int]:
    """Rows and columns, each up to ``most``, of the largest rectangle about the centre of k-space that is fully sampled
    in all slices that have any."""
    by_slice = (kspace != 0).any(-3)
    sampled = by_slice if by_slice.ndim == 2 else by_slice[by_slice.flatten(1).any(1)].all(0)
    height, width = (min(most, n) for n in sampled.shape)
    sizes = [(rows, columns) for rows in range(1, height + 1) for columns in range(1, width + 1)]
    full = [size for size in sizes if bool(_centre(sampled, *size).all())]
    return max(full, key=lambda size: size[0] * size[1], default=(0, 0))


def _centre(kspace: Tensor, rows: int, columns: int) -> Tensor:
    """The central ``rows x columns`` points."""
    top, left = (n // 2 - size // 2 for n, size in zip(kspace.shape[-2:], (rows, columns), strict=True))
    return kspace[..., top : top + rows, left : left + columns]


def _row_space(region: Tensor, kernel: int, threshold: float) -> Tensor:
    """Orthonormal basis ``(n, coils, kernel, kernel)`` of what patches of the calibration region consist of."""
    patches = region.unfold(1, kernel, 1).unfold(2, kernel, 1)  # (coils, positions y, positions x, kernel, kernel)
    matrix = patches.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    _, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return vh[s > threshold * s[0]].unflatten(1, (len(region), kernel, kernel))


def _pixel_matrices(basis: Tensor, kernel: int, shape: tuple[int, int]) -> Tensor:
    """The mean projection on the patches' subspace, ``(Y, X, coils, coils)``: a convolution of k-space with the
    autocorrelation of the basis, so a product in each pixel."""
    size = 2 * kernel - 1
    spectra = torch.fft.fft2(basis, s=(size, size))
    correlation = torch.fft.ifft2(torch.einsum("nayx,nbyx->abyx", spectra, spectra.conj()))
    correlation = torch.fft.fftshift(correlation, AXES) / kernel**2
    # The transform of an array of 2 kernel - 1 points to the image, by its two short factors.
    lags = torch.arange(1 - kernel, kernel, dtype=torch.float64, device=basis.device)
    y, x = (
        torch.polar(
            torch.ones(n, size, dtype=torch.float64, device=basis.device),
            2 * math.pi / n * (torch.arange(n, dtype=torch.float64, device=basis.device) - n // 2)[:, None] * lags,
        )
        for n in shape
    )
    return torch.einsum("yi,abij,xj->yxab", y, correlation, x)


def loop_coil_maps(
    coils: int, image_size: int, distance: float = 1.7, radius: float = 0.8
) -> Complex[Tensor, "coils y x"]:
    """Sensitivities of loops around a square field of view, for simulations.

    The field of a loop on its axis falls off as ``(1 + r^2 / radius^2)^(-3/2)`` with the distance r from its centre
    (Biot and Savart); here in every direction. The phase is the direction in which a point lies, seen from the loop.
    The maps are divided by the root of their sum of squares, as those of ``estimate_coil_maps``: with a full mask they
    make an isometry.

    Args:
        coils: how many, evenly around.
        image_size: pixels a side.
        distance: of the loops from the centre, in half sides of the field of view; its corners are at 1.41.
        radius: of the loops, likewise.

    Returns:
        ``(coils, Y, X)`` complex.

    Raises:
        InputError: no coil, no pixel, or more than the free memory holds.
    """
    check_kinds(loop_coil_maps, locals())
    if coils < 1:
        raise InputError(f"loop_coil_maps: {coils} coils; give at least 1")
    if image_size < 1:
        raise InputError(f"loop_coil_maps: image_size is {image_size}; give at least 1 pixel a side")
    size = 32 * coils * image_size**2
    check_fits(f"{coils:,.0f} coils of {image_size:,.0f} x {image_size:,.0f} pixels", size, "give fewer coils")
    side = torch.linspace(-1, 1, image_size)
    y, x = torch.meshgrid(side, side, indexing="ij")
    angles = 2 * math.pi * torch.arange(coils)[:, None, None] / coils
    dy, dx = y - distance * angles.sin(), x - distance * angles.cos()
    magnitude = (1 + (dy**2 + dx**2) / radius**2) ** -1.5
    maps = torch.polar(magnitude, torch.atan2(dy, dx))
    return maps / maps.abs().square().sum(0).sqrt()
