"""The spread of samples as an uncertainty: corrected where a factor is known, scored where the truth is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.units import MU_WATER, Modality, magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.samples import PosteriorSamples
from lightning_mbir.methods.spread import Correction, correction
from lightning_mbir.reconstruction.case import Case
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.report.calibration import Calibration, calibrate, probability_off


@dataclass(frozen=True)
class Spread:
    """What is told and written of the spread of samples.

    Attributes:
        std: ``(Z, Y, X)`` in physical unit: that of the samples times the factor.
        correction: the factor.
        off: probability that the mean is off by more than the amount that was asked for, if any was.
        calibration: of ``std``, where the truth is known.
        metrics: what goes into ``metrics.json`` and into rows of a comparison.
    """

    std: Tensor
    correction: Correction
    off: Tensor | None
    calibration: Calibration | None
    metrics: dict[str, Any]


def known_correction(runner: Runner, scan: Volume | Measurement, plan: Plan) -> Correction:
    """The factor of what is run; ``correction`` says when there is one."""
    size = None if isinstance(scan, Measurement) else scan.data.shape[-1]
    prior = runner.prior_identity(plan)
    return correction(runner.task, runner.settings, plan.identity, prior, measured=size is None, image_size=size)


def spread_of(
    runner: Runner, scan: Volume | Measurement, case: Case, plan: Plan, result: PosteriorSamples, off_by: float | None
) -> Spread:
    """The spread of the samples of a volume.

    Args:
        runner: what ran the method.
        scan, case: the volume or measurement, and what was measured.
        plan: the method.
        result: the samples.
        off_by: in HU, of MRI in shares of the peak; what a voxel may be off by.

    Raises:
        InputError: an amount in HU of a volume that has none.
    """
    known = known_correction(runner, scan, plan)
    std = result.std * known.factor
    metrics: dict[str, Any] = {"spread": {"factor": known.factor, "why": known.line, "found_with": known.found}}
    off = None
    if off_by is not None:
        amount = physical(off_by, runner.task.modality, case, result.image)
        off = probability_off(std, amount, result.samples)
        unit = "HU" if runner.task.modality == "ct" else "of the peak, the 99.5th percentile of the mean"
        metrics["off_by"] = {"amount": off_by, "unit": unit, "predicted": float(off.mean())}
        if case.truth is not None:
            beyond = ((result.image - case.truth).abs() > amount).float().mean()
            metrics["off_by"]["observed"] = float(beyond)
    scored = None
    if case.truth is not None:
        data_range = runner.data_range(case.truth)
        scored = calibrate(result.image, std, case.truth, result.samples)
        metrics["calibration"] = scored.figures(data_range)
        if known.found is not None:
            raw = calibrate(result.image, result.std, case.truth, result.samples)
            metrics["calibration"]["of_the_samples"] = raw.figures(data_range)
    return Spread(std, known, off, scored, metrics)


def check_off_by(off_by: float | None, modality: Modality, samples: int) -> None:
    """Raise ``InputError`` where an amount is none of its unit, or where there are no samples to tell of it."""
    if off_by is None:
        return
    if modality == "ct" and not 1 <= off_by <= 10_000:
        raise InputError(f"--off_by {off_by:g}: of CT give HU, 1 to 10000, such as 50")
    if modality == "mri" and not 0 < off_by < 1:
        raise InputError(f"--off_by {off_by:g}: of MRI give a share of the peak, above 0 and below 1, such as 0.05")
    if samples < 2:
        raise InputError(f"--off_by {off_by:g}: how likely that is is told by samples; give --samples 8 too")


def physical(off_by: float, modality: Modality, case: Case, image: Tensor) -> float:
    """The amount of ``--off_by`` in the unit of the volume."""
    if modality == "mri":
        return off_by * magnitude_percentile(image)
    if not case.calibrated:
        raise InputError(f"--off_by {off_by:g}: {case.name} has no HU, since its lengths are not in mm; leave it out")
    return off_by * MU_WATER / 1000
