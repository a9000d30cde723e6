"""Filtered back-projection of parallel and fan beams."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.fan_beam import FanBeam
from lightning_mbir.physics.ct.parallel_beam import ParallelBeam
from lightning_mbir.solvers.scan import detector_shares, displaced, redundancy_weights, view_weights, widened

FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")


@torch.no_grad()
def fbp(
    y: Num[Tensor, "*batch views bins"], operator: ParallelBeam | FanBeam, filter: str = "ramp"
) -> Num[Tensor, "*batch y x"]:
    """Attenuation from sinograms (Kak and Slaney 1988, sections 3.3 and 3.4).

    The ramp is the transform of its band-limited kernel, sampled at the bins (equation 61 there), so the mean comes
    out right. Views are weighted by the angle that each of them stands for. Rays of a fan that are measured twice, in a
    full scan or at the ends of a short one (180 degrees and the fan angle), share their weight smoothly, and so do
    those in the overlap of a detector that was moved aside (``center_offset``) in a full turn, to see twice as wide.

    Args:
        y: ``(..., views, bins)``.
        operator: its geometry.
        filter: ``ramp`` (Ram-Lak), or that times ``shepp-logan``, ``cosine``, ``hamming`` or ``hann``.

    Returns:
        ``(..., Y, X)`` in 1/mm.

    Raises:
        InputError: unknown filter, sinograms of another shape, or another operator.
    """
    if not isinstance(operator, ParallelBeam | FanBeam):
        raise InputError(
            f"fbp is for ParallelBeam and FanBeam, not {type(operator).__name__}; fdk is for ConeBeam, sirt for all"
        )
    operator.check_range(y)
    if y.is_complex():
        return torch.complex(fbp(y.real, operator, filter), fbp(y.imag, operator, filter))
    if isinstance(operator, FanBeam):
        return _fan(y, operator, filter)
    if _is_displaced(operator):
        y = y * 2 * detector_shares(torch.from_numpy(operator.positions)).to(y)
        before, after, offset = widened(operator.detector_spacing, operator.center_offset)
        y = F.pad(y, (before, after))
        wide = {**operator.geometry, "n_detectors": y.shape[-1], "center_offset": offset}
        operator = ParallelBeam(**wide, backend=operator.backend).to(operator.device, operator.real_dtype)  # type: ignore[arg-type]
    filtered = filter_sinogram(y, operator.detector_spacing, filter)
    weighted = filtered * view_weights(operator.angles, 180).to(y)[:, None]
    # The adjoint sums chord lengths over one bin: spacing / pixel area turns that into the mean over a pixel.
    return operator.adjoint(weighted) * (operator.detector_spacing / operator.pixel_size**2)


def _fan(y: Tensor, operator: FanBeam, filter: str) -> Tensor:
    """Kak and Slaney, sections 3.4.1 (curved: bins at equal angles) and 3.4.2 (flat), pixel by pixel: the weights of
    their back-projection are not those of the adjoint."""
    source, total = operator.source_distance, operator.source_distance + operator.detector_distance
    fan = torch.from_numpy(operator.fan_angles)
    angles = view_weights(operator.angles, 360)[:, None]
    shares, offset = redundancy_weights(operator.angles, fan), operator.center_offset
    before = after = 0
    if _is_displaced(operator):
        shares = detector_shares(torch.from_numpy(operator.positions))
        before, after, offset = widened(operator.detector_spacing, offset)
    weighted = F.pad(y * (shares * angles * fan.cos()).to(y), (before, after))
    if operator.detector == "flat":  # on a detector through the axis
        filtered = filter_sinogram(weighted, operator.detector_spacing * source / total, filter)
    else:
        step = operator.detector_spacing / total
        filtered = filter_sinogram(weighted, step, filter, arc=step) * source
    n, pixel = operator.image_size, operator.pixel_size
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * pixel
    lead = y.shape[:-2]
    filtered = filtered.reshape(-1, *filtered.shape[-2:])
    image = filtered.new_zeros(len(filtered), n, n)
    for view, angle in enumerate(operator.angles):
        across, depth = rotated(axis, axis, angle, source)
        if operator.detector == "flat":
            u, weight = total * across / depth, (source / depth) ** 2
        else:
            u, weight = total * torch.atan2(across, depth), 1 / (across**2 + depth**2)
        # One row of bins, a channel a slice: what falls off the detector reads as zero.
        bins = to_grid(u, filtered.shape[-1], operator.detector_spacing, offset)
        grid = torch.stack((bins, torch.zeros_like(bins)), -1)
        read = F.grid_sample(filtered[None, :, None, view], grid[None].to(y), align_corners=False)
        image += read[0] * weight.to(y)
    return image.reshape(*lead, n, n)


def _is_displaced(operator: ParallelBeam | FanBeam) -> bool:
    radius, width = operator.image_size * operator.pixel_size / 2, operator.n_detectors * operator.detector_spacing
    return displaced(operator.angles, width, operator.center_offset, radius, operator.distance)


def rotated(
    x: Float[Tensor, " x"], y: Float[Tensor, " y"], angle: float, source_distance: float
) -> tuple[Float[Tensor, "y x"], Float[Tensor, "y x"]]:
    """Pixels ``(Y, X)`` as the source of a view sees them: how far off its central ray, how far along it, in mm."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cos + y[:, None] * sin, source_distance - x * sin + y[:, None] * cos


def to_grid(position: Float[Tensor, "*shape"], bins: int, spacing: float, offset: float) -> Float[Tensor, "*shape"]:
    """Detector coordinates in mm to those of ``grid_sample`` without ``align_corners``: -1 and 1 are the edges, which a
    detector of a single bin has too."""
    return (position + offset) / spacing * (2 / bins)


def filter_sinogram(
    y: Float[Tensor, "*batch bins"], spacing: float, filter: str = "ramp", arc: float = 0.0
) -> Float[Tensor, "*batch bins"]:
    """Convolution of each view with the filter, padded against wrapping around; in 1/mm of ``y``'s unit.

    With ``arc``, the angle between bins in radians, the kernel is that of bins at equal angles (Kak and Slaney 1988,
    section 3.4.1).

    Raises:
        InputError: unknown filter.
    """
    if filter not in FILTERS:
        raise InputError(f"filter {filter!r} is unknown; there are {', '.join(FILTERS)}")
    n = y.shape[-1]
    size = 2 ** math.ceil(math.log2(max(64, 2 * n)))
    k = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64, device="cpu")  # integers 0, 1, ..., -1
    kernel = torch.where(k % 2 == 0, 0.0, -1 / (math.pi * k.where(k != 0, torch.ones_like(k)) * spacing) ** 2)
    kernel[0] = 1 / (4 * spacing**2)
    if arc:
        kernel = torch.where(k.abs() < n, kernel / torch.sinc(k * arc / math.pi) ** 2, 0)
    response = torch.fft.rfft(kernel).real * spacing
    f = torch.linspace(0, 1, len(response), dtype=torch.float64)  # 1 at the Nyquist frequency
    if filter == "shepp-logan":
        response *= torch.sinc(f / 2)
    elif filter == "cosine":
        response *= torch.cos(math.pi * f / 2)
    elif filter == "hamming":
        response *= 0.54 + 0.46 * torch.cos(math.pi * f)
    elif filter == "hann":
        response *= 0.5 + 0.5 * torch.cos(math.pi * f)
    spectrum = torch.fft.rfft(y, size) * response.to(y)
    return torch.fft.irfft(spectrum, size)[..., :n]
