"""Scans that were really measured: a tooth from 181, 36 and 12 views, and a brain of 16 coils 1, 4 and 8 times faster.

    python benchmarks/measured.py --data ../shared/data --output docs/figures

Reads the raw files as `predict --data.measurement` does, reconstructs a slice by the direct method, ADMM-TV and `dds`,
and draws `measured_tooth.png` and `measured_brain.png`. The figure under a picture is its PSNR against the direct
reconstruction of everything that was measured (tooth: with the Hann filter), which has noise of its own, and the data
residual.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement, MeasurementOptions, read_measurement
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.methods.priors import load_task_prior
from lightning_mbir.reconstruction import TASKS, reconstruct
from lightning_mbir.reconstruction.measured import measured_operator, part_of

TOOTH, BRAIN = "raw/tooth_parallel_projections.h5", "raw/brain_gre_16ch_128x128.npz"

RAMP: dict[str, dict[str, object]] = {"fbp": {}}
"""FBP as it is; with a window it would be the reference."""
NOISY: dict[str, dict[str, object]] = {"admm_tv": {"rho": 0.003, "lam": 2e-3, "isotropic": True}}
"""For k-space with noise: what was tuned without any would fit it."""


def compare(measurement: Measurement, parts: list[dict[str, float]], labels: list[str], file: Path) -> None:
    """One row for each part of the measurement, one column a method."""
    ct = measurement.modality == "ct"
    options = TASKS["sv_ct" if ct else "cs_mri"].options | (RAMP if ct else NOISY)
    prior = load_task_prior(None, measurement.modality, complex=not ct)
    methods = ["fbp" if ct else "zero_filled", "admm_tv", "dds"]
    reference: Tensor | None = None
    figure = Figure(figsize=(9, 3.1 * len(parts)), facecolor="black", layout="constrained")
    axes = figure.subplots(len(parts), len(methods), squeeze=False)
    print("| measured | method | PSNR | residual | seconds |\n|---|---|---|---|---|")
    for row, (flags, label) in enumerate(zip(parts, labels, strict=True)):
        part = part_of(measurement, **flags)
        operator = measured_operator(part)
        for column, method in enumerate(methods):
            result = reconstruct(
                part.y,
                operator,
                prior,
                method,
                calibrated=part.calibrated,
                noise_std=part.noise_std,
                **options.get(method, {}),
            )
            image = result.volume[0].abs() if not ct else result.volume[0]
            if reference is None:  # of everything, by a method that adds nothing
                reference = image
                if ct:
                    reference = reconstruct(part.y, operator, method="fbp", filter="hann").volume[0]
            white = magnitude_percentile(reference)
            psnr = -20 * torch.log10((image - reference).square().mean().sqrt() / white)
            ax = axes[row, column]
            ax.imshow(image.flip(0).numpy(), cmap="gray", vmin=0, vmax=white)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel(f"{psnr:.1f} dB, residual {result.residual:.3f}", color="white")
            if row == 0:
                ax.set_title(method, color="white")
            if column == 0:
                ax.set_ylabel(label, color="white")
            cells = f"{psnr:.2f} | {result.residual:.4f} | {result.seconds:.0f}"
            print(f"| {label} | {method} | {cells} |", flush=True)
    figure.savefig(file, dpi=100, facecolor="black")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"font.size": 9})
    tooth = read_measurement(args.data / TOOTH, "ct", MeasurementOptions(image_size=256))
    tooth = replace(tooth, y=tooth.y[:1])
    views = (181, 36, 12)
    compare(tooth, [{"views": n} for n in views], [f"{n} views" for n in views], args.output / "measured_tooth.png")
    brain = read_measurement(args.data / BRAIN, "mri", MeasurementOptions(axes="coil y x"))
    parts: list[dict[str, float]] = [{}, {"acc": 4.0}, {"acc": 8.0}]
    compare(brain, parts, ["everything", "a quarter", "an eighth"], args.output / "measured_brain.png")


if __name__ == "__main__":
    main()
