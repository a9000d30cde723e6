"""The bundled priors on scans that they have not seen: denoising PSNR by noise level, and unconditional samples.

    python benchmarks/prior_quality.py --data ../shared/data --output docs/figures
    python benchmarks/prior_quality.py --data ../shared/data --scans "chest CT" limbs disc --more new.safetensors

Writes `priors_denoising.png` and `priors_samples.png`, and prints the PSNR as Markdown. The reference is the best
Gaussian smoothing of each slice, its width chosen by the truth. Slices are taken in threes that lie side by side, for
priors of three slices too; what is counted is all of them. The disc is ADMM-TV's from all its views, with acrylic at
what it has in CT; of disc and knee there is one slice, which stands for its neighbours. `--more` adds priors from
files, to scans of their modality.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from prior_reconstruction import disc, knee
from torch import Tensor

from lightning_mbir.data.phantoms.phase import smooth_phase
from lightning_mbir.data.slices.reading import ReadSlices
from lightning_mbir.data.slices.sampling import Axis
from lightning_mbir.data.units import Modality, training_scale
from lightning_mbir.prior import SliceDenoiser, load_prior
from lightning_mbir.prior.training.evaluate import SIGMAS, denoising_mse, generate, magnitude, psnr, smoothing_mse

SCANS: dict[str, tuple[Modality, Axis, tuple[str, ...], tuple[str, ...]]] = {
    "chest CT": (
        "ct", "axial", ("ct/test/lungfcp0001_chest", "ct/test/riderpilot0109_chest"),
        ("ct", "ct3", "generic", "phantom", "mri"),
    ),
    "limbs": (
        "ct", "axial",
        ("ct/test/sts004_thigh_ood", "ct/ood/sts013_thigh_knee", "ct/ood/sts028_lowerleg", "ct/ood/sts037_shoulder"),
        ("ct", "ct3", "generic", "phantom"),
    ),
    "disc": ("ct", "axial", (), ("ct", "ct3", "generic", "phantom")),
    "brain MRI": (
        "mri", "axial", ("mri/test/openms_p04_T1W", "mri/test/openms_p04_FLAIR"),
        ("mri", "phantom", "ct", "mri_complex"),
    ),
    "knee": ("mri", "axial", (), ("mri", "phantom")),
    "chest CT, coronal": ("ct", "coronal", ("ct/test/lungfcp0001_chest",), ("ct_coronal", "ct")),
}  # fmt: skip
"""Modality, plane and volumes of each, and the bundled priors that are tried on it."""
ACRYLIC = 0.59
"""In the unit of CT priors, where water is 0.5."""


def threes(data: Path, scan: str, size: int, count: int) -> tuple[Tensor, Tensor]:
    """About ``count`` slices in the prior's unit, ``(n, 3, Y, X)`` side by side, and ``(n,)`` mm between them."""
    modality, axis, files, _ = SCANS[scan]
    if not files:
        (_, _, case), *_ = disc(data, size) if scan == "disc" else knee(data)
        assert case.truth is not None
        image = case.truth.abs()
        image = image * (ACRYLIC / float(image[image > 0.5 * image.max()].median()) if scan == "disc" else 1.0)
        image = image / (training_scale(image, "mri") if scan == "knee" else 1.0)
        rows, columns = (side // 16 * 16 for side in image.shape[-2:])
        return image[:, None, :rows, :columns].expand(-1, 3, -1, -1).float(), torch.ones(1)
    settings = {"axis": axis, "sizes": [size], "min_signal": 0.05, "max_noise": None, "stride": 16, "neighbours": True}
    chosen, distances = [], []
    for file in files:
        ((stack, distance),), _ = ReadSlices()({"file": f"{data / file}.nii.gz", **settings, "modality": modality})
        places = torch.linspace(0, len(stack) - 3, max(1, count // 3 // len(files))).round().long()
        chosen.append(stack[places[:, None] + torch.arange(3)])
        distances += [distance] * len(places)
    return torch.cat(chosen).float(), torch.tensor(distances)


def in_parts(error: Callable[..., Tensor], images: Tensor, distances: Tensor | None = None) -> list[float]:
    """PSNR by noise level, a few images at a time with noise of their own."""
    errors = []
    for i, part in enumerate(images.split(4)):
        told = {} if distances is None else {"distance": distances[4 * i : 4 * i + len(part)]}
        errors.append(error(part, seed=i, **told))
    return psnr(torch.cat(errors, 1).mean(1)).tolist()


def quality(prior: SliceDenoiser, images: Tensor, distances: Tensor) -> list[float]:
    """PSNR of a prior on slices in threes, of which most see one at a time."""
    network = prior.network
    if prior.slices == 1:
        images = images.reshape(-1, 1, *images.shape[-2:])
    if prior.complex:
        images = with_phase(images)
    return in_parts(partial(denoising_mse, network), images, distances if prior.slices > 1 else None)


def with_phase(images: Tensor) -> Tensor:
    """Real and imaginary part of the images with a smooth phase each, ``(B, 2, Y, X)``."""
    rng = np.random.RandomState(0)
    phase = torch.stack([smooth_phase(image.shape[-2:], rng) for image in images])[:, None]
    return torch.stack((images * phase.cos(), images * phase.sin()), 2).flatten(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--count", type=int, default=24, help="slices of each kind")
    parser.add_argument("--scans", nargs="+", default=list(SCANS), choices=list(SCANS))
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="files of priors")
    parser.add_argument("--only_samples", action="store_true", help="leave the denoising out")
    args = parser.parse_args()
    if args.only_samples:
        return samples(args.output / "priors_samples.png")
    more = {path.stem: load_prior(path) for path in args.more}
    args.output.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"font.size": 8})
    figure = Figure(figsize=(4.2 * len(args.sizes), 3.3 * len(args.scans)), layout="constrained")
    panels = figure.subplots(len(args.scans), len(args.sizes), squeeze=False)
    print("| scan | pixels | denoiser | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |")
    print("|---" * (len(SIGMAS) + 3) + "|")
    for row, scan in zip(panels, args.scans, strict=True):
        modality, axis, _, bundled = SCANS[scan]
        for axes, size in zip(row, args.sizes, strict=True):
            if size != min(args.sizes) and (axis != "axial" or scan == "knee"):  # of one size
                axes.set_axis_off()
                continue
            images, distances = threes(args.data, scan, size, args.count)
            curves = {"best smoothing": in_parts(smoothing_mse, images.reshape(-1, 1, *images.shape[-2:]))}
            tried = {name: load_prior(name) for name in bundled} | more
            for name, prior in tried.items():
                if name in bundled or prior.modality in (None, modality):
                    curves[name] = quality(prior, images, distances)
            for name, values in curves.items():
                axes.plot(SIGMAS, values, "k--" if name == "best smoothing" else "o-", label=name, ms=3)
                print(f"| {scan} | {size} | {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
            axes.set(xscale="log", title=f"{scan}, {size} x {size}", xlabel="sigma", ylabel="PSNR (dB)")
            axes.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.legend()
    figure.savefig(args.output / "priors_denoising.png", dpi=100)
    if not more:
        samples(args.output / "priors_samples.png")


def samples(path: Path) -> None:
    """Unconditional samples of all priors; of `mri_complex` the magnitude, of `ct3` the middle of three slices."""
    sheets: list[tuple[str, int | tuple[int, int]]] = [("ct3", 128), ("ct_coronal", (64, 128)), ("generic", 128)]
    sheets += [(name, size) for name in ("ct", "mri", "mri_complex", "phantom") for size in (128, 256)]
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
