"""The one place where the unit of a measurement is set in relation to the prior's."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_mbir.data.units import MRI_PERCENTILE, Modality, magnitude_percentile
from lightning_mbir.errors import InputError
from lightning_mbir.physics import (
    CartesianFourier3D,
    FourierSampling,
    InSlabs,
    LinearOperator,
    MultiCoilFourier,
    OffResonance,
    RealDomain,
)
from lightning_mbir.physics.operator import ScaledOperator
from lightning_mbir.prior import Unit
from lightning_mbir.slabs import current, largest, total
from lightning_mbir.solvers import conjugate_gradient, sirt


def measured_scale(y: Tensor, operator: LinearOperator, modality: Modality, calibrated: bool = True) -> float:
    """What the unit of a volume is to that of the prior, as far as the measurement decides: 1 of CT in 1/mm.

    Args:
        y, operator: the measurement.
        modality: ``"ct"`` or ``"mri"``.
        calibrated: CT: whether attenuation is in 1/mm.

    Raises:
        InputError: a measurement that is zero.
    """
    if modality == "mri":
        return mri_scale(y, operator)
    return 1.0 if calibrated else estimated_scale(y, operator)


def measured_unit(unit: Unit, scale: float, modality: Modality, calibrated: bool = True) -> Unit:
    """The unit of a prior as it is for a measurement whose ``measured_scale`` is ``scale``."""
    return Unit(unit.scale * scale, unit.offset) if modality == "mri" or calibrated else Unit(scale)


@torch.no_grad()
def estimated_scale(y: Tensor, operator: LinearOperator) -> float:
    """What is 1 in the prior's unit, for real measurements in no known unit: projections whose lengths are not in mm.

    The 99.5th percentile of a reconstruction without a prior, twenty SIRT steps: the densest part of the object then
    looks to the prior as bone does.

    Raises:
        InputError: projections that are zero.
    """
    percentile = _percentile(sirt(y, operator, iterations=20, nonnegative=True))
    if percentile <= 0:
        raise InputError("the measurement is zero; there is nothing to reconstruct")
    return percentile


@torch.no_grad()
def mri_scale(y: Tensor, operator: LinearOperator) -> float:
    """Factor of an MRI volume over the same volume in the prior's unit, estimated from the measurement alone.

    Priors are trained on volumes whose 99.5th percentile is 1, with intensities varied by a fifth. That of the
    zero-filled magnitude comes out too low, since undersampling blurs the peaks of thin bright structures: by
    ``0.65 + 0.35 / acc`` in the middle of the range over contrasts, with the acceleration of the undersampled axis
    (of each axis, where both are). Measured on the 13 brain volumes of training at 128 x 128, masks gaussian1d and
    uniform1d, acceleration 2 to 12: after the correction the factor is 0.7 to 1.4 of the true one, lowest for T1
    with bright scalp fat and highest for FLAIR; the middle is within 0.9 and 1.14.

    With eight coils, or undersampling along z and y, the same correction leaves 0.76 to 1.27 (acceleration 4 and 8).
    Samples off the grid, and operators of another kind, have no zero-filled image: that of ten conjugate gradient steps
    is taken as it is, 0.65 to 0.97 of the true factor for 16 and 32 radial spokes, 0.57 to 0.88 for spirals of an
    eighth and a quarter of the pixels.

    Coil maps may have any scale, but their sum of squares should be the same everywhere in the body: the zero-filled
    image is divided by the largest.

    Args:
        y: k-space, ``(Z, Y, X)`` or as the operator measures it.
        operator: of MRI, with one coil or several.

    Raises:
        InputError: k-space that is zero.
    """
    inner = operator
    while isinstance(inner, InSlabs | RealDomain | OffResonance | ScaledOperator):
        inner = inner.operator  # a phase changes no magnitude of k-space, and the norm below tells of a factor
    cartesian = inner if isinstance(inner, FourierSampling | MultiCoilFourier | CartesianFourier3D) else None
    image = operator.adjoint(y)
    if cartesian is None:
        image = conjugate_gradient(operator.normal, image, max_iterations=10, tolerance=1e-3)
    percentile = _percentile(image)
    if percentile <= 0:
        raise InputError("the measurement is zero; there is nothing to reconstruct")
    if cartesian is None:
        return percentile
    # Over slices and coils; a volume whose slices are coupled is undersampled along z and y instead.
    # Masks by slice are told apart, since what they have in common is more than each samples.
    if isinstance(cartesian, CartesianFourier3D) or cartesian.mask.ndim == 3:
        mask = cartesian.mask > 0
    else:
        mask = largest((y != 0).flatten(0, -3).any(0).byte()) > 0
    along_axis = min(_share(mask.any(-2)), _share(mask.any(-1)))
    if along_axis > 0.9:  # points rather than lines: both axes share the undersampling
        along_axis = _share(mask) ** 0.5
    return percentile / operator.norm() ** 2 / (0.65 + 0.35 * along_axis)


def _share(sampled: Tensor) -> float:
    """Which share of the points is sampled, in all slices."""
    found, points = total(torch.stack((sampled.sum(), torch.tensor(sampled.numel(), device=sampled.device)))).float()
    return float(found / points)


def _percentile(volume: Tensor) -> float:
    """``magnitude_percentile`` of a volume that several processes may have slabs of.

    Then by bisection: floating point numbers that are not negative lie in the order of their bits, so the value of a
    rank is found exactly in as many counts as it has bits.
    """
    if not current().split:
        return magnitude_percentile(volume)
    values = volume.abs().contiguous()
    bits = values.view(torch.int64 if values.dtype == torch.float64 else torch.int32)
    count = int(total(torch.tensor(values.numel(), device=values.device)))
    rank = min(max(1, round(count * MRI_PERCENTILE / 100)), count)
    low, high = 0, int(largest(bits.max()))
    while low < high:
        middle = (low + high) // 2
        if int(total((bits <= middle).sum())) >= rank:
            high = middle
        else:
            low = middle + 1
    return float(torch.tensor(low, dtype=bits.dtype).view(values.dtype))
