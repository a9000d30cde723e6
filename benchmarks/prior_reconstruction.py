"""What priors are worth where it counts: `dds` with each of them, and ADMM-TV, on the same measurements.

    python benchmarks/prior_reconstruction.py --data ../shared/data --group held_out --priors ct new/prior.safetensors

Groups: `held_out` (patients whom no training saw, for choosing), `ct_test`, `ct_ood` and `disc` (an acrylic disc that
was measured in a fan beam, against ADMM-TV from all 121 views), `mri_held_out`, `mri_test`, `knee`. All with the
options of the task. Prints a Markdown line as each is done: PSNR in the planes, in dB, and seconds.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imsave
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.methods.tasks import TASKS
from lightning_mbir.physics import FanBeam
from lightning_mbir.physics.noise import projection_noise
from lightning_mbir.prior import SliceDenoiser, load_prior
from lightning_mbir.reconstruction import reconstruct
from lightning_mbir.reconstruction.case import Case, simulate
from lightning_mbir.reconstruction.measured import estimated_noise, measured_operator, part_of
from lightning_mbir.report.metrics import image_metrics

PLANES = ("axial", "coronal", "sagittal")
EIGHT = ("8 views", "sv_ct", {"views": 8})
SIMULATED = {
    "held_out": ([EIGHT], ["ct/train/acrin013_chest 20:32", "ct/train/tcgabca10w_abdomen 24:36"]),
    "ct_test": (
        [EIGHT, ("90 degrees", "la_ct", {"angle_range": 90.0})],
        ["ct/test/lungfcp0001_chest 40:72", "ct/test/riderpilot0109_chest 16:48"],
    ),
    "ct_ood": (
        [EIGHT, ("90 degrees", "la_ct", {"angle_range": 90.0})],
        [
            "ct/test/sts004_thigh_ood 24:56", "ct/ood/sts013_thigh_knee 40:72", "ct/ood/sts028_lowerleg 20:52",
            "ct/ood/sts037_shoulder 20:52",
        ],
    ),
    "mri_held_out": (
        [("x8", "cs_mri", {"acc": 8.0})],
        ["mri/train/openms_p20_T1W 16:28", "mri/train/openms_p20_FLAIR 16:28", "mri/train/adi_T1 30:42",
         "mri/train/adi_T2 12:24"],
    ),
    "mri_test": (
        [("x8", "cs_mri", {"acc": 8.0})],
        ["mri/test/openms_p04_T1W 8:40", "mri/test/openms_p04_FLAIR 8:40", "mri/test/tcgabc4073_liver_T2_ood"],
    ),
}  # fmt: skip
"""Settings and volumes with the slices that are taken of them."""


def simulated(data: Path, group: str, size: int) -> list[tuple[str, str, Case]]:
    """Names, tasks and measurements of a group."""
    settings, volumes = SIMULATED[group]
    found = []
    for volume in volumes:
        name, _, slices = volume.partition(" ")
        for label, task, setting in settings:
            module = VolumeDataModule(
                data / f"{name}.nii.gz", modality=TASKS[task].modality, image_size=size, slices=slices or None
            )
            case = simulate(module.scan(0), TASKS[task], TASKS[task].settings(**setting), 0, has_phase=False)
            found.append((f"{case.name}, {label}", task, case))
    return found


def disc(data: Path, size: int) -> list[tuple[str, str, Case]]:
    """The acrylic disc from 20 and 60 of its views, with ADMM-TV from all of them as its truth."""
    file = np.load(data / "raw/htc2022_ta_fan_60deg.npz")
    source, detector, pitch = (
        float(file[key]) for key in ("source_origin_mm", "source_detector_mm", "detector_pitch_mm")
    )
    sinogram, angles = torch.from_numpy(file["sinogram"])[None], torch.from_numpy(file["angles_deg"])
    pixel = sinogram.shape[-1] * pitch * source / detector / size

    def fan(views: Tensor) -> FanBeam:
        return FanBeam(
            size, angles[views], source_distance=source, detector_distance=detector - source, pixel_size=pixel,
            n_detectors=sinogram.shape[-1], detector_spacing=pitch,
        )  # fmt: skip

    everything = torch.arange(len(angles))
    truth = reconstruct(sinogram, fan(everything), method="admm_tv", lam=1e-3, steps=600, calibrated=False).volume
    found = []
    for count in (20, 60):
        views = torch.linspace(0, len(angles) - 1, count).round().long()
        operator = cache(lambda _, views=views: fan(views))
        y = sinogram[:, views]
        case = Case(
            "disc", operator, y, (1.0, pixel, pixel), truth=truth, calibrated=False, noise_std=projection_noise(y)
        )
        found.append((f"disc, {count} views over 60 degrees", "sv_ct", case))
    return found


def knee(data: Path) -> list[tuple[str, str, Case]]:
    """A quarter and an eighth of the k-space of a knee; its truth is the image of all of it."""
    whole = read_measurement(data / "raw/knee_cor_fatsat_1ch_332x640.npz", "mri", MeasurementOptions(axes="y x"))
    truth = measured_operator(whole).adjoint(whole.y).abs()
    found = []
    for acc in (4.0, 8.0):
        part = part_of(whole, acc=acc)
        operator, noise = cache(lambda complex, part=part: measured_operator(part, complex)), estimated_noise(part)
        case = Case("knee", operator, part.y, (1.0, 1.0, 1.0), truth=truth, noise_std=part.noise_std or noise)
        found.append((f"knee, x{acc:g}", "cs_mri", case))
    return found


def score(volume: Tensor, case: Case, ct: bool) -> str:
    """PSNR in the planes; of CT with the task's range where attenuation is known."""
    assert case.truth is not None
    known = ct and case.calibrated
    peak = TASKS["sv_ct"].data_range if known else magnitude_percentile(case.truth)
    found = image_metrics(volume.abs() if volume.is_complex() else volume, case.truth, float(peak or 1.0))
    return " ".join(f"{found[plane]['psnr']:.2f}" for plane in PLANES[: 1 if len(volume) == 1 else 3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--group", nargs="+", default=["held_out"], choices=[*SIMULATED, "disc", "knee"])
    parser.add_argument("--priors", nargs="+", default=["ct"])
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--pictures", type=Path, help="a folder for the middle slices")
    parser.add_argument("--steps", type=int, help="noise levels of dds [the task's]")
    parser.add_argument("--lam", type=float, help="of its total variation along z [the task's]")
    parser.add_argument("--no_tv", action="store_true", help="leave ADMM-TV out")
    args = parser.parse_args()
    print("| measurement | method | PSNR, dB (axial, coronal, sagittal) | seconds |\n|---|---|---|---|")
    for group in args.group:
        cases = (
            disc(args.data, args.image_size) if group == "disc"
            else knee(args.data) if group == "knee" else simulated(args.data, group, args.image_size)
        )  # fmt: skip
        for name, task, case in cases:
            run(name, task, case, args)


def run(name: str, task: str, case: Case, args: argparse.Namespace) -> None:
    """All methods on a measurement."""
    ct = TASKS[task].modality == "ct"
    methods: dict[str, SliceDenoiser | None] = {} if args.no_tv else {"ADMM-TV": None}
    methods |= {prior: load_prior(prior) for prior in args.priors}
    shown = [case.truth] if case.truth is not None else []
    for label, prior in methods.items():
        method = "dds" if prior else "admm_tv"
        is_complex = not ct and (prior.complex if prior else "knee" in name)
        given = case.y, case.operator(is_complex), prior, method
        options = TASKS[task].tuned(method, noisy=not case.calibrated or "knee" in name)
        options |= {name: getattr(args, name) for name in ("steps", "lam") if prior and getattr(args, name) is not None}
        settings = {"modality": TASKS[task].modality, "volume": case.name, "calibrated": case.calibrated}
        done = reconstruct(*given, **settings, spacing=case.spacing, **options)
        print(f"| {name} | {label} | {score(done.volume, case, ct)} | {done.seconds:.0f} |", flush=True)
        shown.append(done.volume.abs() if done.volume.is_complex() else done.volume)
    if args.pictures and shown:
        args.pictures.mkdir(parents=True, exist_ok=True)
        middle = torch.cat([volume[len(volume) // 2].flip(0) for volume in shown], 1)
        white = float(magnitude_percentile(shown[0]))
        imsave(
            args.pictures / f"{name.replace(' ', '_').replace(',', '')}.png",
            middle.numpy(),
            cmap="gray",
            vmin=0,
            vmax=white,
        )


if __name__ == "__main__":
    main()
