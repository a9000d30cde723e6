"""The tables of docs/results.md: tasks, accelerations and methods on volumes that neither priors nor tuning have seen.

    python benchmarks/sweep.py --data ../shared/data --output outputs/sweep --parts headline --threads 1
    python benchmarks/sweep.py --data ../shared/data --output outputs/sweep --parts noiseless noisy other

Each setting is a run of ``python -m lightning_mbir test --methods ...`` into a folder of its own, with its seed and the
revision are kept; it goes on where it stopped. Prints the tables as Markdown. Volumes are 32 slices at
128 x 128 pixels. ``--show`` prints what is there and runs nothing. Supervised networks, of ``fit_unet``, are looked for
as ``NETWORKS/<task>/unet.safetensors`` and left out where they are not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_mbir.cli import main as lightning_mbir

CHEST, THIGH = "ct/test/lungfcp0001_chest.nii.gz", "ct/test/sts004_thigh_ood.nii.gz"
T1W, FLAIR = "mri/test/openms_p04_T1W.nii.gz", "mri/test/openms_p04_FLAIR.nii.gz"
SLICES = {CHEST: "16:48", THIGH: "16:48", T1W: "8:40", FLAIR: "8:40"}
FEW = {"ct": ("fbp", "admm_tv", "dds"), "mri": ("zero_filled", "admm_tv", "dds")}
ALL = {
    "ct": (
        *("fbp", "sirt", "cgls", "admm_tv", "fbp_unet"),
        *("score_slices", "mcg", "dps", "diffpir", "tpdm", "diffusion_mbir", "dds"),
    ),
    "mri": (
        *("zero_filled", "cgls", "l1_wavelet", "admm_tv", "fbp_unet"),
        *("score_slices", "mcg", "dps", "diffpir", "tpdm", "diffusion_mbir", "dds"),
    ),
}
STEPS = {"diffusion_mbir": 60}
"""Noise levels, where the default number would take hours; benchmarks/levels.py has diffusion_mbir at 2000."""


@dataclass(frozen=True)
class Setting:
    """A run: what it is called, the volume, the flags, and whether all methods or a few are compared."""

    name: str
    volume: str
    flags: tuple[str, ...]
    all_methods: bool = False
    samples: int = 1

    @property
    def task(self) -> str:
        return self.flags[1]

    @property
    def methods(self) -> tuple[str, ...]:
        modality = "mri" if self.task == "cs_mri" else "ct"
        if self.samples > 1:
            return ("dds",)
        return (ALL if self.all_methods else FEW)[modality]


SV8, LA90 = ("--task", "sv_ct", "--views", "8"), ("--task", "la_ct", "--angle_range", "90", "--views", "90")


def mri(acc: int, mask: str) -> tuple[str, ...]:
    return ("--task", "cs_mri", "--acc", str(acc), "--mask", mask)


HEADLINE = (("8 views", CHEST, SV8), ("90 degrees", CHEST, LA90), ("x8 gaussian1d", T1W, mri(8, "gaussian1d")))
PARTS: dict[str, list[Setting]] = {
    "headline": [Setting(name, volume, flags, all_methods=True) for name, volume, flags in HEADLINE],
    "mean": [Setting(f"{name}, mean of 4 samples", volume, flags, samples=4) for name, volume, flags in HEADLINE],
    "noiseless": [
        *(Setting(f"{n} views", CHEST, ("--task", "sv_ct", "--views", str(n))) for n in (8, 4, 2)),
        *(
            Setting(f"{n} degrees", CHEST, ("--task", "la_ct", "--angle_range", str(n), "--views", str(n)))
            for n in (120, 90, 60)
        ),
        *(
            Setting(f"x{acc} {mask}", T1W, mri(acc, mask))
            for mask in ("uniform1d", "gaussian1d")
            for acc in (2, 4, 8, 12)
        ),
        *(Setting(f"x8 {mask}", T1W, mri(8, mask)) for mask in ("gaussian2d", "poisson2d")),
        Setting("FLAIR, x8 gaussian1d", FLAIR, mri(8, "gaussian1d")),
    ],
    "noisy": [
        Setting("8 views, 1e5 photons", CHEST, (*SV8, "--photons", "1e5")),
        Setting("90 degrees, 1e5 photons", CHEST, (*LA90, "--photons", "1e5")),
        Setting("x8 gaussian1d, 25 dB", T1W, (*mri(8, "gaussian1d"), "--snr", "25")),
        Setting("x4 uniform1d, 25 dB", T1W, (*mri(4, "uniform1d"), "--snr", "25")),
    ],
    "other": [
        Setting("thigh, 8 views, prior ct", THIGH, SV8),
        Setting("thigh, 90 degrees, prior ct", THIGH, LA90),
        Setting("thigh, 8 views, prior phantom", THIGH, (*SV8, "--prior", "phantom")),
        Setting("8 views, prior mri", CHEST, (*SV8, "--prior", "mri")),
        Setting("8 views, prior phantom", CHEST, (*SV8, "--prior", "phantom")),
        Setting("90 degrees, prior phantom", CHEST, (*LA90, "--prior", "phantom")),
        Setting("x8 gaussian1d, prior ct", T1W, (*mri(8, "gaussian1d"), "--prior", "ct")),
        Setting("x8 gaussian1d, prior phantom", T1W, (*mri(8, "gaussian1d"), "--prior", "phantom")),
    ],
}


def folder(output: Path, setting: Setting) -> Path:
    kind = "all" if setting.all_methods else "few"  # results.json has what the last run into a folder asked for
    return output / "".join(c if c.isalnum() else "_" for c in f"{kind} {setting.task} {setting.name}")


def run(setting: Setting, args: argparse.Namespace) -> None:
    methods = list(setting.methods)
    flags = [*setting.flags, "--seed", str(args.seed), "--output_dir", str(folder(args.output, setting))]
    flags += ["--data.path", str(args.data / setting.volume), "--data.slices", SLICES[setting.volume]]
    network = args.networks / setting.task / "unet.safetensors"
    if "fbp_unet" in methods and network.is_file():
        flags += ["--network", str(network)]
    elif "fbp_unet" in methods:
        methods.remove("fbp_unet")
    if "tpdm" in methods:
        flags += ["--second_prior", args.second_prior or ("mri" if setting.task == "cs_mri" else "ct")]
    options = {name: {"steps": steps} for name, steps in STEPS.items() if name in methods}
    flags += ["--methods", ",".join(methods), "--trainer.accelerator", args.accelerator, "--trainer.devices", "1"]
    flags += ["--model.method_options", json.dumps(options)] if options else []
    flags += ["--samples", str(setting.samples)] if setting.samples > 1 else []
    print("python -m lightning_mbir test", *(f"'{flag}'" if "{" in flag else flag for flag in flags), flush=True)
    if lightning_mbir(["test", *flags]) != 0:
        print(f"{setting.name}: not all methods could be scored")


def table(settings: list[Setting], output: Path) -> str:
    """One line a setting and method: PSNR of the planes and what dds is above ADMM-TV in each."""
    lines = [
        "| setting | method | axial | coronal | sagittal | volume | residual | NFE | seconds | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for setting in settings:
        path = folder(output, setting) / setting.task / "comparison" / "results.json"
        if not path.is_file():
            continue
        rows: list[dict[str, Any]] = json.loads(path.read_text())
        for row in rows:
            if "error" in row:
                lines.append(f"| {setting.name} | {row['method']} | {row['error']} | | | | | | | |")
                continue
            planes = [row[plane] for plane in ("axial", "coronal", "sagittal")]
            scores = " | ".join(f"{plane['psnr']:.2f} / {plane['ssim']:.3f}" for plane in planes)
            name = f"{row['method']}, mean of {row['samples']}" if row["samples"] > 1 else row["method"]
            cost = f"{row['nfe']} | {row['seconds']:.0f} | {row['peak_mib'] or 0:.0f}"
            fit = f"{row['volume_psnr']:.2f} | {row['residual']:.1e}"
            lines.append(f"| {setting.name} | {name} | {scores} | {fit} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=Path("outputs/sweep"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--tasks", nargs="+", default=["sv_ct", "la_ct", "cs_mri"])
    parser.add_argument("--networks", type=Path, default=Path("outputs/unet"))
    parser.add_argument("--second_prior", default=None, help="prior of coronal slices; the axial one by default")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    if args.data is None and not args.show:
        parser.error("give --data, the folder with ct/test and mri/test")
    torch.set_num_threads(args.threads)
    for part in args.parts:
        settings = [setting for setting in PARTS[part] if setting.task in args.tasks]
        for setting in [] if args.show else settings:
            run(setting, args)
        print(f"\n### {part}\n\n{table(settings, args.output)}")


if __name__ == "__main__":
    main()
