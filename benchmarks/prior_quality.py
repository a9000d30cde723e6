"""The bundled priors on scans that they have not seen: denoising PSNR by noise level, and unconditional samples.

    python benchmarks/prior_quality.py --data ../shared/data --output docs/figures

Writes `priors_denoising.png` and `priors_samples.png`, and prints the PSNR as Markdown. The reference is the best
Gaussian smoothing of each slice, its width chosen by the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mbir.data.phantoms.phase import smooth_phase
from lightning_mbir.data.slices.reading import ReadSlices
from lightning_mbir.data.slices.sampling import Axis
from lightning_mbir.data.units import Modality
from lightning_mbir.prior import load_prior
from lightning_mbir.prior.training.evaluate import SIGMAS, denoising_mse, generate, magnitude, psnr, smoothing_mse

CHEST = ("ct/test/lungfcp0001_chest.nii.gz",)
SCANS: dict[str, tuple[Modality, Axis, tuple[str, ...]]] = {
    "chest CT": ("ct", "axial", CHEST),
    "brain MRI": ("mri", "axial", ("mri/test/openms_p04_T1W.nii.gz", "mri/test/openms_p04_FLAIR.nii.gz")),
    "chest CT, coronal": ("ct", "coronal", CHEST),
}
PRIORS = {
    "chest CT": ("ct", "phantom", "mri"),
    "brain MRI": ("mri", "phantom", "ct", "mri_complex"),
    "chest CT, coronal": ("ct_coronal", "ct"),
}


def slices(data: Path, modality: Modality | None, axis: Axis, sources: Sequence[str], size: int, count: int) -> Tensor:
    """``(count, 1, Y, X)`` slices spread over volumes, in the prior's unit, as training reads them.

    Volumes are files of ``data``, or, without a modality, phantoms: their kind and seed, as in ``"chest 1000"``.
    """
    settings = {"axis": axis, "sizes": [size], "min_signal": 0.05, "max_noise": None, "stride": 16}
    chosen = []
    for source in sources:
        kind, _, seed = source.partition(" ")
        unit = modality or ("ct" if kind == "chest" else "mri")
        volume = {"file": str(data / source)} if modality else {"phantom": kind, "seed": int(seed)}
        (stack,) = ReadSlices()({**volume, **settings, "modality": unit})
        chosen.append(stack[torch.linspace(0, len(stack) - 1, count // len(sources)).round().long()])
    return torch.cat(chosen)[:, None].float()


def in_parts(error: Callable[..., Tensor], images: Tensor) -> list[float]:
    """PSNR by noise level, each four images with noise of their own."""
    return psnr(torch.cat([error(part, seed=i) for i, part in enumerate(images.split(4))], 1).mean(1)).tolist()


def with_phase(images: Tensor) -> Tensor:
    """Real and imaginary part of the images with a smooth phase each, ``(B, 2, Y, X)``."""
    rng = np.random.RandomState(0)
    phase = torch.stack([smooth_phase(image.shape[-2:], rng) for image in images])[:, None]
    return torch.cat((images * phase.cos(), images * phase.sin()), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--count", type=int, default=16, help="slices of each kind")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"font.size": 8})
    figure = Figure(figsize=(4.2 * len(args.sizes), 3.3 * len(SCANS)), layout="constrained")
    panels = figure.subplots(len(SCANS), len(args.sizes), squeeze=False)
    print("| scan | pixels | denoiser | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |")
    print("|---" * (len(SIGMAS) + 3) + "|")
    for row, (scan, (modality, axis, files)) in zip(panels, SCANS.items(), strict=True):
        for axes, size in zip(row, args.sizes, strict=True):
            if axis != "axial" and size != min(args.sizes):  # of which it knows slices
                axes.set_axis_off()
                continue
            images = slices(args.data, modality, axis, files, size, args.count)
            curves = {"best smoothing": in_parts(smoothing_mse, images)}
            for name in PRIORS[scan]:
                network = load_prior(name).network
                shown = with_phase(images) if network.in_channels == 2 else images
                curves[name] = in_parts(partial(denoising_mse, network), shown)
            for name, values in curves.items():
                axes.plot(SIGMAS, values, "k--" if name == "best smoothing" else "o-", label=name, ms=3)
                print(f"| {scan} | {size} | {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
            axes.set(xscale="log", title=f"{scan}, {size} x {size}", xlabel="sigma", ylabel="PSNR (dB)")
            axes.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.legend()
    figure.savefig(args.output / "priors_denoising.png", dpi=100)
    samples(args.output / "priors_samples.png")


def samples(path: Path) -> None:
    """Unconditional samples of all priors; of `mri_complex` the magnitude."""
    sheets: list[tuple[str, int | tuple[int, int]]] = [("ct", 128), ("ct", 256), ("ct_coronal", (64, 128))]
    sheets += [(name, size) for name in ("mri", "mri_complex", "phantom") for size in (128, 256)]
    figure = Figure(figsize=(14, 1.45 * len(sheets)), layout="constrained")
    for row, (name, size) in zip(figure.subplots(len(sheets), 10), sheets, strict=True):
        images = magnitude(generate(load_prior(name).network, 10, size, steps=40, seed=4))
        for axes, image in zip(row, images, strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(f"{name}\n{' x '.join(map(str, images.shape[-2:]))}")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
