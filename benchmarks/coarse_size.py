"""Denoising at half the resolution against denoising as it is, by noise level: where ``COARSE_FROM`` should lie.

    python benchmarks/coarse_size.py --data ../shared/data

Slices of 256 pixels of the patients whom the bundled priors held out, and of held-out phantoms. Prints the PSNR as
Markdown.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from larger_prior import SHOWN
from prior_quality import in_parts, slices, with_phase
from torch import Tensor, nn

from lightning_mbir.data.units import Modality
from lightning_mbir.prior import denoiser, load_prior
from lightning_mbir.prior.training.evaluate import denoising_mse

SIGMAS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
PRIORS: dict[str, tuple[str, Modality | None]] = {
    "ct": ("ct", "ct"),
    "mri": ("mri", "mri"),
    "mri_complex": ("mri", "mri"),
    "phantom": ("phantom", None),
}
"""Whose held-out slices a prior denoises, and their modality."""


def errors(network: nn.Module, images: Tensor, seed: int, coarse: bool) -> Tensor:
    """``denoising_mse`` at half the resolution at all levels, or at none."""
    denoiser.COARSE_FROM = 0.0 if coarse else float("inf")
    return denoising_mse(network, images, SIGMAS, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16, help="slices of each kind")
    args = parser.parse_args()
    print("| prior | denoised at | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |")
    print("|---" * (len(SIGMAS) + 2) + "|")
    for name, (of, modality) in PRIORS.items():
        network, files = load_prior(name).network, next(iter(SHOWN[of].values()))
        images = slices(args.data, modality, "axial", files, 256, args.count)
        images = with_phase(images) if network.in_channels == 2 else images
        for pixels in (256, 128):
            values = in_parts(partial(errors, network, coarse=pixels == 128), images)
            print(f"| {name} | {pixels} | " + " | ".join(f"{value:.2f}" for value in values) + " |", flush=True)


if __name__ == "__main__":
    main()
