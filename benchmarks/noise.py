"""What it is worth to know the noise: statistical weights under counting noise, `noise_share` of dds in k-space.

    python benchmarks/noise.py --data ../shared/data --parts photons kspace

Of CT, twelve slices of a training chest at 128 x 128, options as they were tuned without noise: PSNR without weights,
with them, and with the model error added. Of MRI, eight slices each of two scans of the patient whom the prior held
out: PSNR, averaged over both and their planes, with several shares of the noise's standard deviation on top of
``sigma_y``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tune import Problem

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.methods.tasks import MODEL_ERROR
from lightning_mbir.physics import poisson_counts
from lightning_mbir.reconstruction import TASKS, image_metrics, reconstruct

KSPACE: dict[str, dict[str, Any]] = {
    "x8 gaussian1d, 35 dB": {"snr": 35.0},
    "x8 gaussian1d, 25 dB": {"snr": 25.0},
    "x8 gaussian1d, 15 dB": {"snr": 15.0},
    "x4 uniform1d, 25 dB": {"snr": 25.0, "acc": 4.0, "mask": "uniform1d"},
    "8 coils, x4 equispaced, 25 dB": {"snr": 25.0, "acc": 4.0, "mask": "equispaced", "coils": 8},
}
SHARES = (0.0, 0.25, 0.5, 1.0)


def photons(data: Path) -> None:
    task, file = TASKS["sv_ct"], data / "ct/train/lidc0314_chest.nii.gz"
    volume = VolumeDataModule(file, modality="ct", image_size=128, slices="140:152").scan(0)
    assert isinstance(volume, Volume) and task.data_range
    print("| views | photons | method | no weights | 1 / variance | the default |\n|---|---|---|---|---|---|")
    for views, photons in ((8, 1e5), (8, 1e4), (8, 1e3), (60, 1e5), (60, 1e4)):
        operator = task.build_operator(128, volume.spacing[1], views=views)
        noisy = poisson_counts(operator(volume.data), photons, generator=torch.Generator().manual_seed(0))
        default = noisy.weights / (1 + noisy.weights * MODEL_ERROR**2)
        for method, steps in (("admm_tv", 60), ("dds", 20)):
            cells = []
            for weights in (None, noisy.weights, default):
                options = {"method": method, "steps": steps, "weights": weights, **task.options[method]}
                result = reconstruct(noisy.y, operator, **options)
                cells.append(f"{image_metrics(result.volume, volume.data, task.data_range)['volume_psnr']:.2f}")
            print(f"| {views} | {photons:g} | {method} | {' | '.join(cells)} |", flush=True)


def kspace(data: Path) -> None:
    print(f"| measurement | {' | '.join(f'{share:g}' for share in SHARES)} |\n|---|{'---|' * len(SHARES)}")
    for name, flags in KSPACE.items():
        problem = Problem("cs_mri", data, flags=flags)
        problem.volumes = problem.volumes[1:]
        cells = [f"{problem.score('dds', {'noise_share': share}):.2f}" for share in SHARES]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["photons", "kspace"], choices=["photons", "kspace"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for part in args.parts:
        {"photons": photons, "kspace": kspace}[part](args.data)


if __name__ == "__main__":
    main()
