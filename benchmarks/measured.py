"""Scans that were really measured, each from its file as it is and from parts of it, by three methods.

    python benchmarks/measured.py --data ../shared/data --output docs/figures

Reads the raw files as `predict --data.measurement` does, reconstructs a slice by the direct method, ADMM-TV and `dds`,
and draws `measured_NAME.png`; `--only tooth disc` for some of them. The figure under a picture is its PSNR against the
direct reconstruction of everything that was measured (CT: with the Hann filter; the disc: ADMM-TV, as 60 degrees are
too few for the direct one), which has noise of its own, and the data residual. `rings` draws the dendrite at the size
of its detector, without and with `--data.correct rings`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.units import Modality, magnitude_percentile
from lightning_mbir.methods.priors import load_task_prior
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.reconstruction import TASKS, reconstruct
from lightning_mbir.reconstruction.measured import estimated_noise, measured_operator, part_of
from lightning_mbir.solvers import fbp

DENDRITE = "dendrite_parallel_sinogram.npz"
RAMP: dict[str, dict[str, object]] = {"fbp": {}}
"""FBP as it is; with a window it would be the reference."""
NOISY: dict[str, dict[str, object]] = {"admm_tv": {"rho": 0.003, "lam": 2e-3, "isotropic": True}}
"""For k-space with noise: what was tuned without any would fit it."""


@dataclass(frozen=True)
class Scan:
    """A file, how it is read, and what is reconstructed of it.

    Attributes:
        file: below the folder `raw`.
        modality: of its measurement.
        options: how it is read.
        parts: flags of each row of pictures.
        labels: of each row.
        corrections: `--data.correct` of each row; none by default.
        task: whose options the methods take.
        reference: method of the image that others are compared with.
    """

    file: str
    modality: Modality
    options: dict[str, Any]
    parts: list[dict[str, float]]
    labels: list[str]
    corrections: list[tuple[str, ...]] = field(default_factory=list)
    task: str = "cs_mri"
    reference: str = "direct"


FASTER: list[dict[str, float]] = [{}, {"acc": 4.0}, {"acc": 8.0}]
SHARES = ["everything", "a quarter", "an eighth"]
SCANS = {
    "tooth": Scan(
        "tooth_parallel_projections.h5",
        "ct",
        {"image_size": 256, "slices": (0, 1)},
        [{"views": n} for n in (181, 36, 12)],
        [f"{n} views" for n in (181, 36, 12)],
        task="sv_ct",
    ),
    "disc": Scan(
        "htc2022_ta_fan_60deg.npz",
        "ct",
        {"image_size": 128},
        [{}, {"angle_range": 30.0}],
        ["60 degrees", "30 degrees"],
        task="sv_ct",
        reference="admm_tv",
    ),
    "dendrite": Scan(
        DENDRITE,
        "ct",
        {"image_size": 96},
        [{"views": n} for n in (360, 360, 60, 60, 20, 20)],
        [f"{n} views{how}" for n in (360, 60, 20) for how in (", rings corrected", "")],
        [("rings",), ()] * 3,
        task="sv_ct",
    ),
    "brain": Scan("brain_gre_16ch_128x128.npz", "mri", {"axes": "coil y x"}, FASTER, SHARES),
    "twix": Scan("brain_gre_16ch_siemens_twix.dat", "mri", {"oversampling": 1.0}, FASTER[:2], SHARES[:2]),
    "knee": Scan("knee_cor_fatsat_1ch_332x640.npz", "mri", {"axes": "x y"}, FASTER[:2], SHARES[:2]),
    "phantom": Scan("phantom_gre_2ch_160x320.npz", "mri", {"axes": "coil x y"}, FASTER[:2], SHARES[:2]),
}


def compare(folder: Path, scan: Scan, file: Path) -> None:
    """One row for each part of the measurement, one column a method."""
    ct = scan.modality == "ct"
    prior = load_task_prior(None, scan.modality, complex=not ct)
    direct = "fbp" if ct else "zero_filled"
    methods = [direct, "admm_tv", "dds"]
    reference: Tensor | None = None
    figure = Figure(figsize=(9, 3.1 * len(scan.parts)), facecolor="black", layout="constrained")
    axes = figure.subplots(len(scan.parts), len(methods), squeeze=False)
    print("| measured | method | PSNR | residual | seconds |\n|---|---|---|---|---|")
    for row, (flags, label) in enumerate(zip(scan.parts, scan.labels, strict=True)):
        part = part_of(read(folder, scan, row), **flags)
        operator = measured_operator(part)
        options = {method: TASKS[scan.task].tuned(method, noisy=ct, views=part.views) for method in methods}
        options |= RAMP if ct else NOISY
        done = {
            method: reconstruct(
                part.y,
                operator,
                prior,
                method,
                calibrated=part.calibrated,
                noise_std=part.noise_std or estimated_noise(part),
                **options.get(method, {}),
            )
            for method in methods
        }
        images = {name: result.volume[0] if ct else result.volume[0].abs() for name, result in done.items()}
        if reference is None:  # of everything, by a method that adds nothing
            reference = images[direct if scan.reference == "direct" else scan.reference]
            if ct and scan.reference == "direct":
                reference = reconstruct(part.y, operator, method="fbp", filter="hann").volume[0]
        white = magnitude_percentile(reference)
        for column, (method, image) in enumerate(images.items()):
            psnr = -20 * torch.log10((image - reference).square().mean().sqrt() / white)
            ax = axes[row, column]
            shown(ax, image.flip(0), white)
            told = "reference" if image is reference else f"{psnr:.2f}"
            unit = "" if image is reference else " dB"
            ax.set_xlabel(f"{told}{unit}, residual {done[method].residual:.3f}", color="white")
            if row == 0:
                ax.set_title(method, color="white")
            if column == 0:
                ax.set_ylabel(label, color="white")
            cells = f"{told} | {done[method].residual:.4f} | {done[method].seconds:.0f}"
            print(f"| {label} | {method} | {cells} |", flush=True)
    figure.savefig(file, dpi=100 if len(scan.parts) < 4 else 60, facecolor="black")


def read(folder: Path, scan: Scan, row: int) -> Measurement:
    correct = scan.corrections[row] if scan.corrections else ()
    found = read_measurement(folder / scan.file, scan.modality, MeasurementOptions(**scan.options, correct=correct))
    if row == 0:
        print(f"\n{found.name}: {'; '.join(found.notes)}")
    return found


def shown(ax: Any, image: Tensor, white: float) -> None:
    ax.imshow(image.numpy(), cmap="gray", vmin=0, vmax=white)
    ax.set_xticks([])
    ax.set_yticks([])


def rings(folder: Path, file: Path) -> None:
    """The middle of the dendrite by FBP, a pixel a bin, without and with the correction, and what that takes away."""
    found = [read_measurement(folder / DENDRITE, "ct", MeasurementOptions(correct=how)) for how in ((), ("rings",))]
    images = []
    for scan in found:
        geometry = {**scan.geometry, "image_size": 420, "backend": "matrix_free"}
        geometry.pop("beam")
        images.append(fbp(scan.y, ParallelBeam(**geometry), filter="hann")[0])
    figure = Figure(figsize=(9, 3.4), facecolor="black", layout="constrained")
    white = 1.2 * magnitude_percentile(images[1])
    names = ("as measured", "rings corrected", "difference, 10 times")
    for ax, image, name in zip(
        figure.subplots(1, 3), (*images, 10 * (images[0] - images[1]).abs()), names, strict=True
    ):
        shown(ax, image, white)
        ax.set_title(name, color="white")
    print("\n" + "\n".join(note for note in found[1].notes if note.startswith("rings")))
    figure.savefig(file, dpi=100, facecolor="black")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--only", nargs="+", default=["rings", *SCANS], choices=["rings", *SCANS])
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"font.size": 9})

    for name in args.only:
        file = args.output / f"measured_{name}.png"
        if name == "rings":
            rings(args.data / "raw", file)
        else:
            compare(args.data / "raw", SCANS[name], file)


if __name__ == "__main__":
    main()
