"""The brain of 16 coils from its TWIX file, and from the virtual coils that hold 97 % of its energy.

    python benchmarks/scanner.py --data ../shared/data --output docs/figures

Draws `scanner_twix.png` and prints how far the second image is from the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.reconstruction.measured import measured_operator, part_of

BRAIN = "raw/brain_gre_16ch_siemens_twix.dat"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    args = parser.parse_args()
    figure = Figure(figsize=(6.2, 3.3), facecolor="black", layout="constrained")
    images: list[torch.Tensor] = []
    for ax, energy in zip(figure.subplots(1, 2), (None, 0.97), strict=True):
        options = MeasurementOptions(oversampling=1.0, coil_energy=energy)
        scan = part_of(read_measurement(args.data / BRAIN, "mri", options))
        image = measured_operator(scan).adjoint(scan.y)[0].abs()
        images.append(image)
        ax.imshow(image.flip(0).numpy(), cmap="gray", vmin=0, vmax=magnitude_percentile(image))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_title(f"{scan.y.shape[1]} coils" if energy is None else scan.notes[-1], color="white", fontsize=8)
    print(f"difference {float((images[1] - images[0]).norm() / images[0].norm()):.4f}")
    figure.savefig(args.output / "scanner_twix.png", dpi=100, facecolor="black")


if __name__ == "__main__":
    main()
