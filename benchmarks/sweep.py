"""The tables of docs/results.md: tasks, accelerations and methods on volumes that neither priors nor tuning have seen.

    python benchmarks/sweep.py --data ../shared/data --output outputs/sweep --parts headline --threads 1
    python benchmarks/sweep.py --data ../shared/data --output outputs/sweep --parts noiseless noisy other

Each setting is a run of ``python -m lightning_mbir test --methods ...`` into a folder of its own, with its seed and
the revision; it goes on where it stopped. Volumes are 32 slices at 128 x 128 pixels. Prints the tables as Markdown;
``--write docs/results.md README.md`` puts their rows between the comments ``<!-- NAME -->`` and ``<!-- end -->`` of
those files, in the place of the rows of the same setting and method; others stay, so that after a new prior only
``--tasks sv_ct la_ct --methods dds tpdm`` have to run. ``--show`` runs nothing. Supervised networks, of ``fit_unet``,
are looked for as ``NETWORKS/<task>/unet.safetensors``; without them ``fbp_unet`` is left out. The second prior of
``tpdm`` is ``ct_coronal``; for MRI, of which no prior of coronal slices was trained, it is the axial one.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lightning_mbir.cli import main as lightning_mbir
from lightning_mbir.files import write_whole
from lightning_mbir.reconstruction import TASKS

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


NOISE = {"ct": ("1e5 photons", "--photons", "1e5"), "mri": ("25 dB", "--snr", "25")}
COILS: dict[str, dict[str, Any]] = {"admm_tv": {"rho": 0.015, "lam": 2e-3}}
"""Options for 8 coils, searched with that noise on the held-out patients (docs/method.md)."""


@dataclass(frozen=True)
class Setting:
    """A run.

    Attributes:
        name: what it is called.
        volume: of the data.
        flags: of the measurement and the prior.
        all_methods: whether all methods or a few are compared.
        samples: of dds, whose mean is then scored.
        more: further methods.
        options: by method, beside those of the task.
        base: name of the setting with the same measurement, whose results without a prior are shown; only dds is run.
    """

    name: str
    volume: str
    flags: tuple[str, ...]
    all_methods: bool = False
    samples: int = 1
    more: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: str | None = None

    @property
    def task(self) -> str:
        return self.flags[1]

    @property
    def methods(self) -> tuple[str, ...]:
        if self.samples > 1 or self.base:
            return ("dds",)
        return (*self.more, *(ALL if self.all_methods else FEW)[TASKS[self.task].modality])

    @property
    def noisy(self) -> Setting:
        """The same with noise, for which tasks have options of their own."""
        noise, *flags = NOISE[TASKS[self.task].modality]
        return replace(self, name=f"{self.name}, {noise}", flags=(*self.flags, *flags))

    def with_prior(self, prior: str) -> Setting:
        """dds with another prior."""
        name, flags = f"{self.name}, prior {prior}", (*self.flags, "--prior", prior)
        return replace(self, name=name, flags=flags, base=self.name)


def views(number: int) -> Setting:
    return Setting(f"{number} views", CHEST, ("--task", "sv_ct", "--views", str(number)))


def degrees(number: int) -> Setting:
    flags = ("--task", "la_ct", "--angle_range", str(number), "--views", str(number))
    return Setting(f"{number} degrees", CHEST, flags)


def mri(acc: int, mask: str) -> Setting:
    return Setting(f"x{acc} {mask}", T1W, ("--task", "cs_mri", "--acc", str(acc), "--mask", mask))


def thigh(setting: Setting) -> Setting:
    return replace(setting, name=f"thigh, {setting.name}", volume=THIGH)


HEADLINE = (views(8), degrees(90), mri(8, "gaussian1d"))
CT = (*map(views, (8, 4, 2)), *map(degrees, (120, 90, 60)))
MRI = (
    *(mri(acc, mask) for mask in ("uniform1d", "gaussian1d") for acc in (2, 4, 8, 12)),
    *(mri(8, mask) for mask in ("gaussian2d", "poisson2d")),
)
PARTS: dict[str, list[Setting]] = {
    "headline": [replace(setting, all_methods=True) for setting in HEADLINE],
    "mean": [replace(setting, name=f"{setting.name}, mean of 4 samples", samples=4) for setting in HEADLINE],
    "noiseless": [
        *(*CT, *MRI),
        replace(mri(8, "gaussian1d"), name="FLAIR, x8 gaussian1d", volume=FLAIR, more=("diffpir", "tpdm")),
    ],
    "noisy": [setting.noisy for setting in (*CT, *MRI)],
    "coils": [
        replace(
            setting.noisy,
            name=f"8 coils, {setting.noisy.name}",
            flags=(*setting.noisy.flags, "--coils", "8"),
            more=("sense", "l1_wavelet"),
            options=COILS,
        )
        for setting in (mri(4, "equispaced"), mri(8, "gaussian1d"))
    ],
    "other": [
        *map(thigh, CT),
        *(thigh(setting).with_prior("phantom") for setting in CT),
        *(setting.with_prior("mri") for setting in CT),
        mri(8, "gaussian1d").with_prior("ct"),
        *(setting.with_prior("phantom") for setting in (*CT, *MRI)),
    ],
}


NAMED = {setting.name: setting for part in PARTS.values() for setting in part if not setting.all_methods}


def folder(output: Path, setting: Setting) -> Path:
    kind = "all" if setting.all_methods else "few"  # results.json has what the last run into a folder asked for
    name = f"{kind} {setting.task} {setting.name}"
    return output / "".join(c if c.isalnum() else "_" for c in name)


def run(setting: Setting, args: argparse.Namespace) -> None:
    methods = [name for name in setting.methods if not args.methods or name in args.methods]
    if not methods:
        return
    flags = [*setting.flags, "--seed", str(args.seed), "--output_dir", str(folder(args.output, setting))]
    flags += ["--data.path", str(args.data / setting.volume), "--data.slices", SLICES[setting.volume]]
    # The size and the precision of all tables, whatever the machine does well.
    flags += ["--data.image_size", "128", "--model.precision", "float32"]
    network = args.networks / setting.task / "unet.safetensors"
    if "fbp_unet" in methods and network.is_file():
        flags += ["--network", str(network)]
    elif "fbp_unet" in methods:
        methods.remove("fbp_unet")
    if "tpdm" in methods:
        flags += ["--second_prior", "mri" if setting.task == "cs_mri" else "ct_coronal"]
    options = {name: {"steps": steps} for name, steps in STEPS.items() if name in methods}
    options |= {name: chosen for name, chosen in setting.options.items() if name in methods}
    flags += ["--methods", ",".join(methods), "--trainer.accelerator", args.accelerator, "--trainer.devices", "1"]
    flags += ["--model.method_options", json.dumps(options)] if options else []
    flags += ["--samples", str(setting.samples)] if setting.samples > 1 else []
    print("python -m lightning_mbir test", *(f"'{flag}'" if "{" in flag else flag for flag in flags), flush=True)
    status = lightning_mbir(["test", *flags])
    if status not in (0, 1):  # of 1 the table has the reason
        raise SystemExit(f"{setting.name}: could not be run")


PLANES = ("axial", "coronal", "sagittal")


def rows(setting: Setting, output: Path) -> list[dict[str, Any]]:
    path = folder(output, setting) / setting.task / "comparison" / "results.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return found


def scores(row: dict[str, Any]) -> str:
    return " | ".join(f"{row[plane]['psnr']:.2f} / {row[plane]['ssim']:.3f}" for plane in PLANES)


def whole_table(settings: list[Setting], output: Path) -> str:
    """All methods with all that was measured, one a line."""
    lines = [
        "| setting | method | axial | coronal | sagittal | volume | NRMSE | residual | NFE | seconds | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for setting in settings:
        for row in rows(setting, output):
            if "error" in row:
                lines.append(f"| {setting.name} | {row['method']} | {row['error']} | | | | | | | | |")
                continue
            name = f"{row['method']}, mean of {row['samples']}" if row["samples"] > 1 else row["method"]
            cost = f"{row['nfe']} | {row['seconds']:.0f} | {row['peak_mib'] or 0:.0f}"
            fit = f"{row['volume_psnr']:.2f} / {row['volume_ssim']:.3f} | {row['nrmse']:.3f} | {row['residual']:.1e}"
            lines.append(f"| {setting.name} | {name} | {scores(row)} | {fit} | {cost} |")
    return "\n".join(lines)


def gain_table(settings: list[Setting], output: Path) -> str:
    """PSNR of the three planes of the direct inversion, ADMM-TV and dds, and what dds gains, a setting a line."""
    lines = ["| setting | FBP, zero-filled | ADMM-TV | dds | dds over ADMM-TV |", "|---|---|---|---|---|"]
    for setting in settings:
        scored = rows(setting, output)
        if setting.base:
            scored = [row for row in rows(NAMED[setting.base], output) if row["method"] != "dds"] + scored
        planes = {row["method"]: [row[p]["psnr"] for p in PLANES] for row in scored if "error" not in row}
        if "dds" not in planes:
            continue
        direct = planes.get("zero_filled", planes.get("fbp", []))
        cells = [
            " ".join(f"{psnr:.2f}" for psnr in found) for found in (direct, planes.get("admm_tv", []), planes["dds"])
        ]
        lines.append(with_gains([setting.name, *cells]))
    return "\n".join(lines)


def with_gains(cells: list[str]) -> str:
    """A row of a setting and the PSNR of the direct inversion, ADMM-TV and dds, with what dds gains where both are."""
    theirs, ours = ([float(psnr) for psnr in cell.split()] for cell in cells[2:4])
    gains = " ".join(f"{one - other:+.2f}" for one, other in zip(ours, theirs, strict=False))
    return f"| {' | '.join(cells)} | {gains} |"


def completed(row: str, before: str) -> str:
    """A row of gains in which what has no prior, where it was not run again, is as the document has it."""
    cells, there = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (row, before))
    return with_gains([new or old for new, old in zip(cells[:4], there[:4], strict=True)])


TABLES: dict[str, tuple[Callable[[list[Setting], Path], str], list[Setting]]] = {
    "headline": (whole_table, PARTS["headline"] + PARTS["mean"]),
    "noiseless": (gain_table, PARTS["noiseless"]),
    "noisy": (gain_table, PARTS["noisy"]),
    "coils": (whole_table, PARTS["coils"]),
    "other": (gain_table, PARTS["other"]),
    "readme": (gain_table, PARTS["headline"]),
}
"""By the name that documents call them: how they are made, and of what."""


def write(path: Path, name: str, lines: str) -> None:
    """Put the rows of a table where the document has them, by their first two cells, or the first of gains."""
    text = path.read_text()
    place = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    if not place:
        return
    keys = 1 if TABLES[name][0] is gain_table else 2

    def key(row: str) -> str:
        return "|".join(row.split("|")[1 : keys + 1])

    new = {key(row): row for row in lines.splitlines()}
    there = place[1].splitlines()
    rows = [new.pop(key(row), row) for row in there]
    if keys == 1:
        rows = [row if row == old else completed(row, old) for row, old in zip(rows, there, strict=True)]
    table = "\n".join([*rows, *new.values()])
    write_whole(path, f"{text[: place.start(1)]}{table}{text[place.end(1) :]}".encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=Path("outputs/sweep"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--tasks", nargs="+", default=["sv_ct", "la_ct", "cs_mri"])
    parser.add_argument("--methods", nargs="+", help="only these of each setting [all of it]")
    parser.add_argument("--networks", type=Path, default=Path("outputs/unet"))
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--write", nargs="+", type=Path, default=[])
    args = parser.parse_args()
    if args.seed:
        args.output = args.output / f"seed_{args.seed}"
    if args.data is None and not args.show:
        parser.error("give --data, the folder with ct/test and mri/test")
    torch.set_num_threads(args.threads)
    for part in [] if args.show else args.parts:
        for setting in PARTS[part]:
            if setting.task in args.tasks:
                run(setting, args)
    for name, (make, settings) in TABLES.items():
        print(f"\n### {name}\n\n{make(settings, args.output)}")
        for path in args.write:
            write(path, name, make(settings, args.output))


if __name__ == "__main__":
    main()
