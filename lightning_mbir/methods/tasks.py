"""The measurements that are simulated: sparse-view CT, limited-angle CT, and undersampled MRI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.errors import InputError
from lightning_mbir.packaged import packaged
from lightning_mbir.physics import (
    MASKS,
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
        defaults: its flags with their defaults, none for noise that is not simulated; others do not belong to it.
        data_range: peak of PSNR and SSIM in physical unit; none for MRI, where the unit is arbitrary and the
            range is the 99.5th percentile of the true volume.
        options: options of methods that were tuned for it on training volumes without noise, from ``configs/tuned``.
        noisy: what goes over them where there is noise, by method; docs/method.md tells which were searched with it.
    """

    name: str
    modality: Modality
    defaults: dict[str, Any]
    data_range: float | None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    noisy: dict[str, dict[str, Any]] = field(default_factory=dict)

    def tuned(self, method: str, noisy: bool = False) -> dict[str, Any]:
        """Options of a method, for measurements without noise or with some; what was measured always has some."""
        return {**self.options.get(method, {}), **(self.noisy.get(method, {}) if noisy else {})}

    def settings(self, **flags: Any) -> dict[str, Any]:
        """The flags that were given, checked, over the defaults; without those that stay none.

        Raises:
            InputError: a flag of another task, or a value that cannot be.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        for name, value in given.items():
            if name not in self.defaults:
                own = ", ".join(f"--{flag}" for flag in self.defaults)
                raise InputError(f"--{name} {value}: not for task {self.name}, which takes {own}")
        chosen = {name: value for name, value in {**self.defaults, **given}.items() if value is not None}
        if "views" in chosen and chosen["views"] < 1:
            raise InputError(f"--views {chosen['views']}: give at least 1 view")
        if "angle_range" in chosen and not 0 < chosen["angle_range"] <= 360:
            given_range = f"--angle_range {chosen['angle_range']:g}"
            raise InputError(f"{given_range}: give degrees above 0, up to 180 (360 of what was measured)")
        if "acc" in chosen and not (math.isfinite(chosen["acc"]) and chosen["acc"] >= 1):
            raise InputError(f"--acc {chosen['acc']:g}: an acceleration is at least 1 (8 means one sample in eight)")
        if "mask" in chosen and chosen["mask"] not in MASKS:
            raise InputError(f"--mask {chosen['mask']}: unknown; there are {', '.join(MASKS)}")
        if "coils" in chosen and chosen["coils"] < 1:
            raise InputError(f"--coils {chosen['coils']}: give at least 1 receive coil")
        for name in ("photons", "snr"):
            value = chosen.get(name)
            if value is not None and not (math.isfinite(value) and (name == "snr" or value > 0)):
                right = "decibels, such as 30" if name == "snr" else "a positive number a ray, such as 1e5"
                raise InputError(f"--{name} {value:g}: give {right}")
        return chosen

    def check_simulated(self, settings: dict[str, Any]) -> None:
        """Raise where settings, though fine for a measurement, are not for one that is simulated."""
        if settings.get("angle_range", 0.0) > 180:
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

    def noise_std(self, y: Tensor, snr: float | None = None, **_: Any) -> float:
        """Standard deviation, in each part, of the noise that k-space is given; 0 where there is none."""
        return 0.0 if snr is None else noise_sigma(y, snr) / math.sqrt(2)

    def build_operator(
        self, image_size: int, pixel_size: float = 1.0, *, seed: int = 0, complex: bool = False, **settings: Any
    ) -> LinearOperator:
        """The operator for slices of ``image_size`` pixels of ``pixel_size`` mm, from the task's settings; that of MRI
        acts on complex volumes, or on magnitudes.

        Raises:
            InputError: settings that cannot be, see ``settings``; a mask that cannot be made; over 180 degrees, since
                parallel views repeat themselves from there on.
        """
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


MODEL_ERROR = 0.05
"""What line integrals are wrong by beside their noise. It keeps rays through air, with next to no counting noise, from
outweighing those through the body by so much that a few conjugate gradient steps get nowhere (benchmarks/noise.py)."""

CT_RANGE = 3 * MU_WATER
"""-1000 to 2000 HU, in 1/mm."""


def tuned_file(task: str) -> Path:
    """Where ``benchmarks/tune.py`` keeps the options that it found for a task."""
    return packaged("configs") / "tuned" / f"{task}.yaml"


def _tuned(task: str) -> dict[str, dict[str, Any]]:
    """``options`` and ``noisy`` of a task."""
    options = yaml.safe_load(tuned_file(task).read_text())
    return {"noisy": options.pop("noisy", {}), "options": options}


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sv_ct", "ct", {"views": 8, "angle_range": 180.0, "photons": None}, CT_RANGE, **_tuned("sv_ct")),
        Task("la_ct", "ct", {"views": 90, "angle_range": 90.0, "photons": None}, CT_RANGE, **_tuned("la_ct")),
        Task(
            "cs_mri",
            "mri",
            {"acc": 8.0, "mask": "gaussian1d", "phase": False, "coils": None, "snr": None},
            None,
            **_tuned("cs_mri"),
        ),
    )
}


def get_task(name: str) -> Task:
    """The task called ``name``, or an InputError that lists them."""
    if name not in TASKS:
        raise InputError(f"--task {name}: unknown; there are {', '.join(TASKS)}")
    return TASKS[name]
