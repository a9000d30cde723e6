"""Partial Fourier: k-space of which one side was not measured, completed by the smoothness of the image's phase."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Complex, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

AXES = (-2, -1)


@torch.no_grad()
def complete_partial_fourier(
    kspace: Complex[Tensor, "*batch y x"],
    mask: Num[Tensor, "y x"],
    kind: Literal["pocs", "homodyne"] = "pocs",
    iterations: int = 20,
) -> Complex[Tensor, "*batch y x"]:
    """K-space with values where nothing was measured, by an image whose phase is that of its symmetric middle.

    Both take the phase from the middle, as far as it was measured on both sides of zero frequency.

    - ``pocs`` (Haacke et al., "A fast, iterative, partial-Fourier technique capable of local phase recovery", JMR 92,
      1991): by turns the image gets that phase, and k-space its measured values, which stay as they were.
    - ``homodyne`` (Noll et al., "Homodyne detection in magnetic resonance imaging", IEEE TMI 10, 1991): what was
      measured on one side alone counts twice, with a ramp over the middle, and of the image that comes out the part in
      phase is kept. Measured values are changed.

    Args:
        kspace: ``(..., Y, X)``, centred; coils one by one. Zeros where nothing was measured.
        mask: ``(Y, X)``, 1 on a rectangle that holds the middle and more of one side than of the other, and maybe on
            the first of an even number of frequencies, which is both the first and the last.
        kind: which of them.
        iterations: of ``pocs``.

    Returns:
        ``(..., Y, X)``, of the same type.

    Raises:
        InputError: no such kind, a mask that is no rectangle, without a middle, or with as much of either side.
    """
    check_kinds(complete_partial_fourier, locals())
    if kind not in ("pocs", "homodyne"):
        raise InputError(f"--data.partial_fourier {kind}: give zero, pocs or homodyne")
    bounds = measured_block(mask)
    if bounds is None:
        raise InputError(
            f"--data.partial_fourier {kind}: k-space is undersampled within what was measured; that is for scans that "
            "lack one side alone: leave it at zero"
        )
    windows = [_middle(start, stop, n) for (start, stop), n in zip(bounds, mask.shape, strict=True)]
    if all(window == bound for window, bound in zip(windows, bounds, strict=True)):
        raise InputError(f"--data.partial_fourier {kind}: both sides of k-space were measured alike; leave it out")
    tapers = [
        _taper(start, stop, n).to(kspace.device, kspace.real.dtype)
        for (start, stop), n in zip(windows, mask.shape, strict=True)
    ]
    measured = mask.to(kspace.device) != 0
    phase = torch.sgn(_image(kspace * tapers[0][:, None] * tapers[1]))
    if kind == "homodyne":
        ramps = [
            _ramp(b, w, n).to(kspace.device, kspace.real.dtype)
            for b, w, n in zip(bounds, windows, mask.shape, strict=True)
        ]
        image = _image(kspace * ramps[0][:, None] * ramps[1])
        return _kspace((image * phase.conj()).real * phase).to(kspace.dtype)
    found = kspace
    for _ in range(iterations):
        image = _image(found)
        found = torch.where(measured, kspace, _kspace(image.abs() * phase))
    return found


def measured_block(mask: Num[Tensor, "y x"]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Start and end of the rows and of the columns that were measured; None where something within them was not.

    Raises:
        InputError: nothing was measured.
    """
    (top, bottom), (left, right) = bounds = _bounds(mask.any(1)), _bounds(mask.any(0))
    return bounds if bool(mask[top:bottom, left:right].all()) else None


def _bounds(there: Tensor) -> tuple[int, int]:
    where = torch.nonzero(there).flatten()
    if not len(where):
        raise InputError("--data.partial_fourier: nothing was measured")
    # Of an even number the first frequency is the last one as well: of an image that was mirrored to face the front it
    # may stand alone, with the other end measured.
    alone = len(there) % 2 == 0 and len(where) > 1 and int(where[0]) == 0 and int(where[1]) > 1 and bool(there[-1])
    return int(where[int(alone)]), int(where[-1]) + 1


def _middle(start: int, stop: int, n: int) -> tuple[int, int]:
    """The part of ``start:stop`` that lies on both sides of zero frequency; all where that lacks no side.

    Of an even number the first frequency has no partner, which is no lack.
    """
    center = n // 2
    reach = min(center - start, stop - 1 - center)
    if reach < 1:
        raise InputError("--data.partial_fourier: zero frequency was not measured with its neighbours on both sides")
    if max(center - start, stop - 1 - center) <= reach + (1 if n % 2 == 0 and start == 0 else 0):
        return start, stop
    return center - reach, center + reach + 1


def _taper(start: int, stop: int, n: int) -> Tensor:
    """1 in the middle of ``start:stop``, down to 0 at its ends as a Hann window; 1 where it is all."""
    window = torch.zeros(n, dtype=torch.float64)
    window[start:stop] = 1 if stop - start >= n - 1 else torch.hann_window(stop - start + 2, False)[1:-1].double()
    return window


def _ramp(bounds: tuple[int, int], window: tuple[int, int], n: int) -> Tensor:
    """0 where nothing was measured, 2 where one side was alone, and from one to the other over the middle."""
    weights = torch.zeros(n, dtype=torch.float64)
    weights[slice(*bounds)] = 1
    if window != bounds:
        center = n // 2
        distance = (torch.arange(n, dtype=torch.float64) - center) / (window[1] - center)
        sign = 1 if bounds[1] > window[1] else -1
        weights = weights * (1 + sign * distance).clamp(0, 2)
    return weights


def _image(kspace: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, AXES), norm="ortho"), AXES)


def _kspace(image: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, AXES), norm="ortho"), AXES)
