"""The measurements that are simulated: sparse-view CT, limited-angle CT, and undersampled MRI."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.errors import InputError
from lightning_mbir.methods.catalog import get_method
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.own_operator import OwnOperator
from lightning_mbir.methods.settings import SETTINGS, check_task, checked_settings
from lightning_mbir.packaged import packaged
from lightning_mbir.physics import (
    FourierSampling,
    LinearOperator,
    MultiCoilFourier,
    ParallelBeam,
    RealDomain,
    complex_gaussian,
    loop_coil_maps,
    make_mask,
    noise_sigma,
    poisson_counts,
)
from lightning_mbir.samplers import keyed_generator


@dataclass(frozen=True)
class Task:
    """A kind of measurement.

    Attributes:
        name: what ``--task`` takes.
        modality: of its volumes.
        data_range: peak of PSNR and SSIM in physical unit; none for MRI, where the unit is arbitrary and the
            range is the 99.5th percentile of the true volume.
        options: options of methods that were tuned for it on training volumes without noise, from ``configs/tuned``.
        noisy: what goes over them where there is noise, by method; docs/method.md tells which were searched with it.
        many: what goes over these where there is noise and at least ``many["views"]`` views, by method.
        few: what goes over all where there are at most ``few["views"]`` views, by method.
        operator: of a user's own, instead of the task's.
    """

    name: str
    modality: Modality
    data_range: float | None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    noisy: dict[str, dict[str, Any]] = field(default_factory=dict)
    many: dict[str, Any] = field(default_factory=dict)
    few: dict[str, Any] = field(default_factory=dict)
    operator: OwnOperator | None = None

    def tuned(self, method: str, noisy: bool = False, views: int | None = None) -> dict[str, Any]:
        """Options of a method, for measurements without noise or with some, which what was measured always has; of so
        many views where that is known."""
        many = noisy and views is not None and views >= self.many.get("views", math.inf)
        few = views is not None and views <= self.few.get("views", 0)
        found = dict(self.options.get(method, {}))
        for name, applies in zip(OVER, (noisy, many, few), strict=True):
            found |= getattr(self, name).get(method, {}) if applies else {}
        return found

    def settings(self, **flags: Any) -> dict[str, Any]:
        """See ``checked_settings``; with an operator of a user's own, what tells it, and the flags of noise and phase.

        Raises:
            InputError: see there; a flag of the geometry beside an operator of one's own.
        """
        chosen = checked_settings(self.name, **flags)
        if self.operator is None:
            return chosen
        for name, value in flags.items():
            if value is not None and name not in BESIDE_OPERATOR:
                raise InputError(f"--{name} {value}: not with --operator, which has its own geometry; leave it out")
        return {**self.operator.identity, **{name: chosen[name] for name in BESIDE_OPERATOR if name in chosen}}

    def check_simulated(self, settings: dict[str, Any]) -> None:
        """Raise where settings, though fine for a measurement, are not for one that is simulated."""
        if self.operator is None and settings.get("angle_range", 0.0) > 180:
            raise InputError(f"--angle_range {settings['angle_range']:g}: parallel views repeat after 180 degrees")

    def add_noise(
        self, y: Tensor, key: Sequence[int | str], photons: float | None = None, snr: float | None = None, **_: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The measurement with the noise of the settings, the same for the same ``key``; and its statistical weights,
        where the noise differs from ray to ray: the inverse of its variance plus that of ``MODEL_ERROR``."""
        generator = keyed_generator("measurement", *key)
        if photons is not None:
            noisy = poisson_counts(y, photons, generator=generator)
            return noisy.y, noisy.weights / (1 + noisy.weights * MODEL_ERROR**2)
        return (y if snr is None else complex_gaussian(y, snr, generator)), None

    def noise_std(
        self, y: Tensor, weights: Tensor | None = None, photons: float | None = None, snr: float | None = None, **_: Any
    ) -> float:
        """Standard deviation of the noise that ``add_noise`` gives, of k-space in each part; 0 where there is none.

        Where it differs from ray to ray, that of a ray whose weight is the mean over the energy of ``y``, to which
        ``run_method`` brings the weights.
        """
        if photons is not None and weights is not None:
            power, whole = y.square(), torch.float64
            mean = float((weights * power).sum(dtype=whole) / power.sum(dtype=whole).clamp_min(1e-30))
            return math.sqrt((1 - float(weights.mean(dtype=whole)) * MODEL_ERROR**2) / mean)
        return 0.0 if snr is None else noise_sigma(y, snr) / math.sqrt(2)

    def noise_power(self, y: Tensor, photons: float | None = None, snr: float | None = None, **_: Any) -> float:
        """What ``||n||^2`` of the noise of the settings is to be expected, for a measurement ``y`` without; 0 where
        there is none. Of counts the sum of ``exp(y) / photons``, the variances of their logarithms to first order."""
        if photons is not None:
            return float((y.double().exp() / photons).sum())
        return 2 * self.noise_std(y, snr=snr) ** 2 * int((y != 0).sum())

    def build_operator(
        self, image_size: int, pixel_size: float = 1.0, *, seed: int = 0, complex: bool = False, **settings: Any
    ) -> LinearOperator:
        """The operator for slices of ``image_size`` pixels of ``pixel_size`` mm, from the task's settings; that of MRI
        acts on complex volumes, or on magnitudes.

        Raises:
            InputError: settings that cannot be, see ``settings``; a mask that cannot be made; over 180 degrees, since
                parallel views repeat themselves from there on.
        """
        if self.operator is not None:
            return self.operator.build(image_size, pixel_size, seed, complex)
        chosen = self.settings(**settings)
        if self.modality == "mri":
            mask = make_mask(chosen["mask"], (image_size, image_size), chosen["acc"], seed=seed)
            sampling: LinearOperator = FourierSampling(mask)
            if "coils" in chosen:
                sampling = MultiCoilFourier(mask, loop_coil_maps(chosen["coils"], image_size))
            return sampling if complex else RealDomain(sampling)
        self.check_simulated(chosen)
        step = chosen["angle_range"] / chosen["views"]
        return ParallelBeam(image_size, [i * step for i in range(chosen["views"])], pixel_size=pixel_size)


BESIDE_OPERATOR = ("photons", "snr", "phase")
"""Flags that go with an operator of a user's own: they are of the noise and the volume."""

MODEL_ERROR = 0.05
"""What line integrals are wrong by beside their noise. It keeps rays through air, with next to no counting noise, from
outweighing those through the body by so much that a few conjugate gradient steps get nowhere (benchmarks/noise.py)."""

CT_RANGE = 3 * MU_WATER
"""-1000 to 2000 HU, in 1/mm."""


OVER = {
    "noisy": "Where there is noise",
    "many": "Where there is noise and so many views at least",
    "few": "Of at most so many views",
}
"""What goes over a task's options, in that order, and when; see ``Task``."""


def tuned_file(task: str) -> Path:
    """Where ``benchmarks/tune.py`` keeps the options that it found for a task."""
    return packaged("configs") / "tuned" / f"{task}.yaml"


def _tuned(task: str) -> dict[str, Any]:
    """``options`` of a task, and what goes over them."""
    options = yaml.safe_load(tuned_file(task).read_text())
    over = {name: options.pop(name, {}) for name in OVER}
    return {"options": options, **over}


RANGES = {"ct": CT_RANGE, "mri": None}

TASKS: dict[str, Task] = {
    name: Task(name, modality, RANGES[modality], **_tuned(name)) for name, (modality, _) in SETTINGS.items()
}
"""The tasks by their names; ``TASKS["sv_ct"].options["dds"]`` are the options that were tuned for one."""


def get_task(name: str, operator: str | None = None, operator_options: dict[str, Any] | None = None) -> Task:
    """The task called ``name``; with a class path, one that measures with an operator of a user's own.

    Raises:
        InputError: no such task, or no such operator.
    """
    check_task(name)
    if operator is None and operator_options:
        raise InputError("--model.operator_options: of an operator of your own; give --operator too")
    own = None if operator is None else OwnOperator(operator, operator_options or {})
    return replace(TASKS[name], operator=own)


def tuned_for(
    task: str | Task | None, operator: LinearOperator, modality: Modality, noisy: bool
) -> Callable[[str], dict[str, Any]]:
    """What gives the options of a task for what an operator measures, by the name of a method; none without a task.

    Args:
        task: its name, or itself.
        operator: whose views are counted.
        modality: of the measurement.
        noisy: whether it is known to have noise.

    Raises:
        InputError: no such task, or one of the other modality.
    """
    if task is None:
        return lambda method: {}
    own = get_task(task) if isinstance(task, str) else task
    if own.modality != modality:
        names = ", ".join(name for name, other in TASKS.items() if other.modality == modality)
        raise InputError(f"task {own.name}: is of {own.modality}, the measurement of {modality}; give one of {names}")
    parts = operator.parts
    return partial(own.tuned, noisy=noisy, views=len(parts.place) if parts.what == "views" else None)


def options_of(method: str | Method | Callable[..., Tensor], tuned: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What ``tuned_for`` gives for a method; nothing for one of a user's own."""
    known = get_method(method)
    return tuned(known.name) if known.ours else {}
